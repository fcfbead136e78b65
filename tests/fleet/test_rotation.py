"""Keys are rotated on a fleet that is in use: nothing is lost, whoever is away, and wherever the operator is killed."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import traffic
from fleet.fleets import FOLDER, OPERATOR, Fleet, installed_fleet
from lab.labs import CONTROLLERS, DEMO, PEERS
from namespaces import wait_until

pytestmark = [pytest.mark.root, pytest.mark.lab]

MACHINES = (*CONTROLLERS, *PEERS)
KEYS = "wireguard-keys-vpn"

INVENTORY = DEMO
_SCRIPT, _RESULT = "/run/traffic.py", "/run/traffic.json"


@pytest.fixture(scope="module")
def five() -> Iterator[Fleet]:
    """Five machines that were installed and updated, with agents."""
    with installed_fleet(INVENTORY, MACHINES) as made:
        assert made.failing((a, b) for a in MACHINES for b in MACHINES if a != b) == []
        yield made


@dataclass
class Measured:
    """What came of the traffic, by pair."""

    pairs: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)

    @property
    def resets(self) -> dict[tuple[str, str], str]:
        return {pair: each["tcp"]["error"] for pair, each in self.pairs.items() if each["tcp"]["error"]}

    def longest_silence_s(self, kind: str) -> float:
        return max(float(each[kind]["longest_silence_s"]) for each in self.pairs.values())

    @property
    def lost(self) -> dict[tuple[str, str], int]:
        return {pair: each["udp"]["lost"] for pair, each in self.pairs.items() if each["udp"]["lost"]}


@contextmanager
def under_traffic(fleet: Fleet) -> Iterator[Measured]:
    """A ping train and a TCP stream between all machines, in both directions; what came of it is there afterwards."""
    measured = Measured()
    addresses = {
        line.split()[1].removesuffix(".vpn"): line.split()[0]
        for line in fleet.sh("server1", "grep '[.]vpn$' /etc/hosts").splitlines()
    }
    for name in MACHINES:
        fleet.write(_SCRIPT, Path(traffic.__file__).read_text(), name)
        fleet.sh(name, "rm -f /run/traffic.json /run/traffic.running")
        others = [f"{other}={address}" for other, address in addresses.items() if other != name]
        shown = fleet.sh(name, "ip -6 -o addr show dev vpn scope global").split()
        own = ",".join(word.split("/")[0] for before, word in pairwise(shown) if before == "inet6")
        script = f"echo $$ > /run/traffic.pid; exec {sys.executable} {_SCRIPT} {_RESULT} {own} {' '.join(others)}"
        fleet.spawn(name, ["sh", "-c", script], "/run/traffic.log")
    for name in MACHINES:
        await_file(fleet, name, "/run/traffic.running")
    yield measured
    for name in MACHINES:
        fleet.sh(name, "kill $(cat /run/traffic.pid)")
    for name in MACHINES:
        await_file(fleet, name, _RESULT)
    for name in MACHINES:
        fleet.sh(name, "kill -9 $(cat /run/traffic.pid)")
        for other, each in json.loads(fleet.sh(name, f"cat {_RESULT}")).items():
            measured.pairs[name, other] = each


def await_file(fleet: Fleet, machine: str, path: str) -> None:
    wait_until(lambda: not fleet.on(machine, "test", "-e", path, code=None).code, 20, f"{path} on {machine}")


def public_key(fleet: Fleet, machine: str, file: str = "publickey") -> str | None:
    path = f"{FOLDER}/vars/per-machine/{machine}/{KEYS}/{file}/value"
    said = fleet.on(OPERATOR, "cat", path, code=None)
    return said.out.strip() if said.code == 0 else None


def device_keys(fleet: Fleet, machine: str) -> set[str]:
    """Its own public key, and those that it accepts."""
    return set(fleet.sh(machine, "wg show vpn public-key; wg show vpn peers").split())


def back(fleet: Fleet, machine: str) -> None:
    """The machine starts again, and its agent comes to make it what its document says."""
    fleet.revive(machine)
    wait_until(lambda: "as the document says" in fleet.on(machine, "warren", "status", code=None).out, 30, "the agent")


def stage(fleet: Fleet, *machines: str) -> None:
    named = [word for name in machines for word in ("--machine", name)]
    fleet.warren("vars", "generate", "--service", KEYS, "--regenerate", *named)


def assert_rotated(fleet: Fleet, machine: str, before: str | None, after: str | None) -> None:
    """The new key is the key, and of the old one nothing is left: not in the vars, nor on any machine."""
    assert before != after
    assert [public_key(fleet, machine, file) for file in ("publickey", "nextkey", "formerkey")] == [after, None, None]
    assert {name for name in MACHINES if before in device_keys(fleet, name)} == set()
    assert fleet.sh(machine, "wg pubkey < /var/lib/warren/vpn/private.key").strip() == after
    assert "private.key.next" not in fleet.sh(machine, "ls /var/lib/warren/vpn")
    assert fleet.warren("check").err == ""


@pytest.mark.parametrize("machine", ["laptop1", "server1"])
def test_a_key_is_rotated_in_use_and_no_stream_is_reset(five: Fleet, machine: str) -> None:
    before = public_key(five, machine)
    stage(five, machine)
    staged = public_key(five, machine, "nextkey")
    assert public_key(five, machine) == before
    with under_traffic(five) as measured:
        five.warren("machines", "update")
    assert measured.resets == {}
    assert_rotated(five, machine, before, staged)
    # What is protected: nobody waits for WireGuard's own retry (5 s) or the agents' slow clock (30 s).
    assert measured.longest_silence_s("udp") < 3.0
    assert measured.longest_silence_s("tcp") < 4.0


def test_every_key_of_the_mesh_is_rotated_in_one_run(five: Fleet) -> None:
    before = {name: public_key(five, name) for name in MACHINES}
    stage(five)
    staged = {name: public_key(five, name, "nextkey") for name in MACHINES}
    with under_traffic(five) as measured:
        said = five.warren("machines", "update")
    assert measured.resets == {}
    for name in MACHINES:
        assert_rotated(five, name, before[name], staged[name])
    assert measured.longest_silence_s("udp") < 3.0
    # Controllers after peers, and one after the other: they would call each other by keys that they have no longer.
    switched = [line.split(":")[0] for line in said.err.splitlines() if "switches to its new key" in line]
    assert switched == ["laptop1", "laptop2", "laptop3", "server1", "server2"]


def test_a_machine_that_is_away_is_waited_for(five: Fleet) -> None:
    """A controller's key waits for a peer that is down; back again, it is reached by both and the rotation ends."""
    before = public_key(five, "server1")
    stage(five, "server1")
    staged = public_key(five, "server1", "nextkey")
    five.kill("laptop2")
    said = five.warren("machines", "update", code=4)
    waiting = "server1: new key in vpn waits for laptop2 (warren machines update)"
    assert waiting in said.err
    assert waiting in five.warren("check").err
    assert "new key in vpn waits for laptop2" in five.warren("machines", "list").out
    assert public_key(five, "server1") == before
    assert before in device_keys(five, "laptop1")
    back(five, "laptop2")
    assert five.failing([("laptop2", "server1"), ("server1", "laptop2"), ("laptop1", "laptop2")]) == []
    five.warren("machines", "update")
    assert_rotated(five, "server1", before, staged)
    assert five.failing([("laptop2", "server1"), ("server1", "laptop2"), ("laptop1", "laptop2")]) == []


