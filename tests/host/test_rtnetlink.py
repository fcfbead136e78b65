"""Links, addresses, routes and path MTUs of a real kernel, beside what `ip` says of them."""

from __future__ import annotations

import errno
import json
from ipaddress import IPv6Interface, IPv6Network, ip_address
from typing import Any

import pytest

from namespaces import in_namespace, sh
from warren.errors import KernelError
from warren.host import rtnetlink
from warren.host.rtnetlink import Link, path_mtu
from warren.names import InterfaceName

pytestmark = pytest.mark.root

VPN = InterfaceName("vpn")
NOBODY = InterfaceName("nobody")
BASE = IPv6Network("fd28:387a::/40")


def ip(arguments: str) -> list[dict[str, Any]]:
    found = json.loads(sh(f"ip -json -details {arguments}"))
    assert isinstance(found, list)
    return found


def add_link() -> None:
    """An interface named vpn that this kernel has for sure, and its other end, which is up."""
    sh("ip link add vpn type veth peer name other; ip link set other up")


def test_links_are_those_that_ip_shows() -> None:
    def check() -> None:
        add_link()
        sh("ip link set vpn mtu 1380; ip tuntap add tun0 mode tun")
        assert rtnetlink.links() == {
            link["ifname"]: Link(
                link["ifindex"], link.get("linkinfo", {}).get("info_kind", ""), link["mtu"], "UP" in link["flags"]
            )
            for link in ip("link show")
        }
        assert rtnetlink.links()[InterfaceName("lo")].kind == ""
        assert rtnetlink.links()[InterfaceName("tun0")].kind == "tun"
        assert rtnetlink.links()[VPN].kind == "veth"

    in_namespace(check)


def test_a_link_changes_and_goes() -> None:
    def check() -> None:
        add_link()
        before = rtnetlink.links()[VPN]
        rtnetlink.set_mtu(VPN, 1330)
        assert rtnetlink.links()[VPN] == Link(before.index, "veth", 1330, is_up=False)
        rtnetlink.set_up(VPN)
        assert rtnetlink.links()[VPN] == Link(before.index, "veth", 1330, is_up=True)
        rtnetlink.delete_link(VPN)
        assert VPN not in rtnetlink.links()

    in_namespace(check)


def test_a_wireguard_link_is_refused_for_a_name_that_is_taken() -> None:
    def check() -> None:
        add_link()
        with pytest.raises(KernelError, match="ip link add vpn type wireguard") as refused:
            rtnetlink.create_wireguard_link(VPN)
        assert refused.value.code == errno.EEXIST

    in_namespace(check)


@pytest.mark.parametrize("change", ["set_up", "delete_link", "addresses"])
def test_a_link_that_is_not_there(change: str) -> None:
    with pytest.raises(KernelError, match="No such device") as refused:
        in_namespace(getattr(rtnetlink, change), NOBODY)
    assert refused.value.code == errno.ENODEV


def test_addresses_come_usable_at_once_and_go() -> None:
    first, second = IPv6Interface("fd28:387a:ac:7a00::1/40"), IPv6Interface("fd28:387a:ac:9b00:1:2:3:4/56")

    def check() -> None:
        add_link()
        rtnetlink.set_up(VPN)
        rtnetlink.add_address(VPN, first)
        rtnetlink.add_address(VPN, second)
        shown = [
            address for link in ip("-6 address show dev vpn scope global") for address in link["addr_info"] if address
        ]
        assert {f"{address['local']}/{address['prefixlen']}" for address in shown} == {str(first), str(second)}
        assert all(address["nodad"] and "tentative" not in address for address in shown)
        # The link-local address and the other interface's are not among them.
        sh("ip -6 address add fd99::1/64 dev other")
        assert rtnetlink.addresses(VPN) == {first, second}
        rtnetlink.remove_address(VPN, first)
        assert rtnetlink.addresses(VPN) == {second}

    in_namespace(check)


def test_an_address_with_a_peer_is_read_by_its_own_side() -> None:
    def check() -> None:
        add_link()
        sh("ip -6 address add fd99::1 peer fd99::2/64 dev vpn nodad")
        assert rtnetlink.addresses(VPN) == {IPv6Interface("fd99::1/64")}

    in_namespace(check)


