"""Peers agree on carriers for all sets of usable controllers, and get from one agreement to the next without a gap."""

from hypothesis import given
from hypothesis import strategies as st

from plan.simulation import after
from plan.test_diff import NOW_S, device_after, perform, resolved_of
from plan.test_plan import document, source_address, way
from strategies import documents
from warren.names import MachineName
from warren.network import addresses
from warren.network.document import Document
from warren.plan import moves
from warren.plan.desired import NOTHING, Desired
from warren.plan.diff import diff
from warren.plan.plan import plan
from warren.plan.reachability import Reachability, carriers, everything, found, name_address
from warren.plan.steps import SetPeers
from warren.wireguard.device import AllowedIP, ObservedDevice
from warren.wireguard.keys import PublicKey

Usable = dict[MachineName, frozenset[MachineName]]


@st.composite
def usable_sets(draw: st.DrawFn, of: Document) -> Usable:
    controllers = sorted(of.controllers)
    return {name: draw(st.frozensets(st.sampled_from(controllers))) for name in of.peers}


def as_seen_by(name: MachineName, usable: Usable, of: Document) -> Reachability:
    everybody = frozenset(of.controllers)
    return Reachability(usable[name], {other: everybody - each for other, each in usable.items() if other != name})


def holder(desired: Desired, allowed: AllowedIP) -> MachineName | None:
    return next((desired.peer_names[key] for key, peer in desired.peers.items() if allowed in peer.allowed_ips), None)


@given(documents(max_machines=7), st.data())
def test_two_peers_that_know_each_others_sets_agree_and_reach_each_other(of: Document, data: st.DataObject) -> None:
    usable = data.draw(usable_sets(of))
    plans = {name: plan(of, name) for name in of.controllers}
    plans |= {name: plan(of, name, reachability=as_seen_by(name, usable, of)) for name in of.peers}
    for one in of.peers:
        for other in of.peers:
            shared = usable[one] & usable[other]
            if one == other or not shared:
                continue
            entry = of.peers[other]
            named = name_address(of, entry, of.peers[one], as_seen_by(one, usable, of))
            everywhere = [addresses.peer_address(each.subnet, entry.suffix) for each in of.controllers.values()]
            for to in (named, *everywhere):
                source = source_address(plans[one], to)
                there, back = way(plans, one, source, to), way(plans, other, to, source)
                assert there[-1:] == [other]
                assert back[-1:] == [one]
                assert there[0] == back[0]
                assert there[0] in shared


@given(documents(max_machines=7), st.data())
def test_with_equal_health_there_are_no_exceptions(of: Document, data: st.DataObject) -> None:
    usable = data.draw(st.frozensets(st.sampled_from(sorted(of.controllers)), min_size=1))
    for name in of.peers:
        seen = as_seen_by(name, dict.fromkeys(of.peers, usable), of)
        assert plan(of, name, reachability=seen) == plan(of, name, reachability=Reachability(usable))


@given(documents(max_machines=7), st.data())
def test_no_allowed_ip_is_given_twice_and_a_probe_always_reaches_its_controller(
    of: Document, data: st.DataObject
) -> None:
    usable = data.draw(usable_sets(of))
    for name, entry in of.peers.items():
        desired = plan(of, name, reachability=as_seen_by(name, usable, of))
        given_out = [allowed for peer in desired.peers.values() for allowed in peer.allowed_ips]
        assert len(given_out) == len(set(given_out))
        for controller in of.controllers.values():
            turning = addresses.turning_address(controller.subnet, entry.suffix)
            own = addresses.peer_address(controller.subnet, entry.suffix)
            for address in (controller.address, turning, own):
                assert longest_match(desired_device(desired), address.packed) == controller.public_key


@given(documents(max_machines=7), st.data())
def test_with_everything_up_the_plan_is_the_plain_one(of: Document, data: st.DataObject) -> None:
    for name in [*of.peers, *of.controllers]:
        assert plan(of, name, reachability=everything(of)) == plan(of, name)


