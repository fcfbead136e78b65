"""The NixOS module, read and evaluated by Nix itself; what NixOS makes of its options would need nixpkgs."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any

import pytest

from render.foreign_fleet import fleet
from warren.plan.desired import Desired, HostLine
from warren.render.foreign import add_unreachable, drop_firewall, load_firewall
from warren.render.nixos import nixos
from warren.wireguard.endpoint import Endpoint

pytestmark = pytest.mark.skipif(
    shutil.which("nix-instantiate") is None, reason="nix-instantiate is not installed (Debian: nix-bin)"
)

ARGUMENTS = '{ lib = { mkDefault = x: { default = x; }; }; pkgs = { iproute2 = "iproute2"; nftables = "nftables"; }; }'


def nix(*words: str, folder: Path) -> str:
    """Without a store: parsing and plain evaluation need none."""
    environment = {"PATH": "/usr/bin:/bin:/usr/local/bin", "HOME": str(folder), "NIX_STATE_DIR": str(folder / "state")}
    command = ("nix-instantiate", "--option", "substitute", "false", *words)
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def evaluated(desired: Desired, folder: Path) -> Any:
    (file,) = nixos(desired)
    path = folder / file.name
    path.write_text(file.text)
    nix("--parse", str(path), folder=folder)
    return json.loads(nix("--eval", "--strict", "--json", "-E", f"import {path} {ARGUMENTS}", folder=folder))


@pytest.mark.parametrize("name", ["server1", "laptop1", "laptop2"])
def test_the_module_says_what_the_plan_says(tmp_path: Path, name: str) -> None:
    desired = fleet(tmp_path).desired(name)
    module = evaluated(desired, tmp_path)
    interface = module["networking"]["wireguard"]["interfaces"]["vpn"]
    assert interface["ips"] == sorted(map(str, desired.addresses))
    assert (interface["mtu"], interface.get("listenPort")) == (desired.mtu_bytes, desired.listen_port)
    assert interface["privateKeyFile"] == {"default": "/var/lib/wireguard/vpn.key"}
    assert interface["allowedIPsAsRoutes"] is False
    assert {peer["publicKey"] for peer in interface["peers"]} == {key.text for key in desired.peers}
    for peer in interface["peers"]:
        wanted = next(each for key, each in desired.peers.items() if key.text == peer["publicKey"])
        assert set(peer["allowedIPs"]) == set(map(str, wanted.allowed_ips))
        assert peer.get("endpoint") == (str(wanted.endpoint) if wanted.endpoint else None)
        assert peer["persistentKeepalive"] == 25
    assert module["networking"]["hosts"] == {str(line.address): [line.name] for line in desired.hosts}
    service = module["systemd"]["services"]["warren-vpn"]
    assert service["script"].splitlines() == [add_unreachable(desired), load_firewall(desired)]
    assert service["postStop"].startswith(drop_firewall(desired))
    if name == "server1":
        assert module["networking"]["firewall"]["allowedUDPPorts"] == [51820]
        assert module["boot"]["kernel"]["sysctl"]["net.ipv6.conf.all.forwarding"] == 1
    else:
        assert "boot" not in module
        assert "firewall" not in module["networking"]


@pytest.mark.parametrize(
    "text", ['a"b', "a\\b", "${evil}", "$${evil}", "\\${evil}", "''${evil}''", "a\nb", "ä", "$", "\\"]
)
def test_no_text_leaves_its_quotes(tmp_path: Path, text: str) -> None:
    """Names cannot hold such characters today; whatever they hold tomorrow, Nix reads it as a text."""
    desired = fleet(tmp_path).desired("laptop1")
    endpoints = {key: replace(peer, endpoint=Endpoint(text, 1)) for key, peer in desired.peers.items()}
    line = HostLine(IPv6Address("fd00::1"), text)
    module = evaluated(replace(desired, peers=endpoints, hosts=(line,)), tmp_path)
    assert module["networking"]["hosts"] == {"fd00::1": [text]}
    assert module["networking"]["wireguard"]["interfaces"]["vpn"]["peers"][0]["endpoint"] == f"{text}:1"


@pytest.mark.parametrize("name", ["in", "then", "9-lives", "wg.0", "+", "_x"])
def test_any_interface_is_a_key(tmp_path: Path, name: str) -> None:
    inventory = f"""
        [instances.vpn]
        module.name = "wireguard"
        roles.controller.machines.server1.settings = {{ endpoint = "vpn1.example.com", interface = "{name}" }}
    """
    module = evaluated(fleet(tmp_path, inventory).desired("server1"), tmp_path)
    assert list(module["networking"]["wireguard"]["interfaces"]) == [name]
    assert f'iifname "{name}" oifname "{name}" accept' == module["networking"]["firewall"]["extraForwardRules"]
