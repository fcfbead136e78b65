"""The documents that hold here for good, as the bytes and signatures that came: what may be handed on to others."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from warren.errors import WarrenError
from warren.host import signature, state, trial
from warren.host.machine import Host
from warren.names import InstanceName
from warren.network.document import Document
from warren.plan.signals import Follows

_Stamp: TypeAlias = tuple[tuple[int, int, int] | None, ...]


@dataclass(frozen=True, slots=True)
class Held:
    """One document with the operator's signature, which was verified here."""

    document: Document
    content: bytes
    signature: bytes


class HeldDocuments:
    """Looks at the disk each time it is asked; what it found is read and verified again only when the files changed."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._found: dict[InstanceName, tuple[_Stamp, Held | None]] = {}

    def of(self, name: InstanceName) -> Held | None:
        """None: there is none, or none that is signed. While a new one is on trial, the one before, if it was known."""
        stamp, found = self._found.get(name, ((), None))
        try:
            waiting = trial.read(self._host.state)
            if waiting is not None and name in waiting.instances:
                return found
            now = tuple(map(_stamp, state.document_files(name, self._host.state)))
            if now != stamp:
                found = self._read(name)
                self._found[name] = now, found
        except WarrenError:  # the look of the agent says what is wrong
            return None
        return found

    def follows(self, name: InstanceName) -> Follows | None:
        """What is told of it to others; None: there is none."""
        if (held := self.of(name)) is None:
            return None
        try:
            failed = state.read_fetching(name, self._host.state).document
        except WarrenError:
            failed = None
        is_newer = failed is not None and failed.serial > held.document.serial
        return Follows(held.document.serial, failed.serial if failed and is_newer else None)

    def _read(self, name: InstanceName) -> Held | None:
        content, signed = state.read_signed(name, self._host.state)
        if content is None or signed is None:
            return None
        signature.verify(content, signed)
        return Held(state.decoded(content), content, signed)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
