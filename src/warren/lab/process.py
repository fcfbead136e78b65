"""A process by pid and start time, so that a pid which was given to somebody else is never signalled."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from warren.errors import LabError

DEATH_S = 10.0  # from SIGKILL to the end; an init takes all of its namespace with it
REAPING_S = 0.5  # its dead are waited for so long by who started them

_START_TIME = 19  # field 22 of /proc/PID/stat (proc(5)), counted from behind the name's closing parenthesis


@dataclass(frozen=True, slots=True)
class Process:
    """A process by pid (as this process sees it) and start time (clock ticks since boot)."""

    pid: int
    started: int

    @classmethod
    def behind(cls, pidfd: int) -> Process | None:
        """The process that a pidfd stands for, or None where it is gone."""
        text = Path(f"/proc/self/fdinfo/{pidfd}").read_text()
        pid = next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pid:"))
        started = _start_time(pid)
        return None if started is None else cls(pid, started)

    @contextmanager
    def opened(self) -> Iterator[int | None]:
        """A pidfd of this very process, or None where it is gone."""
        try:
            pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            yield None
            return
        try:
            # The pidfd pins whoever has the pid now; only then does the start time say who that is.
            same = _start_time(self.pid) == self.started
            yield pidfd if same and not _is_readable(pidfd, 0) and not self._has_let_go() else None
        finally:
            os.close(pidfd)

    def is_running(self) -> bool:
        with self.opened() as pidfd:
            return pidfd is not None

    def kill(self) -> None:
        """End it now and wait until it is gone; nothing if it is gone already."""
        with self.opened() as pidfd:
            if pidfd is None:
                return
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            deadline = time.monotonic() + DEATH_S
            while not (_is_readable(pidfd, REAPING_S) or self._has_let_go()):
                if time.monotonic() > deadline:
                    raise LabError(f"process {self.pid} did not end within {DEATH_S:.0f} s of SIGKILL")

    def _has_let_go(self) -> bool:
        """Whether it has left its namespaces: an init that is done but for dead processes, which counts as ended.

        Somebody outside has yet to wait for those: a `warren lab exec` that was stopped on its terminal, for one.
        """
        try:
            return not Path(f"/proc/{self.pid}/ns/net").readlink()
        except OSError:
            return True


def _is_readable(pidfd: int, timeout_s: float) -> bool:
    """Whether the process of the pidfd has ended."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(timeout_s * 1000))


def _start_time(pid: int) -> int | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(text.rpartition(")")[2].split()[_START_TIME])
