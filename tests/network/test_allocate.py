"""Nobody's address changes because somebody else came or left; nobody has another's."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshes import inventory, mesh
from strategies import inventories
from warren.errors import InventoryError
from warren.inventory.model import Controller, Inventory
from warren.names import InstanceName, InterfaceName, MachineName
from warren.network import addresses
from warren.network.allocate import Allocation, allocate
from warren.network.stored import Stored
from warren.wireguard.endpoint import Endpoint

VPN = InstanceName("vpn")


def stored_of(allocation: Allocation) -> Stored:
    return Stored(
        {name: addresses.prefix_text(subnet) for name, subnet in allocation.subnets.items()},
        {name: addresses.suffix_text(suffix) for name, suffix in allocation.suffixes.items()},
    )


def messages(error: pytest.ExceptionInfo[InventoryError]) -> list[str]:
    return [f"{problem.file}: {problem.message}" for problem in error.value.problems]


@given(inventories())
def test_addresses_are_distinct_and_inside(inventory: Inventory) -> None:
    allocations = allocate(inventory, {})
    for instance in inventory.instances.values():
        allocation = allocations[instance.name]
        assert len(set(allocation.subnets.values())) == len(instance.controllers)
        assert all(subnet.subnet_of(allocation.base) for subnet in allocation.subnets.values())
        uppers = [addresses.upper_half(suffix) for suffix in allocation.suffixes.values()]
        assert len(set(uppers)) == len(instance.peers)
        assert 0 not in uppers
    for one in inventory.instances.values():
        for other in inventory.instances.values():
            if one != other and one.members.keys() & other.members.keys():
                assert allocations[one.name].base != allocations[other.name].base


@given(inventories(), st.data())
def test_nobody_moves_when_others_come_or_leave(whole: Inventory, data: st.DataObject) -> None:
    (name, instance), *_ = whole.instances.items()
    whole = replace(whole, instances={name: instance})
    before = allocate(whole, {})[name]
    stays = data.draw(st.sets(st.sampled_from(sorted(instance.controllers)), min_size=1))
    # Some leave: their values are still stored, or are gone with them.
    fewer = replace(instance, controllers={n: c for n, c in instance.controllers.items() if n in stays}, peers={})
    kept = data.draw(st.sampled_from((stored_of(before), Stored({n: stored_of(before).prefixes[n] for n in stays}))))
    alone = allocate(replace(whole, instances={name: fewer}), {name: kept})[name]
    assert alone.base == before.base
    assert all(alone.subnets[each] == before.subnets[each] for each in stays)
    # And come back, with a stranger: those who have values keep them.
    more = replace(
        instance,
        controllers={**instance.controllers, MachineName("zz"): Controller(
            MachineName("zz"), Endpoint("zz.example.com", 1), 1, InterfaceName("vpn"))},
    )  # fmt: skip
    again = allocate(replace(whole, instances={name: more}), {name: stored_of(before)})[name]
    assert before.subnets.items() <= again.subnets.items()
    assert before.suffixes.items() <= again.suffixes.items()


@given(inventories())
def test_what_was_allocated_reads_back_the_same(inventory: Inventory) -> None:
    once = allocate(inventory, {})
    assert allocate(inventory, {name: stored_of(each) for name, each in once.items()}) == once


def test_the_newer_of_two_controllers_with_one_id_moves() -> None:
    base = addresses.base_network(VPN)
    assert addresses.controller_subnet(base, MachineName("m33")) == addresses.controller_subnet(
        base, MachineName("m156")
    )
    fresh = allocate(inventory(mesh("m33 m156")), {})[VPN].subnets
    assert fresh[MachineName("m156")] == addresses.controller_subnet(
        base, MachineName("m156")
    )  # "m156" sorts first: the elder
    assert fresh[MachineName("m33")] == addresses.controller_subnet(base, MachineName("m33"), candidate=1)
    elder = {VPN: Stored(prefixes={MachineName("m33"): addresses.prefix_text(fresh[MachineName("m156")])})}
    kept = allocate(inventory(mesh("m33 m156")), elder)[VPN].subnets
    assert kept[MachineName("m33")] == fresh[MachineName("m156")]
    assert kept[MachineName("m156")] == addresses.controller_subnet(base, MachineName("m156"), candidate=1)


def test_the_newer_of_two_peers_with_one_range_moves() -> None:
    suffixes = allocate(inventory(mesh("server1", "m13553 m23864")), {})[VPN].suffixes
    assert suffixes[MachineName("m13553")] == addresses.peer_suffix(MachineName("m13553"))
    assert suffixes[MachineName("m23864")] == addresses.peer_suffix(MachineName("m23864"), candidate=1)


def test_instances_that_share_a_machine_get_distinct_bases() -> None:
    one, other = mesh("server1", "laptop1", "wg4267"), mesh("server2", "laptop1", "wg6978")
    together = allocate(inventory(one, other), {})
    assert together[one.name].base == addresses.base_network(one.name) == addresses.base_network(other.name)
    assert together[other.name].base == addresses.base_network(other.name, candidate=1)
    stored = {other.name: stored_of(allocate(inventory(other), {})[other.name])}
    elder = allocate(inventory(one, other), stored)
    assert elder[other.name].base == addresses.base_network(other.name)
    assert elder[one.name].base == addresses.base_network(one.name, candidate=1)


def test_instances_that_never_meet_may_share_a_base() -> None:
    one, other = mesh("server1", instance="wg4267"), mesh("server2", instance="wg6978")
    allocations = allocate(inventory(one, other), {})
    assert allocations[one.name].base == allocations[other.name].base


def test_stored_bases_that_clash_are_named() -> None:
    one, other = mesh("server1", "laptop1", "wg4267"), mesh("server2", "laptop1", "wg6978")
    stored = {each.name: stored_of(allocate(inventory(each), {})[each.name]) for each in (one, other)}
    with pytest.raises(InventoryError) as error:
        allocate(inventory(one, other), stored)
    assert "".join(messages(error)) == (
        'vars/per-machine/server2/wireguard-network-wg6978/prefix/value: instances "wg6978" and "wg4267" both have the '
        'base fd18:1f40::/40, and machine "laptop1" is in both'
    )


def test_every_bad_stored_value_is_named_at_once() -> None:
    stored = Stored(
        prefixes={
            MachineName("a"): "fd00:1:2:300",
            MachineName("b"): "fe80:1:2:300",
            MachineName("c"): stored_of(allocate(inventory(mesh("c")), {})[VPN]).prefixes[MachineName("c")],
        },
        suffixes={
            MachineName("p"): "0:0:1:2",
            MachineName("q"): "1:2:3:4",
            MachineName("r"): "1:2:5:6",
            MachineName("s"): "half",
        },
    )  # fmt: skip
    with pytest.raises(InventoryError) as error:
        allocate(inventory(mesh("a b c", "p q r s")), {VPN: stored})
    network = "wireguard-network-vpn"
    assert messages(error) == [
        f"vars/per-machine/a/{network}/prefix/value: 'fd00:1:2:300' is outside the instance's base fdeb:f20c::/40",
        f"vars/per-machine/b/{network}/prefix/value: 'fe80:1:2:300' is not in fd00::/8",
        f"vars/per-machine/p/{network}/suffix/value: '0:0:1:2': its /96 would cover the controllers' own ::1",
        f"vars/per-machine/r/{network}/suffix/value: '1:2:5:6' is taken: machine \"q\" has it",
        f"vars/per-machine/s/{network}/suffix/value: 'half' has 1 groups, not 4",
    ]


def test_a_value_written_by_hand_is_honoured() -> None:
    stored = Stored({MachineName("server1"): "fd00:aaaa:0:1100"}, {MachineName("laptop1"): "dead:beef:0:1"})
    allocation = allocate(inventory(mesh("server1", "laptop1")), {VPN: stored})[VPN]
    assert str(allocation.base) == "fd00:aaaa::/40"
    assert str(allocation.subnets[MachineName("server1")]) == "fd00:aaaa:0:1100::/56"
    assert allocation.suffixes[MachineName("laptop1")] == 0xDEADBEEF_0000_0001


def test_what_a_machine_that_left_had_stays_taken() -> None:
    stored = Stored(
        prefixes={
            MachineName("m156"): stored_of(allocate(inventory(mesh("m156")), {})[VPN]).prefixes[MachineName("m156")]
        }
    )
    allocation = allocate(inventory(mesh("m33")), {VPN: stored})[VPN]
    assert allocation.subnets[MachineName("m33")] == addresses.controller_subnet(
        allocation.base, MachineName("m33"), candidate=1
    )
