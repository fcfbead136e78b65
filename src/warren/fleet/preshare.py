"""Preshared keys, made by one end of each pair and brought to the other sealed. Nothing of that is kept here.

Over ssh's own key exchange, whatever that costs: who records today what is carried, and breaks X25519 some day, would
know what a preshared key is there to keep from him.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from warren.errors import MachineError
from warren.fleet import machine_side
from warren.fleet.machine_side import SealedKey
from warren.fleet.preshared import Documents, InMesh
from warren.fleet.ssh import Target
from warren.names import InstanceName, MachineName
from warren.network.document import Document
from warren.network.preshared import Pair
from warren.wireguard.keys import PublicKey
from warren.wireguard.preshared import Fingerprint

AT_ONCE = 500  # each costs the machine that opens it some milliseconds


@dataclass(slots=True)
class Shared:
    """Pairs of which both ends hold the key now, and what went wrong, by machine."""

    made: dict[InMesh, Fingerprint] = field(default_factory=dict)
    problems: dict[MachineName, str] = field(default_factory=dict)


async def share(
    wanted: Iterable[InMesh], documents: Documents, targets: Mapping[MachineName, Target], parallel: int
) -> Shared:
    """Have these pairs' makers make a key each, and the others take it; each by the public keys of the documents."""
    found = Shared()
    free = asyncio.Semaphore(parallel)
    by_maker: dict[tuple[InstanceName, MachineName], list[MachineName]] = {}
    for instance, pair in wanted:
        by_maker.setdefault((instance, pair.maker), []).append(pair.other)
    sealed: dict[tuple[InstanceName, MachineName], list[SealedKey]] = {}

    async def make(instance: InstanceName, maker: MachineName, others: list[MachineName]) -> None:
        keys = {other: _key(documents[instance], other) for other in others}
        own = _key(documents[instance], maker)
        for each in await machine_side.make_preshared(targets[maker], instance, own, keys):
            sealed.setdefault((instance, each.other), []).append(each)

    async def take(instance: InstanceName, other: MachineName, brought: list[SealedKey]) -> None:
        own = _key(documents[instance], other)
        taken, refused = await machine_side.take_preshared(targets[other], instance, own, brought)
        for each in brought:
            if taken.get(each.maker) == each.fingerprint:
                found.made[InMesh(instance, Pair(each.maker, other))] = each.fingerprint
        if refused:
            found.problems[other] = f"{other}: {'; '.join(refused.values())}"

    async def tried(machine: MachineName, work: Coroutine[Any, Any, None]) -> None:
        async with free:
            try:
                await work
            except MachineError as error:
                found.problems[machine] = str(error)

    await asyncio.gather(*(tried(maker, make(name, maker, others)) for (name, maker), others in by_maker.items()))
    visits = [
        tried(other, take(name, other, part)) for (name, other), brought in sealed.items() for part in _parts(brought)
    ]
    await asyncio.gather(*visits)
    return found


def _parts(brought: list[SealedKey]) -> list[list[SealedKey]]:
    return [brought[start : start + AT_ONCE] for start in range(0, len(brought), AT_ONCE)]


def _key(document: Document, machine: MachineName) -> PublicKey:
    entry = document.entry(machine)
    assert entry is not None  # else there is no such pair
    assert entry.public_key is not None
    return entry.public_key