@given(documents(max_machines=7), st.data())
def test_a_move_leads_every_packet_right_and_at_no_time_has_it_no_holder(of: Document, data: st.DataObject) -> None:
    """Step by step: each address is with its old or its new holder, and at the end with the new one."""
    if not of.peers:
        return
    name = data.draw(st.sampled_from(sorted(of.peers)))
    old, new = (plan(of, name, reachability=as_seen_by(name, data.draw(usable_sets(of)), of)) for _ in range(2))
    before = device_after(perform(NOTHING, old))
    step = moves.moves(before, new, NOW_S)
    wanted = desired_device(new)
    probes = [
        address
        for controller in of.controllers.values()
        for address in (
            controller.address.packed,
            *(addresses.peer_address(controller.subnet, peer.suffix).packed for peer in of.peers.values()),
        )
    ]
    now = perform(NOTHING, old)
    for change in step.changes:
        assert change.gained_ips is not None
        now = after(now, (SetPeers(step.interface, (change,)),), {})
        for address in probes:
            allowed_holders = {longest_match(before, address), longest_match(wanted, address)}
            assert longest_match(device_after(now), address) in allowed_holders
    for address in probes:
        assert longest_match(device_after(now), address) == longest_match(wanted, address)
    whole = perform(now, new)
    assert diff(whole, new, resolved_of(new)) == ()
    assert device_after(whole).peers.keys() == new.peers.keys()


@given(documents(max_machines=7), st.data())
def test_an_agent_that_starts_finds_what_the_one_before_did(of: Document, data: st.DataObject) -> None:
    if not of.peers:
        return
    name = data.draw(st.sampled_from(sorted(of.peers)))
    usable = data.draw(st.frozensets(st.sampled_from(sorted(of.controllers)), min_size=1))
    device = device_after(perform(NOTHING, plan(of, name, reachability=Reachability(usable))))
    assert found(of, name, device) == Reachability(usable)


def test_an_exception_is_found_again() -> None:
    of = document("server1 server2", "laptop1 laptop2")
    server1, laptop1, laptop2 = map(MachineName, ("server1", "laptop1", "laptop2"))
    seen = Reachability(frozenset(of.controllers), {laptop2: frozenset({server1})})
    desired = plan(of, laptop1, reachability=seen)
    apart = addresses.peer_range(of.controllers[server1].subnet, of.peers[laptop2].suffix)
    assert holder(desired, apart) == "server2"
    assert found(of, laptop1, device_after(perform(NOTHING, desired))) == seen


def test_a_session_is_begun_anew_with_all_that_it_carries() -> None:
    of = document("server1 server2", "laptop1")
    desired = plan(of, MachineName("laptop1"))
    made = perform(NOTHING, desired)
    key = of.controllers[MachineName("server1")].public_key
    assert key is not None
    step = moves.renewal(device_after(made), desired, frozenset({key}))
    assert step.removed == (key,)
    (change,) = step.changes
    assert change.is_new
    assert str(change.endpoint) == "server1.example.com:51820"
    where = {str(endpoint): each for endpoint, (each,) in resolved_of(desired).items()}
    assert device_after(after(made, (step,), where)).peers == device_after(made).peers


def test_when_nobody_is_usable_all_is_as_if_all_were() -> None:
    of = document("server1 server2", "laptop1")
    assert carriers(of, frozenset()) == {name: name for name in of.controllers}


def desired_device(desired: Desired) -> ObservedDevice:
    """As the device is once all of it is done."""
    return device_after(perform(NOTHING, desired))


def longest_match(device: ObservedDevice, address: bytes) -> PublicKey | None:
    number = int.from_bytes(address, "big")
    matches = [
        (allowed.prefix_length, key)
        for key, peer in device.peers.items()
        for allowed in peer.allowed_ips
        if number >> (shift := 128 - allowed.prefix_length) == int.from_bytes(allowed.packed, "big") >> shift
    ]
    return max(matches)[1] if matches else None
