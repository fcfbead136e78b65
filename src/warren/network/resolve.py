"""Inventory + vars -> one network document per instance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product

from warren.errors import InventoryError, Problem
from warren.inventory.model import Instance, Inventory
from warren.names import InstanceName, MachineName
from warren.network.allocate import Allocation, allocate
from warren.network.document import ControllerEntry, Document, PeerEntry
from warren.network.stored import NOTHING_STORED, PUBLIC_KEY_FILE, Stored, keys_generator, value_path
from warren.wireguard.keys import PublicKey


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
    public_keys = {
        name: _public_keys(instance, stored.get(name, NOTHING_STORED).public_keys, problems)
        for name, instance in inventory.instances.items()
    }
    problems += _routes_into_a_mesh(inventory, allocations)
    if problems:
        raise InventoryError(tuple(problems))
    return {
        name: _document(instance, allocations[name], public_keys[name], serial)
        for name, instance in inventory.instances.items()
    }


def _document(
    instance: Instance, allocation: Allocation, public_keys: Mapping[MachineName, PublicKey], serial: int
) -> Document:
    return Document(
        instance=instance.name,
        base=allocation.base,
        domain=instance.domain,
        controllers={
            name: ControllerEntry(
                name,
                public_keys.get(name),
                allocation.subnets[name],
                controller.endpoint,
                controller.port,
                controller.interface,
                controller.mtu_bytes,
                controller.routes,
            )
            for name, controller in instance.controllers.items()
        },
        peers={
            name: PeerEntry(
                name,
                public_keys.get(name),
                allocation.suffixes[name],
                peer.controller,
                peer.interface,
                peer.mtu_bytes,
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


def _public_keys(
    instance: Instance, texts: Mapping[MachineName, str], problems: list[Problem]
) -> dict[MachineName, PublicKey]:
    keys: dict[MachineName, PublicKey] = {}
    owners: dict[PublicKey, MachineName] = {}
    for name in instance.members:
        if name not in texts:
            continue
        path = value_path(name, keys_generator(instance.name), PUBLIC_KEY_FILE)
        regenerate = f"warren vars generate --service {keys_generator(instance.name)} --regenerate --machine {name}"
        try:
            key = PublicKey.parse(texts[name])
        except ValueError as error:
            problems.append(Problem(path, 0, 0, f"{error}: a WireGuard key is needed", regenerate))
            continue
        owner = owners.setdefault(key, name)
        if owner != name:
            problems.append(Problem(path, 0, 0, f'machine "{owner}" has the same public key', regenerate))
        keys[name] = key
    return keys
