"""Whether somebody answers: ICMPv6 echo, which a kernel answers by itself, with no Warren running there."""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from collections.abc import Collection
from contextlib import suppress
from ipaddress import IPv6Address

_INTERVAL_S = 0.2
ECHO_REQUEST, ECHO_REPLY = 128, 129  # RFC 4443
ICMP6_FILTER = 1  # linux/icmpv6.h
# 256 bits, one for each type; a set bit is a type that is not wanted.
ONLY_ECHO_REPLIES = struct.pack(
    "=8I", *(0xFFFFFFFF ^ (word == ECHO_REPLY // 32) << ECHO_REPLY % 32 for word in range(8))
)


def any_answers(addresses: Collection[IPv6Address], timeout_s: float) -> bool:
    """Whether any of them answers in time; returns with the first answer."""
    request = struct.pack("!BBHHH", ECHO_REQUEST, 0, 0, os.getpid() & 0xFFFF, 0) + os.urandom(8)
    wanted = {str(address) for address in addresses}
    deadline = time.monotonic() + timeout_s
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_ICMPV6) as sock:
        sock.setsockopt(socket.IPPROTO_ICMPV6, ICMP6_FILTER, ONLY_ECHO_REPLIES)
        sock.setblocking(False)
        while wanted and (left_s := deadline - time.monotonic()) > 0:
            for address in wanted:
                with suppress(OSError):  # no route, no key, no endpoint yet
                    sock.sendto(request, (address, 0))
            if _answered(sock, wanted, request[8:], min(_INTERVAL_S, left_s)):
                return True
    return False


def _answered(sock: socket.socket, wanted: set[str], payload: bytes, patience_s: float) -> bool:
    deadline = time.monotonic() + patience_s
    while (left_s := deadline - time.monotonic()) > 0:
        if select.select([sock], [], [], left_s)[0]:
            with suppress(OSError):
                reply, (source, *_) = sock.recvfrom(1500)
                if source in wanted and reply[8:] == payload:
                    return True
    return False
