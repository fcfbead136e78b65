"""A TCP port inside the tunnel, served from the agent's loop: one short line in, one answer out, and the end.

Whoever asks is a machine of the mesh, and may be a stolen one. So: nobody is waited for, every size, time and number
has a bound, and the line is read by `plan.asking` alone. The socket is bound to the interface and address of the mesh:
nothing that came in by another interface reaches it, whatever address it was sent to.
"""

from __future__ import annotations

import os
import selectors
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from typing import TypeAlias

from warren.errors import KernelError
from warren.host.clock import now_s
from warren.names import InterfaceName
from warren.plan import asking

MOST_CONNECTIONS = 64
MOST_OF_ONE = 4  # machine
ASK_WITHIN_S = 5.0
SLOWEST_BYTES_PER_S = 10_000
_BACKLOG = 64
_MOST_AT_ONCE = 16  # accepted or sent in one go, before others have their turn
_CHUNK_BYTES = 64 * 1024
_FOREVER = float("inf")

Answers: TypeAlias = Callable[[IPv6Address, bytes], bytes]
"""What to answer to a line of that machine."""


@dataclass(slots=True)
class _Connection:
    """`answer` is empty while the line is read."""

    socket: socket.socket
    source: IPv6Address
    end_s: float
    line: bytes = b""
    answer: memoryview = field(default_factory=lambda: memoryview(b""))
    sent: int = 0


class Listener:
    """Readable when there is something to do. `due_s`: when to step anyway. To be closed."""

    def __init__(self, interface: InterfaceName, address: IPv6Address, port: int, answers: Answers) -> None:
        self.interface = interface
        self.address = address
        self.due_s = _FOREVER
        self._answers = answers
        self._connections: dict[int, _Connection] = {}
        self._selector = selectors.EpollSelector()
        self._socket = socket.socket(socket.AF_INET6, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            self.index = socket.if_nametoindex(interface)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind((str(address), port))
            self._socket.listen(_BACKLOG)
        except OSError as error:
            self.close()
            command = f"listen on TCP port {port} of {address}, {interface}"
            raise KernelError(os.strerror(error.errno or 0), command=command) from None
        self._selector.register(self._socket, selectors.EVENT_READ)

    def fileno(self) -> int:
        return self._selector.fileno()

    def is_current(self, interface: InterfaceName, address: IPv6Address) -> bool:
        """Whether the interface is still the one that the socket is bound to."""
        try:
            return (self.interface, self.address) == (interface, address) and (
                socket.if_nametoindex(interface) == self.index
            )
        except OSError:
            return False

    def step(self) -> None:
        """Do what can be done without waiting for anybody."""
        for key, _ in self._selector.select(0):
            if key.fd == self._socket.fileno():
                self._accept()
            elif (each := self._connections.get(key.fd)) is not None:
                self._go_on(each)
        at_s = now_s()
        for each in [each for each in self._connections.values() if each.end_s <= at_s]:
            # Without this the kernel would go on sending what is left, for as long as the other side likes.
            each.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._end(each)
        self.due_s = min((each.end_s for each in self._connections.values()), default=_FOREVER)

    def close(self) -> None:
        for each in list(self._connections.values()):
            self._end(each)
        self._selector.close()
        self._socket.close()

    def _accept(self) -> None:
        for _ in range(_MOST_AT_ONCE):
            try:
                connection, (host, *_) = self._socket.accept()
            except OSError:  # nobody waits, or no more descriptors: they wait
                return
            source = IPv6Address(host.partition("%")[0])
            theirs = sum(asking.is_same_machine(each.source, source) for each in self._connections.values())
            if len(self._connections) >= MOST_CONNECTIONS or theirs >= MOST_OF_ONE:
                connection.close()
                continue
            connection.setblocking(False)
            self._connections[connection.fileno()] = _Connection(connection, source, now_s() + ASK_WITHIN_S)
            self._selector.register(connection, selectors.EVENT_READ)

    def _go_on(self, each: _Connection) -> None:
        try:
            self._send(each) if each.answer else self._read(each)
        except BlockingIOError:
            pass
        except OSError:
            self._end(each)

    def _read(self, each: _Connection) -> None:
        more = each.socket.recv(asking.LONGEST_LINE_BYTES + 1 - len(each.line))
        each.line += more
        line, end, _ = each.line.partition(b"\n")
        if not end and more and len(each.line) <= asking.LONGEST_LINE_BYTES:
            return
        # One that ended or is too long is answered, too: who made a mistake learns which.
        each.answer = memoryview(self._answers(each.source, line))
        each.end_s = now_s() + ASK_WITHIN_S + len(each.answer) / SLOWEST_BYTES_PER_S
        self._selector.modify(each.socket, selectors.EVENT_WRITE)
        self._send(each)

    def _send(self, each: _Connection) -> None:
        for _ in range(_MOST_AT_ONCE):
            each.sent += each.socket.send(each.answer[each.sent : each.sent + _CHUNK_BYTES])
            if each.sent >= len(each.answer):
                self._end(each)
                return

    def _end(self, each: _Connection) -> None:
        self._connections.pop(each.socket.fileno(), None)
        with suppress(OSError, KeyError, ValueError):
            self._selector.unregister(each.socket)
        # What is still unread would have the kernel throw away what the other side did not read yet.
        with suppress(OSError):
            each.socket.shutdown(socket.SHUT_WR)
            each.socket.recv(_CHUNK_BYTES, socket.MSG_DONTWAIT)
        each.socket.close()
