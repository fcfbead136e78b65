"""Inventory + vars -> one network document per instance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import product
from typing import NamedTuple

from warren.errors import InventoryError, Problem
from warren.inventory.model import Instance, Inventory, Machine
from warren.names import InstanceName, MachineName
from warren.network.allocate import Allocation, allocate
from warren.network.document import ControllerEntry, Document, PeerEntry, parse_keys
from warren.network.invitations import Invitation, parse_invitations
from warren.network.preshared import Choices, is_pair, parse_exchanges
from warren.network.stored import (
    FORMER_KEY_FILE,
    INVITATIONS_FILE,
    NEXT_KEY_FILE,
    NOTHING_STORED,
    PRESHARED_FILE,
    PUBLIC_KEY_FILE,
    REVOKED_FILE,
    Stored,
    keys_generator,
    preshared_generator,
    value_path,
)
from warren.wireguard.keys import PublicKey


class _Keys(NamedTuple):
    """One machine's: the one in use, and the one that it will have or had."""

    first: PublicKey | None
    second: PublicKey | None


def resolve(
    inventory: Inventory, stored: Mapping[InstanceName, Stored], serial: int = 0
) -> dict[InstanceName, Document]:
    """Every instance's document; InventoryError names every stored value that cannot be used.

    Machines without a stored public key are in it, with none.
    """
    problems: list[Problem] = []
    allocations: Mapping[InstanceName, Allocation] = {}
    try:
        allocations = allocate(inventory, stored)
    except InventoryError as error:
        problems.extend(error.problems)
    revoked = {name: _revoked(name, stored.get(name, NOTHING_STORED), problems) for name in inventory.instances}
    keys = {
        name: _keys(instance, stored.get(name, NOTHING_STORED), revoked[name], problems)
        for name, instance in inventory.instances.items()
    }
    preshared = {
        name: _preshared(inventory, instance, stored.get(name, NOTHING_STORED), keys[name], problems)
        for name, instance in inventory.instances.items()
    }
    invitations = {
        name: _invitations(instance, stored.get(name, NOTHING_STORED), problems)
        for name, instance in inventory.instances.items()
    }
    problems += _routes_into_a_mesh(inventory, allocations)
    if problems:
        raise InventoryError(tuple(problems))
    return {
        name: replace(
            _document(instance, allocations[name], keys[name], serial, inventory.machines),
            revoked=tuple(sorted(revoked[name])),
            preshared=preshared[name],
            preshared_command=instance.psk_command,
            invitations=invitations[name],
        )
        for name, instance in inventory.instances.items()
    }


def _document(
    instance: Instance,
    allocation: Allocation,
    keys: Mapping[MachineName, _Keys],
    serial: int,
    machines: Mapping[MachineName, Machine],
) -> Document:
    return Document(
        instance=instance.name,
        base=allocation.base,
        domain=instance.domain,
        controllers={
            name: ControllerEntry(
                name,
                keys[name].first,
                allocation.subnets[name],
                controller.endpoint,
                controller.port,
                controller.interface,
                controller.mtu_bytes,
                controller.routes,
                second_key=keys[name].second,
            )
            for name, controller in instance.controllers.items()
        },
        peers={
            name: PeerEntry(
                name,
                keys[name].first,
                allocation.suffixes[name],
                peer.controller,
                peer.interface,
                peer.mtu_bytes,
                keys[name].second,
                machines[name].expires_unix_s,
                machines[name].deploy.pull,
            )
            for name, peer in instance.peers.items()
        },
        serial=serial,
    )


def _routes_into_a_mesh(inventory: Inventory, allocations: Mapping[InstanceName, Allocation]) -> Iterator[Problem]:
    """Routes that would lead some mesh's own addresses elsewhere."""
    for instance in inventory.instances.values():
        for controller in instance.controllers.values():
            for network, (name, allocation) in product(controller.routes, allocations.items()):
                if network.overlaps(allocation.base):
                    yield Problem(
                        f"instances.{instance.name}",
                        0,
                        0,
                        f'controller "{controller.name}" has the route {network}, '
                        f'which overlaps the mesh "{name}" itself: {allocation.base}',
                        "routes are for networks outside of the meshes: take it out",
                    )


