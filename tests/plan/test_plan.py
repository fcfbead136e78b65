"""Laws of the planner: nothing overlaps, and everybody reaches everybody through whatever still works."""

from ipaddress import IPv6Address
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshes import inventory, mesh
from strategies import documents, public_key
from warren.errors import DocumentRefused
from warren.names import InstanceName, MachineName
from warren.network.document import Document
from warren.network.resolve import resolve
from warren.network.stored import Stored
from warren.plan.carriers import carrier, succession
from warren.plan.desired import Desired
from warren.plan.plan import plan, speaks_first
from warren.plan.reachability import Reachability
from warren.wireguard.device import AllowedIP

VPN = InstanceName("vpn")


def document(controllers: str, peers: str = "") -> Document:
    names = f"{controllers} {peers}".split()
    stored = Stored(public_keys={MachineName(name): public_key(name).text for name in names})
    return resolve(inventory(mesh(controllers, peers)), {VPN: stored})[VPN]


def covers(allowed: AllowedIP, address: IPv6Address) -> bool:
    shift = 128 - allowed.prefix_length
    return int.from_bytes(allowed.packed, "big") >> shift == int(address) >> shift


def cryptokey_route(desired: Desired, address: IPv6Address) -> MachineName | None:
    """The machine that WireGuard gives a packet for `address` to, and accepts one from `address` from."""
    matches = [
        (allowed.prefix_length, desired.peer_names[key])
        for key, peer in desired.peers.items()
        for allowed in peer.allowed_ips
        if covers(allowed, address)
    ]
    return max(matches)[1] if matches else None


def source_address(desired: Desired, destination: IPv6Address) -> IPv6Address:
    """What Linux takes: the address that has most leading bits in common (RFC 6724, rule 8)."""
    return max(
        (each.ip for each in desired.addresses), key=lambda own: 128 - (int(own) ^ int(destination)).bit_length()
    )


def way(
    plans: dict[MachineName, Desired], start: MachineName, source: IPv6Address, to: IPv6Address
) -> list[MachineName]:
    """The machines that a packet visits after `start`; it ends early where somebody drops it."""
    visited: list[MachineName] = []
    here = start
    for _ in range(4):  # a loop would be longer than any good way
        after = cryptokey_route(plans[here], to)
        if after is None or cryptokey_route(plans[after], source) != here:
            return visited
        visited.append(after)
        here = after
        if to in {each.ip for each in plans[here].addresses}:
            return visited
        if not plans[here].forwards:
            return visited
    return visited


@given(documents(max_machines=7), st.data())
def test_every_pair_has_a_way_for_every_set_of_healthy_controllers(document: Document, data: st.DataObject) -> None:
    controllers = sorted(document.controllers)
    healthy = frozenset(data.draw(st.sets(st.sampled_from(controllers), min_size=1)))
    plans = {
        name: plan(document, name, reachability=Reachability(healthy))
        for name in [*document.controllers, *document.peers]
    }
    alive = healthy | frozenset(document.peers)
    for start in sorted(alive):
        for end in sorted(alive - {start}):
            entry = document.entry(end)
            assert entry is not None
            to = document.name_address(entry)
            source = source_address(plans[start], to)
            there = way(plans, start, source, to)
            back = way(plans, end, to, source)
            assert there[-1:] == [end], (start, end, there)
            assert back[-1:] == [start], (start, end, back)
            between = 1 if start in document.peers and end in document.peers else 0
            assert len(there) == len(back) == between + 1
            assert alive.issuperset(there)
            assert alive.issuperset(back)


@given(documents())
def test_no_plan_has_overlapping_allowed_ips(document: Document) -> None:
    """WireGuard would take the entry from one peer and give it to the other, silently. (A /96 within another
    controller's /56 is no conflict: the longest match wins.)"""
    for name in [*document.controllers, *document.peers]:
        desired = plan(document, name)
        entries = [allowed for peer in desired.peers.values() for allowed in peer.allowed_ips]
        assert len(entries) == len(set(entries))


@given(documents())
def test_both_ends_of_a_controller_pair_agree_on_who_speaks_first(document: Document) -> None:
    plans = {name: plan(document, name) for name in document.controllers}
    for one, other in combinations(sorted(plans), 2):
        one_key, other_key = document.controllers[one].public_key, document.controllers[other].public_key
        assert one_key is not None
        assert other_key is not None
        assert speaks_first(plans[one], other_key) != speaks_first(plans[other], one_key)


