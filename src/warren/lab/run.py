"""Run a program on a machine of a lab, as if one had logged in there."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from types import FrameType

from warren.errors import LabError
from warren.lab.place import Place, execute, reap
from warren.lab.programs import environment
from warren.lab.state import LabState
from warren.names import MachineName

_SHELL = ("/bin/sh", "-c", "exec $(command -v bash || echo sh) -i")
_KEPT = ("TERM", "COLORTERM", "NO_COLOR", "LC_ALL", "TZ")


def run(state: LabState, machine: str, words: Sequence[str]) -> int:
    """The program's exit code; 128 and the signal's number if one ended it. No words: a shell."""
    place = state.place(machine)
    if place is None:
        raise LabError(f"{machine} is dead", mend=f"warren lab fault heal {machine}")
    # As `env` and `nohup` do: what the keyboard sends reaches the program too, and it decides.
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return _execute(place, words or _SHELL, {**environment(state.name, MachineName(machine)), **kept})


def _execute(place: Place, words: Sequence[str], variables: dict[str, str]) -> int:
    pid = execute(place, words, variables, folder="/root")

    def pass_on(number: int, _: FrameType | None) -> None:
        os.kill(pid, number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, pass_on)
    code = reap(pid)
    return 128 - code if code < 0 else code
