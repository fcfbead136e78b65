"""WireGuard devices of userspace implementations, by their control socket.

Its language is text: the cross-platform userspace implementation, "UAPI" (https://www.wireguard.com/xplatform/).
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from ipaddress import IPv4Address, IPv6Address
from itertools import chain
from pathlib import Path
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from typing import TypeAlias

from warren.errors import KernelError
from warren.host.netlink import refusal
from warren.host.wireguard_device import KEY_IN_COMMAND, PeerChange, paused_collector, peers_command
from warren.names import InterfaceName
from warren.wireguard import x25519
from warren.wireguard.device import AllowedIP, ObservedDevice, ObservedPeer
from warren.wireguard.endpoint import SocketAddress
from warren.wireguard.keys import KEY_BYTES, PrivateKey, PublicKey
from warren.wireguard.preshared import NO_PRESHARED_KEY, Fingerprint, fingerprint

# The first is the specified one; they differ where /var/run is no link to /run.
SOCKET_FOLDERS = (Path("/var/run/wireguard"), Path("/run/wireguard"))
ANSWER_TIMEOUT_S = 20.0  # 10,000 new peers keep wireguard-go busy for a second, on a slow machine for several
SEND_BYTES, RECEIVE_BYTES = 1 << 16, 1 << 20
UNREADABLE = (ValueError, LookupError, OSError)  # what `parse_device` raises

_NO_KEY = "0" * 64
_PREFIX_LENGTHS = {str(length): length for length in range(129)}

# endpoint, keepalive, preshared key's fingerprint, handshake, received, sent: of ObservedPeer, behind its AllowedIPs
_State: TypeAlias = tuple[SocketAddress | None, int, Fingerprint, float, int, int]

# The classes themselves would each time run a Python function, which costs more than all the rest of making one.
_allowed_ip: Callable[[tuple[bytes, int]], AllowedIP] = partial(tuple.__new__, AllowedIP)
_public_key: Callable[[bytes], PublicKey] = partial(bytes.__new__, PublicKey)
_observed_peer: Callable[[tuple[object, ...]], ObservedPeer] = partial(tuple.__new__, ObservedPeer)


@dataclass(frozen=True, slots=True)
class UserspaceDevice:
    interface: InterfaceName

    def read(self) -> ObservedDevice:
        command = f"wg show {self.interface} dump"
        answer = _ask(self.interface, ["get=1\n\n"], command)
        try:
            with paused_collector():
                return parse_device(answer.decode("ascii"))
        except UNREADABLE as error:
            # Of what cannot be read nothing is shown: there are keys in it.
            raise KernelError(f"its answer cannot be read ({type(error).__name__})", command=command) from None

    def set_private_key(self, key: PrivateKey) -> None:
        command = f"wg set {self.interface} private-key {KEY_IN_COMMAND}"
        _ask(self.interface, [f"set=1\nprivate_key={key.reveal().hex()}\n\n"], command)

    def set_listen_port(self, port: int) -> None:
        command = f"wg set {self.interface} listen-port {port}"
        _ask(self.interface, [f"set=1\nlisten_port={port}\n\n"], command)

    def set_peers(self, changes: Sequence[PeerChange], removed: Sequence[PublicKey] = ()) -> None:
        if not changes and not removed:
            return
        removals = (f"public_key={key.hex()}\nremove=true\n" for key in removed)
        texts = chain(["set=1\n"], removals, map(_change_text, changes), ["\n"])
        _ask(self.interface, texts, peers_command(self.interface, changes, removed))


def connect(interface: InterfaceName) -> socket.socket | None:
    """A connection to whoever answers for the interface; None: nobody does, though a dead one's socket may be there."""
    for path in socket_paths(interface):
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        connection.settimeout(ANSWER_TIMEOUT_S)
        try:
            connection.connect(os.fspath(path))
        except OSError as error:
            connection.close()
            if error.errno in (errno.ENOENT, errno.ECONNREFUSED, errno.ENOTSOCK):
                continue
            raise refusal(f"wg show {interface}", error.errno or errno.ETIMEDOUT) from None
        return connection
    return None


def socket_paths(interface: InterfaceName) -> Iterator[Path]:
    """Where the interface's control socket may be."""
    return (folder / f"{interface}.sock" for folder in SOCKET_FOLDERS)


def parse_device(text: str) -> ObservedDevice:
    """What `get=1` answered; one of UNREADABLE where that is not what the specification says."""
    if text.startswith("public_key="):  # the device has neither key nor port
        text = f"\n{text}"
    head, *chunks = text.split("\npublic_key=")
    device = dict(_lines(head))
    others: list[str] = []  # of each peer: its key and all lines but the AllowedIPs
    counts: list[int] = []  # of its AllowedIPs
    allowed_texts: list[str] = []
    for chunk in chunks:
        own, *allowed = chunk.split("\nallowed_ip=")
        if allowed and "\n" in allowed[-1]:  # some implementations write other lines behind the AllowedIPs
            allowed[-1], _, rest = allowed[-1].partition("\n")
            own = f"{own}\n{rest}"
        others.append(own)
        counts.append(len(allowed))
        allowed_texts += allowed
    allowed_ips = _allowed_ips(allowed_texts)
    states = _States()
    peers: dict[PublicKey, ObservedPeer] = {}
    start = 0
    for key, own, count in zip(_public_keys([own[:64] for own in others]), others, counts, strict=True):
        peers[key] = _observed_peer((key, frozenset(allowed_ips[start : start + count]), *states[own[64:]]))
        start += count
    private = device.get("private_key", _NO_KEY)
    return ObservedDevice(
        public_key=None if private == _NO_KEY else _public_key_of(PrivateKey(bytes.fromhex(private))),
        listen_port=int(device.get("listen_port", 0)),
        peers=peers,
    )


