"""Planned absence of a controller: its peers leave it before it goes, and nothing is lost."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from warren.agent import status_socket
from warren.errors import MachineError, UsageError
from warren.host import absence, trial
from warren.host.machine import Host
from warren.names import InstanceName, MachineName
from warren.network.document import ControllerEntry

log = logging.getLogger("warren")

# The word goes out at once and names a moment 0.3 s ahead; then each peer says that it left. One that is just asleep is
# not waited for longer than its last report counts.
LEAVE_S = 20.0
_NOTICE_S = 5.0  # for the agent to see what is asked
_POLL_S = 0.05


def drain(host: Host, me: MachineName, instances: Iterable[InstanceName], draining: bool) -> bool:
    """Ask peers to leave this controller, or to come back; whether all that it hears of did so. Can be repeated.

    It holds until the opposite is asked, over restarts and reboots.
    """
    wanted = list(instances)
    for name in wanted:
        _check(host, me, name, draining)
    for name in wanted:
        absence.ask(name, draining, host.state)
    return all(_await(name, draining) for name in wanted)


@contextmanager
def left_during_update(host: Host, instances: Iterable[InstanceName]) -> Iterator[None]:
    """Peers leave this controller before what is done inside, and may come back when the trial that follows is over.

    Best effort: without an agent nobody speaks to peers, and who does not follow in time is interrupted after all.
    """
    asked = [name for name in instances if status_socket.is_served() and absence.begin_update(name, host.state)]
    try:
        for name in asked:
            try:
                left = _await(name, True)
            except MachineError as error:
                log.warning("%s", error)
            else:
                log.info("%s: %s", name, "its peers left it" if left else "not all peers left it, the update goes on")
        yield
    finally:
        if trial.read(host.state) is None:
            for name in asked:
                absence.end_update(name, host.state)


def _check(host: Host, me: MachineName, name: InstanceName, draining: bool) -> None:
    place = f"{name} on {me}"
    document = host.read_document(name)
    if document is None or not isinstance(document.entry(me), ControllerEntry):
        raise UsageError("this machine is no controller of that instance", where=place)
    if not status_socket.is_served():
        raise UsageError("no agent runs here, and only it speaks to peers", where=place, mend="systemctl start warren")
    if draining and len(document.controllers) < 2:
        raise UsageError(
            "it is the only controller: nobody could carry what it carries",
            where=place,
            mend="the mesh has to bear its absence, or have a second controller first",
        )


def _await(name: InstanceName, draining: bool) -> bool:
    began_s = time.monotonic()
    while (waited_s := time.monotonic() - began_s) < LEAVE_S:
        found = _found(name)
        if found.get("draining") is draining and (found.get("left") or not draining):
            return True
        if found.get("draining") is not draining and waited_s > _NOTICE_S:
            raise MachineError(
                "the agent does not take notice of it", where=str(name), mend="see what it says: journalctl -u warren"
            )
        time.sleep(_POLL_S)
    return False


def _found(name: InstanceName) -> Mapping[str, Any]:
    answer: Mapping[str, Any] = status_socket.ask() or {}
    found = answer.get("instances", {}).get(name, {})
    assert isinstance(found, dict)
    return found
