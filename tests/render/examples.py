"""Meshes to draw."""

from dataclasses import replace

from meshes import inventory, mesh
from warren.inventory.model import Instance, PeerMachine
from warren.names import InterfaceName, MachineName
from warren.network.document import Document
from warren.network.resolve import resolve


def document(instance: Instance) -> Document:
    return resolve(inventory(instance), {})[instance.name]


def seeds_mesh() -> Document:
    vpn = mesh("controller1 controller2", "peer1 peer2 peer3")
    second = replace(vpn.peers[MachineName("peer2")], controller=MachineName("controller2"))
    return document(replace(vpn, peers={**vpn.peers, second.name: second}))


def large_mesh(peers: int, controllers: int = 4) -> Document:
    vpn = mesh(" ".join(f"server{i}" for i in range(controllers)))
    names = [MachineName(f"laptop{i:05}") for i in range(peers)]
    owners = sorted(vpn.controllers)
    interface = InterfaceName("vpn")
    members = {name: PeerMachine(name, owners[i % 4 % len(owners)], interface) for i, name in enumerate(names)}
    return document(replace(vpn, peers=members))
