"""Nobody is let in by a revoked key, and no document brings one back."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshes import inventory, mesh
from strategies import documents, public_key
from warren.errors import DocumentRefused, InventoryError
from warren.names import MachineName
from warren.network.document import Document, Entry, decode, encode, keys_of
from warren.network.resolve import resolve
from warren.network.stored import Stored
from warren.plan.admission import admitted, check
from warren.plan.plan import plan
from warren.wireguard.keys import PublicKey

LAPTOP1 = MachineName("laptop1")


def every_key(document: Document) -> list[PublicKey]:
    entries: list[Entry] = [*document.controllers.values(), *document.peers.values()]
    return sorted(key for entry in entries for key in keys_of(entry))


@given(documents(), st.data())
def test_nobody_is_planned_with_a_revoked_key(document: Document, data: st.DataObject) -> None:
    revoked = frozenset(data.draw(st.sets(st.sampled_from(every_key(document)))))
    left = admitted(document, revoked)
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
    entry = admitted(document, frozenset({public_key(LAPTOP1)})).peers[LAPTOP1]
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