@given(documents())
def test_peers_always_speak_first(document: Document) -> None:
    for name in document.peers:
        desired = plan(document, name)
        assert all(speaks_first(desired, key) for key in desired.peers)


def test_the_table_of_a_controller() -> None:
    mesh_document = document("server1 server2", "laptop1")
    desired = plan(mesh_document, MachineName("server1"))
    subnets = {name: str(entry.subnet) for name, entry in mesh_document.controllers.items()}
    prefix = {name: subnet.removesuffix("::/56") for name, subnet in subnets.items()}
    assert [str(address) for address in desired.addresses] == [f"{prefix[MachineName('server1')]}::1/40"]
    assert desired.listen_port == 51820
    assert desired.forwards
    by_name = {desired.peer_names[key]: peer for key, peer in desired.peers.items()}
    assert {name: sorted(map(str, peer.allowed_ips)) for name, peer in by_name.items()} == {
        "server2": [subnets[MachineName("server2")]],
        "laptop1": sorted(f"{each}:bcd6:8f7f::/96" for each in prefix.values()),
    }
    assert str(by_name[MachineName("server2")].endpoint) == "server2.example.com:51820"
    assert by_name[MachineName("laptop1")].endpoint is None
    assert {peer.keepalive_s for peer in by_name.values()} == {25}


def test_the_table_of_a_peer() -> None:
    mesh_document = document("server1 server2", "laptop1")
    desired = plan(mesh_document, MachineName("laptop1"), path_mtu_bytes=1400)
    assert desired.mtu_bytes == 1400
    prefix = {str(name): str(entry.subnet).removesuffix("::/56") for name, entry in mesh_document.controllers.items()}
    assert sorted(map(str, desired.addresses)) == sorted(f"{each}:bcd6:8f7f:3d6c:97/56" for each in prefix.values())
    assert desired.listen_port is None
    assert not desired.forwards
    assert {
        str(desired.peer_names[key]): sorted(map(str, peer.allowed_ips)) for key, peer in desired.peers.items()
    } == {name: sorted([f"{each}::/56", f"{each}::1/128"]) for name, each in prefix.items()}
    assert [str(line) for line in desired.hosts] == [
        f"{prefix['server1']}:bcd6:8f7f:3d6c:97 laptop1.vpn",
        f"{prefix['server1']}::1 server1.vpn",
        f"{prefix['server2']}::1 server2.vpn",
    ]


def test_a_dead_controllers_subnet_is_carried_by_a_survivor_and_its_address_stays_probeable() -> None:
    mesh_document = document("server1 server2", "laptop1")
    desired = plan(
        mesh_document, MachineName("laptop1"), reachability=Reachability(frozenset({MachineName("server2")}))
    )
    held = {desired.peer_names[key]: {str(a) for a in peer.allowed_ips} for key, peer in desired.peers.items()}
    dead = mesh_document.controllers[MachineName("server1")]
    own = f"{str(dead.subnet).removesuffix('::/56')}:bcd6:8f7f::/96"  # what comes back from the turning address
    assert held[MachineName("server1")] == {f"{dead.address}/128", own}
    assert str(dead.subnet) in held[MachineName("server2")]


def test_a_machine_that_the_document_does_not_know_is_refused() -> None:
    with pytest.raises(DocumentRefused, match='has no machine "stranger"'):
        plan(document("server1"), MachineName("stranger"))


names = st.lists(st.integers(0, 99).map(lambda n: MachineName(f"server{n}")), min_size=1, max_size=8, unique=True)


@given(names, st.data())
def test_carriers_depend_on_health_alone(controllers: list[MachineName], data: st.DataObject) -> None:
    healthy = frozenset(data.draw(st.sets(st.sampled_from(controllers))))
    shuffled = data.draw(st.permutations(controllers))
    for owner in controllers:
        chosen = carrier(owner, controllers, healthy)
        assert chosen == carrier(owner, shuffled, healthy)
        assert chosen in healthy or (chosen == owner and not healthy)
        if owner in healthy:
            assert chosen == owner


@given(names, st.data())
def test_a_controller_that_leaves_changes_nothing_between_the_others(
    controllers: list[MachineName], data: st.DataObject
) -> None:
    owner, gone = data.draw(st.sampled_from(controllers)), data.draw(st.sampled_from(controllers))
    rest = [name for name in controllers if name != gone]
    assert succession(owner, rest) == [name for name in succession(owner, controllers) if name != gone]
