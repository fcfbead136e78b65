"""The internet of a lab, as values: who is attached where, and what that takes, as text for `ip -batch` and `nft -f`.

Routed, not bridged: each machine has a link of its own to the lab's internet, which forwards IPv4 and IPv6; so a fault
on one link is nobody else's. A machine behind NAT hangs on a router of its own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TypeVar

from warren.errors import LabError, UsageError
from warren.inventory.model import Inventory
from warren.names import MachineName
from warren.wireguard.endpoint import Endpoint, IPAddress

NETWORK4 = IPv4Network("198.18.0.0/15")  # for tests of networks (RFC 2544): nobody's real addresses are hidden
NETWORK6 = IPv6Network("2001:db8::/32")  # for documentation (RFC 3849)
GATEWAY4 = IPv4Address("198.18.0.1")
GATEWAY6 = IPv6Address("fe80::1")
FIRST_NUMBER = 2

Claim = TypeVar("Claim", str, IPAddress)

_BEHIND_NAT4, _ROUTER4 = "192.168.1.2", "192.168.1.1"
_BEHIND_NAT6, _ROUTER6 = "fd00:c0:a8:1::2", "fd00:c0:a8:1::1"


@dataclass(frozen=True, slots=True)
class Forwarding:
    """A port in front of a machine that is not the one it listens on."""

    address: IPAddress
    outside: int
    inside: int


@dataclass(frozen=True, slots=True)
class Site:
    """Where one machine is attached. `number` is its own in the lab; a router has the addresses if it is behind one."""

    machine: MachineName
    number: int
    addresses: tuple[IPAddress, ...]  # both families
    behind_nat: bool = False

    @property
    def link(self) -> str:
        """The internet's end."""
        return f"m{self.number}"

    @property
    def other_end(self) -> str:
        """The machine's, or its router's."""
        return "wan" if self.behind_nat else "eth0"


@dataclass(frozen=True, slots=True)
class Underlay:
    """The whole internet of a lab. `names` are the endpoints' host names."""

    sites: Mapping[MachineName, Site]
    names: Mapping[str, MachineName]
    forwardings: tuple[Forwarding, ...] = ()


def design(inventory: Inventory, behind_nat: Collection[MachineName], numbers: Mapping[MachineName, int]) -> Underlay:
    """The underlay that makes the inventory's endpoints true.

    Machines keep their `numbers`, and with them their addresses; new ones get what is free. UsageError for what a lab
    cannot stand for.
    """
    endpoints = list(_endpoints(inventory))
    literal = _literal_addresses(endpoints)
    names = _owners((endpoint.host, machine) for machine, endpoint, _ in endpoints if endpoint.address is None)
    numbered = _numbered(
        inventory.machines, numbers, set(_owners((a, m) for m, group in literal.items() for a in group))
    )
    sites = {}
    for machine, number in numbered.items():
        own = literal.get(machine, ())
        families = {address.version for address in own}
        spare = [address for address in (_address4(number), _address6(number)) if address.version not in families]
        sites[machine] = Site(machine, number, (*own, *spare), machine in behind_nat)
    forwardings = {
        Forwarding(address, endpoint.port, port)
        for machine, endpoint, port in endpoints
        if endpoint.port != port
        for address in ([endpoint.address] if endpoint.address else sites[machine].addresses)
    }
    return Underlay(sites, names, tuple(sorted(forwardings, key=lambda each: (str(each.address), each.outside))))


def default_behind_nat(inventory: Inventory) -> frozenset[MachineName]:
    """The last machine, in sort order, that is only ever a peer, if there is another such one."""
    candidates = sorted(_peers(inventory))
    return frozenset(candidates[-1:]) if len(candidates) > 1 else frozenset()


def check_behind_nat(inventory: Inventory, behind_nat: Collection[MachineName]) -> None:
    for machine in sorted(set(behind_nat) - _peers(inventory)):
        raise UsageError(
            f'"{machine}" cannot be behind NAT: it is a controller, others must be able to speak to it first',
            mend=f"choose among {', '.join(sorted(_peers(inventory))) or 'peers; this inventory has none'}",
        )


def hosts_head(underlay: Underlay, machine: MachineName) -> str:
    """The lab's own part of a machine's hosts file."""
    lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback", f"127.0.1.1 {machine}"]
    for name, machine in sorted(underlay.names.items()):
        lines += [f"{address} {name}" for address in underlay.sites[machine].addresses]
    return "".join(f"{line}\n" for line in [*lines, _END_OF_HEAD])


_END_OF_HEAD = "# end of the part that the lab keeps: its internet's names"


def with_hosts_head(content: str, head: str) -> str:
    """A hosts file with the lab's part replaced; what follows it is the machine's."""
    _, mark, rest = content.partition(f"{_END_OF_HEAD}\n")
    return head + (rest if mark else content)


def internet_links(sites: Iterable[Site], ends: Mapping[MachineName, str]) -> str:
    """For `ip -batch` in the internet; `ends`: the file of the network namespace at each link's other end."""
    lines = []
    for site in sites:
        lines += [
            f"link add {site.link} type veth peer name {site.other_end} netns {ends[site.machine]}",
            f"link set {site.link} alias {site.machine} addrgenmode none up",
            f"addr add {GATEWAY4}/32 dev {site.link}",
            f"addr add {GATEWAY6}/64 dev {site.link} nodad",
            *(f"route add {address} dev {site.link}" for address in site.addresses),
        ]
    return "".join(f"{line}\n" for line in lines)


