"""A process by pid and start time, so that a pid which was given to somebody else is never taken for it."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from warren.errors import MachineError

DEATH_S = 5.0  # how long the kernel may take to end a process that got SIGKILL
_START_TIME = 19  # field 22 of /proc/PID/stat (proc(5)), counted from behind the name's closing parenthesis


@dataclass(frozen=True, slots=True)
class Process:
    """`started`: clock ticks since boot."""

    pid: int
    started: int

    @classmethod
    def this(cls) -> Process:
        """The process that asks."""
        return cls(os.getpid(), _start_time(os.getpid()) or 0)

    def is_running(self) -> bool:
        with self._opened() as descriptor:
            return descriptor is not None

    def kill(self) -> None:
        """End it and wait until it is gone; nothing if it is gone already, or if it is the one that asks."""
        if self == Process.this():
            return
        with self._opened() as descriptor:
            if descriptor is None:
                return
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            if not _has_ended(descriptor, DEATH_S):
                raise MachineError(f"process {self.pid} did not end within {DEATH_S:.0f} s of SIGKILL")

    @contextmanager
    def _opened(self) -> Iterator[int | None]:
        try:
            descriptor = os.pidfd_open(self.pid)
        except OSError:  # gone, or kept from us by a sandbox: whoever asks takes the lock as well
            yield None
            return
        try:
            # The descriptor pins whoever has the pid now; only then does the start time say who that is.
            is_it = _start_time(self.pid) == self.started and not _has_ended(descriptor, 0)
            yield descriptor if is_it else None
        finally:
            os.close(descriptor)


def _has_ended(descriptor: int, timeout_s: float) -> bool:
    """A dead process that nobody has reaped has ended, too."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(timeout_s * 1000))


def _start_time(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(stat.rpartition(")")[2].split()[_START_TIME])
