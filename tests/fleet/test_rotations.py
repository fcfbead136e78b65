"""How a rotation goes on: who is waited for, in what order machines switch, and that any part of a phase is no harm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from meshes import inventory, mesh
from strategies import documents, public_key
from warren.fleet.plans import plan_digests, wanted
from warren.fleet.rotations import Move, Rotation, next_moves, rotations
from warren.names import InstanceName, MachineName
from warren.network.document import Document
from warren.network.resolve import resolve
from warren.vars.generators import Variable, generators, stored_by_instance

FLEET = inventory(mesh("server1 server2", "laptop1 laptop2"))
VPN = InstanceName("vpn")
MACHINES = tuple(sorted(FLEET.machines))
Texts = dict[Variable, str]


def variable(machine: str, file: str = "publickey") -> Variable:
    return Variable(MachineName(machine), "wireguard-keys-vpn", file)


def stored(*staged: str) -> Texts:
    texts = {each: public_key(each.machine).text for each in generators(FLEET)["wireguard-keys-vpn"].variables}
    return texts | {variable(name, "nextkey"): public_key(name, "next").text for name in staged}


def found(texts: Texts, behind: tuple[str, ...] = (), fleet=FLEET) -> list[Rotation]:  # type: ignore[no-untyped-def]
    """The rotations, where everybody but those has confirmed the document of now."""
    by_instance = stored_by_instance(texts)
    wants = wanted(resolve(fleet, by_instance))
    known = {pair: digest for pair, digest in wants.items() if pair[0] not in behind}
    return rotations(fleet, resolve(fleet, by_instance), by_instance, wants, known)


def moves(
    texts: Texts, behind: tuple[str, ...] = (), targets: tuple[str, ...] = MACHINES, force: bool = False
) -> list[Move]:
    return next_moves(found(texts, behind), [MachineName(name) for name in targets], force=force)


def done(texts: Texts, move: Move) -> Texts:
    return {each: text for each, text in {**texts, **move.texts}.items() if each not in move.gone}


def keys(texts: Mapping[Variable, str], machine: str) -> dict[str, str]:
    return {each.file: text for each, text in texts.items() if each.machine == machine}


OLD, NEW = (public_key("server1", salt).text for salt in ("", "next"))


def test_a_controllers_new_key_waits_for_everybody_and_a_peers_for_controllers() -> None:
    (rotation,) = found(stored("server1"), behind=MACHINES)
    assert rotation.waits_for == MACHINES
    (rotation,) = found(stored("laptop1"), behind=MACHINES)
    assert rotation.waits_for == ("laptop1", "server1", "server2")
    assert moves(stored("laptop1"), behind=("laptop2",)) != []
    assert moves(stored("laptop1"), behind=("server2",)) == []


def test_the_phases_of_a_rotation() -> None:
    texts = stored("server1")
    (switch,) = moves(texts)
    texts = done(texts, switch)
    assert keys(texts, "server1") == {"publickey": NEW, "formerkey": OLD}
    assert moves(texts, behind=("server1",)) == []  # it has to be seen with its new key first
    (forget,) = moves(texts, behind=("laptop1",))
    texts = done(texts, forget)
    assert keys(texts, "server1") == {"publickey": NEW}
    assert found(texts) == []


def test_the_switch_concerns_its_machine_alone() -> None:
    """Others hold both keys before and after; which one speaks they hear."""
    texts = stored("server1")
    before = plan_digests(resolve(FLEET, stored_by_instance(texts))[VPN])
    after = plan_digests(resolve(FLEET, stored_by_instance(done(texts, moves(texts)[0])))[VPN])
    assert {name for name in before if before[name] != after[name]} == {"server1"}


def test_a_switch_that_was_cut_short_is_one_phase_or_the_other() -> None:
    """The files are stored in this order, and the run may be killed between any two."""
    texts = stored("server1")
    (switch,) = moves(texts)
    assert list(switch.texts) == [variable("server1", "formerkey"), variable("server1")]
    half = {**texts, variable("server1", "formerkey"): OLD}
    assert [each.has_switched for each in found(half)] == [False]
    assert keys(done(half, moves(half)[0]), "server1") == {"publickey": NEW, "formerkey": OLD}
    nearly = {**half, variable("server1"): NEW}
    assert [each.has_switched for each in found(nearly)] == [True]
    (forget,) = moves(nearly)
    assert set(forget.gone) == {variable("server1", "formerkey"), variable("server1", "nextkey")}


def test_peers_switch_together_and_controllers_one_after_the_other() -> None:
    texts = stored(*MACHINES)
    order = []
    while found(texts):
        todo = moves(texts)
        order.append([(move.rotation.machine, move.rotation.has_switched) for move in todo])
        for move in todo:
            texts = done(texts, move)
    assert order == [
        [("laptop1", False), ("laptop2", False)],
        [("server1", False)],
        [("server2", False)],
        [(name, True) for name in ("laptop1", "laptop2", "server1", "server2")],
    ]


def test_only_machines_that_may_be_visited_go_on() -> None:
    assert moves(stored("server1"), targets=("laptop1",)) == []
    assert len(moves(stored("server1", "server2"), targets=("server2",))) == 1


def test_force_waits_for_nobody_to_switch_but_never_forgets_a_key_that_is_in_use() -> None:
    texts = stored("server1")
    (switch,) = moves(texts, behind=MACHINES, force=True)
    assert moves(done(texts, switch), behind=("server1",), force=True) == []


def test_a_machine_that_is_not_managed_is_waited_for_until_the_operator_says_otherwise() -> None:
    phone = MachineName("laptop2")
    fleet = replace(FLEET, machines={**FLEET.machines, phone: replace(FLEET.machines[phone], managed=False)})
    (rotation,) = found(stored("server1"), fleet=fleet)
    assert rotation.waits_for == (phone,)
    assert rotation.line == "server1: new key in vpn waits for laptop2 (warren machines update)"
    assert found(stored("laptop1"), fleet=fleet)[0].waits_for == ()


@given(documents(), st.data())
def test_no_two_machines_that_speak_to_each_other_switch_at_once(document: Document, data: st.DataObject) -> None:
    peers, controllers = set(document.peers), set(document.controllers)
    every = [
        Rotation(name, document.instance, name in controllers, "new", "old", False)
        for name in sorted(peers | controllers)
    ]
    chosen = data.draw(st.lists(st.sampled_from(every), unique=True))
    switching = {move.rotation.machine for move in next_moves(chosen, peers | controllers, force=False)}
    assert bool(switching) == bool(chosen)
    for one, other in combinations(switching, 2):
        assert {one, other} <= peers
