"""What is said to the kernel's WireGuard, byte for byte beside pyroute2; what it says, in parts and in pieces."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from socket import AF_INET, AF_INET6
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.generic.wireguard import wgmsg

from warren.host.netlink import GENERIC_HEADER, attributes, each_attribute
from warren.host.wireguard_device import PeerChange
from warren.host.wireguard_kernel import ALLOWED_IPS_IN_PART, MESSAGE_BYTES, UNREADABLE, parse_device, peers_attributes
from warren.wireguard.device import AllowedIP, ObservedPeer
from warren.wireguard.endpoint import SocketAddress
from warren.wireguard.keys import PresharedKey, PublicKey
from warren.wireguard.preshared import fingerprint

REMOVE_ME, REPLACE_ALLOWED_IPS, UPDATE_ONLY = 1, 2, 4  # linux/wireguard.h
HEADER = GENERIC_HEADER.pack(0, 1, 0)

keys = st.binary(min_size=32, max_size=32).map(PublicKey)
numbers, raw_addresses = st.integers(0, 2**32 - 1), st.binary(min_size=16, max_size=16)
networks = st.one_of(
    st.builds(lambda number, length: IPv4Network((number, length), strict=False), numbers, st.integers(0, 32)),
    st.builds(lambda raw, length: IPv6Network((raw, length), strict=False), raw_addresses, st.integers(0, 128)),
)
allowed_ips = networks.map(AllowedIP.of)
endpoints = st.builds(
    SocketAddress,
    st.one_of(st.integers(0, 2**32 - 1).map(IPv4Address), st.integers(0, 2**128 - 1).map(IPv6Address)),
    st.integers(0, 65535),
)
changes = st.builds(
    PeerChange,
    keys,
    st.booleans(),
    st.none() | st.frozensets(allowed_ips, max_size=4),
    st.none() | endpoints,
    st.none() | st.integers(0, 65535),
    st.none() | st.frozensets(allowed_ips, max_size=4),
    st.none() | st.binary(min_size=32, max_size=32).map(PresharedKey),
)


@given(st.lists(changes, max_size=4), st.lists(keys, max_size=3))
def test_peers_are_encoded_as_pyroute2_does(changed: list[PeerChange], removed: list[PublicKey]) -> None:
    theirs = wgmsg()
    theirs["cmd"], theirs["version"] = 0, 1
    peers = [[["WGPEER_A_PUBLIC_KEY", key.text], ["WGPEER_A_FLAGS", REMOVE_ME]] for key in removed]
    peers += [_pyroute2_change(change) for change in changed]
    if peers:
        theirs["attrs"].append(["WGDEVICE_A_PEERS", [{"attrs": peer} for peer in peers]])
    theirs.encode()
    encoded = bytes(theirs.data[16:])
    assert _without_numbers(HEADER + b"".join(peers_attributes(changed, removed))) == _without_numbers(encoded)


@given(st.lists(changes, max_size=6), st.integers(1, 3), st.booleans())
def test_what_pyroute2_encodes_is_read(told: list[PeerChange], parts: int, is_reversed: bool) -> None:
    """In the order of the kernel, which is read faster, and in another."""
    by_key = {change.public_key: change for change in told}
    peers = [_pyroute2_observed(change)[:: -1 if is_reversed else 1] for change in by_key.values()]
    device = parse_device([_pyroute2_dump(peers[start::parts]) for start in range(parts)])
    assert device.peers == {key: _observed(change) for key, change in by_key.items()}


def test_a_peer_goes_on_in_the_next_part() -> None:
    key, other = PublicKey(bytes(32)), PublicKey(bytes([1] * 32))
    first, second = _networks("10.0.0.0/8"), _networks("fd00::/96", "fd01::/96")
    begun = PeerChange(key, True, first, SocketAddress(IPv4Address("192.0.2.1"), 5), 25)
    goes_on = [["WGPEER_A_PUBLIC_KEY", key.text], ["WGPEER_A_ALLOWEDIPS", _pyroute2_allowed_ips(second)]]
    device = parse_device(
        [
            _pyroute2_dump([_pyroute2_observed(begun)]),
            _pyroute2_dump([goes_on, _pyroute2_observed(PeerChange(other))]),
        ]
    )
    assert device.peers[key] == _observed(begun)._replace(allowed_ips=first | second)
    assert list(device.peers) == [key, other]


def test_a_device_says_its_key_and_port() -> None:
    key = PublicKey(bytes(range(32)))
    message = wgmsg()
    message["cmd"], message["version"] = 0, 1
    message["attrs"] = [
        ["WGDEVICE_A_PRIVATE_KEY", PublicKey(bytes([9] * 32)).text],
        ["WGDEVICE_A_PUBLIC_KEY", key.text],
        ["WGDEVICE_A_LISTEN_PORT", 51820],
    ]
    message.encode()
    device = parse_device([bytes(message.data[16:])])
    assert (device.public_key, device.listen_port, device.peers) == (key, 51820, {})


def test_many_peers_take_several_messages() -> None:
    told = [
        PeerChange(PublicKey(struct.pack("=32xI", n)[4:]), True, _networks(f"fd00:{n:x}::/96")) for n in range(2000)
    ]
    messages = list(peers_attributes(told, []))
    assert len(messages) > 1
    assert all(len(message) <= MESSAGE_BYTES + 4 for message in messages)
    # Read back as if the kernel had said it: every peer is there, once.
    assert parse_device([HEADER + message for message in messages]).peers.keys() == {peer.public_key for peer in told}


def test_allowed_ips_that_fill_messages_replace_only_at_first() -> None:
    key = PublicKey(bytes(32))
    many = frozenset(AllowedIP(bytes([0xFD]) + n.to_bytes(15, "big"), 128) for n in range(2 * ALLOWED_IPS_IN_PART + 1))
    endpoint = SocketAddress(IPv4Address("192.0.2.1"), 5)
    messages = list(peers_attributes([PeerChange(key, True, many, endpoint, 25)], []))
    peers = [dict(each_attribute(peer)) for peer in _peers(messages)]
    assert [int.from_bytes(peer[3], "little") for peer in peers] == [REPLACE_ALLOWED_IPS, UPDATE_ONLY, UPDATE_ONLY]
    assert [4 in peer and 5 in peer for peer in peers] == [True, False, False]
    assert parse_device([HEADER + message for message in messages]).peers[key].allowed_ips == many


def test_a_peer_that_is_not_new_is_not_created() -> None:
    [known] = _peers(peers_attributes([PeerChange(PublicKey(bytes(32)), keepalive_s=25)], []))
    [emptied] = _peers(peers_attributes([PeerChange(PublicKey(bytes(32)), allowed_ips=frozenset())], []))
    assert attributes(known)[3] == struct.pack("=I", UPDATE_ONLY)
    assert attributes(emptied)[3] == struct.pack("=I", UPDATE_ONLY | REPLACE_ALLOWED_IPS)


@given(st.lists(changes, min_size=1, max_size=2), st.data())
def test_garbage_is_one_of_the_errors_that_are_caught(told: list[PeerChange], data: st.DataObject) -> None:
    dump = bytearray(_pyroute2_dump([_pyroute2_observed(change) for change in told]))
    for _ in range(data.draw(st.integers(1, 5))):
        dump[data.draw(st.integers(0, len(dump) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(*UNREADABLE):  # and nothing else
        parse_device([bytes(dump[: data.draw(st.integers(0, len(dump)))])])


def _networks(*texts: str) -> frozenset[AllowedIP]:
    return frozenset(AllowedIP.of(ip_network(text)) for text in texts)


def _observed(change: PeerChange) -> ObservedPeer:
    return ObservedPeer(
        change.public_key,
        change.allowed_ips or frozenset(),
        change.endpoint,
        change.keepalive_s or 0,
        preshared=fingerprint(bytes([1] * 32)),
        handshake_unix_s=1700000000.25,
        received_bytes=1 << 40,
        sent_bytes=7,
    )


def _peers(messages: Any) -> list[bytes]:
    return [peer for message in messages for _, peers in each_attribute(message) for _, peer in each_attribute(peers)]


def _pyroute2_change(change: PeerChange) -> list[Any]:
    flags = 0 if change.is_new else UPDATE_ONLY
    if change.gained_ips is not None:
        change = replace(change, allowed_ips=change.gained_ips)
    elif change.allowed_ips is not None:
        flags |= REPLACE_ALLOWED_IPS
    key = change.preshared_key
    return [
        ["WGPEER_A_PUBLIC_KEY", change.public_key.text],
        ["WGPEER_A_FLAGS", flags],
        *([] if key is None else [["WGPEER_A_PRESHARED_KEY", key.reveal_text()]]),
        *_pyroute2_state(change),
    ]


def _pyroute2_observed(change: PeerChange) -> list[Any]:
    """In the order of get_peer, drivers/net/wireguard/netlink.c."""
    return [
        ["WGPEER_A_PUBLIC_KEY", change.public_key.text],
        ["WGPEER_A_PRESHARED_KEY", PublicKey(bytes([1] * 32)).text],
        ["WGPEER_A_LAST_HANDSHAKE_TIME", {"tv_sec": 1700000000, "tv_nsec": 250000000}],
        ["WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL", change.keepalive_s or 0],
        ["WGPEER_A_TX_BYTES", 7],
        ["WGPEER_A_RX_BYTES", 1 << 40],
        ["WGPEER_A_PROTOCOL_VERSION", 1],
        *_pyroute2_state(replace(change, keepalive_s=None)),
    ]


def _pyroute2_state(change: PeerChange) -> list[Any]:
    state: list[Any] = []
    if change.endpoint is not None:
        where = {"addr": str(change.endpoint.address), "port": change.endpoint.port}
        state.append(["WGPEER_A_ENDPOINT", where])
    if change.keepalive_s is not None:
        state.append(["WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL", change.keepalive_s])
    if change.allowed_ips is not None:
        state.append(["WGPEER_A_ALLOWEDIPS", _pyroute2_allowed_ips(change.allowed_ips)])
    return state


def _pyroute2_allowed_ips(told: frozenset[AllowedIP]) -> list[Any]:
    return [
        {
            "attrs": [
                ["WGALLOWEDIP_A_CIDR_MASK", each.prefix_length],
                ["WGALLOWEDIP_A_FAMILY", AF_INET if len(each.packed) == 4 else AF_INET6],
                ["WGALLOWEDIP_A_IPADDR", each.packed],
            ]
        }
        for each in told
    ]


def _pyroute2_dump(peers: Sequence[list[Any]]) -> bytes:
    message = wgmsg()
    message["cmd"], message["version"] = 0, 1
    if peers:
        message["attrs"].append(["WGDEVICE_A_PEERS", [{"attrs": peer} for peer in peers]])
    message.encode()
    return bytes(message.data[16:])


def _without_numbers(message: bytes) -> bytes:
    """pyroute2 numbers the members of a list, `wg` and we do not, and the kernel does not look."""
    data = bytearray(message)
    _clear_numbers(data, GENERIC_HEADER.size, len(data), level=0)
    return bytes(data)


def _clear_numbers(data: bytearray, start: int, end: int, level: int) -> None:
    """Levels: 0 the device's attributes, 1 the list of peers, 2 a peer's attributes, 3 the list of AllowedIPs."""
    while start < end:
        size, kind = struct.unpack_from("=HH", data, start)
        if level in (1, 3):
            data[start + 2 : start + 4] = struct.pack("=H", 0x8000)
        if level == 1 or (level, kind & 0x3FFF) in ((0, 8), (2, 9)):
            _clear_numbers(data, start + 4, start + size, level + 1)
        start += size + 3 & ~3
