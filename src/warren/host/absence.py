"""That a controller asks to be left: for as long as an operator says so, or while an update interrupts it.

<instance>/draining     there or not; empty: until an operator says otherwise; else a boot and a time on its clock

The word for an update ends by itself, some time after it began, or with the trial that came of it: nobody has to be
alive to take it back.
"""

from __future__ import annotations

from pathlib import Path

from warren.host import files, state, trial
from warren.host.clock import now_s
from warren.names import InstanceName

BEGIN_WITHIN_S = 60.0  # from the word for an update to the trial: peers leave, the lock is waited for

_FILE = "draining"


def is_asked(instance: InstanceName, root: Path = state.ROOT) -> bool:
    """Whether this controller is to be left alone now."""
    content = files.read(_path(instance, root))
    if content is None:
        return False
    if not content.strip():
        return True
    boot, _, until_s = content.decode(errors="replace").strip().partition(" ")
    if boot != trial.this_boot():
        return False
    going_on = trial.read(root)
    return now_s() < _seconds(until_s) or (going_on is not None and instance in going_on.instances)


def ask(instance: InstanceName, asked: bool, root: Path = state.ROOT) -> None:
    """An operator's word."""
    with files.edit(_path(instance, root)) as file:
        if asked:
            file.replace(b"")
        else:
            file.remove()


def begin_update(instance: InstanceName, root: Path = state.ROOT) -> bool:
    """The word for an update; False: an operator's holds already, and outlasts it."""
    with files.edit(_path(instance, root)) as file:
        if file.content is not None and not file.content.strip():
            return False
        file.replace(f"{trial.this_boot()} {now_s() + BEGIN_WITHIN_S:.3f}\n".encode())
        return True


def end_update(instance: InstanceName, root: Path = state.ROOT) -> None:
    """Take back the word for an update; an operator's stays."""
    with files.edit(_path(instance, root)) as file:
        if file.content is not None and file.content.strip():
            file.remove()


def _path(instance: InstanceName, root: Path) -> Path:
    return state.instance_folder(instance, root) / _FILE


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
