"""The text of userspace implementations: read whoever wrote it, refused whatever is wrong with it."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from namespaces import drop_root, in_namespace
from warren.errors import KernelError
from warren.host import wireguard_userspace
from warren.host.wireguard_device import PeerChange
from warren.host.wireguard_userspace import UNREADABLE, UserspaceDevice, connect, parse_device
from warren.names import InterfaceName
from warren.wireguard import x25519
from warren.wireguard.device import AllowedIP, ObservedDevice, ObservedPeer
from warren.wireguard.endpoint import SocketAddress
from warren.wireguard.keys import PrivateKey, PublicKey
from warren.wireguard.preshared import fingerprint

VPN = InterfaceName("vpn")
SOCKET = Path("/run/wireguard/vpn.sock")
PRIVATE = "e84b5a6d2717c1003a13b431570353dbaca9146cf150c5f8575680feba52027a"
PRESHARED = "188515093e952f5f22e865cef3012e72f8b5f0b598ac0309d5dacce3b70fcf52"
# The answer in https://www.wireguard.com/xplatform/, whose keys these are.
FIRST, SECOND, THIRD = (
    PublicKey.fromhex("b85996fecc9c7f1fc6d2572a76eda11d59bcd20be8e543b15ce4bd85a8e75a33"),
    PublicKey.fromhex("58402e695ba1772b1cc9309755f043251ea77fdcf10fbe63989ceb7e19321376"),
    PublicKey.fromhex("662e14fd594556f522604703340351258903b64f35553763f19426ab2a515c58"),
)
SPECIFIED = f"""private_key={PRIVATE}
listen_port=12912
fwmark=0
public_key={FIRST.hex()}
preshared_key={PRESHARED}
allowed_ip=192.168.4.4/32
endpoint=[abcd:23::33%2]:51820
persistent_keepalive_interval=111
public_key={SECOND.hex()}
tx_bytes=38333
rx_bytes=2224
allowed_ip=192.168.4.6/32
last_handshake_time_sec=1700000000
last_handshake_time_nsec=500000000
endpoint=182.122.22.19:3233
public_key={THIRD.hex()}
endpoint=5.152.198.39:51820
tx_bytes=1212111
rx_bytes=1929999999
allowed_ip=192.168.4.10/32
allowed_ip=192.168.4.11/32
errno=0

"""


def networks(*texts: str) -> frozenset[AllowedIP]:
    return frozenset(AllowedIP.of(ip_network(text)) for text in texts)


def test_the_answer_of_the_specification() -> None:
    """Lines before and behind the AllowedIPs, in any order, some left out."""
    assert parse_device(SPECIFIED) == ObservedDevice(
        x25519.public_key(PrivateKey(bytes.fromhex(PRIVATE))),
        12912,
        {
            FIRST: ObservedPeer(
                FIRST,
                networks("192.168.4.4/32"),
                SocketAddress(ip_address("abcd:23::33%2"), 51820),
                keepalive_s=111,
                preshared=fingerprint(bytes.fromhex(PRESHARED)),
            ),
            SECOND: ObservedPeer(
                SECOND,
                networks("192.168.4.6/32"),
                SocketAddress(ip_address("182.122.22.19"), 3233),
                handshake_unix_s=1700000000.5,
                received_bytes=2224,
                sent_bytes=38333,
            ),
            THIRD: ObservedPeer(
                THIRD,
                networks("192.168.4.10/32", "192.168.4.11/32"),
                SocketAddress(ip_address("5.152.198.39"), 51820),
                received_bytes=1929999999,
                sent_bytes=1212111,
            ),
        },
    )


def test_devices_that_have_nothing() -> None:
    assert parse_device("errno=0\n\n") == ObservedDevice(None, 0, {})
    assert parse_device(f"private_key={'0' * 64}\nlisten_port=5\nerrno=0\n\n") == ObservedDevice(None, 5, {})
    only_a_peer = parse_device(f"public_key={FIRST.hex()}\nerrno=0\n\n")
    assert only_a_peer == ObservedDevice(None, 0, {FIRST: ObservedPeer(FIRST, frozenset())})


def test_the_public_key_follows_the_private_key() -> None:
    """Derived once for each, and told apart."""
    keys = [bytes([each]) * 32 for each in (8, 16, 8)]
    found = [parse_device(f"private_key={key.hex()}\nerrno=0\n\n").public_key for key in keys]
    assert found == [x25519.public_key(PrivateKey(key)) for key in keys]
    assert found[0] != found[1]
    assert not any(key in wireguard_userspace._derived for key in keys)


def test_the_private_key_is_not_kept() -> None:
    assert PRIVATE not in repr(parse_device(SPECIFIED))


@given(st.data())
def test_a_damaged_answer_is_read_or_refused(data: st.DataObject) -> None:
    text = list(SPECIFIED)
    for _ in range(data.draw(st.integers(1, 5))):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.sampled_from("\n=/:.[]%0x\0 ~"))
    with contextlib.suppress(*UNREADABLE):  # and nothing else
        parse_device("".join(text))


@given(st.binary())
def test_garbage_is_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(*UNREADABLE):
        parse_device(data.decode("ascii"))


def answering(*answers: bytes) -> list[bytes]:
    """Somebody behind vpn's control socket who gives these answers, one a connection, and hangs up; what he hears."""
    heard: list[bytes] = []
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(os.fspath(SOCKET))
    listening.listen()

    def answer() -> None:
        for each in answers:
            connection, _ = listening.accept()
            with connection:
                heard.append(connection.recv(1 << 16))
                connection.sendall(each)

    threading.Thread(target=answer, daemon=True).start()
    return heard


