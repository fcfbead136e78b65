"""One change between what a machine is and what it should be, as a value. `render.commands` shows it as a command."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv6Interface, IPv6Network
from typing import TypeAlias

from warren.names import InstanceName, InterfaceName
from warren.plan.desired import Firewall, HostLine
from warren.plan.other_firewalls import AskFirewall as AskFirewall
from warren.wireguard.device import AllowedIP
from warren.wireguard.endpoint import Endpoint
from warren.wireguard.keys import PublicKey
from warren.wireguard.preshared import Fingerprint

ROUTE_PROTOCOL = 87  # ours: W. Over 4 the kernel only hands them on; in rt_protos(5) nobody else has this one
ROUTE_METRIC = 4096  # a machine that is in such a network itself has a better one of its own (256 and 1024)
UNREACHABLE_METRIC = 0x7FFFFFFF  # behind every route that somebody else could add for the same network


@dataclass(frozen=True, slots=True)
class CreateLink:
    """A WireGuard interface: the kernel's where it has one, else a userspace implementation's."""

    interface: InterfaceName


@dataclass(frozen=True, slots=True)
class DeleteLink:
    interface: InterfaceName


@dataclass(frozen=True, slots=True)
class SetMtu:
    interface: InterfaceName
    mtu_bytes: int


@dataclass(frozen=True, slots=True)
class SetLinkUp:
    interface: InterfaceName


@dataclass(frozen=True, slots=True)
class AddAddress:
    """Without duplicate address detection: the address follows from the machine's name, and DAD costs a second."""

    interface: InterfaceName
    address: IPv6Interface


@dataclass(frozen=True, slots=True)
class RemoveAddress:
    interface: InterfaceName
    address: IPv6Interface


@dataclass(frozen=True, slots=True)
class AddRoute:
    """To a network behind another machine. It steps back behind routes that somebody else has for the same network."""

    interface: InterfaceName
    network: IPv6Network


@dataclass(frozen=True, slots=True)
class RemoveRoute:
    interface: InterfaceName
    network: IPv6Network


@dataclass(frozen=True, slots=True)
class AddUnreachable:
    network: IPv6Network


@dataclass(frozen=True, slots=True)
class RemoveUnreachable:
    network: IPv6Network


@dataclass(frozen=True, slots=True)
class SetPrivateKey:
    """The machine's own key, which the host layer holds; `public_key` says which one it must be."""

    instance: InstanceName
    interface: InterfaceName
    public_key: PublicKey


@dataclass(frozen=True, slots=True)
class SetListenPort:
    interface: InterfaceName
    port: int


@dataclass(frozen=True, slots=True)
class PeerChange:
    """One WireGuard peer; what is None stays as it is. `allowed_ips` is all that the peer has afterwards.

    `gained_ips`: the peer has the others already, so these alone are said to the device. By that whoever holds them now
    loses them in the same moment, and nothing else is touched. Where it is None, `allowed_ips` is said whole, and for
    the blink of an eye the peer has none. `preshared`: of the key that holds from the next handshake on; the host layer
    has the key itself.
    """

    public_key: PublicKey
    is_new: bool = False
    allowed_ips: frozenset[AllowedIP] | None = None
    endpoint: Endpoint | None = None
    keepalive_s: int | None = None  # 0: off
    gained_ips: frozenset[AllowedIP] | None = None
    preshared: Fingerprint | None = None


@dataclass(frozen=True, slots=True)
class SetPeers:
    """Changes to WireGuard peers, in one transaction as far as the device has such; others are not touched."""

    interface: InterfaceName
    changes: tuple[PeerChange, ...]
    removed: tuple[PublicKey, ...] = ()


@dataclass(frozen=True, slots=True)
class AwaitHandshake:
    """Give these peers the first word, for a second at most: two first messages that cross cost both ends 5 s."""

    interface: InterfaceName
    public_keys: tuple[PublicKey, ...]


@dataclass(frozen=True, slots=True)
class SetSysctl:
    """`key` as sysctl spells it, with dots. `remember`: a global switch, whose value before is noted for `down`."""

    instance: InstanceName
    key: str
    value: str
    remember: bool = False


@dataclass(frozen=True, slots=True)
class RestoreSysctls:
    """Global switches that this instance changed go back to what they were, unless another instance needs them."""

    instance: InstanceName


@dataclass(frozen=True, slots=True)
class LoadTable:
    """The instance's nftables table, replaced whole in one transaction."""

    instance: InstanceName
    firewall: Firewall


@dataclass(frozen=True, slots=True)
class DropTable:
    instance: InstanceName


@dataclass(frozen=True, slots=True)
class WriteHosts:
    instance: InstanceName
    lines: tuple[HostLine, ...]


@dataclass(frozen=True, slots=True)
class ClearHosts:
    instance: InstanceName


Step: TypeAlias = (
    CreateLink
    | DeleteLink
    | SetMtu
    | SetLinkUp
    | AddAddress
    | RemoveAddress
    | AddRoute
    | RemoveRoute
    | AddUnreachable
    | RemoveUnreachable
    | SetPrivateKey
    | SetListenPort
    | SetPeers
    | AwaitHandshake
    | SetSysctl
    | RestoreSysctls
    | LoadTable
    | DropTable
    | AskFirewall
    | WriteHosts
    | ClearHosts
)
