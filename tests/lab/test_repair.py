"""What changes under a mesh is found again within seconds: addresses, names, a NAT's memory, a machine that slept."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator

import pytest

from lab.labs import DEMO, Computer, computer
from lab.streams import SOON_S, agent, await_carrier, stream
from namespaces import wait_until
from warren.lab import machines
from warren.lab.lab import find_lab
from warren.lab.place import call
from warren.lab.programs import ip_batch
from warren.names import MachineName

pytestmark = [pytest.mark.root, pytest.mark.lab]

TWO = DEMO.replace('roles.peer.machines.laptop2.settings.controller = "server2"\n', "")
# With `make soak`, for longer than a WireGuard session lasts (180 s).
SLEPT_S = 185.0 if "WARREN_SOAK_S" in os.environ else 15.0


@pytest.fixture(scope="module")
def mesh() -> Iterator[Computer]:
    """Two controllers, three peers; laptop1 is behind NAT."""
    with computer() as made:
        made.up(TWO, "--name", "demo", "--nat", "laptop1")
        for name in ("laptop1", "laptop2", "laptop3"):
            await_carrier(made, name, "server1")
        yield made


def move(machine: str, new: tuple[str, str]) -> tuple[str, ...]:
    """Give a machine other addresses on the internet, in both families; those it had. To be run on the computer."""
    lab = find_lab("demo")
    site = lab.state.machine(MachineName(machine)).site
    place = lab.places()[MachineName(machine)]
    held = [each for each in call(place, _addresses) if each not in new]
    nodad = [f"{each}{' nodad' if ':' in each else ''}" for each in new]
    call(lab.grounds.cables, ip_batch, "".join(f"route replace {each} dev {site.link}\n" for each in new))
    call(place, ip_batch, "".join(f"addr add {each} dev eth0\n" for each in nodad))
    lengths = {each: 128 if ":" in each else 32 for each in held}
    call(place, ip_batch, "".join(f"addr del {each}/{lengths[each]} dev eth0\n" for each in held))
    call(place, ip_batch, "route replace default via 198.18.0.1\n")
    call(lab.grounds.cables, ip_batch, "".join(f"route del {each} dev {site.link}\n" for each in held))
    return tuple(held)


def _addresses() -> list[str]:
    said = subprocess.run(["ip", "-o", "addr", "show", "dev", "eth0"], capture_output=True, text=True, check=True)
    found = re.findall(r"inet6? ([0-9a-f.:]+)/", said.stdout)
    return [each for each in found if not each.startswith("fe80")]


def forget_mappings(machine: str) -> None:
    """Its NAT router starts anew: masquerading ends with the device. To be run on the computer."""
    grounds = find_lab("demo").grounds
    router = grounds.outside(grounds.router(MachineName(machine)))
    again = "link set wan down\nlink set wan up\n"
    addresses = find_lab("demo").state.machine(MachineName(machine)).site.addresses
    lost = ["fe80::2/64", *(str(each) for each in addresses if each.version == 6)]  # with the device; IPv4 stays
    back = "".join(f"addr replace {each} dev wan nodad\n" for each in lost)
    ways = ("198.18.0.1 dev wan", "default via 198.18.0.1", "default via fe80::1 dev wan")
    routes = "".join(f"route replace {each}\n" for each in ways)
    call(grounds.cables, machines._in_network, router, ip_batch, again + back + routes)


def endpoints(on: Computer, machine: str) -> list[str]:
    return [line.split()[1] for line in on.on(machine, "wg", "show", "vpn", "endpoints").splitlines()]


def test_a_peer_that_gets_other_addresses_keeps_its_connections(mesh: Computer) -> None:
    new = ("198.18.7.7", "2001:db8::7:7")
    with stream(mesh, "laptop2", "laptop3") as going, stream(mesh, "laptop3", "laptop1") as others:
        mesh.namespace.run(move, "laptop2", new)
        wait_until(lambda: _known(mesh, "server1", new), SOON_S, "its new address, on the controller")
        going.check()
        others.check()


def _known(on: Computer, machine: str, addresses: tuple[str, str]) -> bool:
    return any(each.startswith((addresses[0], f"[{addresses[1]}]")) for each in endpoints(on, machine))


def test_a_nat_that_forgot_its_mapping_is_reminded(mesh: Computer) -> None:
    """laptop1 is spoken to; nothing that it does itself would open the way again before its next keepalive."""
    with stream(mesh, "laptop3", "laptop1") as going:
        mesh.namespace.run(forget_mappings, "laptop1")
        going.check()
    assert agent(mesh, "laptop1")["carriers"]["server1"] in ("server1", "server2")
    mesh.namespace.run(forget_mappings, "laptop1")  # and at rest
    began_s = time.monotonic()
    wait_until(lambda: _answers(mesh, "server1", "laptop1"), SOON_S, "an answer of laptop1")
    print(f"at rest, after {time.monotonic() - began_s:.1f} s")


def _answers(on: Computer, source: str, target: str) -> bool:
    return "1 received" in on.shell(source, f"ping -6 -c 1 -W 1 {target}.vpn || :")


def test_a_controller_whose_name_means_other_addresses_is_found_there(mesh: Computer) -> None:
    """It has other addresses from one moment to the next, in both families. Others it can call itself, not laptop1."""
    new = ("198.18.9.9", "2001:db8::9:9")
    with stream(mesh, "laptop1", "laptop3") as going:
        old = mesh.namespace.run(move, "server1", new)
        await_no_longer(mesh, "laptop1")
        for name in ("laptop1", "laptop2", "laptop3", "server2"):
            rename = "; ".join(
                f"s/^{before} /{after} /" for before, after in zip(sorted(old), sorted(new), strict=True)
            )
            mesh.shell(name, f"sed '{rename}' /etc/hosts > /run/hosts; cat /run/hosts > /etc/hosts")
        for name in ("laptop1", "laptop2", "laptop3"):
            await_carrier(mesh, name, "server1")
            assert _known(mesh, name, new)
        going.check()


def await_no_longer(on: Computer, machine: str) -> None:
    """The controller is known to be silent where it was."""
    wait_until(
        lambda: agent(on, machine)["health"]["server1"]["verdict"] == "silent",
        SOON_S,
        f"server1's silence on {machine}",
    )


@pytest.mark.slow
def test_a_machine_that_slept_is_back_at_once(mesh: Computer) -> None:
    """Stopped, all of it, which is what sleep looks like from outside, and inside but for the clock."""
    with stream(mesh, "laptop2", "laptop3") as going:
        mesh.shell("laptop2", "kill -STOP $(pgrep -o -f 'warren.* agent') $(pgrep -x wireguard-go)")
        time.sleep(SLEPT_S)
        mesh.shell("laptop2", "kill -CONT $(pgrep -x wireguard-go) $(pgrep -o -f 'warren.* agent')")
        began_s = time.monotonic()
        wait_until(lambda: _answers(mesh, "laptop2", "laptop3"), SOON_S, "an answer to laptop2")
        print(f"awake, and answered after {time.monotonic() - began_s:.1f} s")
        going.check(SLEPT_S + SOON_S)
        await_carrier(mesh, "laptop2", "server1")
    kinds = {(each["kind"], each["machine"]) for each in agent(mesh, "laptop2")["events"]}
    assert ("wake", "laptop2") in kinds