@pytest.mark.root
@pytest.mark.parametrize(
    ("answer", "message", "code"),
    [
        (b"errno=-98\n\n", "Address already in use", errno.EADDRINUSE),
        (b"errno=22\n\n", "Invalid argument", errno.EINVAL),
        (b"listen_port=5\nerrno=1\n\n", "Operation not permitted", errno.EPERM),
        (b"", "it closed the connection in the middle of its answer", 0),
        (b"listen_port=5\n", "it closed the connection in the middle of its answer", 0),
        (b"listen_port=5\n\n", "its answer does not end as an answer should", 0),
        (b"\n\n", "its answer does not end as an answer should", 0),
        (b"errno=x\n\n", "its answer does not end as an answer should", 0),
        (b"errno=--\n\n", "its answer does not end as an answer should", 0),
        (b"HTTP/1.1 400 Bad Request\r\n\r\nerrno=0\n\n", r"its answer cannot be read \(ValueError\)", 0),
        (b"private_key=\xff\nerrno=0\n\n", r"its answer cannot be read \(UnicodeDecodeError\)", 0),
        (b"listen_port=5\npublic_key=abcd\nerrno=0\n\n", r"its answer cannot be read \(ValueError\)", 0),
    ],
)
def test_bad_answers(answer: bytes, message: str, code: int) -> None:
    def check() -> None:
        answering(answer)
        with pytest.raises(KernelError, match=f"wg show vpn dump: {message}") as refused:
            UserspaceDevice(VPN).read()
        assert refused.value.code == code

    in_namespace(check)


@pytest.mark.root
def test_an_answer_that_does_not_come_is_not_awaited_for_ever() -> None:
    def check() -> None:
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listening.bind(os.fspath(SOCKET))
        listening.listen()
        wireguard_userspace.ANSWER_TIMEOUT_S = 0.1
        with pytest.raises(KernelError, match="timed out") as refused:
            UserspaceDevice(VPN).read()
        assert refused.value.code == errno.ETIMEDOUT

    in_namespace(check)


@pytest.mark.root
def test_nobody_there() -> None:
    def check() -> None:
        with pytest.raises(KernelError, match="wg show vpn dump: no userspace WireGuard answers for it") as refused:
            UserspaceDevice(VPN).read()
        assert refused.value.code == errno.ENODEV

    in_namespace(check)


@pytest.mark.root
@pytest.mark.parametrize("leave", [lambda: SOCKET.touch(), lambda: _bind_and_die()], ids=["a file", "a dead socket"])
def test_what_the_dead_left_behind_answers_for_nobody(leave: Callable[[], None]) -> None:
    def check() -> bool:
        leave()
        return connect(VPN) is None

    assert in_namespace(check)


@pytest.mark.root
def test_a_socket_that_is_closed_to_us() -> None:
    def check() -> None:
        answering(b"errno=0\n\n")
        SOCKET.chmod(0o700)
        drop_root()
        with pytest.raises(KernelError, match="mend: run this as root") as refused:
            UserspaceDevice(VPN).read()
        assert refused.value.code == errno.EACCES

    in_namespace(check)


@pytest.mark.root
def test_changes_are_said_in_one_operation_removals_first() -> None:
    def check() -> list[bytes]:
        heard = answering(b"errno=0\n\n")
        endpoint = SocketAddress(ip_address("2001:db8::1"), 51820)
        changes = [
            PeerChange(FIRST, True, networks("fd00::/96"), endpoint, 25),
            PeerChange(SECOND, allowed_ips=frozenset()),
            PeerChange(THIRD, keepalive_s=0),
            PeerChange(THIRD, allowed_ips=networks("fd00::/96", "fd01::/96"), gained_ips=networks("fd01::/96")),
        ]
        UserspaceDevice(VPN).set_peers(changes, [FIRST])
        return heard

    assert in_namespace(check) == [
        f"""set=1
public_key={FIRST.hex()}
remove=true
public_key={FIRST.hex()}
replace_allowed_ips=true
allowed_ip=fd00::/96
endpoint=[2001:db8::1]:51820
persistent_keepalive_interval=25
public_key={SECOND.hex()}
update_only=true
replace_allowed_ips=true
public_key={THIRD.hex()}
update_only=true
persistent_keepalive_interval=0
public_key={THIRD.hex()}
update_only=true
allowed_ip=fd01::/96

""".encode()
    ]


@pytest.mark.root
def test_no_change_says_nothing() -> None:
    in_namespace(UserspaceDevice(VPN).set_peers, [])  # nobody is there to hear it


def _bind_and_die() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(os.fspath(SOCKET))
        dead.listen()
