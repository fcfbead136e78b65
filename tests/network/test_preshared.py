"""Which pairs there are and who makes their keys; the vars' text of how far each is."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies import documents, machine_names
from warren.names import MachineName
from warren.network.document import Document
from warren.network.preshared import Exchange, Pair, exchanges_text, is_maker, pairs, parse_exchanges
from warren.plan.plan import plan
from warren.wireguard.preshared import NO_PRESHARED_KEY, fingerprint

FIRST, SECOND = fingerprint(b"1"), fingerprint(b"2")

names = st.sampled_from((NO_PRESHARED_KEY, FIRST, SECOND))
exchanges = st.builds(Exchange, names, st.none() | names, st.none() | names)


@given(st.dictionaries(machine_names, exchanges, max_size=5))
def test_a_text_says_what_it_was_written_from(found: dict[MachineName, Exchange]) -> None:
    text = exchanges_text(found)
    assert parse_exchanges(text) == {name: each for name, each in found.items() if not each.is_nothing}
    assert exchanges_text(parse_exchanges(text)) == text


def test_how_a_text_reads() -> None:
    text = f"server1 {FIRST}\nserver2 {FIRST} next {SECOND}\nserver3 - former {FIRST}"
    assert parse_exchanges(text) == {
        MachineName("server1"): Exchange(FIRST),
        MachineName("server2"): Exchange(FIRST, next=SECOND),
        MachineName("server3"): Exchange(NO_PRESHARED_KEY, former=FIRST),
    }


@pytest.mark.parametrize(
    "text",
    [
        "server1",
        "server1 12",
        f"server1 {FIRST.upper()}",
        f"server1 {FIRST} next",
        f"server1 {FIRST} later {SECOND}",
        f"server1 {FIRST} next {SECOND} next {FIRST}",
        f"-server1 {FIRST}",
        f"server1 {FIRST}\nserver1 {SECOND}",
        f"server1 {FIRST} next {SECOND} former - more",
    ],
)
def test_another_text_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="is no"):
        parse_exchanges(text)


def test_the_pairs_of_a_mesh() -> None:
    peer, one, two = map(MachineName, ("a", "s1", "s2"))
    assert list(pairs([two, one], [peer])) == [Pair(one, two), Pair(peer, one), Pair(peer, two)]


@given(documents())
def test_pairs_are_who_is_whose_wireguard_peer_and_one_end_of_each_makes_the_key(document: Document) -> None:
    found = set(pairs(document.controllers, document.peers))
    speaking = {
        frozenset((name, other))
        for name in (*document.controllers, *document.peers)
        for other in plan(document, name).peer_names.values()
    }
    assert {frozenset(pair) for pair in found} == speaking
    assert len(found) == len(speaking)
    for one, other in combinations(sorted({*document.controllers, *document.peers}), 2):
        if frozenset((one, other)) in speaking:
            maker = one if is_maker(one, other, document.controllers) else other
            assert is_maker(one, other, document.controllers) != is_maker(other, one, document.controllers)
            assert {each.maker for each in found if set(each) == {one, other}} == {maker}
