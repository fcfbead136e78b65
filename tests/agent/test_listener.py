"""The port that controllers answer at, against those who are slow, many, or not in the mesh; on a real kernel."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import IPv6Address

import pytest

from namespaces import in_namespace, sh
from warren.agent import listener
from warren.agent.listener import MOST_CONNECTIONS, MOST_OF_ONE, Listener
from warren.names import InterfaceName
from warren.plan import asking

pytestmark = pytest.mark.root

HERE = "fd99::1"
WHOLE = b"warren 1 newer 3\n"
LARGE = asking.hand(b"d" * 3_000_000, b"s")
MACHINES = 20


@contextmanager
def serving(answer: bytes = asking.NOTHING, interface: str = "lo") -> Iterator[list[bytes]]:
    """Listens, and steps as the agent does; what was asked."""
    addresses = [f"fd99::{number:x}:0:0" for number in range(2, MACHINES + 2)]  # each in a range of its own
    sh("; ".join(f"ip -6 addr add {each}/128 dev lo" for each in (HERE, *addresses)))
    asked: list[bytes] = []

    def answers(_: IPv6Address, line: bytes) -> bytes:
        asked.append(line)
        return answer

    made, over = Listener(InterfaceName(interface), IPv6Address(HERE), asking.PORT, answers), threading.Event()

    def loop() -> None:
        while not over.is_set():
            select.select([made], [], [], 0.02)
            made.step()

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield asked
    finally:
        over.set()
        thread.join()
        made.close()


def connected(machine: int = 2, timeout_s: float = 10.0) -> socket.socket:
    return socket.create_connection((HERE, asking.PORT), timeout_s, source_address=(f"fd99::{machine:x}:0:0", 0))


def everything(connection: socket.socket) -> bytes:
    found = b""
    while more := connection.recv(100_000):
        found += more
    return found


def is_answered(machine: int = 2) -> bool:
    with connected(machine) as connection:
        connection.sendall(WHOLE)
        try:
            return everything(connection) == asking.NOTHING
        except OSError:
            return False


def test_a_large_answer_comes_whole_to_one_who_reads_slowly() -> None:
    def body() -> None:
        with serving(LARGE), connected() as connection:
            connection.sendall(WHOLE)
            time.sleep(0.3)
            assert everything(connection) == LARGE

    in_namespace(body)


def test_a_line_may_come_in_parts_and_one_that_is_too_long_is_cut() -> None:
    def body() -> list[bytes]:
        with serving() as asked:
            for parts in ((b"warren 1 ", b"newer 3\nand more"), (b"x" * 5000,), (b"never ended",)):
                with connected() as connection:
                    for part in parts:
                        connection.sendall(part)
                        time.sleep(0.02)
                    with suppress(OSError):  # it was quicker
                        connection.shutdown(socket.SHUT_WR)
                    try:
                        assert everything(connection) == asking.NOTHING
                    except OSError:
                        assert len(b"".join(parts)) > asking.LONGEST_LINE_BYTES  # what was not read is thrown away
            return asked

    asked = in_namespace(body)
    assert asked == [b"warren 1 newer 3", b"x" * (asking.LONGEST_LINE_BYTES + 1), b"never ended"]


def test_who_says_nothing_is_let_go_and_others_are_answered_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "ASK_WITHIN_S", 0.5)

    def body() -> None:
        with serving() as asked, connected() as silent:
            assert is_answered(3)
            began = time.monotonic()
            assert everything(silent) == b""
            assert time.monotonic() - began < 5
            assert asked == [WHOLE.rstrip()]

    in_namespace(body)


def test_who_does_not_read_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "ASK_WITHIN_S", 0.3)
    monkeypatch.setattr(listener, "SLOWEST_BYTES_PER_S", 100_000_000)

    def body() -> None:
        with serving(LARGE * 5), connected() as lazy:
            lazy.sendall(WHOLE)
            time.sleep(1.5)
            with pytest.raises(ConnectionResetError):
                everything(lazy)

    in_namespace(body)


def test_one_machine_has_few_connections_and_all_together_not_many_more() -> None:
    def body() -> None:
        with serving():
            greedy = [connected(2) for _ in range(3 * MOST_OF_ONE)]
            assert not is_answered(2)
            assert is_answered(3)
            greedy += [
                connected(machine) for machine in range(3, 3 + MOST_CONNECTIONS // MOST_OF_ONE) for _ in range(4)
            ]
            assert not is_answered(MACHINES + 1)
            for each in greedy:
                each.close()
            deadline = time.monotonic() + 5
            while not is_answered(2):
                assert time.monotonic() < deadline

    in_namespace(body)


def test_what_comes_by_another_interface_is_not_heard() -> None:
    def body() -> None:
        sh("ip link add vpn type veth peer name other; ip link set vpn up")
        with serving(interface="vpn"), pytest.raises(ConnectionRefusedError):
            connected()

    in_namespace(body)