def test_addresses_twice_or_unknown_are_refused() -> None:
    address = IPv6Interface("fd28::1/56")

    def check() -> None:
        add_link()
        with pytest.raises(KernelError, match="ip -6 address delete fd28::1/56 dev vpn") as unknown:
            rtnetlink.remove_address(VPN, address)
        rtnetlink.add_address(VPN, address)
        with pytest.raises(KernelError, match="ip -6 address add fd28::1/56 dev vpn nodad") as twice:
            rtnetlink.add_address(VPN, address)
        assert (unknown.value.code, twice.value.code) == (errno.EADDRNOTAVAIL, errno.EEXIST)

    in_namespace(check)


def test_unreachable_routes_are_ours_alone() -> None:
    def check() -> None:
        sh("ip -6 route add unreachable fd77::/40; ip -6 route add fd66::/40 dev lo proto 87")
        assert rtnetlink.unreachable_networks() == frozenset()
        rtnetlink.add_unreachable(BASE)
        assert rtnetlink.unreachable_networks() == {BASE}
        with pytest.raises(KernelError) as twice:
            rtnetlink.add_unreachable(BASE)
        assert twice.value.code == errno.EEXIST
        rtnetlink.remove_unreachable(BASE)
        assert rtnetlink.unreachable_networks() == frozenset()
        assert "fd77::/40" in sh("ip -6 route show")

    in_namespace(check)


def test_a_connected_route_of_the_same_network_wins_over_unreachable() -> None:
    def check() -> None:
        add_link()
        sh("ip link set lo up")
        rtnetlink.set_up(VPN)
        rtnetlink.add_unreachable(BASE)
        rtnetlink.add_address(VPN, IPv6Interface("fd28:387a:ac:7a00::1/40"))
        [route] = ip("-6 route get fd28:387a:ac:ffff::5")
        assert route["dev"] == "vpn"
        rtnetlink.remove_address(VPN, IPv6Interface("fd28:387a:ac:7a00::1/40"))
        with pytest.raises(RuntimeError, match="No route to host"):
            sh("ip -6 route get fd28:387a:ac:ffff::5")

    in_namespace(check)


def test_path_mtu_without_any_route() -> None:
    assert in_namespace(path_mtu, []) == 1420
    assert in_namespace(path_mtu, [ip_address("192.0.2.1"), ip_address("2001:db8::1")]) == 1420


@pytest.mark.parametrize(
    ("link_mtu", "routes", "endpoints", "expected"),
    [
        (1500, "", ["192.0.2.9"], 1420),
        (9000, "", ["192.0.2.9"], 8920),
        (9000, "ip route add 198.51.100.0/24 via 192.0.2.2 mtu 1400", ["198.51.100.7"], 1320),
        # The largest, whichever endpoint has it; one without a route does not count.
        (9000, "ip route add 198.51.100.0/24 via 192.0.2.2 mtu 1400", ["198.51.100.7", "192.0.2.9"], 8920),
        (9000, "ip route add unreachable 198.51.100.0/24; ip route add blackhole 203.0.113.0/24",
         ["198.51.100.7", "203.0.113.7", "192.0.2.9"], 8920),
        (9000, "ip -6 route add 2001:db8:9::/48 via 2001:db8::2 mtu 1450", ["2001:db8:9::1"], 1370),
        # None known: the default route, of either family.
        (1480, "ip route add default via 192.0.2.2", [], 1400),
        (1480, "ip -6 route add default via 2001:db8::2", [], 1400),
        (1480, "ip route add default via 192.0.2.2 mtu 1450", [], 1370),
        (1480, "ip route add default via 192.0.2.2", ["2001:db8:77::1"], 1400),
        # Never under what IPv6 needs.
        (1300, "", ["192.0.2.9"], 1280),
    ],
)  # fmt: skip
def test_path_mtu_is_what_wg_quick_would_take(link_mtu: int, routes: str, endpoints: list[str], expected: int) -> None:
    def check() -> int:
        sh(f"ip link add eth0 mtu {link_mtu} type veth peer name other mtu {link_mtu}")
        sh("ip link set other up; ip link set eth0 up; ip address add 192.0.2.1/24 dev eth0")
        sh(f"ip address add 2001:db8::1/64 dev eth0 nodad; {routes}")
        return path_mtu(map(ip_address, endpoints))

    assert in_namespace(check) == expected
