"""Lines that machines send each other inside the tunnel: read back, or refused; never anything else."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies import documents
from warren.errors import SignalRefused
from warren.network import addresses
from warren.network.document import Document
from warren.plan import asking, redundancy, signals
from warren.plan.asking import Handed, Newer, Nothing, Refused
from warren.plan.exchange import Inputs, SayFollowed
from warren.plan.signals import Follows

serials = st.integers(0, signals.LARGEST_SERIAL)


@given(serials)
def test_a_question_is_read_back(serial: int) -> None:
    assert asking.read_question(asking.ask_newer(serial).rstrip(b"\n")) == Newer(serial)


@given(st.binary(min_size=1, max_size=2000), st.binary(min_size=1, max_size=300))
def test_an_answer_is_read_back(document: bytes, signature: bytes) -> None:
    line, _, rest = asking.hand(document, signature).partition(b"\n")
    assert asking.read_answer(line) == Handed(len(document), len(signature))
    assert rest == document + signature


@given(st.text(max_size=400))
def test_a_reason_is_one_line_that_a_terminal_bears(reason: str) -> None:
    line = asking.refuse(reason)
    assert line.count(b"\n") == 1
    assert len(line) <= asking.LONGEST_LINE_BYTES
    answer = asking.read_answer(line.rstrip(b"\n"))
    assert answer == Refused(asking.printable(reason))


def test_nothing_is_an_answer() -> None:
    assert asking.read_answer(asking.NOTHING.rstrip(b"\n")) == Nothing()


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"warren 2 newer 3",
        b"warren 1 newer",
        b"warren 1 newer -1",
        b"warren 1 newer 99999999999999999999999999",
        b"warren 1 newer \xc2\xb2",
        b"warren 1 newer 3 4",
        b"GET / HTTP/1.1",
        b"warren 1 newer " + b"1" * 300,
    ],
)
def test_what_is_no_question_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"question|asked|number|ASCII|longer"):
        asking.read_question(line)


@given(st.binary(max_size=250))
def test_whatever_comes_is_read_or_refused(line: bytes) -> None:
    for read in (asking.read_question, asking.read_answer):
        with suppress(ValueError):
            read(line)


@pytest.mark.parametrize("line", [b"document 1", b"document 0 5", b"document 99999999999 5", b"document 5 99999999"])
def test_sizes_that_nobody_has_are_refused(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"answer|number"):
        asking.read_answer(line)


@given(documents(), st.integers(0, 2**64 - 1))
def test_every_address_of_the_mesh_is_a_machines_and_those_beside_it_are_not(document: Document, low: int) -> None:
    for controller in document.controllers.values():
        assert asking.is_of_a_machine(controller.address, document)
        for peer in document.peers.values():
            assert asking.is_of_a_machine(addresses.peer_address(controller.subnet, peer.suffix), document)
        beside = IPv6Address(int(controller.subnet.network_address) | 0xFF << 64 | low)
        assert not asking.is_of_a_machine(beside, document)
    assert not asking.is_of_a_machine(IPv6Address("fe80::1"), document)


@given(st.builds(Follows, serials, st.one_of(st.none(), serials)))
def test_what_is_followed_is_read_back(follows: Follows) -> None:
    assert signals.decode_follows(signals.encode_follows(follows)) == follows


@pytest.mark.parametrize("value", ["-1", "1.0", "true", '"1"', "null", str(2**53 + 1)])
def test_what_is_no_serial_is_refused(value: str) -> None:
    with pytest.raises(SignalRefused):
        signals.decode_follows(f'{{"warren":1,"follows":{value}}}'.encode())


@given(documents(max_machines=6))
def test_who_pulls_says_what_it_follows_and_controllers_answer(document: Document) -> None:
    peers = {name: replace(each, pulls=True) for name, each in document.peers.items()}
    document = replace(document, peers=peers)
    for name in document.peers:
        (controller, *_) = document.controllers
        to = document.controllers[controller].address
        state = redundancy.begin(document, name, None, 0.0)
        state, _ = redundancy.step(state, Inputs(datagrams=((to, signals.encode_follows(Follows(7))),)), 0.0)
        assert {each: found.follows.serial for each, found in state.followed.items()} == {controller: 7}
        served = redundancy.begin(document, controller, None, 0.0)
        source = addresses.peer_address(document.controllers[controller].subnet, document.peers[name].suffix)
        served, actions = redundancy.step(
            served, Inputs(datagrams=((source, signals.encode_follows(Follows(6))),)), 0.0
        )
        assert SayFollowed(source) in actions
        assert served.followed[name].follows.serial == 6


def test_a_report_is_nothing_that_is_followed() -> None:
    assert signals.decode_follows(b'{"warren":1,"lost":[],"steady":[]}') is None
