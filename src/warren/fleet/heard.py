"""Machines that fetch their documents by themselves: which one each follows, as controllers heard it from them.

Only what a machine confirmed by itself counts here: agents say a serial when the trial of its document is over.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from warren.errors import MachineError
from warren.fleet import machine_side
from warren.fleet.plans import fetches, out_of_date, wanted
from warren.fleet.record import Record
from warren.fleet.ssh import Target, target_of
from warren.names import InstanceName, MachineName
from warren.network.stored import PUBLIC_KEY_FILE
from warren.workspace.folder import Folder

FETCH_WITHIN_S = 45.0  # a report each ten seconds: one to hear of it, one to say that it is followed
AWAKE_S = 16.0  # whoever was not heard for that long is off, or has no way to a controller
_POLL_S = 2.0

Pair: TypeAlias = tuple[MachineName, InstanceName]


@dataclass(frozen=True, slots=True)
class Heard:
    """What a machine said last, so many seconds ago, to that controller."""

    serial: int
    age_s: float
    by: MachineName
    failed: int | None = None  # what it tried and could not follow

    def has_failed(self, serial: int) -> bool:
        """Whether it tried what it should follow, and went back."""
        return self.failed is not None and self.failed >= serial > self.serial

    @property
    def tree(self) -> dict[str, object]:
        return {"serial": self.serial, "age_s": self.age_s, "by": self.by, "failed": self.failed}


def fetching(folder: Folder, machines: Collection[MachineName]) -> frozenset[MachineName]:
    """Those of the machines that are not visited: they fetch by themselves, or will when they have joined.

    One that was told by ssh until now is told so once more, that it fetches from then on.
    """
    acknowledged = Record(folder.store).acknowledged()
    with_key = {variable.machine for variable in folder.texts if variable.file == PUBLIC_KEY_FILE}
    chosen = [name for name in machines if folder.inventory.machines[name].deploy.pull]
    return frozenset(name for name in chosen if name not in with_key or fetches(name, acknowledged))


def servers(folder: Folder, machines: Collection[MachineName]) -> dict[MachineName, Target]:
    """The controllers that hand documents to these machines."""
    names = {
        name
        for document in folder.documents.values()
        if any(each in document.peers for each in machines)
        for name in document.controllers
    }
    return {name: target_of(folder.inventory.machines[name]) for name in sorted(names)}


def wanted_serials(folder: Folder, record: Record, machines: Collection[MachineName]) -> dict[Pair, int]:
    """What these machines do not follow yet, of what is published: they have to come to that serial."""
    documents = folder.documents
    stale = out_of_date(wanted(documents), record.acknowledged())
    found = {}
    for name in machines:
        for instance in stale.get(name, ()):
            entry, serial = documents[instance].entry(name), record.serial(documents[instance])
            can_be_served = any(instance not in stale.get(each, ()) for each in documents[instance].controllers)
            if entry is not None and entry.public_key is not None and serial is not None and can_be_served:
                found[name, instance] = serial
    return found


async def ask(controllers: Mapping[MachineName, Target]) -> dict[Pair, Heard]:
    """What all of these controllers heard; those that do not answer know nothing."""

    async def one(target: Target) -> Mapping[str, Any]:
        try:
            return await machine_side.status(target)
        except MachineError:
            return {}

    said = await asyncio.gather(*map(one, controllers.values()))
    found: dict[Pair, Heard] = {}
    for name, tree in zip(controllers, said, strict=True):
        for pair, heard in _heard(name, tree):
            if pair not in found or heard.age_s < found[pair].age_s:
                found[pair] = heard
    return found


def _heard(by: MachineName, tree: Mapping[str, Any]) -> list[tuple[Pair, Heard]]:
    """Of one controller's own status; what cannot be read is passed over, as if it were not there."""
    found = []
    for instance, each in (tree.get("instances") or {}).items():
        followed = (each.get("agent") or {}).get("followed") or {}
        for machine, said in followed.items():
            serial, age_s, failed = said.get("serial"), said.get("age_s"), said.get("failed")
            if isinstance(serial, int) and isinstance(age_s, int | float):
                heard = Heard(serial, float(age_s), by, failed if isinstance(failed, int) else None)
                found.append(((MachineName(machine), InstanceName(instance)), heard))
    return found


def _may_come(heard: Heard, serial: int) -> bool:
    return heard.age_s < AWAKE_S and not heard.has_failed(serial)


async def await_serials(
    controllers: Mapping[MachineName, Target],
    wanted: Mapping[Pair, int],
    followed: Callable[[Collection[Pair]], None],
    within_s: float = FETCH_WITHIN_S,
) -> dict[Pair, Heard]:
    """Ask until all that are awake follow the documents of these serials, or for so long; what was heard last.

    `followed` is called with those that do, as they come.
    """
    deadline = time.monotonic() + within_s
    left = dict(wanted)
    while True:
        found = await ask(controllers)
        done = [pair for pair, serial in left.items() if pair in found and found[pair].serial >= serial]
        followed(done)
        left = {pair: serial for pair, serial in left.items() if pair not in done}
        awake = [pair for pair, serial in left.items() if pair in found and _may_come(found[pair], serial)]
        if not awake or time.monotonic() > deadline:
            return found
        await asyncio.sleep(_POLL_S)