_derived: dict[bytes, PublicKey] = {}  # by a hash of the private key, which is not kept
_MOST_DERIVED = 100


def _public_key_of(private_key: PrivateKey) -> PublicKey:
    """The device's, which tells the private one alone. Deriving it at each look was most of an agent's work at rest."""
    digest = sha256(private_key.reveal()).digest()
    if digest not in _derived:
        if len(_derived) >= _MOST_DERIVED:
            _derived.clear()
        _derived[digest] = x25519.public_key(private_key)
    return _derived[digest]


class _States(dict[str, _State]):
    """Lines of a peer -> what they say. Peers that never spoke have the same lines, and a fleet has many of these."""

    def __missing__(self, lines: str) -> _State:
        fields = dict(_lines(lines))
        endpoint = fields.get("endpoint")
        state = self[lines] = (
            _endpoint(endpoint) if endpoint else None,
            int(fields.get("persistent_keepalive_interval", 0)),
            _fingerprint(fields.get("preshared_key", _NO_KEY)),
            int(fields.get("last_handshake_time_sec", 0)) + int(fields.get("last_handshake_time_nsec", 0)) / 1e9,
            int(fields.get("rx_bytes", 0)),
            int(fields.get("tx_bytes", 0)),
        )
        return state


def _fingerprint(text: str) -> Fingerprint:
    return NO_PRESHARED_KEY if text == _NO_KEY else fingerprint(bytes.fromhex(text))


def _lines(text: str) -> list[list[str]]:
    """Key and value of each line; `dict` refuses one without `=`."""
    return [line.split("=", 1) for line in text.split("\n") if line]


def _allowed_ips(texts: list[str]) -> list[AllowedIP]:
    """All at once, in steps that run outside Python's own loop: there are 40,000 where 10,000 peers have four each."""
    if not texts:
        return []
    addresses, _, lengths = zip(*[text.partition("/") for text in texts], strict=True)
    families = [AF_INET6 if ":" in address else AF_INET for address in addresses]
    packed = map(inet_pton, families, addresses)
    pairs = zip(packed, map(_PREFIX_LENGTHS.__getitem__, lengths), strict=True)
    return list(map(_allowed_ip, pairs))


def _public_keys(texts: list[str]) -> list[PublicKey]:
    raw = list(map(bytes.fromhex, texts))
    if any(len(each) != KEY_BYTES for each in raw):
        raise ValueError("a key that is none")
    return list(map(_public_key, raw))


def _endpoint(text: str) -> SocketAddress:
    host, _, port = text.rpartition(":")
    if host.startswith("["):
        return SocketAddress(IPv6Address(host.strip("[]")), int(port))
    return SocketAddress(IPv4Address(inet_pton(AF_INET, host)), int(port))


def _change_text(change: PeerChange) -> str:
    lines = [f"public_key={change.public_key.hex()}"]
    if not change.is_new:
        lines.append("update_only=true")
    if change.preshared_key is not None:
        lines.append(f"preshared_key={change.preshared_key.reveal().hex()}")
    if change.allowed_ips is not None and change.gained_ips is None:
        lines.append("replace_allowed_ips=true")
    lines += [
        f"allowed_ip={inet_ntop(AF_INET if len(packed) == 4 else AF_INET6, packed)}/{prefix_length}"
        for packed, prefix_length in (change.allowed_ips if change.gained_ips is None else change.gained_ips) or ()
    ]
    if change.endpoint is not None:
        lines.append(f"endpoint={change.endpoint}")
    if change.keepalive_s is not None:
        lines.append(f"persistent_keepalive_interval={change.keepalive_s}")
    return "\n".join(lines) + "\n"


def _ask(interface: InterfaceName, texts: Iterable[str], command: str) -> bytearray:
    """Say `texts`; returns the whole answer, whose last line says that all went well."""
    connection = connect(interface)
    if connection is None:
        raise KernelError("no userspace WireGuard answers for it", command=command, code=errno.ENODEV)
    try:
        with connection:
            _send(connection, texts)
            answer = _receive(connection, command)
    except OSError as error:
        raise refusal(command, error.errno or errno.ETIMEDOUT) from None
    code = _error_number(answer, command)
    if code:
        raise refusal(command, code)
    return answer


def _send(connection: socket.socket, texts: Iterable[str]) -> None:
    """Piece by piece: what was said is worked on while the rest is still being written."""
    # Whoever finds a mistake says so and listens no longer; what he said is still there to be read.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError), connection.makefile("wb", SEND_BYTES) as stream:
        stream.writelines(map(str.encode, texts))


def _receive(connection: socket.socket, command: str) -> bytearray:
    answer = bytearray()
    while not answer.endswith(b"\n\n"):
        part = connection.recv(RECEIVE_BYTES)
        if not part:
            raise KernelError("it closed the connection in the middle of its answer", command=command)
        answer += part
    return answer


def _error_number(answer: bytearray, command: str) -> int:
    """What the closing `errno=` line says; wireguard-go writes the number negative."""
    name, _, number = answer[answer.rfind(b"\n", 0, -2) + 1 : -2].partition(b"=")
    if name != b"errno" or not number.lstrip(b"-").isdigit():
        raise KernelError("its answer does not end as an answer should", command=command)
    return abs(int(number))
