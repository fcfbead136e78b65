"""Invitations: what stands in vars, lines and documents, who is let in by one, and what the firewall lets them do."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshes import inventory, mesh
from strategies import documents, public_key
from warren.errors import DocumentRefused, InventoryError, UsageError
from warren.names import InstanceName, MachineName
from warren.network import addresses
from warren.network.document import Document, decode, encode
from warren.network.invitations import (
    KEPT_S,
    USED,
    WITHDRAWN,
    Invitation,
    guest_address,
    guests,
    invitations_text,
    parse_invitations,
)
from warren.network.resolve import resolve
from warren.network.stored import Stored
from warren.plan import admission, firewall, joining, line
from warren.plan.asking import Join, ask_join, read_question
from warren.plan.joining import Guestbook, HandIn, HandOut, No, Refusal, Wait
from warren.plan.line import Line, Way
from warren.plan.plan import plan
from warren.wireguard.endpoint import Endpoint
from warren.wireguard.keys import PrivateKey, PublicKey

VPN, SERVER1, LAPTOP1, LAPTOP2 = (
    InstanceName("vpn"),
    MachineName("server1"),
    MachineName("laptop1"),
    MachineName("laptop2"),
)
NOW_S = 1_800_000_000
NEW = public_key("laptop1")
OPEN = Invitation(LAPTOP1, public_key("one-time"), NOW_S + 3600)
EMPTY = Guestbook()

invitations = st.builds(
    Invitation,
    st.just(LAPTOP1),
    st.integers(0, 9).map(lambda number: public_key(f"guest{number}")),
    st.integers(0, 2**33),
    st.sampled_from(("", USED, WITHDRAWN)),
)


def a_document(*open_now: Invitation, key: PublicKey | None = None) -> Document:
    keys = {name: public_key(name).text for name in (SERVER1, MachineName("server2"), LAPTOP2)}
    stored = Stored(
        public_keys=keys | ({LAPTOP1: key.text} if key else {}), invitations={LAPTOP1: invitations_text(open_now)}
    )
    return resolve(inventory(mesh("server1 server2", "laptop1 laptop2")), {VPN: stored})[VPN]


def judged(document: Document, asked: Join | None = None, book: Guestbook = EMPTY, at_s: float = NOW_S) -> object:
    verdict = joining.judged(document, document.invitations[0], asked or Join(LAPTOP1, NEW), (), book, at_s)
    return verdict.reason if isinstance(verdict, No) else verdict


@given(st.lists(invitations, unique_by=lambda each: each.public_key))
def test_what_the_vars_have_is_read_back_and_comes_into_the_document(given_: list[Invitation]) -> None:
    text = invitations_text(given_)
    assert invitations_text(parse_invitations(LAPTOP1, text)) == text
    document = a_document(*given_)
    assert sorted(document.invitations, key=lambda each: each.public_key) == list(document.invitations)
    assert set(document.invitations) == set(given_)
    assert decode(encode(document)) == document


@pytest.mark.parametrize("text", ["x 1 open", f"{NEW.text} soon open", f"{NEW.text} 1", f"{NEW.text} 1 mine", "\x00"])
def test_what_is_no_invitation_is_an_error_with_its_place(text: str) -> None:
    stored = Stored(invitations={LAPTOP1: text})
    with pytest.raises(InventoryError) as caught:
        resolve(inventory(mesh("server1", "laptop1")), {VPN: stored})
    assert "laptop1/wireguard-keys-vpn/invitations" in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"machine": "server1"},
        {"machine": "nobody"},
        {"machine": "../x"},
        {"public_key": public_key("laptop2").text},
        {"closed": "perhaps"},
        {"more": 1},
        {"expires": -1},
    ],
)
def test_a_document_with_a_strange_invitation_is_refused(change: dict[str, object]) -> None:
    tree = json.loads(encode(a_document(OPEN)))
    tree["invitations"][0] |= change
    with pytest.raises(DocumentRefused):
        decode(json.dumps(tree).encode())


@given(documents())
def test_no_guest_has_an_address_that_is_a_machines(document: Document) -> None:
    for controller in document.controllers.values():
        beside = guests(controller.subnet)
        assert guest_address(controller.subnet, OPEN.public_key) in beside
        assert beside.subnet_of(controller.subnet)
        assert controller.address not in beside
        for peer in document.peers.values():
            reached = addresses.peer_range(controller.subnet, peer.suffix).network
            assert isinstance(reached, IPv6Network)
            assert not reached.overlaps(beside)


def test_controllers_have_the_one_time_key_with_one_address_and_peers_know_nothing_of_it() -> None:
    document = a_document(OPEN)
    for name, controller in document.controllers.items():
        peer = plan(document, name).peers[OPEN.public_key]
        (allowed,) = peer.allowed_ips
        assert str(allowed) == f"{guest_address(controller.subnet, OPEN.public_key)}/128"
        assert peer.endpoint is None
    assert OPEN.public_key not in plan(document, LAPTOP2).peers


def test_a_guest_may_speak_to_one_port_and_is_forwarded_nowhere() -> None:
    rules = firewall.expected(VPN, plan(a_document(OPEN), SERVER1).firewall).splitlines()
    beside = str(guests(a_document().controllers[SERVER1].subnet).network_address)
    concerned = [json.loads(each)["rule"] for each in rules if beside in each]
    verdicts = [(rule["chain"], *rule["expr"][-1], len(rule["expr"])) for rule in concerned]
    assert verdicts == [("forward", "drop", 2), ("forward", "drop", 2), ("input", "accept", 5), ("input", "drop", 3)]
    within = next(i for i, each in enumerate(rules) if '"forward"' in each and '"accept": null' in each)
    assert max(i for i, each in enumerate(rules) if beside in each and '"forward"' in each) < within
    assert beside not in firewall.expected(VPN, plan(a_document(), SERVER1).firewall)


def test_who_was_invited_waits_and_comes_in_by_the_same_key_alone() -> None:
    assert judged(a_document(OPEN)) == Wait()
    assert judged(a_document(replace(OPEN, closed=USED), key=NEW)) == HandOut()
    other = Join(LAPTOP1, public_key("somebody"))
    used = "this invitation was used already, by another key"
    assert judged(a_document(replace(OPEN, closed=USED), key=NEW), other) == used
    assert judged(a_document(OPEN, key=NEW), other) == used


def test_the_refused() -> None:
    assert judged(a_document(OPEN), Join(LAPTOP2, NEW)) == "this invitation is for another machine"
    assert judged(a_document(replace(OPEN, closed=WITHDRAWN))) == "this invitation was withdrawn"
    assert "expired at" in str(judged(a_document(OPEN), at_s=OPEN.expires_unix_s))
    assert "another machine's" in str(judged(a_document(OPEN), Join(LAPTOP1, public_key("laptop2"))))
    assert "another machine's" in str(judged(a_document(OPEN), Join(LAPTOP1, OPEN.public_key)))
    revoked = joining.judged(a_document(OPEN), OPEN, Join(LAPTOP1, NEW), [NEW], EMPTY, NOW_S)
    assert isinstance(revoked, No)
    assert "revoked for good" in revoked.reason


def test_a_key_that_came_in_time_waits_on_after_the_end_and_another_one_does_not() -> None:
    book = joining.with_hand_in(EMPTY, HandIn(OPEN.public_key, LAPTOP1, NEW, "192.0.2.1", NOW_S))
    late = OPEN.expires_unix_s + 10.0
    assert judged(a_document(OPEN), book=book, at_s=late) == Wait()
    assert "expired" in str(judged(a_document(OPEN), Join(LAPTOP1, public_key("x")), book, late))


def test_the_book_has_bounds() -> None:
    book = EMPTY
    for number in range(3000):
        key = public_key(f"key{number}")
        if judged(a_document(OPEN), Join(LAPTOP1, key), book) == Wait():
            book = joining.with_hand_in(book, HandIn(OPEN.public_key, LAPTOP1, key, "", NOW_S))
        refusal = Refusal(OPEN.public_key, LAPTOP1, f"reason {number}", "", "", NOW_S)
        book = joining.with_refusal(joining.with_refusal(book, refusal), refusal)
    assert len(book.hand_ins) == joining.MOST_KEYS
    assert len(book.refusals) == joining.MOST_REFUSALS
    assert {each.times for each in book.refusals} == {2}
    assert joining.pruned(book, ()) == EMPTY


def test_controllers_know_an_invitation_for_a_while_after_its_end() -> None:
    document = a_document(OPEN)
    assert admission.admitted(document, frozenset(), OPEN.expires_unix_s + KEPT_S - 1) is document
    assert admission.admitted(document, frozenset(), OPEN.expires_unix_s + KEPT_S).invitations == ()
    assert admission.admitted(document, frozenset([OPEN.public_key]), NOW_S).invitations == ()


def test_what_is_asked_is_read_back_and_names_are_no_paths() -> None:
    assert read_question(ask_join(LAPTOP1, NEW).rstrip(b"\n")) == Join(LAPTOP1, NEW)
    for name in ("..", "../x", "a/b", "", "-", "x" * 64):
        with pytest.raises(ValueError, match=r"name|asked"):
            read_question(f"warren 1 join {name} {NEW.text}".encode())


A_LINE = Line(
    VPN,
    LAPTOP1,
    PrivateKey(bytes(range(32))),
    (Way(NEW, Endpoint("2001:db8::1", 51820), addresses.controller_subnet(addresses.base_network(VPN), SERVER1)),),
    ('operator namespaces="warren" ssh-ed25519 AAAA',),
    NOW_S,
)


def test_a_line_is_read_back_however_it_was_broken_and_hides_its_key() -> None:
    text = line.encode(A_LINE)
    assert line.decode(f"  {text[:50]}\n {text[50:]}\n") == A_LINE
    assert A_LINE.private_key.reveal_text() not in repr(A_LINE)


@given(st.data())
def test_a_line_that_was_changed_anywhere_is_refused(data: st.DataObject) -> None:
    text = line.encode(A_LINE)
    place = data.draw(st.integers(0, len(text) - 1))
    changed = text[:place] + data.draw(st.sampled_from("AZaz09-_ .")) + text[place + 1 :]
    cut = text[: data.draw(st.integers(0, len(text) - 1))]
    for each in (changed, cut):
        with suppress(UsageError):
            assert line.decode(each) == A_LINE


@given(st.text(max_size=300))
def test_junk_is_no_line(text: str) -> None:
    for each in (text, line.START + text):
        with pytest.raises(UsageError):
            line.decode(each)
