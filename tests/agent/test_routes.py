"""Networks behind a controller: what the inventory says is reached, in both directions, and nothing else is."""

from __future__ import annotations

from ipaddress import IPv6Network

import pytest

from meshes import mesh
from namespaces import Namespace
from operators import LAPTOP1, VPN
from warren.agent import machine as this_machine
from warren.host.machine import Host
from wired import Wired

pytestmark = [pytest.mark.root, pytest.mark.kernel]

OFFICE = IPv6Network("2001:db8:5::/64")
OTHER = IPv6Network("2001:db8:6::/64")  # behind the controller as well, and no business of the mesh
SWITCHES = "sysctl -ae | grep -E 'ipv6.conf.(all|office0|other0|default).(forwarding|accept_ra) '"
PRINTER, SAFE = "2001:db8:5::2", "2001:db8:6::2"


def answers(place: Namespace, address: str) -> bool:
    """Three tries: a first packet may wait for a handshake or a neighbor."""
    try:
        place.sh(f"for try in 1 2 3; do ping -6 -c 1 -W 1 {address} && exit; done; exit 1")
    except RuntimeError:
        return False
    return True


def take_down() -> None:
    this_machine.take_down(Host(), VPN)


def test_only_what_is_announced_is_reached_and_only_from_the_mesh() -> None:
    with Wired(mesh("server1", "laptop1")) as machines, Namespace() as printer, Namespace() as safe:
        server, laptop = machines["server1"], machines["laptop1"]
        server.connect(printer, "2001:db8:5::1/64", f"{PRINTER}/64", names=("office0", "eth0"))
        server.connect(safe, "2001:db8:6::1/64", f"{SAFE}/64", names=("other0", "eth0"))
        for place, gateway in ((printer, "2001:db8:5::1"), (safe, "2001:db8:6::1")):
            place.sh(f"ip -6 route add default via {gateway}")
        before = server.sh(SWITCHES)

        document = machines.follow()
        own = str(document.name_address(document.peers[LAPTOP1]))
        assert answers(laptop, "server1.vpn")
        assert not answers(laptop, PRINTER)
        assert not answers(printer, own)

        machines.follow(routes=(OFFICE,))
        assert answers(laptop, PRINTER)
        assert answers(printer, own)
        assert "proto 87" in laptop.sh(f"ip -6 route show {OFFICE} dev vpn")
        # The machine forwards as a whole now; the mesh still leads nowhere else, and nobody else into the mesh.
        laptop.sh(f"ip -6 route add {OTHER} dev vpn")
        assert not answers(laptop, SAFE)
        assert not answers(safe, own)
        laptop.sh(f"ip -6 route delete {OTHER} dev vpn")

        machines.follow()
        assert not answers(laptop, PRINTER)
        assert laptop.sh(f"ip -6 route show {OFFICE}") == ""
        assert answers(laptop, "server1.vpn")

        machines.follow(routes=(OFFICE,))
        assert answers(laptop, PRINTER)
        for machine in (laptop, server):
            machine.run(take_down)
            assert "vpn" not in machine.sh("ip -6 route; nft list ruleset")
        assert server.sh(SWITCHES) == before


def test_a_machine_in_the_network_itself_keeps_its_own_way_there() -> None:
    with Wired(mesh("server1", "laptop1")) as machines, Namespace() as printer:
        machines["laptop1"].connect(printer, "2001:db8:5::9/64", f"{PRINTER}/64", names=("office0", "eth0"))
        machines.follow(routes=(OFFICE,))
        assert "dev office0" in machines["laptop1"].sh(f"ip -6 route get {PRINTER}")
        assert answers(machines["laptop1"], PRINTER)
        machines["laptop1"].sh("ip link set office0 down")
        assert "dev vpn" in machines["laptop1"].sh(f"ip -6 route get {PRINTER}")


def test_a_route_that_somebody_removed_comes_back() -> None:
    with Wired(mesh("server1", "laptop1")) as machines:
        machines.follow(routes=(OFFICE,))
        machines["laptop1"].sh(f"ip -6 route delete {OFFICE} dev vpn; ip -6 route add 2001:db8:9::/64 dev vpn")
        machines.follow(routes=(OFFICE,))
        assert machines["laptop1"].sh(f"ip -6 route show {OFFICE} dev vpn")
        assert machines["laptop1"].sh("ip -6 route show 2001:db8:9::/64 dev vpn"), "somebody else's is left alone"
