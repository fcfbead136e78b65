"""What a run makes: only what is missing, unless told; addresses from names, keys from machines."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshes import inventory, mesh
from strategies import inventories, public_key
from warren.errors import InventoryError, MachineError, UsageError, VarsError
from warren.inventory.model import Inventory
from warren.names import InstanceName, MachineName
from warren.network.addresses import peer_suffix, suffix_text
from warren.network.resolve import resolve
from warren.vars.check import examine
from warren.vars.generate import Failure, Selection, Work, carry_out, work
from warren.vars.generators import Variable, generators, stored_by_instance
from warren.vars.reach import Reach
from warren.vars.store import Reading, Store
from warren.wireguard.keys import PublicKey

VPN = inventory(mesh("server1 server2", "laptop1 laptop2"))
LAPTOP1 = MachineName("laptop1")
SUFFIX = Variable(LAPTOP1, "wireguard-network-vpn", "suffix")
KEY = Variable(LAPTOP1, "wireguard-keys-vpn", "publickey")


@dataclass
class Machines:
    """Machines with keys: a Reach as the lab's is one."""

    names: frozenset[str] = frozenset(VPN.machines)
    keys: dict[tuple[str, str], PublicKey] = field(default_factory=dict)
    broken: frozenset[str] = frozenset()
    made: int = 0

    def reaches(self, machine: MachineName) -> bool:
        return machine in self.names

    def make_key(self, machine: MachineName, instance: InstanceName, replace: bool) -> PublicKey:
        if machine in self.broken:
            raise MachineError("no room for a key", where=machine)
        if replace or (machine, instance) not in self.keys:
            self.made += 1
            self.keys[machine, instance] = public_key(machine, f"{instance}{self.made}")
        return self.keys[machine, instance]

    def stage_key(self, machine: MachineName, instance: InstanceName) -> PublicKey:
        if machine in self.broken:
            raise MachineError("no room for a key", where=machine)
        return public_key(machine, f"{instance} next")


def everything(inventory: Inventory) -> dict[Variable, str]:
    """What a run over everything would store."""
    texts = dict(work(inventory, {}, Selection()).values)
    for generator in generators(inventory).values():
        for variable in generator.variables:
            texts.setdefault(variable, public_key(variable.machine, generator.instance).text)
    return texts


def selection(generators: str = "", machines: str = "", regenerate: bool = False) -> Selection:
    return Selection(frozenset(generators.split()), frozenset(machines.split()), regenerate)


@given(inventories())
def test_a_run_over_everything_leaves_nothing_missing(inventory: Inventory) -> None:
    first = work(inventory, {}, Selection())
    assert {request.variable for request in first.keys} | first.values.keys() == everything(inventory).keys()
    texts = everything(inventory)
    second = work(inventory, texts, Selection())
    assert (second.values, second.keys) == ({}, ())
    findings = examine(inventory, Reading(texts))
    assert (findings.problems, findings.missing, findings.leftovers) == ((), (), ())


@given(inventories(), st.data())
def test_in_whatever_order_machines_come_addresses_stay(inventory: Inventory, data: st.DataObject) -> None:
    """Stored machine by machine or all at once: the documents are those of the first look."""
    texts: dict[Variable, str] = {}
    for machine in data.draw(st.permutations(sorted(inventory.machines))):
        texts.update(work(inventory, texts, selection(machines=machine)).values)
    assert resolve(inventory, stored_by_instance(texts)) == resolve(inventory, {})
    assert texts == work(inventory, {}, Selection()).values


@given(inventories(), st.data())
def test_only_the_selected_is_touched(inventory: Inventory, data: st.DataObject) -> None:
    chosen = data.draw(st.sets(st.sampled_from(sorted(inventory.machines)), min_size=1))
    found = work(inventory, {}, Selection(machines=frozenset(chosen), regenerate=True))
    assert {variable.machine for variable in (*found.values, *(key.variable for key in found.keys))} == chosen


def test_generators_are_selected_by_name() -> None:
    only_keys = work(VPN, {}, selection("wireguard-keys-vpn", "laptop1"))
    assert only_keys.values == {}
    assert [(key.variable, key.instance, key.replace) for key in only_keys.keys] == [(KEY, "vpn", False)]
    only_network = work(VPN, {}, selection("wireguard-network-vpn", "laptop1"))
    assert only_network.values == {SUFFIX: suffix_text(peer_suffix(LAPTOP1))}
    assert only_network.keys == ()


