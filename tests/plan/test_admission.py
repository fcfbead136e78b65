"""Nobody is let in by a revoked key, and no document brings one back."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshes import inventory, mesh
from strategies import documents, public_key
from warren.errors import DocumentRefused, InventoryError
from warren.fleet.plans import plan_digests
from warren.names import MachineName
from warren.network.document import Document, Entry, decode, encode, keys_of
from warren.network.resolve import resolve
from warren.network.stored import Stored
from warren.plan.admission import admitted, check, check_own, expiry_lines
from warren.plan.plan import plan
from warren.wireguard.keys import PublicKey

LAPTOP1 = MachineName("laptop1")
NOW_S = 1_800_000_000
DAY_S = 86400


def every_key(document: Document) -> list[PublicKey]:
    entries: list[Entry] = [*document.controllers.values(), *document.peers.values()]
    return sorted(key for entry in entries for key in keys_of(entry))


@given(documents(), st.data())
def test_nobody_is_planned_with_a_revoked_key(document: Document, data: st.DataObject) -> None:
    revoked = frozenset(data.draw(st.sets(st.sampled_from(every_key(document)))))
    left = admitted(document, revoked, NOW_S)
    assert every_key(left) == [key for key in every_key(document) if key not in revoked]
    for name in (*document.controllers, *document.peers):
        assert not revoked & plan(left, name).peers.keys()
    if revoked:
        with pytest.raises(DocumentRefused, match="which was revoked for good"):
            check(document, revoked, "vpn on m33")
    check(left, revoked, "vpn on m33")


def test_a_rotated_machine_goes_on_by_the_key_that_is_left() -> None:
    instance = mesh("server1", "laptop1")
    stored = Stored(
        public_keys={name: public_key(name).text for name in instance.members},
        next_keys={LAPTOP1: public_key(LAPTOP1, "next").text},
    )
    document = resolve(inventory(instance), {instance.name: stored})[instance.name]
    entry = admitted(document, frozenset({public_key(LAPTOP1)}), NOW_S).peers[LAPTOP1]
    assert (entry.public_key, entry.second_key) == (public_key(LAPTOP1, "next"), None)


@given(documents())
def test_the_list_is_in_the_document_and_no_entry_has_a_key_of_it(document: Document) -> None:
    listed = replace(document, revoked=tuple(sorted((public_key("stolen"), public_key("lost")))))
    assert decode(encode(listed)) == listed
    back = replace(document, revoked=(every_key(document)[0],))
    with pytest.raises(DocumentRefused, match="which is revoked"):
        decode(encode(back))
    with pytest.raises(DocumentRefused, match="sorted, each once"):
        decode(encode(replace(listed, revoked=listed.revoked[::-1])))


def test_vars_that_bring_a_revoked_key_back_make_no_document() -> None:
    """Somebody reverted the commit; whoever left the inventory stays revoked as well."""
    instance = mesh("server1", "laptop1")
    keys = {name: public_key(name).text for name in instance.members}
    stored = Stored(public_keys=keys, revoked={MachineName("gone"): keys[LAPTOP1]})
    with pytest.raises(InventoryError, match="is revoked for good"):
        resolve(inventory(instance), {instance.name: stored})
    stored = Stored(revoked={MachineName("gone"): public_key("gone").text})
    assert resolve(inventory(instance), {instance.name: stored})[instance.name].revoked == (public_key("gone"),)


def expiring(in_s: int) -> Document:
    instance = mesh("server1", "laptop1 laptop2")
    stored = Stored(public_keys={name: public_key(name).text for name in instance.members})
    whole = inventory(instance)
    machines = {**whole.machines, LAPTOP1: replace(whole.machines[LAPTOP1], expires_unix_s=NOW_S + in_s)}
    return resolve(replace(whole, machines=machines), {instance.name: stored})[instance.name]


def test_a_machine_whose_time_is_over_is_let_in_no_more() -> None:
    server = MachineName("server1")
    for in_s, is_let_in in ((1, True), (0, False), (-DAY_S, False)):
        document = expiring(in_s)
        assert decode(encode(document)) == document
        assert (public_key(LAPTOP1) in plan(admitted(document, frozenset(), NOW_S), server).peers) == is_let_in
        assert public_key("laptop2") in plan(admitted(document, frozenset(), NOW_S), server).peers


def test_its_own_machine_is_told_what_happened() -> None:
    check_own(expiring(1), LAPTOP1, NOW_S)
    check_own(expiring(0), MachineName("laptop2"), NOW_S)
    with pytest.raises(DocumentRefused, match="the time of this machine ended at 2027-01-15 08:00 UTC"):
        check_own(expiring(0), LAPTOP1, NOW_S)


def test_it_is_said_a_week_ahead() -> None:
    assert expiry_lines(expiring(8 * DAY_S), NOW_S) == []
    assert expiry_lines(expiring(6 * DAY_S), NOW_S) == ["laptop1 expires in 6 days, at 2027-01-21 08:00 UTC, in vpn"]
    assert expiry_lines(expiring(3 * 3600), NOW_S) == ["laptop1 expires in 3 hours, at 2027-01-15 11:00 UTC, in vpn"]
    assert expiry_lines(expiring(-DAY_S), NOW_S) == ["laptop1 expired at 2027-01-14 08:00 UTC, in vpn"]


def test_everybody_hears_of_an_expiry() -> None:
    """Whoever lets it in has to know, and so does the machine itself."""
    before, after = plan_digests(expiring(DAY_S)), plan_digests(expiring(2 * DAY_S))
    assert all(before[name] != after[name] for name in before)
