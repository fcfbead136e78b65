"""Who has which address: stored values first, then newcomers, each with the first candidate that is free.

Nobody's address changes because somebody else came or left. A newcomer is a machine without a stored value; between
two of those, the later name in sort order is the newer. What machines that left have stored stays taken.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv6Network
from itertools import count
from typing import Generic, TypeVar

from warren.errors import InventoryError, Problem
from warren.inventory.model import Instance, Inventory
from warren.names import InstanceName, MachineName
from warren.network import addresses
from warren.network.stored import (
    NOTHING_STORED,
    PREFIX_FILE,
    SUFFIX_FILE,
    Stored,
    network_generator,
    value_path,
)

Value = TypeVar("Value")

_REMOVE_AND_GENERATE = "remove the file and run `warren vars generate`, or write a value that is free"


@dataclass(frozen=True, slots=True)
class Allocation:
    """One instance's addresses."""

    base: IPv6Network
    subnets: Mapping[MachineName, IPv6Network]
    suffixes: Mapping[MachineName, int]


def allocate(inventory: Inventory, stored: Mapping[InstanceName, Stored]) -> dict[InstanceName, Allocation]:
    """Every instance's addresses; InventoryError names every stored value that is not valid or not free."""
    problems: list[Problem] = []
    bases = _allocate_bases(inventory, stored, problems)
    allocations = {
        instance.name: _allocate_instance(
            instance, bases[instance.name], stored.get(instance.name, NOTHING_STORED), problems
        )
        for instance in inventory.instances.values()
    }
    if problems:
        raise InventoryError(tuple(problems))
    return allocations


def _allocate_bases(
    inventory: Inventory, stored: Mapping[InstanceName, Stored], problems: list[Problem]
) -> dict[InstanceName, IPv6Network]:
    """Bases differ between instances that share a machine; elsewhere two may be equal and never meet."""
    members = {instance.name: frozenset(instance.members) for instance in inventory.instances.values()}
    bases: dict[InstanceName, IPv6Network] = {}
    for name, instance in sorted(inventory.instances.items()):
        kept = _stored_base(instance, stored.get(name, NOTHING_STORED))
        if kept is None:
            continue
        for other, base in bases.items():
            shared = sorted(members[name] & members[other])
            if base == kept and shared:
                problems.append(_base_taken(instance, other, shared[0], stored[name], base))
        bases[name] = kept
    for name in sorted(set(members) - set(bases)):
        taken = {base for other, base in bases.items() if members[name] & members[other]}
        bases[name] = next(base for i in count() if (base := addresses.base_network(name, i)) not in taken)
    return bases


def _stored_base(instance: Instance, stored: Stored) -> IPv6Network | None:
    """The base that the instance's stored prefixes lie in; the computed one wins where they disagree."""
    found = set()
    for controller in instance.controllers:
        try:
            found.add(addresses.base_of(addresses.parse_prefix(stored.prefixes[controller])))
        except (KeyError, ValueError):
            continue  # a broken text is named when the instance is allocated
    computed = addresses.base_network(instance.name)
    if not found or computed in found:
        return computed if found else None
    return min(found)


def _base_taken(
    instance: Instance, other: InstanceName, machine: MachineName, stored: Stored, base: IPv6Network
) -> Problem:
    owner = min(name for name in instance.controllers if name in stored.prefixes)
    return Problem(
        value_path(owner, network_generator(instance.name), PREFIX_FILE),
        0,
        0,
        f'instances "{instance.name}" and "{other}" both have the base {base}, and machine "{machine}" is in both',
        "remove the stored prefixes of the younger instance and run `warren vars generate`: it gets another base",
    )


def _allocate_instance(instance: Instance, base: IPv6Network, stored: Stored, problems: list[Problem]) -> Allocation:
    generator = network_generator(instance.name)

    def read_prefix(text: str) -> IPv6Network:
        subnet = addresses.parse_prefix(text)
        if not subnet.subnet_of(base):
            raise ValueError(f"{text!r} is outside the instance's base {base}")
        return subnet

    def read_suffix(text: str) -> int:
        suffix = addresses.parse_suffix(text)
        if addresses.upper_half(suffix) == 0:
            raise ValueError(f"{text!r}: its /96 would cover the controllers' own ::1")
        return suffix

    return Allocation(
        base,
        _settle(
            instance.controllers,
            lambda name: (addresses.controller_subnet(base, name, i) for i in count()),
            _Kind(generator, PREFIX_FILE, read_prefix, lambda subnet: subnet),
            stored.prefixes,
            problems,
        ),
        _settle(
            instance.peers,
            _usable_suffixes,
            _Kind(generator, SUFFIX_FILE, read_suffix, addresses.upper_half),
            stored.suffixes,
            problems,
        ),
    )


def _usable_suffixes(name: MachineName) -> Iterator[int]:
    return (suffix for i in count() if addresses.upper_half(suffix := addresses.peer_suffix(name, i)))


@dataclass(frozen=True, slots=True)
class _Kind(Generic[Value]):
    """Prefix or suffix: where it stands, how its text is read, and what of it must differ between machines."""

    generator: str
    file: str
    read: Callable[[str], Value]
    distinct: Callable[[Value], Hashable]


def _settle(
    members: Iterable[MachineName],
    candidates: Callable[[MachineName], Iterable[Value]],
    kind: _Kind[Value],
    stored: Mapping[MachineName, str],
    problems: list[Problem],
) -> dict[MachineName, Value]:
    settled: dict[MachineName, Value] = {}
    owners: dict[Hashable, MachineName] = {}
    names = sorted(members)
    for name in names:
        if name not in stored:
            continue
        path = value_path(name, kind.generator, kind.file)
        try:
            value = kind.read(stored[name])
        except ValueError as error:
            problems.append(Problem(path, 0, 0, str(error), _REMOVE_AND_GENERATE))
            continue
        owner = owners.setdefault(kind.distinct(value), name)
        if owner == name:
            settled[name] = value
        else:
            message = f'{stored[name]!r} is taken: machine "{owner}" has it'
            problems.append(Problem(path, 0, 0, message, _REMOVE_AND_GENERATE))
    taken = set(owners) | _left_behind(kind, stored, settled)
    for name in names:
        if name not in stored:
            value = next(value for value in candidates(name) if kind.distinct(value) not in taken)
            taken.add(kind.distinct(value))
            settled[name] = value
    return {name: settled[name] for name in names if name in settled}


def _left_behind(
    kind: _Kind[Value], stored: Mapping[MachineName, str], settled: Mapping[MachineName, Value]
) -> set[Hashable]:
    """What machines that left the instance have stored; a text that cannot be read takes nothing."""
    taken = set()
    for name, text in stored.items():
        if name not in settled:
            with suppress(ValueError):
                taken.add(kind.distinct(kind.read(text)))
    return taken
