"""What takes the machine back if nobody confirms: armed outside the process that applies, so that it outlives it.

Where systemd runs it is a transient timer; elsewhere a process in a session of its own, the watchdog, which also
notices at once that the applying process died. It is a fork of that process: that costs no start of an interpreter, and
all that it needs is in memory. When it has to act, it has a new process do it all the same, and does it itself where
that fails, as when what is on the disk is being replaced.
"""

from __future__ import annotations

import logging
import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeAlias

import warren
from warren.errors import MachineError
from warren.host import process
from warren.host.wireguard_process import PROGRAM_VARIABLE

log = logging.getLogger("warren")

Watch: TypeAlias = Callable[[int], object]
"""What the watchdog does; the descriptor that it is given ends with whoever armed it."""

WHEN_DUE = "--when-due"
WATCHDOG = "warren-watchdog"
TRIED = (0, 4)  # how a restore ends that did what could be done

_READY = b"armed\n"
_READY_TIMEOUT_S = 20.0
_SYSTEMD_TIMEOUT_S = 10.0  # while the machine starts it may wait for all else
_BOOTED = Path("/run/systemd/system")  # sd_booted(3)
_HANDED_ON = ("PATH", PROGRAM_VARIABLE)
# Not -m: this may run from a zip archive, and finds Warren where the running one was found, whatever the environment.
_START = "import sys; sys.path.insert(0, {root!r}); from warren.agent.main import main; sys.exit(main(sys.argv[1:]))"


@contextmanager
def armed(token: str, delay_s: float, watch: Watch) -> Iterator[None]:
    """To be entered before the trial is on record; MachineError if nothing would take the machine back."""
    if has_systemd() and _arm_systemd(token, delay_s):
        yield
        return
    at_work = _arm_process(watch)
    try:
        yield
    finally:
        os.close(at_work)


def disarm(token: str) -> None:
    """Take the timer back. The process ends by itself."""
    if has_systemd():
        _systemd(["systemctl", "stop", f"{_unit(token)}.timer"])


def has_systemd() -> bool:
    return _BOOTED.is_dir()


def command(*words: str) -> list[str]:
    """How this very Warren is started anew, with words behind `warren machine`."""
    root = Path(warren.__file__).parent.parent
    return [sys.executable, "-I", "-c", _START.format(root=str(root)), "machine", *words]


def _unit(token: str) -> str:
    return f"warren-restore-{token}"


def _arm_systemd(token: str, delay_s: float) -> bool:
    words = [
        "systemd-run",
        "--quiet",
        "--collect",
        f"--unit={_unit(token)}",
        "--description=Warren: go back to the last good document unless the new one is confirmed",
        f"--on-active={delay_s:.3f}s",
        "--timer-property=AccuracySec=100ms",
        "--property=KillMode=process",  # a userspace WireGuard that it starts goes on
        "--property=SyslogIdentifier=warren",
        "--property=StandardOutput=null",
        *(f"--setenv={name}={os.environ[name]}" for name in _HANDED_ON if name in os.environ),
        *command("restore", WHEN_DUE),
    ]
    if problem := _systemd(words):
        _systemd(["systemctl", "--no-block", "stop", f"{_unit(token)}.timer"])  # one that it was too slow with
        log.warning("systemd would not take the timer, a process watches instead: %s", problem)
    return not problem


def _systemd(words: list[str]) -> str:
    """Why it failed; empty: it did not."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=_SYSTEMD_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return f"{words[0]} gave no answer in {_SYSTEMD_TIMEOUT_S:.0f} s"
    except OSError as error:
        return f"{words[0]}: {error.strerror}"
    return (done.stderr.strip() or f"exit code {done.returncode}") if done.returncode else ""


def restores_anew() -> bool:
    """Have a process that owes nothing to this one go back when it is due; whether it did what could be done."""
    try:
        done = subprocess.run(
            command("restore", WHEN_DUE),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
    except OSError:
        return False
    return done.returncode in TRIED


def _arm_process(watch: Watch) -> int:
    """Start the watchdog; what it is given ends when the returned descriptor is closed, or this process ends."""
    work_reader, work_writer = os.pipe()
    ready_reader, ready_writer = os.pipe()
    with os.fdopen(ready_reader, "rb") as ready:
        try:
            kept = (work_reader, ready_writer)
            process.detach(WATCHDOG, kept, partial(_watch, *kept, watch))
        except OSError as error:  # no more processes, or no memory
            log.warning("%s", error.strerror)
        finally:
            os.close(work_reader)
            os.close(ready_writer)
        poll = select.poll()
        poll.register(ready, select.POLLIN)
        if poll.poll(_READY_TIMEOUT_S * 1000) and ready.read(len(_READY)) == _READY:
            return work_writer
    os.close(work_writer)  # one that comes too late finds no trial, and ends
    raise MachineError(
        "the process that would take this machine back does not start: nothing was changed",
        mend="see whether this machine has room for one more: free -m; ps ax | wc -l",
    )


def _watch(work_reader: int, ready_writer: int, watch: Watch) -> None:
    os.write(ready_writer, _READY)
    os.close(ready_writer)
    watch(work_reader)