def _revoked(instance: InstanceName, stored: Stored, problems: list[Problem]) -> frozenset[PublicKey]:
    """Of all machines, those that left the inventory among them."""
    found: set[PublicKey] = set()
    for machine, text in stored.revoked.items():
        try:
            found |= parse_keys(text)
        except ValueError as error:
            path = value_path(machine, keys_generator(instance), REVOKED_FILE)
            problems.append(Problem(path, 0, 0, f"{error}: a list of keys is needed", f"git log -- {path}"))
    return frozenset(found)


def _preshared(
    inventory: Inventory,
    instance: Instance,
    stored: Stored,
    keys: Mapping[MachineName, _Keys],
    problems: list[Problem],
) -> dict[MachineName, dict[MachineName, Choices]]:
    """Of pairs that are there, by maker and other end."""
    found: dict[MachineName, dict[MachineName, Choices]] = {}
    has_key = {name for name in keys if keys[name].first is not None and inventory.machines[name].managed}
    for maker, text in sorted(stored.preshared.items()):
        try:
            exchanges = parse_exchanges(text)
        except ValueError as error:
            path = value_path(maker, preshared_generator(instance.name), PRESHARED_FILE)
            problems.append(Problem(path, 0, 0, f"{error}", f"git log -- {path}"))
            continue
        of_maker = {
            other: each.choices
            for other, each in sorted(exchanges.items())
            if maker in has_key and other in has_key and any(each.choices)
            if is_pair(maker, other, instance.controllers, instance.peers)
        }
        if of_maker:
            found[maker] = of_maker
    return found


def _invitations(instance: Instance, stored: Stored, problems: list[Problem]) -> tuple[Invitation, ...]:
    """To peers of the instance; one to a machine that left says nothing any more."""
    found: list[Invitation] = []
    for machine in instance.peers:
        try:
            found += parse_invitations(machine, stored.invitations.get(machine, ""))
        except ValueError as error:
            path = value_path(machine, keys_generator(instance.name), INVITATIONS_FILE)
            problems.append(Problem(path, 0, 0, str(error), f"git checkout {path}, or remove it"))
    return tuple(sorted(found, key=lambda each: each.public_key))


def _keys(
    instance: Instance, stored: Stored, revoked: frozenset[PublicKey], problems: list[Problem]
) -> dict[MachineName, _Keys]:
    owners: dict[PublicKey, MachineName] = {}
    generator = keys_generator(instance.name)

    def key(name: MachineName, file: str, texts: Mapping[MachineName, str]) -> PublicKey | None:
        if name not in texts:
            return None
        path = value_path(name, generator, file)
        regenerate = f"warren vars generate --service {generator} --regenerate --machine {name}"
        try:
            key = PublicKey.parse(texts[name])
        except ValueError as error:
            mend = f"git log -p -- {path}" if file == FORMER_KEY_FILE else regenerate
            problems.append(Problem(path, 0, 0, f"{error}: a WireGuard key is needed", mend))
            return None
        if key in revoked:
            problems.append(Problem(path, 0, 0, f"the key {key} is revoked for good", regenerate))
        owner = owners.setdefault(key, name)
        if owner != name:
            problems.append(Problem(path, 0, 0, f'machine "{owner}" has the same public key', regenerate))
        return key

    found = {}
    for name in instance.members:
        first = key(name, PUBLIC_KEY_FILE, stored.public_keys)
        former = key(name, FORMER_KEY_FILE, stored.former_keys)
        staged = key(name, NEXT_KEY_FILE, stored.next_keys)
        # Of a run that was killed between two files, one of them says what `publickey` says already.
        second = next((each for each in (former, staged) if each not in (None, first)), None)
        found[name] = _Keys(first, second if first else None)
    return found
