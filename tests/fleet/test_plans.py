"""Which machines a change concerns: exactly those whose own plan changed."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from strategies import documents
from warren.fleet.plans import content_digest, out_of_date, plan_digests, to_forget, wanted
from warren.names import InstanceName, MachineName
from warren.network.document import ControllerEntry, Document, Entry
from warren.plan.plan import plan
from warren.render.desired import desired_tree


def trees(document: Document) -> dict[MachineName, object]:
    """What `warren plan` shows, of every machine."""
    return {name: desired_tree(name, [plan(document, name)]) for name in (*document.controllers, *document.peers)}


@st.composite
def changed(draw: st.DrawFn) -> tuple[Document, Document]:
    """A document, and the same after somebody changed a setting or took a peer out."""
    document = draw(documents())
    everybody: list[Entry] = [*document.controllers.values(), *document.peers.values()]
    entry = draw(st.sampled_from(everybody))
    if isinstance(entry, ControllerEntry):
        new = replace(entry, port=draw(st.sampled_from([51820, 51821])), mtu_bytes=draw(st.sampled_from([None, 1300])))
        return document, replace(document, controllers={**document.controllers, entry.name: new})
    if draw(st.booleans()):
        left = {name: each for name, each in document.peers.items() if name != entry.name}
        return document, replace(document, peers=left)
    new_peer = replace(entry, mtu_bytes=draw(st.sampled_from([None, 1300])))
    return document, replace(document, peers={**document.peers, entry.name: new_peer})


@given(changed())
def test_a_digest_changes_if_and_only_if_the_plan_does(pair: tuple[Document, Document]) -> None:
    before, after = map(plan_digests, pair)
    trees_before, trees_after = map(trees, pair)
    assert before.keys() == trees_before.keys()
    for name in before.keys() & after.keys():
        is_as_before = trees_before[name] == trees_after[name]
        if name in pair[0].controllers and any(each.pulls for both in pair for each in both.peers.values()):
            continue  # see below
        assert (before[name] == after[name]) == is_as_before


@given(changed())
def test_where_somebody_fetches_controllers_need_every_change(pair: tuple[Document, Document]) -> None:
    one, other = (
        replace(each, peers={name: replace(peer, pulls=True) for name, peer in each.peers.items()}) for each in pair
    )
    before, after = plan_digests(one), plan_digests(other)
    for name in one.controllers.keys() & other.controllers.keys() if one.peers and other.peers else ():
        assert (before[name] == after[name]) == (content_digest(one) == content_digest(other))


@given(documents())
def test_the_serial_is_no_content(document: Document) -> None:
    later = replace(document, serial=document.serial + 1)
    assert content_digest(later) == content_digest(document)
    assert plan_digests(later) == plan_digests(document)
    assert content_digest(replace(document, domain="elsewhere")) != content_digest(document)


@given(documents())
def test_who_confirmed_all_is_up_to_date(document: Document) -> None:
    wants = wanted({document.instance: document})
    assert out_of_date(wants, wants) == {}
    assert out_of_date(wants, {}) == {name: (document.instance,) for name, _ in wants}


def test_an_instance_that_a_machine_left_is_to_be_forgotten_unless_the_machine_left_too() -> None:
    vpn = InstanceName("vpn")
    a, b = MachineName("a"), MachineName("b")
    assert to_forget({a: None}, {}, {(a, vpn): "digest", (b, vpn): "digest"}) == {a: (vpn,)}
    assert to_forget({a: None}, {(a, vpn): "new"}, {(a, vpn): "old"}) == {}
