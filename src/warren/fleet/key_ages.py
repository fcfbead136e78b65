"""How old keys are: since git saw each one change, or, where there is no git, since its file was written."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import TypeAlias

from warren.inventory.wording import listed
from warren.names import InstanceName, MachineName
from warren.network.stored import FORMER_KEY_FILE, NEXT_KEY_FILE
from warren.vars.generators import Kind, Variable, generators
from warren.vars.store import PER_MACHINE
from warren.workspace.folder import Folder
from warren.workspace.git import last_changes

DAY_S = 86400

Ages: TypeAlias = Mapping[tuple[MachineName, InstanceName], float]


def key_ages_s(folder: Folder, now_unix_s: float) -> Ages:
    """Of the keys of machines that Warren runs on; those that are being rotated already are left out."""
    changes = last_changes(folder.path, PER_MACHINE)
    ages = {}
    for generator in generators(folder.inventory).values():
        for variable in generator.variables if generator.kind is Kind.KEYS else ():
            if variable not in folder.texts or not folder.inventory.machines[variable.machine].managed:
                continue
            if any(variable._replace(file=file) in folder.texts for file in (NEXT_KEY_FILE, FORMER_KEY_FILE)):
                continue
            made_unix_s = changes.get(variable.path) or _written_unix_s(folder, variable, now_unix_s)
            ages[variable.machine, generator.instance] = now_unix_s - made_unix_s
    return ages


def too_old(folder: Folder, now_unix_s: float, limit_s: float | None = None) -> dict[InstanceName, list[MachineName]]:
    """The machines whose keys are older than `limit_s`, else than the inventory allows; none where it says nothing."""
    days = folder.inventory.max_key_age_days
    if limit_s is None and days is None:
        return {}
    limit_s = (days or 0) * DAY_S if limit_s is None else limit_s
    found: dict[InstanceName, list[MachineName]] = {}
    for (machine, instance), age_s in key_ages_s(folder, now_unix_s).items():
        if age_s > limit_s:
            found.setdefault(instance, []).append(machine)
    return found


def too_old_lines(folder: Folder, now_unix_s: float) -> list[str]:
    """For people, with what to do."""
    days = folder.inventory.max_key_age_days
    return [
        f"keys older than {days} days in {instance}: {listed(machines)} (warren vars rotate)"
        for instance, machines in too_old(folder, now_unix_s).items()
    ]


def _written_unix_s(folder: Folder, variable: Variable, now_unix_s: float) -> float:
    with suppress(OSError):
        return (folder.path / variable.path).stat().st_mtime
    return now_unix_s
