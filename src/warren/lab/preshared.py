"""Preshared keys of a lab's machines: made by one of each pair and taken by the other, as on a fleet.

Nothing is exchanged in phases: a lab's machines get one document, and what both ends have already they keep.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

from warren.fleet.preshared import InMesh, possible_pairs, staged, texts_of
from warren.host import preshared
from warren.host.preshared import Own, Sealed
from warren.inventory.model import Inventory
from warren.lab.place import Place, results, start
from warren.names import InstanceName, MachineName
from warren.network.document import Document, keys_of
from warren.network.preshared import Pair
from warren.vars.generators import Variable
from warren.wireguard.keys import PublicKey
from warren.wireguard.preshared import Fingerprint

Documents: TypeAlias = Mapping[InstanceName, Document]
Places: TypeAlias = Mapping[MachineName, Place]
_Held: TypeAlias = Mapping[tuple[MachineName, InstanceName, MachineName], tuple[Fingerprint, ...]]


def share(places: Places, inventory: Inventory, documents: Documents) -> dict[Variable, str]:
    """What the vars hold of them; machines make what they have not got."""
    wanted = [each for each in possible_pairs(inventory, documents) if places.keys() >= set(each.pair)]
    if not wanted:
        return {}
    held = _held(places, wanted)
    found: dict[InMesh, Fingerprint] = {}
    missing = []
    for each in wanted:
        if both := _held_by_both(held, each):
            found[each] = both
        else:
            missing.append(each)
    found |= _made(places, documents, missing)
    return texts_of(staged({}, found, found))[0]


def _held(places: Places, wanted: Iterable[InMesh]) -> _Held:
    ends = sorted({(end, each.instance) for each in wanted for end in each.pair})
    answers = results([start(places[machine], preshared.held, instance) for machine, instance in ends])
    return {
        (machine, instance, other): names
        for (machine, instance), answer in zip(ends, answers, strict=True)
        for other, names in answer.items()
    }


def _held_by_both(held: _Held, each: InMesh) -> Fingerprint | None:
    ours = held.get((each.pair.maker, each.instance, each.pair.other), ())
    theirs = held.get((each.pair.other, each.instance, each.pair.maker), ())
    return next((name for name in reversed(ours) if name in theirs), None)


def _made(places: Places, documents: Documents, missing: Iterable[InMesh]) -> dict[InMesh, Fingerprint]:
    others: dict[Own, dict[MachineName, PublicKey]] = {}
    for instance, pair in missing:
        own = _end(documents, instance, pair.maker)
        others.setdefault(own, {})[pair.other] = _end(documents, instance, pair.other).public_key
    brought: dict[Own, list[Sealed]] = {}
    for own, sealed in zip(
        others, results([start(places[own.machine], preshared.make, own, keys) for own, keys in others.items()]),
        strict=True,
    ):  # fmt: skip
        for each in sealed:
            brought.setdefault(_end(documents, own.instance, each.other), []).append(each)
    taken = results([start(places[own.machine], preshared.take, own, each) for own, each in brought.items()])
    return {
        InMesh(own.instance, Pair(maker, own.machine)): name
        for own, (held, _) in zip(brought, taken, strict=True)
        for maker, name in held.items()
    }


def _end(documents: Documents, instance: InstanceName, machine: MachineName) -> Own:
    entry = documents[instance].entry(machine)
    assert entry is not None  # a machine of the pair is in the document, and has a key
    return Own(instance, machine, keys_of(entry)[0])
