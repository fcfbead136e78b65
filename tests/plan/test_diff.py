"""Laws of the diff: it converges in one pass from anywhere, and has nothing to say about what is right."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Interface, IPv6Network

from hypothesis import given
from hypothesis import strategies as st

from meshes import inventory, mesh
from plan.simulation import after
from strategies import documents, public_key
from warren.names import MachineName
from warren.network.document import Document
from warren.network.resolve import resolve
from warren.network.stored import Stored
from warren.plan import forwarding
from warren.plan.desired import NOTHING, Desired, Observed, ObservedLink
from warren.plan.diff import diff, endpoints_to_look_up, only_where_to_call, others_first, removal
from warren.plan.plan import plan
from warren.plan.steps import AwaitHandshake, LoadTable, SetLinkUp, SetPeers
from warren.wireguard.device import HANDSHAKE_INITIATION_BYTES, AllowedIP, ObservedDevice, ObservedPeer
from warren.wireguard.endpoint import Endpoint, SocketAddress
from warren.wireguard.preshared import fingerprint

NOW_S = 1_000_000.0


def address_of(endpoint: Endpoint) -> SocketAddress:
    return SocketAddress(IPv4Address(sum(str(endpoint).encode())), endpoint.port)


def resolved_of(desired: Desired) -> dict[Endpoint, tuple[SocketAddress, ...]]:
    return {each.endpoint: (address_of(each.endpoint),) for each in desired.peers.values() if each.endpoint}


def perform(seen: Observed, desired: Desired) -> Observed:
    resolved = resolved_of(desired)
    where = {str(endpoint): address for endpoint, (address,) in resolved.items()}
    return after(seen, diff(seen, desired, resolved), where)


def device_after(seen: Observed) -> ObservedDevice:
    assert seen.device is not None
    return seen.device


def any_machine(document: Document, data: st.DataObject) -> MachineName:
    return data.draw(st.sampled_from([*document.controllers, *document.peers]))


@st.composite
def drifted(draw: st.DrawFn, seen: Observed) -> Observed:
    """The machine after people, crashes and other programs had their way with it."""
    device = seen.device
    assert device is not None
    peers = dict(device.peers)
    for key in draw(st.sets(st.sampled_from(sorted(peers)), max_size=3)) if peers else ():
        what = draw(st.sampled_from(("gone", "keepalive", "allowed_ips", "endpoint", "preshared")))
        if what == "gone":
            del peers[key]
        else:
            peers[key] = {
                "keepalive": peers[key]._replace(keepalive_s=7),
                "allowed_ips": peers[key]._replace(allowed_ips=frozenset({AllowedIP(bytes(16), 128)})),
                "endpoint": peers[key]._replace(endpoint=None),
                "preshared": peers[key]._replace(preshared=fingerprint(b"somebody's own")),
            }[what]
    stranger = public_key("stranger")
    if draw(st.booleans()):
        peers[stranger] = ObservedPeer(stranger, frozenset({AllowedIP(bytes(16), 0)}))
    device = ObservedDevice(
        draw(st.sampled_from((device.public_key, None, stranger))),
        draw(st.sampled_from((device.listen_port, 1))),
        peers,
    )
    extra = IPv6Interface("fd00::99/64")
    return replace(
        seen,
        link=draw(st.sampled_from((seen.link, None, ObservedLink("tun", 1280, is_up=True)))),
        device=draw(st.sampled_from((device, device, device, None))),
        addresses=draw(st.sampled_from((seen.addresses, frozenset(), seen.addresses | {extra}))),
        routes=draw(st.sampled_from((seen.routes, frozenset()))),
        unreachable=draw(st.sampled_from((seen.unreachable, frozenset({IPv6Network("fd00::/40")})))),
        sysctls={key: draw(st.sampled_from(("0", "1"))) for key in draw(st.sampled_from((KERNEL_6_17, KERNEL_6_1)))},
        firewall=draw(st.sampled_from((seen.firewall, None, "something else"))),
        hosts=draw(st.sampled_from((seen.hosts, None, (), ("::1 other",)))),
    )


KERNEL_6_1 = (forwarding.ALL_FORWARDING, "net.ipv6.conf.eth0.accept_ra", "net.ipv6.conf.eth0.forwarding")
KERNEL_6_17 = (forwarding.ALL_FORWARDING, "net.ipv6.conf.default.force_forwarding")


@given(documents(), st.data())
def test_one_pass_makes_a_machine_from_nothing(document: Document, data: st.DataObject) -> None:
    desired = plan(document, any_machine(document, data))
    made = perform(NOTHING, desired)
    assert made.device is not None
    assert made.link is not None
    assert (made.link.mtu_bytes, made.link.is_up) == (desired.mtu_bytes, True)
    assert made.addresses == desired.addresses
    assert made.device.public_key == desired.public_key
    assert {key: (peer.allowed_ips, peer.keepalive_s) for key, peer in made.device.peers.items()} == {
        key: (peer.allowed_ips, peer.keepalive_s) for key, peer in desired.peers.items()
    }
    assert made.hosts == tuple(map(str, desired.hosts))
    assert diff(made, desired, resolved_of(desired)) == ()


@given(documents(), st.data())
def test_one_pass_mends_any_drift(document: Document, data: st.DataObject) -> None:
    desired = plan(document, any_machine(document, data))
    seen = data.draw(drifted(perform(NOTHING, desired)))
    assert diff(perform(seen, desired), desired, resolved_of(desired)) == ()


@given(documents(), documents(), st.data())
def test_one_pass_leads_from_one_document_to_another(old: Document, new: Document, data: st.DataObject) -> None:
    before = perform(NOTHING, plan(old, any_machine(old, data)))
    desired = plan(new, any_machine(new, data))
    assert diff(perform(before, desired), desired, resolved_of(desired)) == ()


@given(documents(), st.data())
def test_removal_leaves_nothing(document: Document, data: st.DataObject) -> None:
    desired = plan(document, any_machine(document, data))
    seen = replace(data.draw(drifted(perform(NOTHING, desired))), sysctls_before={forwarding.ALL_FORWARDING: "0"})
    left = after(seen, removal(seen, desired.instance, desired.interface), {})
    assert left.link is None
    assert left.hosts is None
    assert left.firewall is None
    assert not left.unreachable
    assert not left.sysctls_before
    assert left.sysctls[forwarding.ALL_FORWARDING] == "0"
    assert removal(left, desired.instance, desired.interface) == ()


@given(documents(), st.data())
def test_only_the_peer_that_changed_is_touched(document: Document, data: st.DataObject) -> None:
    desired = plan(document, any_machine(document, data))
    made = perform(NOTHING, desired)
    assert made.device is not None
    if not made.device.peers:
        return
    changed = data.draw(st.sampled_from(sorted(made.device.peers)))
    peers = {**made.device.peers, changed: made.device.peers[changed]._replace(keepalive_s=1)}
    (step,) = diff(replace(made, device=replace(made.device, peers=peers)), desired)
    assert isinstance(step, SetPeers)
    assert not step.removed
    assert [change.public_key for change in step.changes] == [changed]
    assert step.changes[0].allowed_ips is None
    assert step.changes[0].endpoint is None


@given(documents(), st.data())
def test_nothing_is_up_before_its_firewall(document: Document, data: st.DataObject) -> None:
    kinds = [type(step) for step in diff(NOTHING, plan(document, any_machine(document, data)))]
    assert kinds.index(LoadTable) < kinds.index(SetLinkUp)
    if AwaitHandshake in kinds:
        assert kinds.index(SetLinkUp) < kinds.index(AwaitHandshake)


def peer_of_one_controller() -> tuple[Desired, ObservedPeer]:
    keys = Stored(public_keys={MachineName(name): public_key(name).text for name in ("server1", "laptop1")})
    instance = mesh("server1", "laptop1")
    desired = plan(resolve(inventory(instance), {instance.name: keys})[instance.name], MachineName("laptop1"))
    (peer,) = desired.peers.values()
    return desired, ObservedPeer(peer.public_key, peer.allowed_ips, None, peer.keepalive_s)


def test_a_peer_that_answers_keeps_its_endpoint_wherever_it_is() -> None:
    desired, held = peer_of_one_controller()
    (endpoint,) = resolved_of(desired)
    elsewhere = SocketAddress(IPv4Address("192.0.2.99"), 1)
    for handshake_s, held_endpoint, expected in [
        (NOW_S - 10, elsewhere, None),  # answers: left alone
        (NOW_S - 1000, elsewhere, endpoint),  # silent, and its name stands for another address now
        (0, elsewhere, endpoint),  # never heard
        (NOW_S - 1000, address_of(endpoint), None),  # silent, but there is nowhere else to try
        (0, None, endpoint),
    ]:
        peer = held._replace(handshake_unix_s=handshake_s, endpoint=held_endpoint)
        made = perform(NOTHING, desired)
        seen = replace(made, unix_s=NOW_S, device=ObservedDevice(desired.public_key, 1, {held.public_key: peer}))
        assert (endpoint in endpoints_to_look_up(seen, desired)) == (handshake_s != NOW_S - 10)
        steps = diff(seen, desired, resolved_of(desired))
        changes = [change for step in steps if isinstance(step, SetPeers) for change in step.changes]
        assert [change.endpoint for change in changes] == ([expected] if expected else [])


def test_a_name_that_stands_for_nothing_now_is_no_change_for_ever() -> None:
    desired, held = peer_of_one_controller()
    (endpoint,) = resolved_of(desired)
    made = perform(NOTHING, desired)
    seen = replace(made, unix_s=NOW_S, device=ObservedDevice(desired.public_key, 1, {held.public_key: held}))
    assert diff(seen, desired, {endpoint: ()}) == ()


def test_a_silent_peer_is_tried_at_each_of_its_addresses_in_turn() -> None:
    desired, held = peer_of_one_controller()
    (endpoint,) = resolved_of(desired)
    six, four = address_of(endpoint), SocketAddress(IPv4Address("192.0.2.4"), 51820)
    made = perform(NOTHING, desired)
    for now_at, other, sent_bytes, expected in [
        (six, four, 3 * HANDSHAKE_INITIATION_BYTES, True),
        (four, six, 3 * HANDSHAKE_INITIATION_BYTES, True),
        (six, four, HANDSHAKE_INITIATION_BYTES, False),  # it has hardly been tried
    ]:
        peer = held._replace(endpoint=now_at, sent_bytes=sent_bytes)
        seen = replace(made, unix_s=NOW_S, device=ObservedDevice(desired.public_key, 1, {held.public_key: peer}))
        resolved = others_first(seen, desired, {endpoint: (six, four)})
        assert resolved[endpoint] == (other, now_at)
        assert bool(diff(seen, desired, resolved)) == expected
        moved = after(seen, diff(seen, desired, resolved), {str(endpoint): other})
        assert not expected or diff(moved, desired, resolved) == ()


def test_where_a_peer_is_called_is_told_from_all_else() -> None:
    desired, held = peer_of_one_controller()
    (endpoint,) = resolved_of(desired)
    made = perform(NOTHING, desired)
    other = SocketAddress(IPv4Address("192.0.2.4"), 51820)
    silent = held._replace(endpoint=other, sent_bytes=3 * HANDSHAKE_INITIATION_BYTES)
    for peer, found in [(silent, True), (silent._replace(allowed_ips=frozenset()), False)]:
        seen = replace(made, unix_s=NOW_S, device=ObservedDevice(desired.public_key, 1, {held.public_key: peer}))
        steps = diff(seen, desired, {endpoint: (address_of(endpoint),)})
        assert [type(step) for step in steps] == [SetPeers]
        assert only_where_to_call(steps) is found
    gone = ObservedDevice(desired.public_key, 1, {public_key("stranger"): held, held.public_key: held})
    assert not only_where_to_call(diff(replace(made, unix_s=NOW_S, device=gone), desired, {endpoint: ()}))
    assert not only_where_to_call((SetLinkUp(desired.interface),))
