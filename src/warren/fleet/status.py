"""How all machines are, asked of all of them at once; a machine that does not answer delays nobody else's word."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from warren.errors import MachineError
from warren.fleet import machine_side
from warren.fleet.outdated import Behind
from warren.fleet.ssh import Target
from warren.names import InstanceName, MachineName


@dataclass(frozen=True, slots=True)
class MachineStatus:
    """What a machine says of itself (as its own `warren status --json`), or why it says nothing."""

    said: Mapping[str, Any]
    problem: str
    out_of_date: tuple[InstanceName, ...]

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


def tree(machines: Mapping[MachineName, MachineStatus]) -> dict[str, object]:
    """What `warren status --json` prints of a fleet: each machine's own tree, with what is known of it here."""
    return {
        "machines": {
            name: {"problem": each.problem or None, "out_of_date": list(each.out_of_date), "instances": {}, **each.said}
            for name, each in machines.items()
        }
    }
