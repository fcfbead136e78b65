"""Which preshared key is set: the other end by its document, the maker whatever the other can have, and none that it
does not hold."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshes import inventory, mesh
from plan.test_diff import NOW_S, any_machine, perform, resolved_of
from strategies import documents, public_key
from warren.fleet.plans import plan_digests
from warren.names import MachineName
from warren.network.document import Document
from warren.network.preshared import Exchange, exchanges_text
from warren.network.resolve import resolve
from warren.network.stored import Stored
from warren.plan import preshared
from warren.plan.desired import NOTHING, Desired
from warren.plan.diff import diff
from warren.plan.plan import plan
from warren.plan.preshared import NOTHING_HELD, OVERDUE_S, Held
from warren.plan.steps import SetPeers
from warren.render.commands import log_lines
from warren.wireguard.device import REJECT_AFTER_TIME_S, ObservedDevice, ObservedPeer
from warren.wireguard.preshared import NO_PRESHARED_KEY, NOBODYS, Fingerprint, fingerprint

SERVER1, SERVER2, LAPTOP1 = map(MachineName, ("server1", "server2", "laptop1"))
OLD, NEW, STAGED = fingerprint(b"old"), fingerprint(b"new"), fingerprint(b"staged")
NOTHING_SET = ObservedDevice(None, 0, {})


def document(exchange: Exchange | None = None) -> Document:
    instance = mesh("server1 server2", "laptop1 laptop2")
    texts = (
        {}
        if exchange is None
        else {LAPTOP1: exchanges_text({SERVER1: exchange}), SERVER1: exchanges_text({SERVER2: exchange})}
    )
    stored = Stored(public_keys={name: public_key(name).text for name in instance.members}, preshared=texts)
    return resolve(inventory(instance), {instance.name: stored})[instance.name]


def has(me: Desired, other: MachineName, name: Fingerprint) -> ObservedDevice:
    key = public_key(other)
    return ObservedDevice(me.public_key, 0, {key: ObservedPeer(key, me.peers[key].allowed_ips, preshared=name)})


def settled(found: Document, me: MachineName, device: ObservedDevice, held: Held, *, is_watched: bool) -> Desired:
    return preshared.settled(plan(found, me), found, device, held, is_watched=is_watched)


def test_a_document_without_any_changes_nothing() -> None:
    desired = plan(document(), LAPTOP1)
    assert settled(document(), LAPTOP1, NOTHING_SET, NOTHING_HELD, is_watched=True) == desired
    assert not desired.preshared


@pytest.mark.parametrize("is_watched", [True, False])
@pytest.mark.parametrize("now", [OLD, NEW, NO_PRESHARED_KEY, STAGED])
def test_the_end_that_did_not_make_it_goes_by_its_document(now: Fingerprint, is_watched: bool) -> None:
    found = document(Exchange(NEW, former=OLD))
    for me, other in ((SERVER1, LAPTOP1), (SERVER2, SERVER1)):
        held = {other: (OLD, NEW, STAGED)}
        desired = settled(found, me, has(plan(found, me), other, now), held, is_watched=is_watched)
        assert desired.preshared[public_key(other)] == (NEW,)


def test_the_maker_keeps_what_its_agent_has_found_to_work() -> None:
    found = document(Exchange(NEW, former=OLD))
    key, held = public_key(SERVER1), {SERVER1: (OLD, NEW, STAGED)}
    for now in (OLD, NEW, STAGED):
        device = has(plan(found, LAPTOP1), SERVER1, now)
        assert settled(found, LAPTOP1, device, held, is_watched=True).preshared[key] == (now,)
        assert settled(found, LAPTOP1, device, held, is_watched=False).preshared[key] == (NEW,)
    for strange in (NO_PRESHARED_KEY, fingerprint(b"somebody's own")):
        device = has(plan(found, LAPTOP1), SERVER1, strange)
        assert settled(found, LAPTOP1, device, held, is_watched=True).preshared[key] == (NEW,)


def test_a_maker_whose_own_key_is_another_begins_by_what_the_document_says() -> None:
    """No session is left by which what is set could be known to work."""
    key, held = public_key(SERVER1), {SERVER1: (OLD, NEW)}
    for exchange, first in ((None, NO_PRESHARED_KEY), (Exchange(NEW, former=OLD), NEW)):
        found = document(exchange)
        device = replace(has(plan(found, LAPTOP1), SERVER1, OLD), public_key=public_key("before"))
        assert settled(found, LAPTOP1, device, held, is_watched=True).preshared[key] == (first,)


def test_what_the_maker_may_try() -> None:
    held = {SERVER1: (OLD, NEW, STAGED)}

    def may_be(exchange: Exchange | None) -> tuple[Fingerprint, ...]:
        found = document(exchange)
        named = dict(preshared.of_machine(found, LAPTOP1)).get(SERVER1, (NO_PRESHARED_KEY,))
        return preshared.candidates(found, LAPTOP1, SERVER1, named, held)

    assert may_be(Exchange(OLD)) == (OLD, STAGED, NEW)
    assert may_be(Exchange(NEW, former=OLD)) == (NEW, OLD, STAGED)
    # None at all only where the document says so, in force or as the former one.
    assert may_be(Exchange(NEW, former=NO_PRESHARED_KEY)) == (NEW, NO_PRESHARED_KEY, STAGED, OLD)
    assert may_be(None) == (NO_PRESHARED_KEY, STAGED, NEW, OLD)


def test_the_next_one_to_try_comes_round() -> None:
    assert [preshared.after(each, (NEW, OLD, STAGED)) for each in (NEW, OLD, STAGED)] == [OLD, STAGED, NEW]
    assert preshared.after(NO_PRESHARED_KEY, (NEW, OLD)) == NEW


def test_a_handshake_is_overdue_before_the_session_ends() -> None:
    """All that the maker may try has its turn before: each of four once."""
    peer = ObservedPeer(public_key(SERVER1), frozenset(), handshake_unix_s=NOW_S)
    assert not preshared.is_overdue(peer, NOW_S + OVERDUE_S)
    assert preshared.is_overdue(peer, NOW_S + OVERDUE_S + 1)
    assert OVERDUE_S + 4 * 6.0 + 25 < REJECT_AFTER_TIME_S + 5  # agent.preshared.TURN_S; a keepalive comes every 25 s


def test_without_a_key_that_it_lost_it_lets_nobody_in() -> None:
    found = document(Exchange(NEW))
    desired = plan(found, LAPTOP1)
    for held in (NOTHING_HELD, {SERVER1: (OLD,)}, {SERVER2: (NEW,)}):
        left = settled(found, LAPTOP1, NOTHING_SET, held, is_watched=True)
        assert left.left_out == (SERVER1,)
        assert left.peers.keys() == desired.peers.keys() - {public_key(SERVER1)}
        assert "with server1" in preshared.lost_line(left)
    # WireGuard has it still, so it is no matter now.
    device = has(desired, SERVER1, NEW)
    left = settled(found, LAPTOP1, device, NOTHING_HELD, is_watched=True)
    assert (left.left_out, left.preshared[public_key(SERVER1)]) == ((), (NEW,))


def test_a_key_is_exchanged_without_ending_the_session_and_a_dead_one_is_begun_anew() -> None:
    found, key = document(Exchange(NEW, former=OLD)), public_key(LAPTOP1)
    desired = settled(found, SERVER1, NOTHING_SET, {LAPTOP1: (OLD, NEW), SERVER2: (NEW,)}, is_watched=True)
    made = perform(NOTHING, desired)
    assert made.device is not None
    assert made.device.peers[key].preshared == NEW
    old = made.device.peers[key]._replace(preshared=OLD, handshake_unix_s=NOW_S - 60)
    for age_s, removed in ((60, ()), (REJECT_AFTER_TIME_S + 1, (key,))):
        peers = {**made.device.peers, key: old._replace(handshake_unix_s=NOW_S - age_s)}
        seen = replace(made, device=replace(made.device, peers=peers), unix_s=NOW_S)
        [step] = diff(seen, desired, resolved_of(desired))
        assert isinstance(step, SetPeers)
        assert step.removed == removed
        assert [(each.public_key, each.preshared) for each in step.changes] == [(key, NEW)]
        assert NEW in log_lines(step, {})[-1]


@given(documents(), st.data())
def test_where_a_program_says_them_nothing_of_it_is_touched_and_new_peers_let_nobody_in(
    drawn: Document, data: st.DataObject
) -> None:
    commanded = replace(drawn, preshared_command="agreed")
    me = any_machine(drawn, data)
    assert plan(commanded, me).preshared_command == "agreed"
    desired = settled(commanded, me, NOTHING_SET, NOTHING_HELD, is_watched=True)
    made = perform(NOTHING, desired)
    assert made.device is not None
    assert {peer.preshared for peer in made.device.peers.values()} <= {NOBODYS}
    says = data.draw(st.sampled_from((NEW, NO_PRESHARED_KEY)))
    told = {key: peer._replace(preshared=says) for key, peer in made.device.peers.items()}
    seen = replace(made, device=replace(made.device, peers=told))
    assert seen.device is not None
    desired = settled(commanded, me, seen.device, NOTHING_HELD, is_watched=False)
    assert diff(seen, desired, resolved_of(desired)) == ()


def test_whether_a_program_says_them_concerns_everybody() -> None:
    before, after = (plan_digests(each) for each in (document(), replace(document(), preshared_command="agreed")))
    assert all(before[name] != after[name] for name in before)


@given(documents(), st.data())
def test_whatever_a_machine_holds_one_pass_sets_what_it_should(drawn: Document, data: st.DataObject) -> None:
    me = any_machine(drawn, data)
    choices = dict(preshared.of_machine(drawn, me))
    held = {
        other: tuple(each for each in named if each and data.draw(st.booleans())) for other, named in choices.items()
    }
    desired = preshared.settled(plan(drawn, me), drawn, NOTHING_SET, held, is_watched=data.draw(st.booleans()))
    made = perform(NOTHING, desired)
    assert made.device is not None
    for key, peer in made.device.peers.items():
        named = choices.get(desired.peer_names[key], (NO_PRESHARED_KEY,))
        assert peer.preshared == named[0]
        assert not peer.preshared or peer.preshared in held[desired.peer_names[key]]
    left_out = {name for name, named in choices.items() if named[0] and named[0] not in held[name]}
    assert set(desired.left_out) == left_out & set(plan(drawn, me).peer_names.values())
    assert diff(made, desired, resolved_of(desired)) == ()
