"""`warren agent`: keep this machine as its documents say, until told to stop. The mesh outlives the agent."""

from __future__ import annotations

import logging
import random
import selectors
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Protocol

from warren.agent.held import HeldDocuments
from warren.agent.machine import Verdict, follow, read_documents
from warren.agent.preshared import PresharedWatch
from warren.agent.redundancy import ControllerWatch
from warren.agent.requests import Act, RequestSocket, stamp
from warren.agent.restore import restore_if_due
from warren.agent.rotation import KeyWatch
from warren.agent.sharing import Sharing
from warren.agent.status_socket import StatusSocket
from warren.errors import WarrenError
from warren.host import hosts_file, service, trial
from warren.host.clock import now_s
from warren.host.events import NetworkEvents
from warren.host.machine import Host
from warren.host.watch import FolderWatch
from warren.names import InstanceName, MachineName

log = logging.getLogger("warren")


class HasFileno(Protocol):
    """What a selector can wait for."""

    def fileno(self) -> int: ...


SLOW_CLOCK_S = 30.0  # how long drift that nobody announced may last
RETRY_S = 2.0  # after a failure; doubled each time up to the slow clock
SETTLE_S = 0.1  # changes come in groups
AFTER_MOVE_S = (0.1, 0.6)  # all machines moved at one moment, and need not all look at one
MOST_WAITS = 20  # of that length, for moves that are announced one after the other
QUIET_S = 1.0  # between looks that others' changes cause; doubled while they come and there is nothing to do

_WHOLE = InstanceName("this machine")  # no instance has such a name


