"""A trial: the machine follows new documents until somebody confirms that they are good, or goes back.

trial.json                                  what is on trial and until when; removing it ends the trial
<instance>/network.json.confirmed, ….sig.confirmed      what to go back to (warren.host.state)
restored.json                               the last time that the machine went back, and why

All of it is in the machine's folder and not in /run: a reboot in the middle must not make a document permanent that
nobody confirmed. The clock is the one that no time server sets and that counts sleep.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from warren.errors import MachineError
from warren.host import files, state
from warren.host.clock import now_s
from warren.host.process import Process
from warren.names import InstanceName, InterfaceName, MachineName

T = TypeVar("T")

LAST_CONFIRMED = Path("/run/warren/confirmed")  # so that a confirmation whose answer got lost can be repeated

_TRIAL_FILE = "trial.json"
_RESTORED_FILE = "restored.json"
# Gone after a restart, as all of /run is. Not the kernel's boot_id: a container shows its own to a shell, and to a
# service in a sandbox that of the computer below.
_BOOT = Path("/run/warren/boot")


@dataclass(frozen=True, slots=True)
class Tried:
    """One instance on trial. `had_document`: there is something to go back to; else it is taken off the machine."""

    interface: InterfaceName
    had_document: bool


@dataclass(frozen=True, slots=True)
class Trial:
    """`applier`: who is still at work on it; None: all is done, and the word of somebody is awaited.

    `confirm_within_s` holds for either part: for the work, and then, from `since_s` anew, for the confirmation.
    """

    token: str
    machine: MachineName
    instances: Mapping[InstanceName, Tried]
    confirm_within_s: float
    applier: Process | None
    boot: str = field(default_factory=lambda: this_boot())
    since_s: float = field(default_factory=now_s)

    @property
    def remaining_s(self) -> float:
        """Until the machine goes back; negative: it is late."""
        return self.since_s + self.confirm_within_s - now_s()

    def applied(self) -> Trial:
        """The same with the work done."""
        return replace(self, applier=None, since_s=now_s())

    def __str__(self) -> str:
        return f"{', '.join(self.instances)}: an update waits to be confirmed, for {max(0.0, self.remaining_s):.0f} s"

    def reason_to_go_back(self) -> str:
        """Why the trial has failed by now; empty: it goes on."""
        if self.boot != this_boot():
            return "the machine was restarted before anybody confirmed"
        is_late = self.remaining_s <= 0
        if self.applier is None:
            return f"nobody confirmed it within {self.confirm_within_s:g} s" if is_late else ""
        if is_late:
            return f"applying it took longer than {self.confirm_within_s:g} s"
        return "" if self.applier.is_running() else "applying it was cut short"


@dataclass(frozen=True, slots=True)
class Restored:
    """That the machine went back. `problems`: what stood in the way of the old state; empty: all is as it was."""

    token: str
    unix_s: float
    why: str
    instances: tuple[InstanceName, ...]
    problems: tuple[str, ...] = ()

    def __str__(self) -> str:
        at = time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(self.unix_s))
        text = f"{', '.join(self.instances)}: went back to the last good document at {at}: {self.why}"
        return "\n".join([text, *self.problems])


def is_bookkeeping(name: str) -> bool:
    """Of files that change with a trial, and with each file that is replaced, and say nothing of what to follow."""
    return (
        name in (_TRIAL_FILE, _RESTORED_FILE, state.FETCHING_FILE, state.GUESTS_FILE)
        or name.endswith(state.CONFIRMED)
        or files.is_temporary(name)
    )


def read(root: Path = state.ROOT) -> Trial | None:
    """The trial that goes on; None: there is none."""
    return _read(root / _TRIAL_FILE, _trial)


def write(trial: Trial, root: Path = state.ROOT) -> None:
    """Begin the trial, or put it in place of the one that goes on."""
    tree = {
        "token": trial.token,
        "machine": trial.machine,
        "instances": {
            name: {"interface": tried.interface, "had_document": tried.had_document}
            for name, tried in trial.instances.items()
        },
        "confirm_within_s": trial.confirm_within_s,
        "applier": {"pid": trial.applier.pid, "started": trial.applier.started} if trial.applier else None,
        "boot": trial.boot,
        "since_s": trial.since_s,
    }
    _write(root / _TRIAL_FILE, tree)


def end(root: Path = state.ROOT) -> None:
    with files.edit(root / _TRIAL_FILE) as file:
        file.remove()


def refuse_during_trial(root: Path = state.ROOT) -> None:
    """Raise MachineError while a trial goes on: what is changed by hand meanwhile would be undone with it."""
    if trial := read(root):
        raise MachineError(
            str(trial),
            where=str(trial.machine),
            mend=f"wait, or decide: warren machine confirm {trial.token}, or warren machine restore {trial.token}",
        )


def read_restored(root: Path = state.ROOT) -> Restored | None:
    return _read(root / _RESTORED_FILE, _restored)


def write_restored(restored: Restored, root: Path = state.ROOT) -> None:
    tree = {
        "token": restored.token,
        "unix_s": restored.unix_s,
        "why": restored.why,
        "instances": list(restored.instances),
        "problems": list(restored.problems),
    }
    _write(root / _RESTORED_FILE, tree)


def forget_restored(root: Path = state.ROOT) -> None:
    with files.edit(root / _RESTORED_FILE) as file:
        file.remove()


def note_confirmed(token: str) -> None:
    files.make_folder(LAST_CONFIRMED.parent, mode=0o755)
    files.replace(LAST_CONFIRMED, f"{token}\n".encode())


def was_confirmed(token: str) -> bool:
    """Whether this is the token that was confirmed last, since the machine started."""
    return (files.read(LAST_CONFIRMED) or b"").decode(errors="replace").strip() == token


def _write(path: Path, tree: Mapping[str, object]) -> None:
    files.replace(path, json.dumps(tree, indent=1).encode() + b"\n")


def _read(path: Path, parse: Callable[[Any], T]) -> T | None:
    content = files.read(path)
    if content is None:
        return None
    try:
        return parse(json.loads(content))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise MachineError(
            "this is not what Warren wrote here", where=str(path), mend=f"warren status, and if all is well: rm {path}"
        ) from None


def _trial(tree: Any) -> Trial:
    applier = tree["applier"]
    return Trial(
        str(tree["token"]),
        MachineName(tree["machine"]),
        {
            InstanceName(name): Tried(InterfaceName(each["interface"]), bool(each["had_document"]))
            for name, each in tree["instances"].items()
        },
        float(tree["confirm_within_s"]),
        Process(int(applier["pid"]), int(applier["started"])) if applier else None,
        str(tree["boot"]),
        float(tree["since_s"]),
    )


def _restored(tree: Any) -> Restored:
    return Restored(
        str(tree["token"]),
        float(tree["unix_s"]),
        str(tree["why"]),
        tuple(map(InstanceName, tree["instances"])),
        tuple(map(str, tree["problems"])),
    )


def this_boot() -> str:
    """Which start of the machine this is: whatever the first to ask wrote since."""
    if known := files.read(_BOOT):
        return known.decode(errors="replace").strip()
    files.make_folder(_BOOT.parent, mode=0o755)
    with files.edit(_BOOT) as file:
        if not file.content:
            file.replace(f"{secrets.token_hex(16)}\n".encode())
    return this_boot()
