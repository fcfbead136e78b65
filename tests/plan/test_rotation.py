"""Of a machine's two keys the one that speaks has what is the machine's: told by handshakes, moved without a gap."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshes import inventory, mesh
from plan.simulation import after
from plan.test_diff import NOW_S, address_of, any_machine, perform, resolved_of
from strategies import documents, public_key
from warren.names import MachineName
from warren.network.document import Document, decode, encode
from warren.network.resolve import resolve
from warren.network.stored import Stored
from warren.plan import rotation
from warren.plan.desired import NOTHING, Desired, Observed
from warren.plan.diff import diff
from warren.plan.plan import plan
from warren.plan.steps import SetPeers, SetPrivateKey
from warren.wireguard.device import ObservedDevice
from warren.wireguard.keys import PublicKey

SERVER1, SERVER2, LAPTOP1 = map(MachineName, ("server1", "server2", "laptop1"))
OLD, NEW = public_key("server1"), public_key("server1", "next")
HEARD_S = NOW_S - 60


def document(rotated: MachineName = SERVER1) -> Document:
    instance = mesh("server1 server2", "laptop1 laptop2")
    stored = Stored(
        public_keys={name: public_key(name).text for name in instance.members},
        next_keys={rotated: public_key(rotated, "next").text},
    )
    return resolve(inventory(instance), {instance.name: stored})[instance.name]


def staged(me: MachineName = LAPTOP1, rotated: MachineName = SERVER1) -> tuple[Desired, Observed]:
    """A machine that has learned another one's next key, and speaks with all by the old ones."""
    desired = plan(document(rotated), me)
    made = replace(perform(NOTHING, desired), unix_s=NOW_S)
    for key in desired.peers.keys() - desired.second_keys.values():
        made = with_handshake(made, key, HEARD_S)
    return desired, replace(perform(made, desired), unix_s=NOW_S)


def with_handshake(seen: Observed, key: PublicKey, unix_s: float, received_bytes: int = 0) -> Observed:
    device = device_of(seen)
    peer = device.peers[key]._replace(handshake_unix_s=unix_s, received_bytes=received_bytes)
    return replace(seen, device=replace(device, peers={**device.peers, key: peer}))


def device_of(seen: Observed) -> ObservedDevice:
    assert seen.device is not None
    return seen.device


def holds(seen: Observed, key: PublicKey) -> bool:
    return bool(device_of(seen).peers[key].allowed_ips)


def test_the_staged_key_is_accepted_and_says_nothing() -> None:
    desired, seen = staged()
    assert (holds(seen, OLD), holds(seen, NEW)) == (True, False)
    assert device_of(seen).peers[NEW].keepalive_s == 0
    assert device_of(seen).peers[NEW].endpoint == device_of(seen).peers[OLD].endpoint
    assert desired.peer_names[NEW] == SERVER1
    assert diff(seen, desired, resolved_of(desired)) == ()


def test_a_handshake_by_the_staged_key_moves_everything_to_it() -> None:
    desired, seen = staged()
    before = device_of(seen).peers[OLD]
    seen = perform(with_handshake(seen, NEW, NOW_S - 1), desired)
    assert device_of(seen).peers[NEW].allowed_ips == before.allowed_ips
    assert device_of(seen).peers[NEW].keepalive_s == before.keepalive_s
    assert (holds(seen, OLD), device_of(seen).peers[OLD].keepalive_s) == (False, 0)
    assert diff(seen, desired, resolved_of(desired)) == ()


def test_a_machine_that_goes_back_to_its_old_key_is_followed_too() -> None:
    desired, seen = staged()
    seen = perform(with_handshake(seen, NEW, NOW_S - 2), desired)
    seen = perform(with_handshake(seen, OLD, NOW_S - 1), desired)
    assert (holds(seen, OLD), holds(seen, NEW)) == (True, False)


def test_who_gains_comes_before_who_loses() -> None:
    """In between nobody would have the AllowedIPs, and packets would be refused."""
    desired, seen = staged()
    (step,) = diff(with_handshake(seen, NEW, NOW_S - 1), desired, resolved_of(desired))
    assert isinstance(step, SetPeers)
    assert [change.public_key for change in step.changes] == [NEW, OLD]


def test_while_neither_key_has_a_session_both_call() -> None:
    """Such as after a restart: one of them will be answered, and nobody knows which."""
    desired = plan(document(), LAPTOP1)
    made = perform(replace(NOTHING, unix_s=NOW_S), desired)
    assert {device_of(made).peers[key].keepalive_s for key in (OLD, NEW)} == {25}
    assert (holds(made, OLD), holds(made, NEW)) == (True, False)
    answered = perform(with_handshake(made, NEW, NOW_S - 1), desired)
    assert (holds(answered, NEW), device_of(answered).peers[OLD].keepalive_s) == (True, 0)


