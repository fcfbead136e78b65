"""In what order machines are visited, how many at once, and when it stops."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from warren.names import MachineName

PARALLEL = 32  # ssh's key exchange is work for this computer, and sshd on a jump host drops bursts (MaxStartups)

Visit: TypeAlias = Callable[[MachineName], Awaitable[bool]]
"""Do what is to be done on one machine; whether it went well. It raises nothing."""


@dataclass(frozen=True, slots=True)
class Limits:
    """`canaries`: so many machines first, and the others only when all of those went well."""

    parallel: int = PARALLEL
    canaries: int = 0
    max_failures: int | None = None  # with more than these, no further machine is begun; None: all are


def waves(machines: Sequence[MachineName], canaries: int) -> list[Sequence[MachineName]]:
    """The canaries, then the others; all at once without canaries."""
    parts = [machines[:canaries], machines[canaries:]]
    return [part for part in parts if part]


def stops(limits: Limits, failed: int, failed_canaries: int) -> bool:
    """Whether no further machine may be begun."""
    return failed_canaries > 0 or (limits.max_failures is not None and failed > limits.max_failures)


async def roll_out(machines: Sequence[MachineName], limits: Limits, visit: Visit) -> list[MachineName]:
    """Visit all, as many at once as allowed; returns those that were not begun. A slow one holds up nobody else."""
    free = asyncio.Semaphore(limits.parallel)
    failed = failed_canaries = 0
    not_begun: list[MachineName] = []

    async def one(machine: MachineName) -> None:
        nonlocal failed
        async with free:
            if stops(limits, failed, failed_canaries):
                not_begun.append(machine)
            elif not await visit(machine):
                failed += 1

    for number, wave in enumerate(waves(machines, limits.canaries)):
        async with asyncio.TaskGroup() as group:
            for machine in wave:
                group.create_task(one(machine))
        if limits.canaries and number == 0:
            failed_canaries = failed
    return not_begun
