"""Links, addresses and routes of this network namespace, by rtnetlink.

Layouts: linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Interface, IPv6Network

from warren.errors import KernelError
from warren.host.netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    NetlinkSocket,
    attribute,
    attributes,
    nested,
    number_attribute,
    refusal,
    text_attribute,
)
from warren.names import InterfaceName
from warren.plan.steps import ROUTE_METRIC, ROUTE_PROTOCOL
from warren.plan.steps import UNREACHABLE_METRIC as UNREACHABLE_METRIC
from warren.wireguard.endpoint import IPAddress

WIREGUARD_OVERHEAD_BYTES = 80  # of a packet in IPv6: 40 IPv6, 8 UDP, 32 WireGuard
DEFAULT_PATH_MTU_BYTES = 1500
LEAST_MTU_BYTES = 1280  # RFC 8200, section 5; with less, Linux takes every IPv6 address off the interface

_NETLINK_ROUTE = 0
_RTM_NEWLINK, _RTM_DELLINK, _RTM_GETLINK = 16, 17, 18
_RTM_NEWADDR, _RTM_DELADDR, _RTM_GETADDR = 20, 21, 22
_RTM_NEWROUTE, _RTM_DELROUTE, _RTM_GETROUTE = 24, 25, 26

_LINK = struct.Struct("=BxHiII")  # family, type, index, flags, changed flags: struct ifinfomsg
_IFF_UP = 1
_IFLA_IFNAME, _IFLA_MTU, _IFLA_LINKINFO, _IFLA_EXT_MASK = 3, 4, 18, 29
_IFLA_INFO_KIND = 1
_RTEXT_FILTER_SKIP_STATS = 1 << 3

_ADDRESS = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index: struct ifaddrmsg
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
_IFA_F_NODAD = 2

_ROUTE = struct.Struct("=BBBBBBBBI")  # family, to, from, tos, table, protocol, scope, type, flags: struct rtmsg
_RTA_DST, _RTA_OIF, _RTA_PRIORITY, _RTA_METRICS = 1, 4, 6, 8
_RTAX_MTU = 2
_RT_TABLE_MAIN = 254
_RT_SCOPE_UNIVERSE = 0
_RTN_UNICAST, _RTN_UNREACHABLE = 1, 7
# None at all, one of type unreachable, prohibit or blackhole, or a kernel without IPv6.
_NO_ROUTE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL, errno.EOPNOTSUPP)


@dataclass(frozen=True, slots=True)
class Link:
    """One interface. `kind` as the kernel calls it: `wireguard`, `tun`, `veth`; "" for hardware and loopback."""

    index: int
    kind: str
    mtu_bytes: int
    is_up: bool


def links() -> dict[InterfaceName, Link]:
    """Every interface, by name."""
    body = _LINK.pack(0, 0, 0, 0, 0) + number_attribute(_IFLA_EXT_MASK, _RTEXT_FILTER_SKIP_STATS)
    with _route_socket() as netlink:
        answers = netlink.dump(_RTM_GETLINK, body, command="ip link show")
    return dict(map(_link, answers))


def create_wireguard_link(interface: InterfaceName) -> None:
    """A kernel WireGuard interface; KernelError with code EOPNOTSUPP where the kernel has none."""
    kind = nested(_IFLA_LINKINFO, text_attribute(_IFLA_INFO_KIND, "wireguard"))
    _change_link(interface, f"ip link add {interface} type wireguard", kind, flags=NLM_F_CREATE | NLM_F_EXCL)


def delete_link(interface: InterfaceName) -> None:
    body = _LINK.pack(0, 0, 0, 0, 0) + text_attribute(_IFLA_IFNAME, interface)
    _request(_RTM_DELLINK, body, f"ip link delete {interface}")


def set_mtu(interface: InterfaceName, mtu_bytes: int) -> None:
    _change_link(interface, f"ip link set {interface} mtu {mtu_bytes}", number_attribute(_IFLA_MTU, mtu_bytes))


def set_up(interface: InterfaceName) -> None:
    _change_link(interface, f"ip link set {interface} up", up=_IFF_UP)


def addresses(interface: InterfaceName) -> frozenset[IPv6Interface]:
    """The interface's IPv6 addresses of global scope, which is what ULAs have."""
    command = f"ip -6 address show dev {interface} scope global"
    index = _index(interface, command)
    with _route_socket() as netlink:
        answers = netlink.dump(_RTM_GETADDR, _ADDRESS.pack(socket.AF_INET6, 0, 0, 0, index), command=command)
    return frozenset(address for answer in answers if (address := _global_address(answer, index)))


def add_address(interface: InterfaceName, address: IPv6Interface) -> None:
    """Usable at once: without duplicate address detection."""
    command = f"ip -6 address add {address} dev {interface} nodad"
    body = _address_body(interface, address, command) + number_attribute(_IFA_FLAGS, _IFA_F_NODAD)
    _request(_RTM_NEWADDR, body, command, flags=NLM_F_CREATE | NLM_F_EXCL)


