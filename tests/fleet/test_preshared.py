"""Preshared keys on a fleet that is in use: switched on, exchanged, switched off, and nothing is lost meanwhile."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from fleet.fleets import FOLDER, OPERATOR, Fleet, all_pairs, installed_fleet
from fleet.test_rotation import back, stage
from fleet.test_traffic import nothing_lost
from lab.labs import CONTROLLERS, DEMO, PEERS
from namespaces import wait_until

pytestmark = [pytest.mark.root, pytest.mark.lab]

MACHINES = (*CONTROLLERS, *PEERS)
WITH = DEMO.replace('module.name = "wireguard"\n', 'module.name = "wireguard"\npsk = true\n')
GENERATE = ("vars", "generate", "--service", "wireguard-psk-vpn")
PAIRS = {frozenset(("server1", "server2")), *(frozenset((peer, each)) for peer in PEERS for each in CONTROLLERS)}
TRAINS = (
    ("laptop1", "laptop2.vpn"),
    ("laptop2", "server2.vpn"),
    ("laptop3", "laptop1.vpn"),
    ("server2", "server1.vpn"),
)
KEPT = "/var/lib/warren/vpn/preshared.keys"


@pytest.fixture(scope="module")
def fleet_without() -> Iterator[Fleet]:
    """Five machines that were installed and updated, with agents, and without preshared keys."""
    with installed_fleet(DEMO, MACHINES) as made:
        assert made.failing(all_pairs(MACHINES)) == []
        yield made


@pytest.fixture
def five(fleet_without: Fleet) -> Fleet:
    """The same, whatever the test before left: every pair has a preshared key."""
    fleet_without.write(f"{FOLDER}/warren.toml", WITH)
    fleet_without.warren("machines", "update")
    return fleet_without


def set_keys(fleet: Fleet) -> dict[frozenset[str], set[str]]:
    """What both ends of each pair have set in WireGuard."""
    names = {fleet.sh(name, "wg show vpn public-key").strip(): name for name in MACHINES}
    found: dict[frozenset[str], set[str]] = {}
    for name in MACHINES:
        for line in fleet.sh(name, "wg show vpn preshared-keys").splitlines():
            key, preshared = line.split()
            found.setdefault(frozenset((name, names[key])), set()).add(preshared)
    return found


def assert_all_have_one(fleet: Fleet) -> set[str]:
    """Every pair has a preshared key, and no two the same."""
    keys = set_keys(fleet)
    assert keys.keys() == PAIRS
    assert {len(each) for each in keys.values()} == {1}
    every = set.union(*keys.values())
    assert len(every) == len(PAIRS)
    assert "(none)" not in every
    return every


def kept(fleet: Fleet, machine: str) -> dict[str, list[str]]:
    """The states of the keys that the machine keeps, by the other end."""
    found: dict[str, list[str]] = {}
    for line in fleet.sh(machine, f"cat {KEPT}").splitlines():
        found.setdefault(line.split()[0], []).append(line.split()[2])
    return found


def renew_sessions(fleet: Fleet, *machines: str) -> None:
    """These machines have no session any more, and begin all anew with whatever keys both ends have."""
    for name in machines:
        fleet.sh(name, "for each in $(wg show vpn peers); do wg set vpn peer $each remove; done; warren apply")


def deaf(fleet: Fleet, machine: str) -> None:
    """The operator does not reach it any more. Everybody else does."""
    fleet.sh(machine, "kill $(cat /run/sshd.pid)")


def hearing(fleet: Fleet, machine: str) -> None:
    fleet.spawn(machine, ["/usr/sbin/sshd", "-D", "-e", "-f", "/etc/ssh/fleet_sshd_config"], "/var/log/sshd.log")
    wait_until(lambda: ":0016 " in fleet.sh(machine, "cat /proc/net/tcp"), what=f"sshd of {machine}")


def test_switched_on_exchanged_and_off_and_no_packet_is_lost(fleet_without: Fleet) -> None:
    five = fleet_without
    with nothing_lost(five, TRAINS):
        five.write(f"{FOLDER}/warren.toml", WITH)
        five.warren("machines", "update")
        first = assert_all_have_one(five)
        five.warren(*GENERATE, "--regenerate")
        assert "7 pairs are being exchanged (warren machines update)" in five.warren("check").err
        assert assert_all_have_one(five) == first
        five.warren("machines", "update")
        second = assert_all_have_one(five)
        assert not first & second
        assert five.warren("check").err == ""
        assert kept(five, "server1") == {name: ["gone", "used"] for name in (*PEERS, "server2")}
        five.write(f"{FOLDER}/warren.toml", DEMO)
        five.warren("machines", "update")
        assert set().union(*set_keys(five).values()) == {"(none)"}
    for name in MACHINES:  # of no key anything is left
        assert {each for states in kept(five, name).values() for each in states} == {"gone"}
    assert five.sh(OPERATOR, f"ls {FOLDER}/vars/per-machine/*/ | grep -c psk || :").strip() == "0"


def test_without_sessions_they_find_each_other_by_their_keys(five: Fleet) -> None:
    keys = assert_all_have_one(five)
    renew_sessions(five, *PEERS, "server2")
    assert five.failing(all_pairs(MACHINES)) == []
    assert assert_all_have_one(five) == keys


def test_of_one_machine_alone(five: Fleet) -> None:
    before = set_keys(five)
    five.warren(*GENERATE, "--regenerate", "--machine", "laptop1")
    stage(five, "laptop1")  # and its own key, which is a matter of its own
    five.warren("machines", "update")
    after = set_keys(five)
    assert five.failing([("laptop1", "server1"), ("server2", "laptop1"), ("laptop1", "laptop2")]) == []
    assert {pair for pair in PAIRS if before[pair] != after[pair]} == {pair for pair in PAIRS if "laptop1" in pair}
    assert five.warren(*GENERATE).err == "nothing is missing\n"


def test_a_machine_that_is_away_while_they_are_exchanged_comes_back(five: Fleet) -> None:
    """It holds the next keys, and others use them already when it starts, of which its document knows nothing."""
    five.warren(*GENERATE, "--regenerate")
    five.kill("laptop2")
    said = five.warren("machines", "update", code=4).err
    assert "vpn: the preshared keys of 2 pairs are being exchanged, and wait for laptop2" in said
    back(five, "laptop2")
    assert five.failing([("laptop2", "server1"), ("server2", "laptop2"), ("laptop1", "laptop2")]) == []
    five.warren("machines", "update")
    assert_all_have_one(five)
    assert five.warren("check").err == ""


def test_a_machine_that_is_away_while_they_are_switched_on_comes_back(fleet_without: Fleet) -> None:
    five = fleet_without
    five.write(f"{FOLDER}/warren.toml", DEMO)
    five.warren("machines", "update")
    five.write(f"{FOLDER}/warren.toml", WITH)
    five.warren(*GENERATE)
    five.kill("laptop3")
    five.warren("machines", "update", code=4)
    back(five, "laptop3")
    assert five.failing([("laptop3", "server1"), ("server2", "laptop3"), ("laptop1", "laptop3")]) == []
    five.warren("machines", "update")
    assert_all_have_one(five)


def test_who_is_away_when_they_are_made_has_none_until_it_is_back(fleet_without: Fleet) -> None:
    five = fleet_without
    five.write(f"{FOLDER}/warren.toml", DEMO)
    five.warren("machines", "update")
    five.kill("laptop3")
    five.write(f"{FOLDER}/warren.toml", WITH)
    said = five.warren("machines", "update").err
    assert "laptop3: " in said
    keys = set_keys_of(five, "laptop1")
    assert "(none)" not in keys
    assert "(none)" in set_keys_of(five, "server1")
    back(five, "laptop3")
    assert five.failing([("laptop3", "server1"), ("laptop3", "laptop1")]) == []
    five.warren("machines", "update")
    assert_all_have_one(five)


def set_keys_of(fleet: Fleet, machine: str) -> list[str]:
    return [line.split()[1] for line in fleet.sh(machine, "wg show vpn preshared-keys").splitlines()]


def test_a_machine_that_lost_its_keys_is_told_how_to_get_others(five: Fleet) -> None:
    five.sh("laptop1", f"mv {KEPT} /root/lost")
    said = five.on("laptop1", "warren", "apply", "--check", code=None)
    assert said.code in (0, 3), said  # WireGuard has them still
    five.sh("laptop1", "for each in $(wg show vpn peers); do wg set vpn peer $each remove; done")
    said = five.on("laptop1", "warren", "apply", "--check", code=None)
    assert "does not hold its preshared keys with server1, server2" in said.err
    mend = "warren vars generate --service wireguard-psk-vpn --regenerate --at-once --machine laptop1"
    assert mend in said.err
    five.write(f"{FOLDER}/warren.toml", f"{WITH}roles.peer.machines.laptop1.settings.mtu = 1400\n")
    assert "does not hold its preshared keys" in five.warren("machines", "update", code=4).err  # it is refused
    assert "mtu 1400" not in five.sh("laptop1", "ip link show dev vpn")
    five.warren(*mend.split()[1:])
    five.warren("machines", "update")
    assert_all_have_one(five)
    assert five.failing([("laptop1", "server1"), ("laptop2", "laptop1")]) == []


@pytest.mark.slow
@pytest.mark.skipif("WARREN_REKEY" not in os.environ, reason="four minutes: WARREN_REKEY=1")
def test_sessions_outlive_ends_that_have_different_keys(five: Fleet) -> None:
    """The operator cannot reach one machine any more: it has the former keys and its controllers the next ones, when
    WireGuard makes new handshakes by itself, after 120 seconds. It finds the right ones before its sessions end."""
    five.warren(*GENERATE, "--regenerate")
    deaf(five, "laptop1")
    trains = (("laptop1", "laptop2.vpn"), ("laptop3", "laptop1.vpn"), ("server2", "laptop1.vpn"))
    with nothing_lost(five, trains):
        five.warren("machines", "update", code=4)
        keys = set_keys(five)
        assert {pair for pair in PAIRS if len(keys[pair]) > 1} == {pair for pair in PAIRS if "laptop1" in pair}
        time.sleep(240)
        assert_all_have_one(five)
    hearing(five, "laptop1")
    five.warren("machines", "update")
    assert_all_have_one(five)