def test_keys_are_regenerated_and_addresses_are_not() -> None:
    """`--regenerate --machine laptop1` gives a new key; an address that was chosen by hand stays."""
    texts = {**everything(VPN), SUFFIX: "dead:beef:0:1"}
    found = work(VPN, texts, selection(machines="laptop1", regenerate=True))
    assert found.values == {}
    assert [(key.variable, key.replace) for key in found.keys] == [(KEY, True)]


def test_addresses_are_regenerated_by_the_name_of_their_generator() -> None:
    """The name's own address comes back; where it is the stored one, however it is written, nothing changes."""
    only = selection("wireguard-network-vpn", "laptop1", regenerate=True)
    texts = everything(VPN)
    assert work(VPN, {**texts, SUFFIX: "dead:beef:0:1"}, only).values == {SUFFIX: texts[SUFFIX]}
    assert work(VPN, {**texts, SUFFIX: "broken"}, only).values == {SUFFIX: texts[SUFFIX]}
    assert work(VPN, {**texts, SUFFIX: texts[SUFFIX].upper()}, only).values == {}
    assert work(VPN, {**texts, SUFFIX: texts[SUFFIX].upper()}, Selection()).values == {}


def test_a_regenerated_address_gives_way_to_those_that_are_stored() -> None:
    """m13553 and m23864 have one /96 by name; the one that stays keeps it."""
    fleet = inventory(mesh("server1", "m13553 m23864"))
    texts = everything(fleet)
    found = work(fleet, texts, selection("wireguard-network-vpn", "m13553", regenerate=True))
    assert found.values == {}  # m23864 moved aside when both were new, and stays there
    elder = {
        Variable(MachineName("m23864"), "wireguard-network-vpn", "suffix"): suffix_text(
            peer_suffix(MachineName("m23864"))
        )
    }
    (text,) = work(fleet, elder, selection("wireguard-network-vpn", "m13553")).values.values()
    assert text == suffix_text(peer_suffix(MachineName("m13553"), 1))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            selection("wireguard-key-vpn"),
            'there is no generator "wireguard-key-vpn"\nmend: did you mean "wireguard-keys-vpn"?',
        ),
        (selection(machines="laptop3"), 'there is no machine "laptop3"\nmend: did you mean "laptop2"?'),
        (selection("wireguard-keys-lan", "laptop1"), 'machine "laptop1" has no values of wireguard-keys-lan'),
    ],
)
def test_names_that_mean_nothing_are_usage_errors(asked: Selection, message: str) -> None:
    two = inventory(mesh("server1 server2", "laptop1 laptop2"), mesh("server1", instance="lan"))
    with pytest.raises(UsageError) as error:
        work(two, {}, asked)
    assert str(error.value).startswith(message)


def test_broken_values_that_would_stay_stop_the_run_all_at_once() -> None:
    other_suffix = Variable(MachineName("laptop2"), "wireguard-network-vpn", "suffix")
    texts = {**everything(VPN), KEY: "half", SUFFIX: "half", other_suffix: "1:2"}
    with pytest.raises(InventoryError) as error:
        work(VPN, texts, Selection())
    assert [problem.file for problem in error.value.problems] == [SUFFIX.path, other_suffix.path, KEY.path]


def test_the_mend_of_a_broken_key_works_one_key_at_a_time() -> None:
    other = Variable(MachineName("laptop2"), "wireguard-keys-vpn", "publickey")
    texts = {**everything(VPN), KEY: "half", other: "half", SUFFIX: "half"}
    found = work(VPN, texts, selection("wireguard-keys-vpn", "laptop1", regenerate=True))
    assert [key.variable for key in found.keys] == [KEY]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def run(
    store: Store, reach: Reach, asked: Selection | None = None, fleet: Inventory = VPN
) -> tuple[list[Variable], tuple[Failure, ...]]:
    written: list[Variable] = []
    found: Work = work(fleet, store.read().texts, asked or Selection())
    failures = carry_out(found, store, [reach], lambda variable, text: written.append(variable))
    return written, failures


def test_keys_come_from_machines_and_are_stored(store: Store) -> None:
    machines = Machines()
    written, failures = run(store, machines)
    assert failures == ()
    assert sorted(written) == sorted(everything(VPN))
    texts = store.read().texts
    assert texts[KEY] == machines.keys["laptop1", "vpn"].text
    assert run(store, machines) == ([], ())
    (document,) = resolve(VPN, stored_by_instance(texts)).values()
    assert document.peers[LAPTOP1].public_key == machines.keys["laptop1", "vpn"]


