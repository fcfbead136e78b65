"""Values that were made for what the inventory said once: found by clan's hash of the inputs, and by the role."""

from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshes import inventory, mesh
from strategies import inventories, public_key
from warren.inventory.model import Inventory
from warren.names import InstanceName, MachineName
from warren.vars.check import Findings, examine
from warren.vars.generate import Selection, Work, carry_out, work
from warren.vars.generators import (
    Generator,
    Kind,
    Validation,
    Variable,
    generators,
    in_order,
    is_stale,
    paths_of,
)
from warren.vars.store import Reading, Store

VPN = inventory(mesh("server1 server2", "laptop1 laptop2"))
LAPTOP1 = MachineName("laptop1")
NETWORK, KEYS = "wireguard-network-vpn", "wireguard-keys-vpn"
SUFFIX = Variable(LAPTOP1, NETWORK, "suffix")
HASH = Validation(LAPTOP1, NETWORK)
OF_ANOTHER = sha256(b'{"hostname":"old1"}').hexdigest()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Everything made."""
    made = Store(tmp_path)
    carry_out(work(VPN, {}, Selection()), made, [], lambda *_: None)
    made.write({Variable(name, KEYS, "publickey"): public_key(name).text for name in VPN.machines})
    return made


def regenerated(store: Store) -> Work:
    reading = store.read()
    chosen = Selection(frozenset({NETWORK}), frozenset({LAPTOP1}), regenerate=True)
    return work(VPN, reading.texts, chosen, reading.hashes)


def test_the_hash_is_clans(store: Store) -> None:
    """`{"hostname":"laptop1"}`, hashed by hand: printf | sha256sum. No line end, as clan writes it."""
    found = (store.folder / HASH.path).read_bytes()
    assert HASH.path == "vars/per-machine/laptop1/wireguard-network-vpn/.validation-hash"
    assert found == b"6f97ee39835ee94011760459b17a6e4eb89a3a72b141116b8ad5ba733340ea65"
    assert store.read().hashes.keys() == {Validation(name, NETWORK) for name in VPN.machines}


def test_keys_have_no_hash(store: Store) -> None:
    """Nothing of the inventory makes a random key stale, and clan would make a key with a hash anew."""
    assert not list(store.folder.glob("vars/per-machine/*/wireguard-keys-*/.validation-hash"))
    (store.folder / Validation(LAPTOP1, KEYS).path).write_text("of somebody else")
    assert examine(VPN, store.read()) == Findings((), (), ())


@given(inventories())
def test_what_is_made_is_not_stale_and_without_a_hash_nothing_is(inventory: Inventory) -> None:
    made = work(inventory, {}, Selection())
    for hashes in (made.hashes, {}):
        assert examine(inventory, Reading(made.values, (), hashes)).stale == ()
    assert {(each.machine, each.generator) for each in made.hashes} == {
        (each.machine, each.generator) for each in made.values
    }


@given(inventories(), st.data())
def test_exactly_what_was_made_of_other_inputs_is_stale(inventory: Inventory, data: st.DataObject) -> None:
    made = work(inventory, {}, Selection())
    old = data.draw(st.sets(st.sampled_from(sorted(made.hashes)))) if made.hashes else set()
    hashes = {each: data.draw(st.text(max_size=8)) if each in old else text for each, text in made.hashes.items()}
    stale = examine(inventory, Reading(made.values, (), hashes)).stale
    assert {Validation(each.variable.machine, each.variable.generator) for each in stale} == old


def test_a_folder_that_was_renamed_shows_and_both_mends_work(store: Store) -> None:
    (store.folder / HASH.path).write_text(OF_ANOTHER)
    (stale,) = examine(VPN, store.read()).stale
    assert stale.variable == SUFFIX
    assert 'not made for hostname "laptop1"' in stale.reason
    assert f"warren vars set laptop1 {NETWORK}/suffix {store.read().texts[SUFFIX]};" in stale.mend
    assert stale.mend.endswith(f"warren vars generate --service {NETWORK} --machine laptop1 --regenerate")
    found = regenerated(store)
    assert found.values == {SUFFIX: store.read().texts[SUFFIX]}  # its own address: only the hash was another's
    carry_out(found, store, [], lambda *_: None)
    assert examine(VPN, store.read()) == Findings((), (), ())
    assert regenerated(store).values == {}


@pytest.mark.parametrize("text", ["", "360f9f", "\n", "x" * 200])
def test_a_hash_of_which_half_was_written_is_stale_and_no_crash(store: Store, text: str) -> None:
    (store.folder / HASH.path).write_text(text)
    assert [each.variable for each in examine(VPN, store.read()).stale] == [SUFFIX]
    carry_out(regenerated(store), store, [], lambda *_: None)
    assert examine(VPN, store.read()) == Findings((), (), ())


def test_a_hash_that_cannot_be_read_is_an_error_and_not_taken_for_none(store: Store) -> None:
    (store.folder / HASH.path).unlink()
    (store.folder / HASH.path).mkdir()
    (problem,) = examine(VPN, store.read()).problems
    assert (problem.file, problem.message) == (HASH.path, "cannot be read: a folder, not a file")


def test_a_changed_role_is_stale_until_the_new_value_is_made(store: Store) -> None:
    promoted = inventory(mesh("server1 server2 laptop1", "laptop2"))
    findings = examine(promoted, store.read())
    (stale,) = findings.stale
    assert findings.missing == ()
    assert stale.variable == SUFFIX._replace(file="prefix")
    assert stale.reason == 'the role of machine "laptop1" changed: there is its suffix as yet'
    assert stale.mend == f"warren vars generate --service {NETWORK} --machine laptop1"
    reading = store.read()
    carry_out(work(promoted, reading.texts, Selection(), reading.hashes), store, [], lambda *_: None)
    assert examine(promoted, store.read()) == Findings((), (), (SUFFIX,))


def generator(
    name: str, *dependencies: str, inputs: Mapping[MachineName, Mapping[str, str]] | None = None
) -> Generator:
    return Generator(name, Kind.KEYS, InstanceName("vpn"), {LAPTOP1: "publickey"}, dependencies, inputs or {})


def test_generators_come_after_those_that_they_depend_on() -> None:
    every = [generator("c", "b", "a", "of nobody"), generator("b", "a"), generator("a"), generator("d")]
    order = list(in_order(every))
    assert sorted(order) == ["a", "b", "c", "d"]
    assert order.index("a") < order.index("b") < order.index("c")
    assert list(in_order([generator("z"), generator("a")])) == ["z", "a"]
    assert list(generators(VPN)) == [NETWORK, KEYS]


@given(st.dictionaries(st.sampled_from("abc"), st.text(max_size=3), min_size=1), st.data())
def test_any_change_of_an_input_is_seen_and_no_other_order(inputs: dict[str, str], data: st.DataObject) -> None:
    one = generator("g", inputs={LAPTOP1: inputs})
    turned = dict(reversed(inputs.items()))
    stored = {Validation(LAPTOP1, "g"): one.validation_hash(LAPTOP1) or ""}
    assert not is_stale(replace(one, inputs={LAPTOP1: turned}), LAPTOP1, stored)
    key = data.draw(st.sampled_from(sorted(inputs)))
    assert is_stale(replace(one, inputs={LAPTOP1: {**inputs, key: inputs[key] + "x"}}), LAPTOP1, stored)


def test_the_hash_is_committed_with_its_value() -> None:
    key = Variable(LAPTOP1, KEYS, "publickey")
    assert paths_of([SUFFIX, key]) == [SUFFIX.path, HASH.path, key.path]
