"""The internet of a lab as values: every endpoint of the inventory is true in it."""

from ipaddress import ip_address

import pytest
from hypothesis import given

from meshes import inventory, mesh
from strategies import inventories
from warren.errors import UsageError
from warren.inventory.model import Controller, Inventory
from warren.lab import underlay
from warren.lab.underlay import check_behind_nat, default_behind_nat, design, hosts_head, with_hosts_head
from warren.names import InterfaceName, MachineName
from warren.wireguard.endpoint import parse_endpoint

SERVER1, SERVER2 = MachineName("server1"), MachineName("server2")
LAPTOP1, LAPTOP2 = MachineName("laptop1"), MachineName("laptop2")
PAIR = inventory(mesh("server1 server2", "laptop1 laptop2"))


def with_endpoints(*endpoints: str, port: int = 51820) -> Inventory:
    """One controller for each endpoint, server1 first."""
    names = " ".join(f"server{number}" for number in range(1, len(endpoints) + 1))
    instance = mesh(names, "laptop1")
    controllers = {
        name: Controller(name, parse_endpoint(text), port, InterfaceName("vpn"))
        for name, text in zip(instance.controllers, endpoints, strict=True)
    }
    return inventory(
        type(instance)(instance.name, instance.domain, controllers, instance.peers),
    )


@given(inventories())
def test_every_machine_has_a_link_and_an_address_of_each_family_of_its_own(drawn: Inventory) -> None:
    names = {each.endpoint.host for instance in drawn.instances.values() for each in instance.controllers.values()}
    sites = design(drawn, default_behind_nat(drawn), {}).sites
    assert set(sites) == set(drawn.machines)
    addresses = [address for site in sites.values() for address in site.addresses]
    assert len(addresses) == len(set(addresses)) == 2 * len(sites)
    assert all({address.version for address in site.addresses} == {4, 6} for site in sites.values())
    assert len({site.link for site in sites.values()}) == len(sites)
    assert set(design(drawn, (), {}).names) == names


@given(inventories(), inventories())
def test_machines_keep_their_numbers_whoever_comes_or_leaves(before: Inventory, after: Inventory) -> None:
    numbers = {name: site.number for name, site in design(before, (), {}).sites.items()}
    later = {name: site.number for name, site in design(after, (), numbers).sites.items()}
    assert all(later[name] == numbers[name] for name in set(later) & set(numbers))
    assert len(set(later.values())) == len(later)


def test_a_literal_endpoint_becomes_the_address_of_its_family() -> None:
    sites = design(with_endpoints("203.0.113.5", "[2001:db8:5::1]:51820"), (), {}).sites
    assert sites[SERVER1].addresses[0] == ip_address("203.0.113.5")
    assert sites[SERVER1].addresses[1].version == 6
    assert sites[SERVER2].addresses[0] == ip_address("2001:db8:5::1")
    assert sites[SERVER2].addresses[1].version == 4


def test_a_literal_endpoint_that_would_be_the_next_machines_address_is_passed_over() -> None:
    free = underlay.NETWORK4[underlay.FIRST_NUMBER]
    sites = design(with_endpoints(str(free), "vpn2.example.com"), (), {}).sites
    assert [name for name, site in sites.items() if free in site.addresses] == [SERVER1]


def test_a_port_in_front_of_the_listening_one_is_forwarded() -> None:
    forwardings = design(with_endpoints("203.0.113.5:443"), (), {}).forwardings
    assert [(str(each.address), each.outside, each.inside) for each in forwardings] == [("203.0.113.5", 443, 51820)]
    both_families = design(with_endpoints("vpn.example.com:443"), (), {}).forwardings
    assert {each.address.version for each in both_families} == {4, 6}


@pytest.mark.parametrize("endpoint", ["127.0.0.1", "[::1]:51820", "0.0.0.0", "ff02::1", "fe80::1", "198.18.0.1"])
def test_an_endpoint_that_nobody_else_could_reach_is_refused(endpoint: str) -> None:
    with pytest.raises(UsageError, match="server1"):
        design(with_endpoints(endpoint), (), {})


@pytest.mark.parametrize("endpoint", ["203.0.113.5", "vpn.example.com"])
def test_two_machines_behind_one_endpoint_are_refused(endpoint: str) -> None:
    with pytest.raises(UsageError, match='"server1" and "server2" share'):
        design(with_endpoints(f"{endpoint}:1000", f"{endpoint}:2000"), (), {})


def test_the_last_peer_is_behind_nat_where_there_are_two() -> None:
    assert default_behind_nat(PAIR) == {LAPTOP2}
    assert default_behind_nat(inventory(mesh("server1", "laptop1"))) == frozenset()
    # A controller of one instance is no candidate, though it is a peer of another.
    assert default_behind_nat(inventory(mesh("server1", "a b"), mesh("b", "server1 a", "corp"))) == frozenset()


def test_a_controller_cannot_be_behind_nat() -> None:
    check_behind_nat(PAIR, {LAPTOP1, LAPTOP2})
    with pytest.raises(UsageError, match='"server1" cannot be behind NAT') as caught:
        check_behind_nat(PAIR, {SERVER1})
    assert "laptop1, laptop2" in str(caught.value)


def test_the_labs_part_of_a_hosts_file_is_replaced_and_the_rest_stays() -> None:
    before = hosts_head(design(PAIR, (), {}), LAPTOP1)
    after = hosts_head(design(with_endpoints("vpn9.example.com"), (), {}), LAPTOP1)
    rest = "# BEGIN warren vpn\nfd00::1 server1.vpn\n# END warren vpn\n"
    assert with_hosts_head(before + rest, after) == after + rest
    assert with_hosts_head("", before) == before
    assert with_hosts_head("10.0.0.1 mine\n", before) == before + "10.0.0.1 mine\n"