def test_a_machine_that_has_its_key_already_keeps_it(store: Store) -> None:
    machines = Machines(keys={("laptop1", "vpn"): public_key("laptop1")})
    run(store, machines)
    assert store.read().texts[KEY] == public_key("laptop1").text


def test_regenerate_replaces_the_key_of_that_machine_alone(store: Store) -> None:
    machines = Machines()
    run(store, machines)
    before = store.read().texts
    written, _ = run(store, machines, selection("wireguard-keys-vpn", "laptop1", regenerate=True))
    assert written == [KEY]
    after = store.read().texts
    assert {variable for variable in after if after[variable] != before[variable]} == {KEY}


def test_what_can_be_made_is_stored_and_the_rest_is_told_how(store: Store) -> None:
    machines = Machines(names=frozenset(("server1", "server2", "laptop1")), broken=frozenset(("server1",)))
    written, failures = run(store, machines)
    assert len(written) == 6
    by_hand = (
        "no way to it from here; on it run `warren vars keygen vpn`, here "
        "`warren vars set laptop2 wireguard-keys-vpn/publickey KEY` with what it prints"
    )
    assert [(failure.variable.machine, failure.message) for failure in failures] == [
        ("server1", "server1: no room for a key"),
        ("laptop2", by_hand),
    ]
    assert examine(VPN, store.read()).missing == tuple(failure.variable for failure in failures)


def test_the_key_of_another_machine_is_refused(store: Store) -> None:
    """A disk that was copied brings the key along."""
    copied = public_key("laptop1")
    machines = Machines(keys={("laptop1", "vpn"): copied, ("laptop2", "vpn"): copied})
    _, (failure,) = run(store, machines)
    assert failure.variable.machine == "laptop2"
    assert 'the key of machine "laptop1" (a copied disk?)' in failure.message
    regenerate = selection("wireguard-keys-vpn", "laptop2", regenerate=True)
    assert run(store, machines, regenerate) == ([failure.variable], ())


def test_a_machine_that_was_renamed_keeps_its_key(store: Store) -> None:
    run(store, Machines(keys={("laptop1", "vpn"): public_key("laptop1")}))
    renamed = inventory(mesh("server1 server2", "notebook1 laptop2"))
    machines = Machines(names=frozenset(("notebook1",)), keys={("notebook1", "vpn"): public_key("laptop1")})
    _, failures = run(store, machines, fleet=renamed)
    assert failures == ()
    assert examine(renamed, store.read()).leftovers == (KEY, SUFFIX)


def test_what_was_made_before_a_failure_of_the_disk_is_stored(store: Store) -> None:
    """A folder stands in the place of a key file: known only when that key is written."""
    (store.folder / KEY.path).parent.mkdir(parents=True)
    machines = Machines()
    (store.folder / KEY.path).symlink_to("/")
    found = work(VPN, {}, Selection())
    with pytest.raises(VarsError, match="is a directory"):
        carry_out(found, store, [machines], lambda variable, text: None)
    (store.folder / KEY.path).unlink()
    assert found.values.items() <= store.read().texts.items()


def test_check_tells_missing_from_broken_from_left_over() -> None:
    texts = everything(VPN)
    del texts[KEY]
    twin = Variable(MachineName("laptop2"), "wireguard-keys-vpn", "publickey")
    texts[twin] = texts[Variable(MachineName("server1"), "wireguard-keys-vpn", "publickey")]
    texts[SUFFIX] = texts[Variable(MachineName("laptop2"), "wireguard-network-vpn", "suffix")]
    gone = Variable(MachineName("old1"), "wireguard-keys-vpn", "publickey")
    other_instance = Variable(LAPTOP1, "wireguard-keys-old", "publickey")
    other_role = Variable(LAPTOP1, "wireguard-network-vpn", "prefix")
    texts |= {gone: "x", other_instance: "x", other_role: "x"}
    findings = examine(VPN, Reading(texts))
    assert findings.missing == (KEY,)
    assert findings.leftovers == (other_instance, other_role, gone)
    assert [(problem.file, problem.message.partition(":")[0]) for problem in findings.problems] == [
        (f"vars/per-machine/laptop2/{SUFFIX.generator}/suffix/value", repr(texts[SUFFIX])[:5]),
        (twin.path, 'machine "server1" has the same public key'),
    ]


def test_an_unreadable_value_is_not_missing(store: Store) -> None:
    run(store, Machines())
    (store.folder / KEY.path).write_bytes(b"\xff")
    findings = examine(VPN, store.read())
    assert findings.missing == ()
    assert [problem.file for problem in findings.problems] == [KEY.path]


