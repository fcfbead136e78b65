"""Keys are rotated in a lab under traffic, on whatever WireGuard there is: the kernel's own in `make test-kernel`.

Without ssh: documents are carried to the machines by hand, in the order in which an update would bring them.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest

import traffic
from lab.labs import DEMO, MACHINES, Computer, computer
from namespaces import wait_until
from warren.agent import machine as this_machine
from warren.host import keys, rtnetlink, wireguard
from warren.host.machine import Host
from warren.lab.lab import find_lab
from warren.lab.place import call
from warren.names import InstanceName, InterfaceName, MachineName
from warren.wireguard.keys import PublicKey

pytestmark = [pytest.mark.root, pytest.mark.lab, pytest.mark.kernel]

EMULATED = os.environ.get("WARREN_REQUIRE_KERNEL") == "1"
PATIENCE_S = 300.0 if EMULATED else 30.0
DOCUMENT = "/var/lib/warren/vpn/network.json"
VPN = InstanceName("vpn")
PROGRAM, RESULT, LOG, PID = (Path("/run", f"traffic.{kind}") for kind in ("py", "json", "log", "pid"))

T = TypeVar("T")


@pytest.fixture(scope="module")
def demo() -> Iterator[Computer]:
    with computer() as made:
        made.up(DEMO, "--wait", str(int(PATIENCE_S)))
        yield made


class Mesh:
    """The document as the operator has it, and the machines that follow it."""

    def __init__(self, demo: Computer) -> None:
        self.demo = demo
        self.tree: dict[str, Any] = json.loads(self.on("server1", Path(DOCUMENT).read_text))

    def on(self, machine: str, function: Callable[..., T], *arguments: object) -> T:
        """What a function of ours returns when it runs there, without a program started for it."""
        found: T = self.demo.namespace.run(_on, machine, function, *arguments, timeout_s=PATIENCE_S)
        return found

    def entry(self, machine: str) -> dict[str, str]:
        entry: dict[str, str] = self.tree["machines"][machine]
        return entry

    def publish(self, *machines: str) -> None:
        """Bring the document of now to these."""
        self.tree["serial"] += 1
        text = json.dumps(self.tree, sort_keys=True, separators=(",", ":")) + "\n"
        for machine in machines:
            self.on(machine, follow, machine, text.encode())

    def rotate(self, machine: str) -> str:
        """All learn the new key, the machine switches, all forget the old one; the new key."""
        others = [name for name in MACHINES if name != machine]
        entry = self.entry(machine)
        entry["second_key"] = self.on(machine, keys.stage_key, VPN).text
        self.publish(*others, machine)
        entry["public_key"], entry["second_key"] = entry["second_key"], entry["public_key"]
        self.publish(machine)
        new = entry["public_key"]
        for name in [name for name in others if "server" in name or "server" in machine]:
            wait_until(partial(self.on, name, gives_all_to, new), PATIENCE_S, f"{name} to hear {machine}'s new key")
        del entry["second_key"]
        self.publish(*others, machine)
        return new

    def start_traffic(self) -> None:
        lines = self.on("server1", Path("/etc/hosts").read_text).splitlines()
        addresses = {line.split()[1].removesuffix(".vpn"): line.split()[0] for line in lines if line.endswith(".vpn")}
        for name in MACHINES:
            others = [f"{other}={address}" for other, address in addresses.items() if other != name]
            self.on(name, start_traffic, Path(traffic.__file__).read_text(), others)
        for name in MACHINES:
            wait_until(partial(self.on, name, Path("/run/traffic.running").exists), PATIENCE_S, f"traffic of {name}")

    def stop_traffic(self) -> dict[tuple[str, str], dict[str, Any]]:
        """What was measured, by pair."""
        for name in MACHINES:
            self.on(name, end_traffic, signal.SIGTERM)
        for name in MACHINES:
            wait_until(partial(self.on, name, RESULT.exists), PATIENCE_S, f"what {name} measured")
        found = {}
        for name in MACHINES:
            self.on(name, end_traffic, signal.SIGKILL)
            for other, each in json.loads(self.on(name, RESULT.read_text)).items():
                found[name, other] = each
        return found


def _on(machine: str, function: Callable[..., T], *arguments: object) -> T:
    return call(find_lab("demo").places()[MachineName(machine)], function, *arguments)


# On a machine


def follow(machine: str, content: bytes) -> None:
    verdicts = this_machine.follow(Host(), MachineName(machine), {VPN: content})
    assert verdicts[VPN].error is None, verdicts[VPN].error


def own_keys() -> list[PublicKey]:
    return list(keys.own_keys(VPN))


def gives_all_to(key: str) -> bool:
    """Whether the device here has AllowedIPs for the key."""
    device = wireguard.open_device(InterfaceName(VPN))
    assert device is not None
    return bool(device.read().peers[PublicKey.parse(key)].allowed_ips)


def start_traffic(program: str, others: list[str]) -> None:
    PROGRAM.write_text(program)
    own = ",".join(sorted(str(address.ip) for address in rtnetlink.addresses(InterfaceName(VPN))))
    with LOG.open("w") as log:
        process = subprocess.Popen(
            [sys.executable, PROGRAM, RESULT, own, *others], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    PID.write_text(str(process.pid))


def end_traffic(how: int) -> None:
    os.kill(int(PID.read_text()), how)


def test_a_peers_key_and_a_controllers_key_without_a_stream_reset(demo: Computer) -> None:
    mesh = Mesh(demo)
    mesh.start_traffic()
    new = {machine: mesh.rotate(machine) for machine in ("laptop1", "server1")}
    measured = mesh.stop_traffic()
    assert {pair: each["tcp"]["error"] for pair, each in measured.items() if each["tcp"]["error"]} == {}
    assert all(each["tcp"]["echoed"] for each in measured.values())
    for machine, key in new.items():
        assert demo.on(machine, "wg", "show", "vpn", "public-key").strip() == key
        assert [public.text for public in mesh.on(machine, own_keys)] == [key]
    # What is protected: nobody waits for WireGuard's retry or the slow clock. An emulated kernel is slow at everything.
    longest_s = max(each["udp"]["longest_silence_s"] for each in measured.values())
    assert longest_s < (20.0 if EMULATED else 3.0)