def remove_address(interface: InterfaceName, address: IPv6Interface) -> None:
    command = f"ip -6 address delete {address} dev {interface}"
    _request(_RTM_DELADDR, _address_body(interface, address, command), command)


def routes(interface: InterfaceName) -> tuple[frozenset[IPv6Network], frozenset[IPv6Network]]:
    """The networks that IPv6 routes of the main table lead into the interface; then those of them that we added.

    The first has what the kernel adds by itself as well: a network for each address.
    """
    command = f"ip -6 route show dev {interface}"
    index = _index(interface, command)
    wanted = _ROUTE.pack(socket.AF_INET6, 0, 0, 0, _RT_TABLE_MAIN, 0, 0, _RTN_UNICAST, 0)
    with _route_socket() as netlink:
        answers = netlink.dump(_RTM_GETROUTE, wanted + number_attribute(_RTA_OIF, index), command=command)
    networks, ours = set(), set()
    for answer in answers:  # a kernel before 4.20 did not filter
        _, prefix_length, _, _, table, protocol, _, kind, _ = _ROUTE.unpack_from(answer)
        found = attributes(answer, _ROUTE.size)
        if (table, kind, found.get(_RTA_OIF)) == (_RT_TABLE_MAIN, _RTN_UNICAST, struct.pack("=I", index)):
            network = IPv6Network((found.get(_RTA_DST, bytes(16)), prefix_length))
            networks.add(network)
            if protocol == ROUTE_PROTOCOL:
                ours.add(network)
    return frozenset(networks), frozenset(ours)


def add_route(interface: InterfaceName, network: IPv6Network) -> None:
    command = f"ip -6 route add {network} dev {interface} metric {ROUTE_METRIC} proto {ROUTE_PROTOCOL}"
    _request(_RTM_NEWROUTE, _route_body(interface, network, command), command, flags=NLM_F_CREATE | NLM_F_EXCL)


def remove_route(interface: InterfaceName, network: IPv6Network) -> None:
    command = f"ip -6 route delete {network} dev {interface} metric {ROUTE_METRIC} proto {ROUTE_PROTOCOL}"
    _request(_RTM_DELROUTE, _route_body(interface, network, command), command)


def unreachable_networks() -> frozenset[IPv6Network]:
    """The networks that an unreachable route of ours covers; those of others are not ours to see."""
    wanted = _ROUTE.pack(socket.AF_INET6, 0, 0, 0, _RT_TABLE_MAIN, ROUTE_PROTOCOL, 0, _RTN_UNREACHABLE, 0)
    with _route_socket() as netlink:
        answers = netlink.dump(_RTM_GETROUTE, wanted, command=f"ip -6 route show proto {ROUTE_PROTOCOL}")
    networks = set()
    for answer in answers:  # a kernel before 4.20 does not filter, one without IPv6 shows IPv4's routes
        family, prefix_length, _, _, table, protocol, _, kind, _ = _ROUTE.unpack_from(answer)
        if (family, table, protocol, kind) == (socket.AF_INET6, _RT_TABLE_MAIN, ROUTE_PROTOCOL, _RTN_UNREACHABLE):
            destination = attributes(answer, _ROUTE.size).get(_RTA_DST, bytes(16))
            networks.add(IPv6Network((destination, prefix_length)))
    return frozenset(networks)


def add_unreachable(network: IPv6Network) -> None:
    command = f"ip -6 route add {_unreachable_text(network)}"
    _request(_RTM_NEWROUTE, _unreachable_body(network), command, flags=NLM_F_CREATE | NLM_F_EXCL)


def remove_unreachable(network: IPv6Network) -> None:
    _request(_RTM_DELROUTE, _unreachable_body(network), f"ip -6 route delete {_unreachable_text(network)}")


def path_mtu(endpoints: Iterable[IPAddress]) -> int:
    """What wg-quick(8) would set: the largest MTU on the way to an endpoint, else of the default route, less 80.

    The largest: too large a packet is fragmented outside the tunnel, too small an MTU would bind everybody.
    """
    link_mtus = {link.index: link.mtu_bytes for link in links().values()}
    with _route_socket() as netlink:
        mtu = max((_mtu_towards(netlink, address, link_mtus) for address in endpoints), default=0)
        mtu = mtu or max(_default_route_mtu(netlink, family, link_mtus) for family in (socket.AF_INET, socket.AF_INET6))
    return max((mtu or DEFAULT_PATH_MTU_BYTES) - WIREGUARD_OVERHEAD_BYTES, LEAST_MTU_BYTES)