@given(inventories(), st.dictionaries(st.integers(0, 40), st.text(max_size=30)))
def test_whatever_stands_in_the_files_only_our_own_errors_come_out(fleet: Inventory, garbage: dict[int, str]) -> None:
    texts = everything(fleet)
    for number, text in garbage.items():
        texts[sorted(texts)[number % len(texts)]] = text
    named = {problem.file for problem in examine(fleet, Reading(texts)).problems}
    stopped: set[str] = set()
    try:
        work(fleet, texts, Selection())
    except InventoryError as error:
        stopped = {problem.file for problem in error.problems}
    assert stopped <= named


FOLLOWS = frozenset({(LAPTOP1, InstanceName("vpn"))})
NEXT = KEY._replace(file="nextkey")
FORMER = KEY._replace(file="formerkey")


def test_of_a_machine_that_follows_a_document_the_next_key_is_staged(tmp_path: Path) -> None:
    """Replaced, it would be cut off until all others have its new key."""
    texts = everything(VPN)
    chosen = Selection(frozenset({KEY.generator}), frozenset({LAPTOP1, "laptop2"}), True, FOLLOWS)
    found = work(VPN, texts, chosen)
    assert [
        (request.variable.machine, request.variable.file, request.replace, request.stage) for request in found.keys
    ] == [
        ("laptop1", "nextkey", False, True),
        ("laptop2", "publickey", True, False),
    ]
    store = Store(tmp_path)
    store.write(texts)
    assert carry_out(found, store, [Machines()], lambda *_: None) == ()
    stored = store.read().texts
    assert stored[KEY] == texts[KEY]
    assert stored[NEXT] == public_key(LAPTOP1, "vpn next").text
    findings = examine(VPN, Reading(stored))
    assert (findings.problems, findings.missing, findings.leftovers) == ((), (), ())


@pytest.mark.parametrize("waiting", [NEXT, FORMER])
def test_what_was_staged_goes_with_the_key_that_is_replaced_at_once(store: Store, waiting: Variable) -> None:
    """Its machine has it no longer: an update would have the machine switch to a key that nobody has."""
    texts = {**everything(VPN), waiting: public_key("waiting").text}
    store.write(texts)
    found = work(VPN, texts, Selection(frozenset({KEY.generator}), frozenset({LAPTOP1}), regenerate=True))
    assert carry_out(found, store, [Machines()], lambda *_: None) == ()
    stored = store.read().texts
    assert stored[KEY] not in (texts[KEY], texts[waiting])
    assert waiting not in stored


@pytest.mark.parametrize("text", ["half", "<<<<<<< HEAD\n=======\n>>>>>>> theirs", ""])
def test_no_key_is_staged_after_a_text_that_is_none(text: str) -> None:
    with pytest.raises(VarsError, match="warren vars fix puts back what laptop1 confirmed"):
        work(
            VPN,
            {**everything(VPN), KEY: text},
            Selection(frozenset({KEY.generator}), frozenset({LAPTOP1}), True, FOLLOWS),
        )


def test_spaces_behind_a_key_are_no_rotation() -> None:
    texts = {**everything(VPN), KEY: f"{everything(VPN)[KEY]} \r"}
    found = work(VPN, texts, Selection(frozenset({KEY.generator}), frozenset({LAPTOP1}), True, FOLLOWS))
    assert [request.variable for request in found.keys] == [NEXT]


def test_a_key_whose_former_one_still_holds_is_not_rotated_again() -> None:
    texts = {**everything(VPN), FORMER: public_key("former").text}
    with pytest.raises(UsageError, match="is being rotated already"):
        work(VPN, texts, Selection(frozenset({KEY.generator}), frozenset({LAPTOP1}), True, FOLLOWS))


def test_two_keys_are_one_machines_alone() -> None:
    texts = {**everything(VPN), NEXT: everything(VPN)[KEY._replace(machine=MachineName("laptop2"))]}
    problems = examine(VPN, Reading(texts)).problems
    assert [problem.message for problem in problems] == ['machine "laptop1" has the same public key']


def test_a_machine_that_left_leaves_its_second_keys_behind() -> None:
    texts = {**everything(VPN), NEXT: public_key("next").text}
    without = inventory(mesh("server1 server2", "laptop2"))
    assert set(examine(without, Reading(texts)).leftovers) == {SUFFIX, KEY, NEXT}
