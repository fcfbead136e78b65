"""A WireGuard device as values: what it should hold, and what it was seen to hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import NamedTuple

from warren.wireguard.endpoint import Endpoint, SocketAddress
from warren.wireguard.keys import PublicKey
from warren.wireguard.preshared import NO_PRESHARED_KEY, Fingerprint

REKEY_AFTER_TIME_S = 120  # WireGuard whitepaper, section 6.1
REJECT_AFTER_TIME_S = 180
REKEY_TIMEOUT_S = 5
HANDSHAKE_INITIATION_BYTES = 148  # whitepaper, section 5.4.2


class AllowedIP(NamedTuple):
    """One entry of cryptokey routing: the network's packed address (4 or 16 bytes, host bits zero) and prefix length.

    Bytes, not ip_network: a controller of 10,000 peers and four controllers compares 40,000 of these at every
    reconcile, and the kernel speaks bytes.
    """

    packed: bytes
    prefix_length: int

    @classmethod
    def of(cls, network: IPv4Network | IPv6Network) -> AllowedIP:
        return cls(network.network_address.packed, network.prefixlen)

    @property
    def network(self) -> IPv4Network | IPv6Network:
        return ip_network((self.packed, self.prefix_length))

    def __str__(self) -> str:
        return str(self.network)


def parse_route(text: str) -> IPv6Network:
    """A network that can lie behind a machine; ValueError says what it is instead.

    IPv6 alone: the mesh has no IPv4 addresses that an answer could come back to.
    """
    try:
        network = ip_network(text)
    except ValueError:
        raise ValueError(_not_a_network(text)) from None
    if not isinstance(network, IPv6Network):
        raise ValueError("is IPv4, and the mesh carries IPv6 alone")
    if network.prefixlen == 0:
        raise ValueError("is the whole internet, which the mesh is not the way to")
    if network.is_multicast or network.is_link_local or network.is_loopback or network.is_unspecified:
        raise ValueError("is a network that no router leads to")
    return network


def _not_a_network(text: str) -> str:
    try:
        return f"has bits set behind its prefix length: the network is {ip_network(text, strict=False)}"
    except ValueError:
        return "is no network"


@dataclass(frozen=True, slots=True)
class Peer:
    """One WireGuard peer as it should be. `endpoint` None: it is not spoken to first (or speaks from anywhere)."""

    public_key: PublicKey
    allowed_ips: frozenset[AllowedIP]
    endpoint: Endpoint | None = None
    keepalive_s: int = 0  # 0: off


class ObservedPeer(NamedTuple):
    """One WireGuard peer as the device holds it."""

    public_key: PublicKey
    allowed_ips: frozenset[AllowedIP]
    endpoint: SocketAddress | None = None
    keepalive_s: int = 0
    preshared: Fingerprint = NO_PRESHARED_KEY  # of its preshared key, which is not kept
    handshake_unix_s: float = 0.0  # time of the last handshake; 0: never
    received_bytes: int = 0
    sent_bytes: int = 0


@dataclass(frozen=True, slots=True)
class ObservedDevice:
    """What a device holds. `public_key` None: it has no private key yet."""

    public_key: PublicKey | None
    listen_port: int  # 0: none chosen
    peers: Mapping[PublicKey, ObservedPeer]
