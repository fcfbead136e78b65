"""WireGuard devices of the kernel, by generic netlink.

Layouts and the meaning of flags: linux/wireguard.h.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address, IPv6Address
from socket import AF_INET, AF_INET6

from warren.errors import KernelError
from warren.host.netlink import (
    GENERIC_HEADER,
    GENERIC_VERSION,
    NESTED,
    attribute,
    attribute_header,
    attributes,
    each_attribute,
    generic_family,
    generic_socket,
    nested,
    number_attribute,
    text_attribute,
)
from warren.host.wireguard_device import KEY_IN_COMMAND, PeerChange, paused_collector, peers_command
from warren.names import InterfaceName
from warren.wireguard.device import AllowedIP, ObservedDevice, ObservedPeer
from warren.wireguard.endpoint import IPAddress, SocketAddress
from warren.wireguard.keys import KEY_BYTES, PrivateKey, PublicKey
from warren.wireguard.preshared import NO_PRESHARED_KEY, fingerprint

FAMILY = "wireguard"
MESSAGE_BYTES = 60_000  # an attribute's length has 16 bits, and all peers of a message are in one
ALLOWED_IPS_IN_PART = 1_400  # of 40 bytes each, in IPv6
UNREADABLE = (KernelError, LookupError, ValueError, struct.error)  # what `parse_device` raises

_GET_DEVICE, _SET_DEVICE = 0, 1
_DEVICE_IFNAME, _DEVICE_PRIVATE_KEY, _DEVICE_PUBLIC_KEY, _DEVICE_LISTEN_PORT, _DEVICE_PEERS = 2, 3, 4, 6, 8
_PEER_PUBLIC_KEY, _PEER_PRESHARED_KEY, _PEER_FLAGS, _PEER_ENDPOINT, _PEER_KEEPALIVE = 1, 2, 3, 4, 5
_PEER_LAST_HANDSHAKE, _PEER_RX_BYTES, _PEER_TX_BYTES, _PEER_ALLOWED_IPS, _PEER_PROTOCOL_VERSION = 6, 7, 8, 9, 10
_REMOVE_ME, _REPLACE_ALLOWED_IPS, _UPDATE_ONLY = 1, 2, 4
_ALLOWED_IP_FAMILY, _ALLOWED_IP_ADDRESS, _ALLOWED_IP_PREFIX_LENGTH = 1, 2, 3

_NO_KEY = bytes(KEY_BYTES)
_NUMBER_16, _NUMBER_64 = struct.Struct("=H"), struct.Struct("=Q")
_TIME = struct.Struct("=qq")  # struct __kernel_timespec
_SOCKET_ADDRESS = struct.Struct("=H2s4s8x")  # struct sockaddr_in; its port is in network order
_SOCKET_ADDRESS_6 = struct.Struct("=H2s4x16s4x")  # struct sockaddr_in6; an endpoint of Warren's has no scope

# The kernel writes a peer's state in this order (get_peer, drivers/net/wireguard/netlink.c), and so it is read in a
# third of the time that one attribute after the other takes; any other order is read that way.
_STATE = struct.Struct("=4s32s 4s32s 4s16s 4sH 6sQ 4sQ 8s")  # headers, each but the last with its value
_STATE_HEADERS = (
    attribute_header(_PEER_PUBLIC_KEY, KEY_BYTES),
    attribute_header(_PEER_PRESHARED_KEY, KEY_BYTES),
    attribute_header(_PEER_LAST_HANDSHAKE, _TIME.size),
    attribute_header(_PEER_KEEPALIVE, _NUMBER_16.size),
    bytes(2) + attribute_header(_PEER_TX_BYTES, _NUMBER_64.size),
    attribute_header(_PEER_RX_BYTES, _NUMBER_64.size),
    number_attribute(_PEER_PROTOCOL_VERSION, 1),
)

# The classes themselves would each time run a Python function, which costs more than all the rest of making one.
_allowed_ip: Callable[[tuple[bytes, int]], AllowedIP] = partial(tuple.__new__, AllowedIP)
_observed_peer: Callable[[tuple[object, ...]], ObservedPeer] = partial(tuple.__new__, ObservedPeer)


class _AllowedIPLayout:
    """An AllowedIP of one address family, as the kernel and we write it."""

    def __init__(self, family: int, address_bytes: int) -> None:
        self.struct = struct.Struct(f"=8sB15s{address_bytes}s")
        self.before = attribute_header(NESTED, self.struct.size - 4) + attribute_header(_ALLOWED_IP_PREFIX_LENGTH, 1)
        self.between = (
            bytes(3)
            + attribute(_ALLOWED_IP_FAMILY, _NUMBER_16.pack(family))
            + attribute_header(_ALLOWED_IP_ADDRESS, address_bytes)
        )

    def pack(self, allowed_ip: AllowedIP) -> bytes:
        return self.struct.pack(self.before, allowed_ip.prefix_length, self.between, allowed_ip.packed)

    def unpack(self, data: bytes) -> frozenset[AllowedIP] | None:
        """A whole list of such; None where something else is in it."""
        if len(data) % self.struct.size:
            return None
        found = []
        for before, prefix_length, between, packed in self.struct.iter_unpack(data):
            if before != self.before or between != self.between:
                return None
            found.append(_allowed_ip((packed, prefix_length)))
        return frozenset(found)


_IPV4, _IPV6 = _AllowedIPLayout(AF_INET, 4), _AllowedIPLayout(AF_INET6, 16)


@dataclass(frozen=True, slots=True)
class KernelDevice:
    interface: InterfaceName

    def read(self) -> ObservedDevice:
        command = f"wg show {self.interface} dump"
        family = _family(command)
        with generic_socket() as netlink:
            parts = netlink.dump(family, _message(_GET_DEVICE, self.interface), command=command)
        try:
            with paused_collector():
                return parse_device(parts)
        except UNREADABLE as error:
            raise KernelError(f"the answer cannot be read ({type(error).__name__})", command=command) from None

    def set_private_key(self, key: PrivateKey) -> None:
        command = f"wg set {self.interface} private-key {KEY_IN_COMMAND}"
        self._set([attribute(_DEVICE_PRIVATE_KEY, key.reveal())], command)

    def set_listen_port(self, port: int) -> None:
        command = f"wg set {self.interface} listen-port {port}"
        self._set([attribute(_DEVICE_LISTEN_PORT, _NUMBER_16.pack(port))], command)

    def set_peers(self, changes: Sequence[PeerChange], removed: Sequence[PublicKey] = ()) -> None:
        self._set(peers_attributes(changes, removed), peers_command(self.interface, changes, removed))

    def _set(self, contents: Iterable[bytes], command: str) -> None:
        family = _family(command)
        with generic_socket() as netlink:
            for content in contents:
                netlink.request(family, _message(_SET_DEVICE, self.interface) + content, command=command)


def peers_attributes(changes: Sequence[PeerChange], removed: Sequence[PublicKey]) -> Iterator[bytes]:
    """The peers attributes of as many messages as it takes, removals first."""
    batch: list[bytes] = []
    size = 0
    for peer in _peer_attributes(changes, removed):
        if size + len(peer) > MESSAGE_BYTES:
            yield nested(_DEVICE_PEERS, b"".join(batch))
            batch, size = [], 0
        batch.append(peer)
        size += len(peer)
    if batch:
        yield nested(_DEVICE_PEERS, b"".join(batch))


def parse_device(parts: Sequence[bytes]) -> ObservedDevice:
    """The answer to GET_DEVICE. A large device comes in parts; a peer may go on in the next with more AllowedIPs."""
    public_key: PublicKey | None = None
    listen_port = 0
    peers: dict[PublicKey, ObservedPeer] = {}
    for part in parts:
        for kind, data in each_attribute(part, GENERIC_HEADER.size):
            if kind == _DEVICE_PUBLIC_KEY:
                public_key = PublicKey(data)
            elif kind == _DEVICE_LISTEN_PORT:
                (listen_port,) = _NUMBER_16.unpack(data)
            elif kind == _DEVICE_PEERS:
                for _, content in each_attribute(data):
                    peer = _peer(content)
                    before = peers.get(peer.public_key)
                    if before:
                        peer = before._replace(allowed_ips=before.allowed_ips | peer.allowed_ips)
                    peers[peer.public_key] = peer
    return ObservedDevice(public_key, listen_port, peers)


def _peer(content: bytes) -> ObservedPeer:
    state = _STATE.unpack_from(content) if len(content) >= _STATE.size else ()
    if state[0::2] == _STATE_HEADERS:
        key, preshared_key, handshake, keepalive_s, sent_bytes, received_bytes = state[1::2]
        found = attributes(content, _STATE.size)
    else:  # what goes on from the part before, or another order
        found = attributes(content)
        key = found[_PEER_PUBLIC_KEY]
        preshared_key = found.get(_PEER_PRESHARED_KEY, _NO_KEY)
        handshake = found.get(_PEER_LAST_HANDSHAKE, bytes(_TIME.size))
        (keepalive_s,) = _NUMBER_16.unpack(found.get(_PEER_KEEPALIVE, bytes(2)))
        (sent_bytes,) = _NUMBER_64.unpack(found.get(_PEER_TX_BYTES, bytes(8)))
        (received_bytes,) = _NUMBER_64.unpack(found.get(_PEER_RX_BYTES, bytes(8)))
    seconds, nanoseconds = _TIME.unpack(handshake)
    endpoint = found.get(_PEER_ENDPOINT)
    return _observed_peer(
        (
            PublicKey(key),
            _allowed_ips(found.get(_PEER_ALLOWED_IPS, b"")),
            _endpoint(endpoint) if endpoint else None,
            keepalive_s,
            NO_PRESHARED_KEY if preshared_key == _NO_KEY else fingerprint(preshared_key),
            seconds + nanoseconds / 1e9,
            received_bytes,
            sent_bytes,
        )
    )


def _allowed_ips(data: bytes) -> frozenset[AllowedIP]:
    for layout in (_IPV6, _IPV4):
        found = layout.unpack(data)
        if found is not None:
            return found
    contents = (attributes(content) for _, content in each_attribute(data))  # of both families, or in another order
    return frozenset(AllowedIP(each[_ALLOWED_IP_ADDRESS], each[_ALLOWED_IP_PREFIX_LENGTH][0]) for each in contents)


def _endpoint(data: bytes) -> SocketAddress:
    (family,) = _NUMBER_16.unpack_from(data)
    address: IPAddress
    if family == AF_INET:
        _, port, packed = _SOCKET_ADDRESS.unpack(data)
        address = IPv4Address(packed)
    else:
        _, port, packed = _SOCKET_ADDRESS_6.unpack(data)
        address = IPv6Address(packed)
    return SocketAddress(address, int.from_bytes(port, "big"))


def _peer_attributes(changes: Sequence[PeerChange], removed: Sequence[PublicKey]) -> Iterator[bytes]:
    for key in removed:
        yield _peer_attribute(key, _REMOVE_ME)
    for change in changes:
        yield from _change_attributes(change)


def _change_attributes(change: PeerChange) -> Iterator[bytes]:
    """One peer, in several parts where its AllowedIPs do not fit into one message."""
    flags = 0 if change.is_new else _UPDATE_ONLY
    content = b""
    if change.preshared_key is not None:
        content += attribute(_PEER_PRESHARED_KEY, change.preshared_key.reveal())
    if change.endpoint is not None:
        content += attribute(_PEER_ENDPOINT, _endpoint_bytes(change.endpoint))
    if change.keepalive_s is not None:
        content += attribute(_PEER_KEEPALIVE, _NUMBER_16.pack(change.keepalive_s))
    said = change.allowed_ips if change.gained_ips is None else change.gained_ips
    if said is None:
        yield _peer_attribute(change.public_key, flags, content)
        return
    if change.gained_ips is None:
        flags |= _REPLACE_ALLOWED_IPS
    entries = [(_IPV4 if len(each.packed) == 4 else _IPV6).pack(each) for each in said]
    for start in range(0, len(entries) or 1, ALLOWED_IPS_IN_PART):
        part = nested(_PEER_ALLOWED_IPS, b"".join(entries[start : start + ALLOWED_IPS_IN_PART]))
        yield _peer_attribute(change.public_key, flags, content + part)
        # What follows adds to this, and must not bring the peer back if somebody takes it away in between.
        flags, content = _UPDATE_ONLY, b""


def _peer_attribute(key: PublicKey, flags: int, content: bytes = b"") -> bytes:
    return nested(0, attribute(_PEER_PUBLIC_KEY, key) + number_attribute(_PEER_FLAGS, flags) + content)


def _endpoint_bytes(endpoint: SocketAddress) -> bytes:
    port = endpoint.port.to_bytes(2, "big")
    address = endpoint.address
    if isinstance(address, IPv4Address):
        return _SOCKET_ADDRESS.pack(AF_INET, port, address.packed)
    return _SOCKET_ADDRESS_6.pack(AF_INET6, port, address.packed)


def _message(command: int, interface: InterfaceName) -> bytes:
    return GENERIC_HEADER.pack(command, GENERIC_VERSION, 0) + text_attribute(_DEVICE_IFNAME, interface)


def _family(command: str) -> int:
    number = generic_family(FAMILY)
    if number is None:
        raise KernelError("this kernel has no WireGuard", command=command, code=errno.EOPNOTSUPP)
    return number