class Agent:
    """One process for all instances of the machine. It remembers what it said and when to look next, no more."""

    def __init__(self, host: Host, me: MachineName, act: Act) -> None:
        """`act`: what command lines do that others have done here."""
        self._host = host
        self._me = me
        self._act = act
        self._stamp = stamp()
        self._told: dict[InstanceName, str] = {}
        self._noted: set[str] = set()
        self._started_unix_s = self._looked_unix_s = time.time()
        self._retry_s = RETRY_S
        self._waits = 0
        self._after_s: float | None = None
        self._quiet_s = QUIET_S
        self._looked_s = time.monotonic()
        self._was_stirred = False

    def run(self) -> None:
        """Reconcile at start, on a new document, on drift and on a slow clock; returns on SIGTERM or SIGINT."""
        log.info("agent of %s: keeping what the documents in %s say", self._me, self._host.state)
        with ExitStack() as stack:
            stop = stack.enter_context(_stop_signals())
            status = stack.enter_context(StatusSocket())
            requests = stack.enter_context(RequestSocket(self._act, self._stamp))
            folders = stack.enter_context(FolderWatch(trial.is_bookkeeping))
            network = stack.enter_context(NetworkEvents())
            keys = stack.enter_context(KeyWatch(self._host, self._me))
            held = HeldDocuments(self._host)
            controllers = stack.enter_context(ControllerWatch(self._host, self._me, held))
            sharing = stack.enter_context(Sharing(self._host, self._me, held, self._act))
            preshared = PresharedWatch(self._host, self._me)
            selector = stack.enter_context(selectors.DefaultSelector())
            own: tuple[HasFileno, ...] = (stop, status, requests, folders, keys, controllers, sharing)
            sources = (*own, *network.sockets)
            for source in sources:
                selector.register(source, selectors.EVENT_READ)
            next_look_s = time.monotonic()
            while True:
                if time.monotonic() >= next_look_s:
                    # Forget events first, then look: a change in between is an event again.
                    network.drain()
                    next_look_s = time.monotonic() + self._look(folders, controllers, sharing, preshared)
                    keys.refresh()
                    service.notify("READY=1", f"STATUS={self._state()}")
                due_s = (next_look_s, keys.due_s, preshared.due_s)
                ready = {key.fileobj for key, _ in selector.select(self._patience_s(controllers, sharing, *due_s))}
                service.notify("WATCHDOG=1")
                if stop in ready:
                    log.info("agent of %s: stopping; the mesh stays up", self._me)
                    service.notify("STOPPING=1")
                    return
                if keys in ready or time.monotonic() >= keys.due_s:
                    keys.look()
                preshared.look()
                if controllers in ready or now_s() >= controllers.due_s:
                    controllers.step()
                    if controllers.moved:  # names follow, and what the quick move left over
                        next_look_s = min(next_look_s, self._after_move_s())
                sharing.step(controllers)
                if status in ready:
                    status.answer(self._found(controllers))
                if requests in ready:
                    requests.serve()
                if folders in ready and folders.drain():  # documents come rarely, and are waited for
                    next_look_s = min(next_look_s, time.monotonic() + SETTLE_S)
                if ready.intersection(network.sockets):
                    self._was_stirred = True
                    soon_s = max(time.monotonic() + SETTLE_S, self._looked_s + self._quiet_s)
                    next_look_s = min(next_look_s, soon_s)
                    network.drain()

    def _after_move_s(self) -> float:
        """When to look: the same moment until that look, which clears `moved`."""
        if self._after_s is None:
            self._after_s = time.monotonic() + random.uniform(*AFTER_MOVE_S)  # noqa: S311 - no secret
        return self._after_s

    def _is_to_wait(self, controllers: ControllerWatch) -> bool:
        """While all are about to move at one moment: a look takes longer than they may be apart. Not for long."""
        self._waits = self._waits + 1 if controllers.is_about_to_move() and self._waits < MOST_WAITS else 0
        return self._waits > 0

    def _look(
        self, folders: FolderWatch, controllers: ControllerWatch, sharing: Sharing, preshared: PresharedWatch
    ) -> float:
        """Make all well; seconds until the next look. An error is told once, not at every try."""
        if self._is_to_wait(controllers):
            return SETTLE_S
        verdicts: dict[InstanceName, Verdict] = {}
        try:
            folders.watch([*self._host.document_folders(), hosts_file.PATH.parent])
            folders.drain()
            restore_if_due(self._host)
            controllers.moved, self._after_s = False, None
            verdicts = follow(self._host, self._me, reaches=controllers.reachability())
            documents = read_documents(self._host)[0]
            for each in (controllers, sharing, preshared):
                each.refresh(documents)
        except WarrenError as error:  # of the whole machine: the folder, or instances in each other's way
            verdicts[_WHOLE] = Verdict(error=error)
        for name, verdict in verdicts.items():
            text = str(verdict.error or "")
            if text and self._told.get(name) != text:
                log.error("%s: %s", name, text)
            elif not text and (verdict.steps or self._told.get(name)):
                log.info("%s: as the document says", name)
        self._told = {name: str(verdict.error or "") for name, verdict in verdicts.items()}
        notes = {
            f"{name}: {note}" for name, verdict in verdicts.items() for note in (*verdict.notes, *verdict.expiring)
        }
        for note in sorted(notes - self._noted):
            log.warning("%s", note)
        self._noted = notes
        self._looked_unix_s, self._looked_s = time.time(), time.monotonic()
        was_in_vain = self._was_stirred and not any(verdict.steps for verdict in verdicts.values())
        self._quiet_s = min(2 * self._quiet_s, SLOW_CLOCK_S) if was_in_vain else QUIET_S
        self._was_stirred = False
        if any(self._told.values()):
            wait_s, self._retry_s = self._retry_s, min(2 * self._retry_s, SLOW_CLOCK_S)
            return wait_s
        self._retry_s = RETRY_S
        return SLOW_CLOCK_S

    def _patience_s(self, controllers: ControllerWatch, sharing: Sharing, *due_s: float) -> float:
        patience_s = min(min(due_s) - time.monotonic(), min(controllers.due_s, sharing.due_s) - now_s())
        patience_s = max(0.0, patience_s)
        watchdog_s = service.watchdog_s()
        return patience_s if watchdog_s is None else min(patience_s, watchdog_s)

    def _state(self) -> str:
        """One line for `systemctl status`."""
        failed = sorted(name for name, text in self._told.items() if text)
        if failed:
            return f"not as the documents say: {', '.join(failed)}"
        return f"as the documents say: {', '.join(sorted(self._told)) or 'there are none yet'}"

    def _found(self, controllers: ControllerWatch) -> dict[str, object]:
        """What the status socket tells."""
        redundancy = controllers.tree()
        return {
            "machine": self._me,
            "started_unix_s": self._started_unix_s,
            "looked_unix_s": self._looked_unix_s,
            "instances": {
                name: {"error": text or None, **redundancy.get(name, {})} for name, text in self._told.items()
            },
        }


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
