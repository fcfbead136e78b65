"""Previews: machines without keys are planned with all that is known, and what is counted is what is planned."""

import json
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from strategies import documents
from warren.network.document import Document
from warren.plan.plan import plan
from warren.render.desired import desired_tree
from warren.render.preview import missing_keys, preview, summaries, summary_tree, with_stand_ins


@given(documents(keys=False), st.data())
def test_a_key_that_stands_for_another_is_never_shown(document: Document, data: st.DataObject) -> None:
    machine = data.draw(st.sampled_from([*document.controllers, *document.peers]))
    completed, stand_ins = with_stand_ins(document)
    desired = plan(completed, machine)
    text = preview(desired, stand_ins) + json.dumps(desired_tree(machine, [desired], stand_ins))
    assert not any(key.text in text for key in stand_ins)
    for key, name in desired.peer_names.items():
        lines = [each for each in text.splitlines() if each.endswith(f"  # {name}") and " allowed-ips " in each]
        assert len(lines) == list(desired.peer_names.values()).count(name)  # with a second key, two
        assert all(line.startswith("# ") is (key in stand_ins) for line in lines)


@given(documents(keys=False))
def test_a_missing_key_changes_nothing_else(document: Document) -> None:
    completed, stand_ins = with_stand_ins(document)
    without = {entry.name for entry in [*document.controllers.values()] if entry.public_key is None}
    without |= {entry.name for entry in document.peers.values() if entry.public_key is None}
    assert len(stand_ins) == len(without)
    assert bool(missing_keys(document)) is bool(without)
    for name in without & completed.controllers.keys():
        assert replace(completed.controllers[name], public_key=None) == document.controllers[name]
    for name in without & completed.peers.keys():
        assert replace(completed.peers[name], public_key=None) == document.peers[name]


@given(documents())
def test_the_summary_counts_what_the_plans_hold(document: Document) -> None:
    assert missing_keys(document) == ""
    for row in summaries(document):
        desired = plan(document, row.machine)
        assert (row.addresses, row.wireguard_peers) == (len(desired.addresses), len(desired.peers))
        assert row.host_names == len(desired.hosts)
        assert (row.role == "controller") is desired.forwards
        assert row.has_key


@given(documents())
def test_the_tree_has_every_machine(document: Document) -> None:
    tree = summary_tree(summaries(document))
    assert isinstance(tree["machines"], dict)
    assert tree["machines"].keys() == {*document.controllers, *document.peers}
