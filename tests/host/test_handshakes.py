"""Messages of handshakes are noticed as they come in, and nothing else is."""

from __future__ import annotations

import select
import socket
import struct

import pytest

from namespaces import in_namespace, sh
from warren.host.handshakes import Handshakes

pytestmark = pytest.mark.root

INITIATION, RESPONSE, COOKIE, DATA = (bytes([kind, 0, 0, 0]) + bytes(88) for kind in (1, 2, 3, 4))


def noticed(family: socket.AddressFamily, content: bytes) -> bool:
    """Whether a datagram that comes in with this content is."""

    def look() -> bool:
        sh("ip link set lo up")
        host = "127.0.0.1" if family == socket.AF_INET else "::1"
        with Handshakes() as handshakes, socket.socket(family, socket.SOCK_DGRAM) as receiver:
            receiver.bind((host, 0))
            with socket.socket(family, socket.SOCK_DGRAM) as sender:
                handshakes.drain()
                sender.sendto(content, receiver.getsockname())
            receiver.recv(200)  # so it has passed all who listen
            readable = bool(select.select(handshakes.sockets, [], [], 0)[0])
            assert handshakes.drain() == readable
            assert not select.select(handshakes.sockets, [], [], 0)[0]
            return readable

    return in_namespace(look)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_first_and_second_message_of_a_handshake_are_noticed(family: socket.AddressFamily) -> None:
    assert noticed(family, INITIATION)
    assert noticed(family, RESPONSE)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_what_is_no_handshake_is_not(family: socket.AddressFamily) -> None:
    assert not noticed(family, COOKIE)
    assert not noticed(family, DATA)
    assert not noticed(family, b"")
    assert not noticed(family, struct.pack(">HHI", 1, 1, 0x01000000))


def test_a_later_fragment_is_none_whatever_it_looks_like() -> None:
    """There are no ports and no type in it, only bytes from the middle of something."""
    assert not noticed(socket.AF_INET, bytes(3000) + INITIATION)
