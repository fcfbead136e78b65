"""Who reaches whom, by name: ICMPv6 from inside each machine, to all of its targets at once.

One child for each machine; it reads names from the machine's own hosts file, since that is what Warren writes.
"""

from __future__ import annotations

import os
import select
import selectors
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from warren.lab.place import Place, fork_into, reap
from warren.names import InstanceName, MachineName

HOP_LIMIT = 64  # what replies start with (net.ipv6.conf.*.hop_limit)
FIRST_INTERVAL_S = 0.05
LONGEST_INTERVAL_S = 0.5
_INTERVAL_GROWTH = 1.5

_ECHO_REQUEST, _ECHO_REPLY = 128, 129  # RFC 4443
_ICMP6_FILTER = 1  # linux/icmpv6.h
# 256 bits, one for each type; a set bit is a type that is not wanted.
_ONLY_ECHO_REPLIES = struct.pack(
    "=8I", *(0xFFFFFFFF ^ (word == _ECHO_REPLY // 32) << _ECHO_REPLY % 32 for word in range(8))
)


@dataclass(frozen=True, slots=True)
class Pair:
    """One direction between two machines of an instance, by the name that the source knows the target by."""

    instance: InstanceName
    source: MachineName
    target: MachineName
    name: str


@dataclass(frozen=True, slots=True)
class Answer:
    """`hops`: WireGuard tunnels crossed by the reply: 1 to or from a controller, 2 through one."""

    pair: Pair
    rtt_ms: float | None = None
    hops: int | None = None
    problem: str = ""

    @property
    def ok(self) -> bool:
        return self.rtt_ms is not None


def measure(
    places: Mapping[MachineName, Place],
    pairs: Sequence[Pair],
    timeout_s: float,
    answered: Callable[[Answer], object] = bool,
) -> list[Answer]:
    """Every pair's answer, in the order of `pairs`; a machine without a place is dead and asks nobody.

    A pair that does not answer is asked again until the time is over; `answered` is told of each as it comes.
    """
    by_source: dict[MachineName, list[Pair]] = {}
    for pair in pairs:
        by_source.setdefault(pair.source, []).append(pair)
    answers: dict[Pair, Answer] = {}
    children = [_Child(places[source], asked, timeout_s) for source, asked in by_source.items() if source in places]
    for answer in _answers(children):
        answers[answer.pair] = answer
        answered(answer)
    return [answers.get(pair, Answer(pair, problem=f"{pair.source} is not running")) for pair in pairs]


def _answers(children: Iterable[_Child]) -> Iterator[Answer]:
    """What the children find, as it comes."""
    with selectors.DefaultSelector() as selector:
        for child in children:
            selector.register(child.reader, selectors.EVENT_READ, child)
        while selector.get_map():
            for key, _ in selector.select():
                yield from key.data.answers()
                if key.data.reader.closed:
                    selector.unregister(key.fileobj)


class _Child:
    """A fork inside a machine, which writes a line for each of its pairs: index, milliseconds, hops, problem."""

    def __init__(self, place: Place, pairs: Sequence[Pair], timeout_s: float) -> None:
        self.pairs = pairs
        reader, writer = os.pipe()
        self.pid = fork_into(place)
        if self.pid == 0:
            os.close(reader)
            _ask(writer, [pair.name for pair in pairs], timeout_s)
            os._exit(0)
        os.close(writer)
        self.reader = os.fdopen(reader, "rb", buffering=0)
        self._rest = b""

    def answers(self) -> Iterator[Answer]:
        """What has come since the last call; the reader is closed at the end."""
        data = self.reader.read(65536)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            index, rtt_ms, hops, problem = line.decode().split(" ", 3)
            pair = self.pairs[int(index)]
            yield Answer(pair, problem=problem) if problem else Answer(pair, float(rtt_ms), int(hops))
        if not data:
            self.reader.close()
            reap(self.pid)


def _ask(writer: int, names: Sequence[str], timeout_s: float) -> None:
    """Send an echo request to every name that has not answered, again and again, less often with time."""
    deadline = time.monotonic() + timeout_s
    interval_s = FIRST_INTERVAL_S
    asker = _Asker(names)
    while asker.open and time.monotonic() < deadline:
        asker.send()
        next_round = min(deadline, time.monotonic() + interval_s)
        for index, rtt_ms, hops in asker.receive(next_round):
            os.write(writer, f"{index} {rtt_ms:.3f} {hops} \n".encode())
        interval_s = min(LONGEST_INTERVAL_S, interval_s * _INTERVAL_GROWTH)
    for index, problem in asker.open.items():
        os.write(writer, f"{index} 0 0 {problem}\n".encode())


class _Asker:
    """One raw socket (datagram ICMP sockets are closed in new namespaces) and what is still open."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self.open = dict.fromkeys(range(len(names)), "no answer")
        self._sent: dict[int, tuple[int, float]] = {}  # sequence number -> index, time
        self._identifier = os.getpid() & 0xFFFF
        self._sequence = 0
        self._socket = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        self._socket.setsockopt(socket.IPPROTO_ICMPV6, _ICMP6_FILTER, _ONLY_ECHO_REPLIES)
        self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)

    def send(self) -> None:
        addresses = _hosts()
        for index in self.open:
            address = addresses.get(self.names[index])
            if address is None:
                self.open[index] = "the name is not known"
                continue
            self._sequence = (self._sequence + 1) & 0xFFFF
            packet = struct.pack("!BBHHH", _ECHO_REQUEST, 0, 0, self._identifier, self._sequence)
            self._sent[self._sequence] = index, time.monotonic()
            try:
                self._socket.sendto(packet, (address, 0))  # the kernel fills in the checksum
                self.open[index] = "no answer"
            except OSError as error:
                self.open[index] = (error.strerror or "cannot be sent").lower()

    def receive(self, until: float) -> Iterator[tuple[int, float, int]]:
        """First answers until then: index, milliseconds, hops."""
        while self.open and (left_s := until - time.monotonic()) > 0:
            if not select.select([self._socket], [], [], left_s)[0]:
                return
            packet, ancillary, _, _ = self._socket.recvmsg(64, socket.CMSG_SPACE(4))
            now = time.monotonic()
            _, _, _, identifier, sequence = struct.unpack_from("!BBHHH", packet)
            index, sent = self._sent.get(sequence, (-1, 0.0))
            if identifier == self._identifier and index in self.open:
                del self.open[index]
                yield index, (now - sent) * 1000, HOP_LIMIT - _hop_limit(ancillary) + 1


def _hop_limit(ancillary: list[tuple[int, int, bytes]]) -> int:
    for level, kind, data in ancillary:
        if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_HOPLIMIT):
            return int(struct.unpack("i", data)[0])
    return HOP_LIMIT


def _hosts() -> dict[str, str]:
    """IPv6 addresses by name, the first line for a name first, as the C library reads the file."""
    addresses: dict[str, str] = {}
    for line in Path("/etc/hosts").read_text(errors="replace").splitlines():
        address, *names = line.partition("#")[0].split() or [""]
        if ":" in address:
            for name in names:
                addresses.setdefault(name, address)
    return addresses
