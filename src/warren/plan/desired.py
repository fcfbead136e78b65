"""What one machine should be, and what it was seen to be: one instance at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv6Address, IPv6Interface, IPv6Network

from warren.names import InstanceName, InterfaceName, MachineName
from warren.network.preshared import Choices
from warren.plan.other_firewalls import NO_OTHERS, OtherFirewalls
from warren.wireguard.device import ObservedDevice, Peer
from warren.wireguard.keys import PublicKey


@dataclass(frozen=True, slots=True)
class HostLine:
    """One line of the hosts file."""

    address: IPv6Address
    name: str

    def __str__(self) -> str:
        return f"{self.address} {self.name}"


@dataclass(frozen=True, slots=True)
class Guests:
    """Where those are who were invited, and all that they may speak to: one TCP port of this address."""

    network: IPv6Network
    address: IPv6Address
    port: int


@dataclass(frozen=True, slots=True)
class Firewall:
    """The instance's own nftables table: what `plan.firewall` writes it from."""

    interface: InterfaceName
    listen_port: int | None  # open to everybody; None: nothing listens
    forward: bool  # from the mesh into the mesh, and nowhere else but
    routes: tuple[IPv6Network, ...] = ()  # these, which lie behind this machine, and back
    guests: Guests | None = None  # None: nobody is invited


@dataclass(frozen=True, slots=True)
class Desired:
    """One instance on one machine, as it should be."""

    instance: InstanceName
    machine: MachineName
    interface: InterfaceName
    public_key: PublicKey | None  # None: not made yet; such a plan is for looking at
    listen_port: int | None  # None: any
    mtu_bytes: int
    addresses: frozenset[IPv6Interface]
    routes: frozenset[IPv6Network]  # behind other machines, led into the interface
    base: IPv6Network  # what of it no route covers is unreachable, never out of the default route
    peers: Mapping[PublicKey, Peer]
    peer_names: Mapping[PublicKey, MachineName]  # for people
    forwards: bool
    firewall: Firewall
    hosts: tuple[HostLine, ...]
    # While a machine's key is rotated, both of its keys are in `peers`: the first with all that is its, the second
    # without. Which of them has it in truth, `rotation` picks from what was heard.
    second_keys: Mapping[PublicKey, PublicKey] = field(default_factory=dict)
    preshared: Mapping[PublicKey, Choices] = field(default_factory=dict)  # none where nothing is said; the first is set
    preshared_command: str = ""  # the program that says them instead
    left_out: tuple[MachineName, ...] = ()  # in no peer, since this machine lost its preshared keys with them
    invited: frozenset[PublicKey] = frozenset()  # one-time keys among the peers
    expiring: tuple[str, ...] = ()  # for people: who is let in not for long any more, or not any more


@dataclass(frozen=True, slots=True)
class ObservedLink:
    """The interface. `kind` is what the kernel calls it: `wireguard`, or `tun` for a userspace implementation."""

    kind: str
    mtu_bytes: int
    is_up: bool


@dataclass(frozen=True, slots=True)
class Observed:
    """One instance on one machine, as its kernel and files are now. The default is a machine without it."""

    link: ObservedLink | None = None
    device: ObservedDevice | None = None  # None: no link, or nobody answers for it
    addresses: frozenset[IPv6Interface] = frozenset()  # of global scope, on the interface
    routes: frozenset[IPv6Network] = frozenset()  # networks that lead into the interface
    own_routes: frozenset[IPv6Network] = frozenset()  # of these, the ones that Warren made, not the kernel by itself
    unreachable: frozenset[IPv6Network] = frozenset()  # by a route of ours; other instances' not counted
    sysctls: Mapping[str, str] = field(default_factory=dict)  # `forwarding.relevant`, those that this kernel has
    sysctls_before: Mapping[str, str] = field(default_factory=dict)  # global ones that Warren changed: as they were
    firewall: str | None = None  # `firewall.canonical` of the instance's table; None: there is none
    other_firewalls: OtherFirewalls = NO_OTHERS
    hosts: tuple[str, ...] | None = None  # the lines of the instance's block; None: there is none
    unix_s: float = 0.0  # when this was seen


NOTHING = Observed()