def test_by_force_nobody_is_waited_for_and_who_was_away_learns_it_later(five: Fleet) -> None:
    before = public_key(five, "server1")
    stage(five, "server1")
    staged = public_key(five, "server1", "nextkey")
    five.kill("laptop2")
    five.warren("machines", "update", "--force", code=4)
    assert public_key(five, "server1") == staged
    assert five.failing([("laptop1", "server1"), ("server2", "laptop3"), ("laptop1", "laptop3")]) == []
    back(five, "laptop2")
    five.warren("machines", "update")
    assert_rotated(five, "server1", before, staged)
    assert five.failing([("laptop2", "server1"), ("laptop1", "laptop2")]) == []


def test_a_machine_that_was_away_during_the_switch_hears_the_new_key_itself(five: Fleet) -> None:
    """It learned of the key before, was down while it was brought into use, and comes back without anybody's help."""
    before = public_key(five, "server1")
    stage(five, "server1")
    staged = public_key(five, "server1", "nextkey")
    five.warren("machines", "update", *PEERS, "server2")
    assert public_key(five, "server1") == before
    five.kill("laptop3")
    five.warren("machines", "update", "server1")
    assert [public_key(five, "server1", file) for file in ("publickey", "formerkey")] == [staged, None]
    back(five, "laptop3")
    assert five.failing([("laptop3", "server1"), ("server1", "laptop3")]) == []
    five.warren("machines", "update")
    assert_rotated(five, "server1", before, staged)


