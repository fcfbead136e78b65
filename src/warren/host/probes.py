"""Probes and signals of one mesh interface: what is sent there, and what comes back.

*Echo*: ICMPv6 echo to a controller's `::1`, which its kernel answers. *Through*: an echo request from our address in a
controller's subnet to our turning address there, hop limit 2. The controller forwards it straight back; our kernel has
no such address and drops it, but a packet socket on the interface hears it before that. *Signals*: UDP datagrams.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv6Address

from warren.errors import KernelError
from warren.host.clock import now_s
from warren.host.echo import ECHO_REQUEST, ICMP6_FILTER, ONLY_ECHO_REPLIES
from warren.host.packets import EQUAL, ETH_P_IPV6, LOAD_BYTE, LOAD_HALF, RETURN, attach, listening
from warren.names import InterfaceName

_HEADER = struct.Struct("!BBHHH")  # type, code, checksum (the kernel's), identifier, sequence number
_NONCE_BYTES = 8
_IPV6_HEADER_BYTES = 40
_TURN_HOPS = 2  # one is the controller's; should we forward for other reasons, it ends here
_MOST_AT_ONCE = 1000  # datagrams read in one go: a flood must not hold the agent up
_LONGEST_BYTES = 2048
_FLAGS = socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK


@dataclass(frozen=True, slots=True)
class Reply:
    """A probe came back. `turned_at`: our address from which it had gone out through; None: an echo, from `source`."""

    source: IPv6Address
    turned_at: IPv6Address | None
    number: int
    at_s: float


class Probes:
    """The sockets of one interface, which must be there; KernelError where one cannot be had. To be closed."""

    def __init__(self, interface: InterfaceName, signal_port: int) -> None:
        self.interface = interface
        self._signal_port = signal_port
        self._identifier = int.from_bytes(os.urandom(2))
        self._nonce = os.urandom(_NONCE_BYTES)
        self.sockets: list[socket.socket] = []
        try:
            self.index = socket.if_nametoindex(interface)
            self._echo = self._bound(socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
            self._echo.setsockopt(socket.IPPROTO_ICMPV6, ICMP6_FILTER, ONLY_ECHO_REPLIES)
            attach(self._echo, [(LOAD_HALF, 0, 0, 4), (EQUAL, 0, 1, self._identifier), _YES, _NO])
            self._through = self._bound(socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
            attach(self._through, [_NO])  # it only sends
            self._through.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, _TURN_HOPS)
            self._signals = self._bound(socket.SOCK_DGRAM, 0)
            self._signals.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            self._signals.bind(("::", signal_port))
            self._turned = listening(ETH_P_IPV6, self._turned_program(), f"tcpdump -i {interface} icmp6", interface)
            self.sockets.append(self._turned)
        except OSError as error:
            self.close()
            raise KernelError(os.strerror(error.errno or 0), command=f"ping -I {interface}") from None

    def send_echo(self, to: IPv6Address, number: int) -> None:
        with suppress(OSError):  # no key, no endpoint, no route yet: silence
            self._echo.sendto(self._request(number), (str(to), 0))

    def send_through(self, own: IPv6Address, turning: IPv6Address, number: int) -> None:
        source = (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, own.packed + struct.pack("=I", self.index))
        with suppress(OSError):
            self._through.sendmsg([self._request(number)], [source], 0, (str(turning), 0))

    def send_signal(self, to: IPv6Address, content: bytes) -> None:
        with suppress(OSError):
            self._signals.sendto(content, (str(to), self._signal_port))

    def replies(self) -> Iterator[Reply]:
        """Those that came back since."""
        at_s = now_s()
        for content, source in _received(self._echo):
            if (number := self._number(content)) is not None:
                yield Reply(source, None, number, at_s)
        for content, _ in _received(self._turned):
            packet = memoryview(content)
            if (
                len(packet) > _IPV6_HEADER_BYTES
                and (number := self._number(bytes(packet[_IPV6_HEADER_BYTES:]))) is not None
            ):
                own, turning = IPv6Address(bytes(packet[8:24])), IPv6Address(bytes(packet[24:40]))
                yield Reply(turning, own, number, at_s)

    def signals(self) -> Iterator[tuple[IPv6Address, bytes]]:
        """Source and content of the datagrams that came in since."""
        for content, source in _received(self._signals):
            yield source, content

    def is_current(self) -> bool:
        """Whether the interface is still the one that the sockets are bound to."""
        try:
            return socket.if_nametoindex(self.interface) == self.index
        except OSError:
            return False

    def _bound(self, kind: int, protocol: int) -> socket.socket:
        made = socket.socket(socket.AF_INET6, kind | _FLAGS, protocol)
        self.sockets.append(made)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self.interface.encode())
        return made

    def _request(self, number: int) -> bytes:
        return _HEADER.pack(ECHO_REQUEST, 0, 0, self._identifier, number) + self._nonce

    def _number(self, message: bytes) -> int | None:
        """The number of our own probe; None: it is none."""
        if len(message) != _HEADER.size + _NONCE_BYTES or message[_HEADER.size :] != self._nonce:
            return None
        *_, identifier, number = _HEADER.unpack_from(message)
        return int(number) if identifier == self._identifier else None

    def _turned_program(self) -> list[tuple[int, int, int, int]]:
        return [
            (LOAD_BYTE, 0, 0, 6),  # the next header
            (EQUAL, 0, 5, socket.IPPROTO_ICMPV6),
            (LOAD_BYTE, 0, 0, _IPV6_HEADER_BYTES),
            (EQUAL, 0, 3, ECHO_REQUEST),
            (LOAD_HALF, 0, 0, _IPV6_HEADER_BYTES + 4),
            (EQUAL, 0, 1, self._identifier),
            _YES,
            _NO,
        ]

    def close(self) -> None:
        for each in self.sockets:
            each.close()


_YES, _NO = (RETURN, 0, 0, 0x40000), (RETURN, 0, 0, 0)


def _received(sock: socket.socket) -> Iterator[tuple[bytes, IPv6Address]]:
    for _ in range(_MOST_AT_ONCE):
        try:
            content, source = sock.recvfrom(_LONGEST_BYTES)
        except OSError:  # nothing more; or an error of an earlier datagram, or the interface is gone: a look sees that
            return
        yield content, IPv6Address(source[0].partition("%")[0]) if sock.family == socket.AF_INET6 else _NOWHERE


_NOWHERE = IPv6Address(0)