def machine_end(site: Site) -> str:
    """For `ip -batch` in the machine."""
    if not site.behind_nat:
        return "link set lo up\n" + _internet_end(site)
    return f"""\
link set lo up
link set eth0 addrgenmode none up
addr add {_BEHIND_NAT4}/24 dev eth0
addr add fe80::2/64 dev eth0 nodad
addr add {_BEHIND_NAT6}/64 dev eth0 nodad
route add default via {_ROUTER4}
route add default via {_ROUTER6}
"""


def router_ends(site: Site, machine: str) -> str:
    """For `ip -batch` in the machine's NAT router; `machine`: the file of the machine's network namespace."""
    return f"""\
link set lo up
{_internet_end(site)}\
link add lan type veth peer name eth0 netns {machine}
link set lan addrgenmode none up
addr add {_ROUTER4}/24 dev lan
addr add fe80::1/64 dev lan nodad
addr add {_ROUTER6}/64 dev lan nodad
"""


ROUTER_RULES = """\
table inet nat {
  chain postrouting {
    type nat hook postrouting priority srcnat;
    oifname "wan" masquerade
  }
  chain forward {
    type filter hook forward priority filter; policy drop;
    ct state established,related accept
    iifname "lan" accept
  }
}
"""


def forwarding_rules(forwardings: Iterable[Forwarding]) -> str:
    """For `nft -f` in the internet."""
    lines = [
        f"    {'ip' if each.address.version == 4 else 'ip6'} daddr {each.address} udp dport {each.outside}"
        f" dnat to :{each.inside}"
        for each in forwardings
    ]
    chain = ["  chain prerouting {", "    type nat hook prerouting priority dstnat;", *lines, "  }"] if lines else []
    return "\n".join(["table inet ports", "delete table inet ports", "table inet ports {", *chain, "}", ""])


def _internet_end(site: Site) -> str:
    device = site.other_end
    lines = [
        f"link set {device} addrgenmode none up",
        f"addr add fe80::2/64 dev {device} nodad",
        *(f"addr add {each} dev {device}{' nodad' if each.version == 6 else ''}" for each in site.addresses),
        f"route add {GATEWAY4} dev {device}",
        f"route add default via {GATEWAY4}",
        f"route add default via {GATEWAY6} dev {device}",
    ]
    return "".join(f"{line}\n" for line in lines)


def _endpoints(inventory: Inventory) -> Iterator[tuple[MachineName, Endpoint, int]]:
    for instance in inventory.instances.values():
        for controller in instance.controllers.values():
            yield controller.name, controller.endpoint, controller.port


def _literal_addresses(
    endpoints: Iterable[tuple[MachineName, Endpoint, int]],
) -> dict[MachineName, tuple[IPAddress, ...]]:
    found: dict[MachineName, dict[IPAddress, None]] = defaultdict(dict)
    for machine, endpoint, _ in endpoints:
        address = endpoint.address
        if address is None:
            continue
        if (
            address.is_loopback
            or address.is_multicast
            or address.is_unspecified
            or address.is_link_local
            or address == GATEWAY4
        ):
            raise UsageError(
                f'the lab cannot give machine "{machine}" the address {address} of its endpoint',
                mend="use an address that another machine could reach",
            )
        found[machine][address] = None
    return {machine: tuple(addresses) for machine, addresses in found.items()}


def _owners(claims: Iterable[tuple[Claim, MachineName]]) -> dict[Claim, MachineName]:
    """Who has which name or address; UsageError where two machines claim one."""
    owners: dict[Claim, MachineName] = {}
    for what, machine in claims:
        owner = owners.setdefault(what, machine)
        if owner != machine:
            raise UsageError(
                f'machines "{owner}" and "{machine}" share the endpoint {what}',
                mend="the lab needs one name or address for each controller; several ports of one will not do",
            )
    return owners


def _numbered(
    machines: Iterable[MachineName], numbers: Mapping[MachineName, int], taken: Collection[IPAddress]
) -> dict[MachineName, int]:
    numbered = {machine: numbers[machine] for machine in machines if machine in numbers}
    used = set(numbered.values())
    number = FIRST_NUMBER
    for machine in sorted(set(machines) - set(numbered)):
        while number in used or _address4(number) in taken or _address6(number) in taken:
            number += 1
        used.add(number)
        numbered[machine] = number
    if max(used, default=0) >= NETWORK4.num_addresses:
        raise LabError(f"{len(numbered)} machines are more than {NETWORK4} has addresses")
    return numbered


def _address4(number: int) -> IPv4Address:
    return NETWORK4[number]


def _address6(number: int) -> IPv6Address:
    return NETWORK6[number]


def _peers(inventory: Inventory) -> set[MachineName]:
    """Machines that are a peer somewhere and a controller nowhere."""
    instances = inventory.instances.values()
    return {name for each in instances for name in each.peers} - {
        name for each in instances for name in each.controllers
    }
