"""A process by pid and start time, so that a pid which was given to somebody else is never taken for it.

And a fork that owes nothing to the process before it.
"""

from __future__ import annotations

import gc
import logging
import os
import select
import signal
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
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


def detach(name: str, kept: Collection[int], body: Callable[[], object]) -> None:
    """Run `body` in a process of its own, with these descriptors and no others; OSError where there can be none.

    A fork costs no start of an interpreter. Nobody has to wait for it, and it is in a session of its own, so that it
    outlives this process and whatever ends with it. `name`: what ps shows; the kernel keeps 15 characters.
    """
    between = os.fork()
    if between == 0:
        try:
            os.setsid()
            if os.fork() == 0:
                _let_go(kept)
                Path("/proc/self/comm").write_text(name)
                body()
        finally:
            os._exit(0)  # nothing that the process before was in the middle of is brought to its end twice
    os.waitpid(between, 0)


def _let_go(kept: Collection[int]) -> None:
    """Of what the process before had open: its lock, its ssh session, its log."""
    signal.set_wakeup_fd(-1)
    for each in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
        signal.signal(each, signal.SIG_DFL)
    logging.shutdown()  # handlers close what they have by themselves, before its number is another's
    for logger in (logging.getLogger(), logging.getLogger("warren")):
        logger.handlers.clear()
    gc.freeze()  # what is never collected never closes its descriptor's number
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    for number in [int(each.name) for each in Path("/proc/self/fd").iterdir()]:
        if number not in (0, 1, 2, *kept):
            with suppress(OSError):  # the one of the list itself
                os.close(number)
    os.chdir("/")