def test_a_handshake_of_a_clock_that_was_ahead_decides_nothing() -> None:
    """The clock was set back since; the old key's handshake is in the future now, and must not win for an hour."""
    desired, seen = staged()
    seen = with_handshake(with_handshake(seen, OLD, NOW_S + 3600), NEW, NOW_S - 1)
    assert holds(perform(seen, desired), NEW)


def test_the_rotated_machine_itself_holds_nobody_twice() -> None:
    desired = plan(document(), SERVER1)
    assert desired.second_keys == {}
    assert NEW not in desired.peers
    assert desired.public_key == OLD


def test_a_peers_second_key_is_the_controllers_affair_alone() -> None:
    second = public_key(LAPTOP1, "next")
    assert second in plan(document(LAPTOP1), SERVER1).peers
    assert second not in plan(document(LAPTOP1), MachineName("laptop2")).peers


def test_a_machine_with_a_new_private_key_calls_everybody_at_once() -> None:
    """No session of before sends any more; without a call, nobody would hear of the new key until there is traffic."""
    before, seen = staged(SERVER1, LAPTOP1)
    desired = replace(before, public_key=NEW)
    for key in (public_key(SERVER2), public_key(LAPTOP1), public_key("laptop2")):
        device = device_of(seen)
        peer = device.peers[key]._replace(endpoint=address_of(next(iter(resolved_of(desired)))))
        seen = replace(seen, device=replace(device, peers={**device.peers, key: peer}))
    steps = diff(seen, desired, resolved_of(desired))
    assert [type(step) for step in steps] == [SetPrivateKey, SetPeers]
    calls = steps[1]
    assert isinstance(calls, SetPeers)
    called = [(change.public_key, change.keepalive_s) for change in calls.changes]
    for key in (public_key(SERVER2), public_key(LAPTOP1), public_key("laptop2")):
        assert [seconds for each, seconds in called if each == key] == [0, 25]
    assert public_key(LAPTOP1, "next") not in dict(called)
    assert diff(perform(seen, desired), desired, resolved_of(desired)) == ()


def test_what_is_moved_at_once_is_what_the_other_key_holds() -> None:
    desired, seen = staged()
    pairs = rotation.second_keys(document(), LAPTOP1)
    assert pairs == desired.second_keys == {OLD: NEW}
    assert rotation.moves(device_of(seen), pairs, NOW_S, rotation.NOBODY) == ()
    heard = with_handshake(seen, NEW, NOW_S - 1)
    for which, nobody_or_new in ((seen, frozenset({NEW})), (heard, rotation.NOBODY)):
        step = SetPeers(desired.interface, rotation.moves(device_of(which), pairs, NOW_S, nobody_or_new))
        moved = after(which, (step,), {})
        assert device_of(moved).peers[NEW].allowed_ips == device_of(seen).peers[OLD].allowed_ips
        assert not holds(moved, OLD)
        assert rotation.moves(device_of(moved), pairs, NOW_S, nobody_or_new) == ()


@given(documents(), st.data())
def test_at_every_moment_exactly_one_key_of_a_machine_holds_what_is_its(
    document: Document, data: st.DataObject
) -> None:
    desired = plan(document, any_machine(document, data))
    seen = replace(perform(NOTHING, desired), unix_s=NOW_S)
    for key in device_of(seen).peers:
        seen = with_handshake(seen, key, data.draw(st.sampled_from((0.0, NOW_S - 500, NOW_S - 5, NOW_S + 99))))
    seen = perform(seen, desired)
    peers = device_of(seen).peers
    for first, second in desired.second_keys.items():
        assert {peers[first].allowed_ips, peers[second].allowed_ips} == {desired.peers[first].allowed_ips, frozenset()}
    assert diff(seen, desired, resolved_of(desired)) == ()


@pytest.mark.parametrize("rotated", [SERVER1, LAPTOP1])
def test_a_second_key_is_in_the_document_and_nobody_elses(rotated: MachineName) -> None:
    made = document(rotated)
    assert decode(encode(made)) == made
    entry = made.entry(rotated)
    assert entry is not None
    assert entry.second_key == public_key(rotated, "next")


def test_while_sessions_are_begun_anew_whoever_holds_it_keeps_it() -> None:
    """Such as when a silent controller is called again by both keys: nobody was heard yet."""
    desired, seen = staged()
    seen = perform(with_handshake(seen, NEW, NOW_S - 1), desired)
    for key in (OLD, NEW):
        seen = with_handshake(seen, key, 0.0)
    assert holds(seen, NEW)
    assert rotation.moves(device_of(seen), desired.second_keys, NOW_S, rotation.NOBODY) == ()
    assert rotation.moves(device_of(with_handshake(seen, OLD, NOW_S)), desired.second_keys, NOW_S, rotation.NOBODY)
