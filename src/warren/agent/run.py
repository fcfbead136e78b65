"""`warren agent`: keep this machine as its documents say, until told to stop. The mesh outlives the agent."""

from __future__ import annotations

import logging
import selectors
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from warren.agent.machine import Verdict, apply, read_documents
from warren.errors import WarrenError
from warren.host.machine import Host
from warren.host.watch import FolderWatch
from warren.names import InstanceName, MachineName

log = logging.getLogger("warren")

SLOW_CLOCK_S = 30.0  # how long drift that nobody announced may last
RETRY_S = 2.0  # after a failure; doubled each time up to the slow clock

_WHOLE = InstanceName("this machine")  # no instance has such a name


def run(host: Host, me: MachineName) -> None:
    """Reconcile at start, when a document changes, and on a slow clock; returns on SIGTERM or SIGINT."""
    log.info("agent of %s: keeping what the documents in %s say", me, host.state)
    told: dict[InstanceName, str] = {}
    retry_s = RETRY_S
    with _stop_signals() as stop, FolderWatch() as documents, selectors.DefaultSelector() as selector:
        selector.register(stop, selectors.EVENT_READ)
        selector.register(documents, selectors.EVENT_READ)
        while True:
            well = _reconcile(host, me, documents, told)
            retry_s = RETRY_S if well else min(2 * retry_s, SLOW_CLOCK_S)
            ready = {key.fileobj for key, _ in selector.select(SLOW_CLOCK_S if well else retry_s)}
            if stop in ready:
                log.info("agent of %s: stopping; the mesh stays up", me)
                return


def _reconcile(host: Host, me: MachineName, watched: FolderWatch, told: dict[InstanceName, str]) -> bool:
    """Whether all is well. An error is told once, not at every try."""
    verdicts: dict[InstanceName, Verdict] = {}
    try:
        # Watch first, then read: a change in between is seen as a change.
        watched.watch(host.document_folders())
        watched.drain()
        documents, refused = read_documents(host)
        verdicts.update({name: Verdict(error=error) for name, error in refused.items()})
        verdicts.update(apply(host, me, documents))
        verdicts[_WHOLE] = Verdict()
    except WarrenError as error:  # of the whole machine: the folder, or instances in each other's way
        verdicts[_WHOLE] = Verdict(error=error)
    for name, verdict in verdicts.items():
        text = str(verdict.error or "")
        if text and told.get(name) != text:
            log.error("%s: %s", name, text)
        elif not text and (verdict.steps or told.get(name)):
            log.info("%s: as the document says", name)
        told[name] = text
    return not any(verdict.error for verdict in verdicts.values())


@contextmanager
def _stop_signals() -> Iterator[socket.socket]:
    """Readable once the process was told to stop."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
    wakeup = signal.set_wakeup_fd(theirs.fileno())
    try:
        yield ours
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        ours.close()
        theirs.close()
