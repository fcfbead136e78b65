"""The examples and the first inventory read as they stand, and the seed's snippets mean what they say."""

import shutil
from pathlib import Path

import pytest

from warren.inventory.first import first_inventory
from warren.inventory.model import Controller, Instance, PeerMachine
from warren.inventory.read import read
from warren.names import InstanceName, InterfaceName, MachineName
from warren.wireguard.endpoint import Endpoint
from warren.workspace.source import load_inventory

EXAMPLES = Path(__file__).parents[2] / "examples"
WIREGUARD = InstanceName("wireguard")
INTERFACE = InterfaceName("wireguard")


def controller(name: str, host: str) -> Controller:
    return Controller(MachineName(name), Endpoint(host, 51820), 51820, INTERFACE)


def instance(*controllers: Controller) -> Instance:
    laptop = PeerMachine(MachineName("laptop1"), MachineName("server1"), INTERFACE)
    return Instance(WIREGUARD, "wireguard", {each.name: each for each in controllers}, {laptop.name: laptop})


SINGLE = instance(controller("server1", "vpn.example.com"))
MULTIPLE = instance(*(controller(f"server{i}", f"vpn{i}.example.com") for i in (1, 2, 3)))


def load(name: str) -> Instance:
    inventory = load_inventory(EXAMPLES / name)
    assert list(inventory.machines) == sorted(inventory.instances[WIREGUARD].members)
    return inventory.instances[WIREGUARD]


def test_the_seeds_configurations_as_toml() -> None:
    assert load("seed-single.toml") == SINGLE
    assert load("seed-multiple.toml") == MULTIPLE


@pytest.mark.skipif(
    shutil.which("nix-instantiate") is None, reason="nix-instantiate is not installed (Debian: nix-bin)"
)
def test_the_seeds_configurations_as_nix() -> None:
    assert load("seed-single.nix") == SINGLE
    assert load("seed-multiple.nix") == MULTIPLE


def test_the_burrow_is_two_controllers_and_three_peers() -> None:
    (vpn,) = load_inventory(EXAMPLES / "burrow.toml").instances.values()
    assert list(vpn.controllers) == ["server1", "server2"]
    assert {name: peer.controller for name, peer in vpn.peers.items()} == {
        "laptop1": "server1",
        "laptop2": "server1",
        "phone1": "server2",
    }


def test_two_instances_share_machines_on_different_ports() -> None:
    home, work = load_inventory(EXAMPLES / "two-instances.toml").instances.values()
    hub, bridge = MachineName("hub"), MachineName("bridge")
    assert (home.controllers[hub].port, work.controllers[hub].port) == (51820, 51821)
    assert bridge in home.peers
    assert bridge in work.controllers
    assert work.domain == "corp.internal"


def test_the_first_inventory_reads() -> None:
    inventory = read(first_inventory("castle"), "toml", "warren.toml")
    assert inventory.name == "castle"
    assert inventory.notes == ()
    assert len(inventory.instances[InstanceName("vpn")].members) == 4
