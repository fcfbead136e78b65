"""Open connections to measure by: a TCP stream and a train of datagrams, to be run on two machines of a lab.

    python traffic.py serve                     echoes, by TCP and UDP, on port 7000, until the end of stdin
    python traffic.py send NAME [INTERVAL]      sends numbered records every 5 ms, by both, and listens for them

On stdin of `send`, a line `START END` (CLOCK_MONOTONIC, which all machines of a lab share) asks for one of JSON: what
became of what was sent in that time. It needs nothing but the standard library.
"""

from __future__ import annotations

import itertools
import json
import os
import selectors
import socket
import struct
import sys
import time
from contextlib import suppress

PORT = 7000
INTERVAL_S = 0.005
_RECORD = struct.Struct("!QQ")  # its number, twice: half a record would be seen


def main(arguments: list[str]) -> None:
    with suppress(PermissionError):  # what is measured is silence on the network, not of the scheduler
        os.setpriority(os.PRIO_PROCESS, 0, -20)
    if arguments == ["serve"]:
        serve()
    else:
        Sender(arguments[1], *map(float, arguments[2:])).run()


def serve() -> None:
    selector = selectors.DefaultSelector()
    listener = socket.create_server(("::", PORT), family=socket.AF_INET6)
    datagrams = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    datagrams.bind(("::", PORT))
    selector.register(listener, selectors.EVENT_READ)
    selector.register(datagrams, selectors.EVENT_READ)
    selector.register(sys.stdin, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            sock = key.fileobj
            if sock is sys.stdin:
                return
            assert isinstance(sock, socket.socket)
            if sock is listener:
                connection = listener.accept()[0]
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                selector.register(connection, selectors.EVENT_READ)
            elif sock is datagrams:
                content, source = datagrams.recvfrom(2048)
                with suppress(OSError):
                    datagrams.sendto(content, source)
            elif not _echoed(sock):
                selector.unregister(sock)
                sock.close()


def _echoed(connection: socket.socket) -> bool:
    try:
        content = connection.recv(65536)
        connection.sendall(content)
    except OSError:
        return False
    return bool(content)


class Sender:
    """Both ways to one machine. Times are when an answer came in; numbers are of records."""

    def __init__(self, name: str, interval_s: float = INTERVAL_S) -> None:
        address = str(socket.getaddrinfo(name, PORT, socket.AF_INET6, socket.SOCK_STREAM)[0][4][0])
        self.stream = socket.create_connection((address, PORT), timeout=30)
        self.stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.stream.setblocking(False)
        self.datagrams = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        self.datagrams.connect((address, PORT))
        self.datagrams.setblocking(False)
        self.unsent = b""
        self.unread = b""
        self.interval_s = interval_s
        self.number = 0
        self.expected = 0
        self.broken = ""
        self.wrong = 0
        self.sent_s: list[float] = []
        self.stream_s: list[float] = []
        self.datagram_s: list[float] = []
        self.datagrams_back: set[int] = set()

    def run(self) -> None:
        selector = selectors.DefaultSelector()
        for sock in (self.stream, self.datagrams, sys.stdin):
            selector.register(sock, selectors.EVENT_READ)
        next_s = time.monotonic()
        while True:
            ready = {key.fileobj for key, _ in selector.select(max(0.0, next_s - time.monotonic()))}
            now_s = time.monotonic()
            if self.stream in ready and not self.broken:
                self._read_stream(now_s)
            if self.datagrams in ready:
                self._read_datagrams(now_s)
            if sys.stdin in ready:
                line = sys.stdin.readline()
                if not line:
                    return
                print(json.dumps(self._report(*map(float, line.split()))), flush=True)
            if now_s >= next_s:
                self._send(now_s)
                next_s = max(next_s + self.interval_s, now_s - 10 * self.interval_s)

    def _send(self, now_s: float) -> None:
        record = _RECORD.pack(self.number, self.number)
        self.sent_s.append(now_s)
        with suppress(OSError):  # nobody listens there yet, or no way is known
            self.datagrams.send(record)
        self.number += 1
        if not self.broken:
            self.unsent += record
            try:
                self.unsent = self.unsent[self.stream.send(self.unsent) :]
            except BlockingIOError:
                pass
            except OSError as error:
                self.broken = str(error)

    def _read_stream(self, now_s: float) -> None:
        try:
            content = self.stream.recv(65536)
        except BlockingIOError:
            return
        except OSError as error:
            content, self.broken = b"", str(error)
        if not content:
            self.broken = self.broken or "closed"
            self.stream.close()
            return
        self.stream_s.append(now_s)
        self.unread += content
        whole = len(self.unread) // _RECORD.size * _RECORD.size
        for first, second in _RECORD.iter_unpack(self.unread[:whole]):
            self.wrong += (first, second) != (self.expected, self.expected)
            self.expected += 1
        self.unread = self.unread[whole:]

    def _read_datagrams(self, now_s: float) -> None:
        while True:
            try:
                number, _ = _RECORD.unpack(self.datagrams.recv(2048))
            except OSError:
                return
            self.datagram_s.append(now_s)
            self.datagrams_back.add(number)

    def _report(self, start_s: float, end_s: float) -> dict[str, object]:
        sent = [number for number, at_s in enumerate(self.sent_s) if start_s <= at_s <= end_s]
        return {
            "stream_silence_s": longest_gap_s(self.stream_s, start_s, end_s),
            "train_silence_s": longest_gap_s(self.datagram_s, start_s, end_s),
            "datagrams_lost": sum(number not in self.datagrams_back for number in sent),
            "stream_behind": self.number - self.expected,  # records on their way
            "broken": self.broken,
            "bytes_wrong": self.wrong * _RECORD.size,
            "first_train_s": next((at_s for at_s in self.datagram_s if at_s >= start_s), None),
        }


def longest_gap_s(times_s: list[float], start_s: float, end_s: float) -> float:
    """Between answers, as far as the gap reaches into the window; the window's ends count as answers' times do."""
    before = max((at_s for at_s in times_s if at_s <= start_s), default=start_s)
    after = min((at_s for at_s in times_s if at_s >= end_s), default=end_s)
    within = [before, *(at_s for at_s in times_s if start_s < at_s < end_s), after]
    return max(later - earlier for earlier, later in itertools.pairwise(within))


if __name__ == "__main__":
    main(sys.argv[1:])