def test_what_is_staged_twice_is_one_key(five: Fleet) -> None:
    """The operator was killed after the machine made it, or does not know that it was done already."""
    before = public_key(five, "laptop1")
    stage(five, "laptop1")
    staged = public_key(five, "laptop1", "nextkey")
    stage(five, "laptop1")
    assert public_key(five, "laptop1", "nextkey") == staged
    five.warren("machines", "update")
    assert_rotated(five, "laptop1", before, staged)


# In place of ssh: counts calls, and after one of them kills whoever called, before he hears how it went.
_KILLER = """\
#!/bin/sh
caller=$PPID
n=$(($(cat /run/calls) + 1)); echo $n > /run/calls
[ "$n" = "$(cat /run/killed-before)" ] && kill -9 $caller
ssh "$@" > /run/answer.$n; code=$?
[ "$n" = "$(cat /run/killed-after)" ] && kill -9 $caller
cat /run/answer.$n; exit $code
"""
_ONE_BY_ONE = ("machines", "update", "--parallel", "1")


def killed_update(fleet: Fleet, *, before: int = 0, after: int = 0) -> None:
    """An update whose operator dies at this call of ssh, if there are so many."""
    script = (
        f"echo 0 > /run/calls; echo {before} > /run/killed-before; echo {after} > /run/killed-after;"
        f"WARREN_SSH=/run/killer {sys.executable} -m warren {' '.join(_ONE_BY_ONE)}"
    )
    fleet.on(OPERATOR, "sh", "-c", script, code=None)


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
def test_the_operator_is_killed_at_every_step_and_any_run_goes_on(five: Fleet, when: str) -> None:
    """14 calls of ssh: three for each controller to learn the key (one of them asks whether peers have to leave it),
    two for its machine, and again three for each."""
    five.write("/run/killer", _KILLER, mode=0o755)
    pairs = [("laptop1", "laptop2"), ("laptop2", "laptop1"), ("laptop1", "server1"), ("server2", "laptop1")]
    calls = 0
    for number in range(1, 100):
        before = public_key(five, "laptop1")
        stage(five, "laptop1")
        staged = public_key(five, "laptop1", "nextkey")
        killed_update(five, **{when: number})
        calls = int(five.sh(OPERATOR, "cat /run/calls"))
        assert five.failing(pairs) == []
        five.warren("machines", "update")
        assert_rotated(five, "laptop1", before, staged)
        assert five.failing(pairs) == []
        if calls < number:
            break
    assert calls == 14


def test_old_keys_are_named_and_rotated_by_routine(five: Fleet) -> None:
    before = {name: public_key(five, name) for name in MACHINES}
    said = five.warren("vars", "rotate", "--older-than", "1d")
    assert said.err == "no key is that old\n"
    assert five.warren("vars", "rotate", code=2).err.startswith("older than what?")
    five.warren("vars", "rotate", "--all", "laptop2", "laptop3")
    staged = {name: public_key(five, name, "nextkey") for name in MACHINES}
    assert [name for name, key in staged.items() if key] == ["laptop2", "laptop3"]
    five.warren("machines", "update")
    for name in ("laptop2", "laptop3"):
        assert_rotated(five, name, before[name], staged[name])
    assert public_key(five, "laptop1") == before["laptop1"]
