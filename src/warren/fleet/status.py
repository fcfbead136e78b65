"""How all machines are, asked of all of them at once; a machine that does not answer delays nobody else's word."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from warren.errors import MachineError
from warren.fleet import machine_side
from warren.fleet.heard import Heard, Pair
from warren.fleet.outdated import Behind
from warren.fleet.ssh import Target
from warren.names import InstanceName, MachineName


@dataclass(frozen=True, slots=True)
class MachineStatus:
    """What a machine says of itself (as its own `warren status --json`), or why it says nothing."""

    said: Mapping[str, Any]
    problem: str
    out_of_date: tuple[InstanceName, ...]
    heard: Mapping[InstanceName, Heard] | None = None  # of one that is not asked: what controllers heard of it

    @property
    def is_well(self) -> bool:
        return not self.problem and not self.out_of_date and not self.said.get("trial")


async def ask_all(
    targets: Mapping[MachineName, Target], stale: Behind, parallel: int
) -> dict[MachineName, MachineStatus]:
    """`stale`: the instances in which machines are out of date, as far as is known here."""
    free = asyncio.Semaphore(parallel)

    async def one(target: Target) -> MachineStatus:
        behind = stale.get(target.machine, ())
        try:
            async with free:
                return MachineStatus(await machine_side.status(target), "", behind)
        except MachineError as error:
            return MachineStatus({}, str(error), behind)

    found = await asyncio.gather(*map(one, targets.values()))
    return dict(zip(targets, found, strict=True))


def heard_of(
    pairs: Mapping[Pair, Heard], names: Iterable[MachineName], stale: Behind
) -> dict[MachineName, MachineStatus]:
    """Machines that fetch their documents by themselves, by what controllers heard of them."""
    return {
        name: MachineStatus(
            {},
            "",
            stale.get(name, ()),
            {instance: each for (machine, instance), each in pairs.items() if machine == name},
        )
        for name in names
    }


def _heard_tree(status: MachineStatus) -> dict[str, object]:
    if status.heard is None:
        return {}
    return {"heard": {instance: each.tree for instance, each in status.heard.items()}}


def tree(machines: Mapping[MachineName, MachineStatus]) -> dict[str, object]:
    """What `warren status --json` prints of a fleet: each machine's own tree, with what is known of it here."""
    return {
        "machines": {
            name: {
                **_heard_tree(each),
                "problem": each.problem or None,
                "out_of_date": list(each.out_of_date),
                "instances": {},
                **each.said,
            }
            for name, each in machines.items()
        }
    }