def _mtu_towards(netlink: NetlinkSocket, address: IPAddress, link_mtus: dict[int, int]) -> int:
    """0 where no route leads there."""
    family = socket.AF_INET if isinstance(address, IPv4Address) else socket.AF_INET6
    body = _ROUTE.pack(family, address.max_prefixlen, 0, 0, 0, 0, 0, 0, 0) + attribute(_RTA_DST, address.packed)
    try:
        [answer] = netlink.request(_RTM_GETROUTE, body, command=f"ip route get {address}")
    except KernelError as error:
        if error.code in _NO_ROUTE:
            return 0
        raise
    return _route_mtu(answer, link_mtus)


def _default_route_mtu(netlink: NetlinkSocket, family: int, link_mtus: dict[int, int]) -> int:
    """0 where there is no default route."""
    # No table here: IPv4's main table is not there before its first route, and asking for it would be an error.
    wanted = _ROUTE.pack(family, 0, 0, 0, 0, 0, 0, _RTN_UNICAST, 0)
    answers = netlink.dump(_RTM_GETROUTE, wanted, command="ip route show default")
    defaults = (answer for answer in answers if answer[1] == 0 and answer[4] == _RT_TABLE_MAIN)
    return max((_route_mtu(answer, link_mtus) for answer in defaults), default=0)


def _route_mtu(answer: bytes, link_mtus: dict[int, int]) -> int:
    """The route's own MTU (which path MTU discovery may have found), else its link's."""
    found = attributes(answer, _ROUTE.size)
    own = attributes(found.get(_RTA_METRICS, b"")).get(_RTAX_MTU)
    if own:
        return _number(own)
    return link_mtus.get(_number(found[_RTA_OIF]), 0) if _RTA_OIF in found else 0


def _link(answer: bytes) -> tuple[InterfaceName, Link]:
    _, _, index, flags, _ = _LINK.unpack_from(answer)
    found = attributes(answer, _LINK.size)
    kind = attributes(found.get(_IFLA_LINKINFO, b"")).get(_IFLA_INFO_KIND, b"")
    link = Link(index, _text(kind), _number(found[_IFLA_MTU]), bool(flags & _IFF_UP))
    return InterfaceName(_text(found[_IFLA_IFNAME])), link


def _global_address(answer: bytes, index: int) -> IPv6Interface | None:
    family, prefix_length, _, scope, on_index = _ADDRESS.unpack_from(answer)
    if (family, scope, on_index) != (socket.AF_INET6, _RT_SCOPE_UNIVERSE, index):
        return None
    found = attributes(answer, _ADDRESS.size)
    # IFA_LOCAL is there on an address with a peer; then IFA_ADDRESS is the peer's.
    packed = found.get(_IFA_LOCAL) or found[_IFA_ADDRESS]
    return IPv6Interface((packed, prefix_length))


def _address_body(interface: InterfaceName, address: IPv6Interface, command: str) -> bytes:
    index = _index(interface, command)
    header = _ADDRESS.pack(socket.AF_INET6, address.network.prefixlen, 0, _RT_SCOPE_UNIVERSE, index)
    return header + attribute(_IFA_LOCAL, address.packed)


def _route_body(interface: InterfaceName, network: IPv6Network, command: str) -> bytes:
    out = number_attribute(_RTA_OIF, _index(interface, command))
    return _route_to(network, _RTN_UNICAST, ROUTE_METRIC) + out


def _unreachable_body(network: IPv6Network) -> bytes:
    return _route_to(network, _RTN_UNREACHABLE, UNREACHABLE_METRIC)


def _route_to(network: IPv6Network, kind: int, metric: int) -> bytes:
    length, table, scope = network.prefixlen, _RT_TABLE_MAIN, _RT_SCOPE_UNIVERSE
    header = _ROUTE.pack(socket.AF_INET6, length, 0, 0, table, ROUTE_PROTOCOL, scope, kind, 0)
    destination = attribute(_RTA_DST, network.network_address.packed)
    return header + destination + number_attribute(_RTA_PRIORITY, metric)


def _unreachable_text(network: IPv6Network) -> str:
    return f"unreachable {network} metric {UNREACHABLE_METRIC} proto {ROUTE_PROTOCOL}"


def _change_link(interface: InterfaceName, command: str, change: bytes = b"", *, up: int = 0, flags: int = 0) -> None:
    body = _LINK.pack(0, 0, 0, up, up) + text_attribute(_IFLA_IFNAME, interface) + change
    _request(_RTM_NEWLINK, body, command, flags=flags)


def _request(kind: int, body: bytes, command: str, *, flags: int = 0) -> None:
    with _route_socket() as netlink:
        netlink.request(kind, body, command=command, flags=flags)


def _index(interface: InterfaceName, command: str) -> int:
    try:
        return socket.if_nametoindex(interface)
    except OSError:
        raise refusal(command, errno.ENODEV) from None


def _route_socket() -> NetlinkSocket:
    return NetlinkSocket(_NETLINK_ROUTE)


def _number(data: bytes) -> int:
    number: int
    (number,) = struct.unpack("=I", data)
    return number


def _text(data: bytes) -> str:
    return data.rstrip(b"\0").decode(errors="replace")
