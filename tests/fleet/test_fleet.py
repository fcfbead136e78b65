"""A fleet of ten machines, installed and updated over ssh alone, as a user would."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator

import pytest

from fleet.fleets import FOLDER, OPERATOR, Fleet, Said, all_pairs, installed_fleet
from namespaces import wait_until

pytestmark = [pytest.mark.root, pytest.mark.lab]

CONTROLLERS = ("server1", "server2")
PEERS = tuple(f"laptop{number}" for number in range(1, 9))
MACHINES = (*CONTROLLERS, *PEERS)


def inventory(peers: tuple[str, ...] = PEERS, settings: str = "", machines: str = "") -> str:
    """`settings`: lines below the instance; `machines`: lines below the machines."""
    lines = "".join(f'{name}.tags = ["laptop"]\n' for name in peers)
    return f"""\
meta.name = "fleet"

[machines]
server1 = {{}}
server2 = {{}}
{lines}{machines}
[instances.vpn]
module.name = "wireguard"
roles.controller.machines.server1.settings.endpoint = "vpn1.example.com"
roles.controller.machines.server2.settings.endpoint = "vpn2.example.com"
roles.peer.tags.laptop.settings.controller = "server1"
roles.peer.machines.laptop2.settings.controller = "server2"
{settings}"""


@pytest.fixture(scope="module")
def installed() -> Iterator[Fleet]:
    """Ten machines that were installed and updated once."""
    with installed_fleet(inventory(), MACHINES) as made:
        yield made


@pytest.fixture
def ten(installed: Fleet) -> Iterator[Fleet]:
    """The same, as they were whatever a test did to the inventory."""
    yield installed
    installed.write(f"{FOLDER}/warren.toml", inventory())
    installed.warren("machines", "update")


def connections(fleet: Fleet) -> dict[str, int]:
    """How often somebody logged in on each machine."""
    return {name: fleet.sh(name, "cat /var/log/sshd.log").count("Accepted") for name in MACHINES}


def visited(fleet: Fleet, before: dict[str, int]) -> set[str]:
    return {name for name, count in connections(fleet).items() if count != before[name]}


def with_settings(fleet: Fleet, settings: str = "", machines: str = "") -> None:
    fleet.write(f"{FOLDER}/warren.toml", inventory(settings=settings, machines=machines))


def states(said: Said) -> dict[str, str]:
    return {name: each["state"] for name, each in json.loads(said.out)["machines"].items()}


def test_all_ninety_pairs_reach_each_other_by_name(installed: Fleet) -> None:
    assert installed.failing(all_pairs(MACHINES)) == []


def test_what_install_leaves_on_a_machine(installed: Fleet) -> None:
    assert installed.sh("laptop3", "cat /var/lib/warren/machine.name") == "laptop3\n"
    assert installed.sh("laptop3", "stat -c %a /var/lib/warren/vpn /var/lib/warren/vpn/private.key") == "700\n600\n"
    own = installed.sh(OPERATOR, "cat /root/.ssh/id_ed25519.pub").split()[1]
    assert own in installed.sh("laptop3", "cat /etc/warren/allowed_signers")
    assert "vpn on laptop3" in installed.sh("laptop3", "warren status")


def test_private_keys_never_leave_their_machine(installed: Fleet) -> None:
    for name in MACHINES:
        key = installed.sh(name, "cat /var/lib/warren/vpn/private.key").strip()
        assert installed.on(OPERATOR, "grep", "-rqF", key, FOLDER, code=None).code == 1


def test_each_run_is_one_commit_and_leaves_nothing_uncommitted(installed: Fleet) -> None:
    subjects = installed.sh(OPERATOR, "git log --reverse --format=%s").splitlines()[:2]
    assert re.match(r"vars: install wireguard-network-vpn, wireguard-keys-vpn for .* and 6 more", subjects[0])
    assert re.match(r"vars: update wireguard-document-vpn for .* and 6 more", subjects[1])
    assert installed.sh(OPERATOR, "git status --short vars") == ""


def test_an_update_with_nothing_to_do_visits_nobody(ten: Fleet) -> None:
    before = connections(ten)
    commits = ten.sh(OPERATOR, "git log --format=%H")
    said = ten.warren("machines", "update")
    assert said.out == ""
    assert "10 were up to date" in said.err
    assert not visited(ten, before)
    assert ten.sh(OPERATOR, "git log --format=%H") == commits


def test_only_machines_whose_plan_changed_are_visited_and_it_is_said_what_changed(ten: Fleet) -> None:
    before = connections(ten)
    with_settings(ten, "roles.peer.machines.laptop3.settings.mtu = 1300\n")
    assert ten.warren("check").err == "out of date: laptop3 (warren machines update)\n"
    assert re.search(r"laptop3 .*out of date: vpn", ten.warren("machines", "list").out)
    said = ten.warren("machines", "update")
    assert said.out == "laptop3: updated: vpn: 1 change\n  ip link set dev vpn mtu 1300\n"
    assert "1 updated, 9 were up to date" in said.err
    assert visited(ten, before) == {"laptop3"}
    assert "mtu 1300" in ten.sh("laptop3", "ip link show dev vpn")
    assert ten.warren("check").err == ""


def test_a_dry_run_shows_the_steps_and_changes_nothing_anywhere(ten: Fleet) -> None:
    with_settings(ten, "roles.peer.machines.laptop3.settings.mtu = 1300\n")
    vars_before = ten.sh(OPERATOR, "find vars -type f | sort | xargs sha256sum")
    said = ten.warren("machines", "update", "--dry-run")
    assert said.out == "laptop3: to be done: vpn: 1 change\n  ip link set dev vpn mtu 1300\n"
    assert ten.sh(OPERATOR, "find vars -type f | sort | xargs sha256sum") == vars_before
    assert "mtu 1420" in ten.sh("laptop3", "ip link show dev vpn")


def test_only_the_machines_that_are_named_or_tagged(ten: Fleet) -> None:
    with_settings(
        ten,
        "roles.peer.machines.laptop3.settings.mtu = 1300\nroles.peer.machines.laptop4.settings.mtu = 1301\n",
        'other.tags = ["rare"]\n',
    )
    said = ten.warren("machines", "update", "laptop4")
    assert said.out.startswith("laptop4: updated")
    assert "laptop3" not in said.out
    assert "out of date: laptop3" in said.err
    assert ten.warren("machines", "update", "--tag", "rare").out == ""
    assert ten.warren("machines", "update", "--tag", "laptop").out.startswith("laptop3: updated")
    assert 'did you mean "laptop4"?' in ten.warren("machines", "update", "laptob4", code=2).err
    assert 'no machine has the tag "rar"' in ten.warren("machines", "update", "--tag", "rar", code=2).err


def test_a_machine_that_joins_and_leaves(ten: Fleet) -> None:
    """What could not be told is listed until it is; the key of the one that left works nowhere then."""
    ten.join(inventory((*PEERS, "newcomer")))
    ten.warren("machines", "install", "newcomer")
    ten.warren("machines", "update")
    assert ten.failing([("newcomer", "laptop2"), ("laptop1", "newcomer")]) == []
    key = ten.sh("newcomer", "wg show vpn public-key").strip()
    assert "is in the inventory" in ten.warren("machines", "remove", "newcomer", code=2).err

    ten.write(f"{FOLDER}/warren.toml", inventory())
    said = ten.warren("machines", "remove", "newcomer")
    assert "newcomer: its keys are removed; its addresses stay taken" in said.err
    assert "out of date: laptop1, laptop2" in said.err
    left = ten.sh(OPERATOR, "find vars/per-machine/newcomer -name value")
    assert left == "vars/per-machine/newcomer/wireguard-network-vpn/suffix/value\n"

    ten.kill("server2")
    said = ten.warren("machines", "update", code=4)
    assert "server2: not reached" in said.err
    assert said.err.endswith("out of date: server2 (warren machines update)\n")
    ten.revive("server2")
    ten.warren("machines", "update")
    for name in CONTROLLERS:
        assert key not in ten.sh(name, "wg show vpn peers")
    assert ten.failing([("newcomer", "laptop1")]) == [("newcomer", "laptop1")]
    assert ten.failing(all_pairs(("server1", "server2", "laptop1"))) == []
    assert "nothing is stored of a machine" in ten.warren("machines", "remove", "newcomer2", code=2).err


def test_the_status_of_all_machines_at_once(ten: Fleet) -> None:
    """On a terminal's width each machine has a line; who is behind, dead or in trouble is named."""
    assert ten.failing(all_pairs(("laptop1", "laptop2"))) == []
    said = ten.warren("status")
    assert re.search(r"^laptop1 +vpn +up to date +2 of 2 +\d+ (s|min) ago( +[\d.]+ \w+){2}$", said.out, re.MULTILINE)
    assert len(said.out.splitlines()) == 1 + len(MACHINES)
    with_settings(ten, "roles.peer.machines.laptop3.settings.mtu = 1300\n")
    ten.kill("laptop5")
    said = ten.warren("status", "--json", code=4)
    machines = json.loads(said.out)["machines"]
    assert machines["laptop3"]["out_of_date"] == ["vpn"]
    assert "laptop5" in machines["laptop5"]["problem"]
    assert machines["laptop1"]["instances"]["vpn"]["machines"]["server1"]["has_session"] is True
    said = ten.warren("status", "laptop3", "laptop5", code=4)
    assert re.search(r"^laptop3 +vpn +out of date ", said.out, re.MULTILINE)
    assert re.search(r"^laptop5 +- +not reached$", said.out, re.MULTILINE)
    assert "laptop5: laptop5: " in said.out
    ten.revive("laptop5")


def test_a_dead_machine_delays_nobody_and_the_next_run_continues(ten: Fleet) -> None:
    ten.kill("laptop5")
    with_settings(ten, 'roles.controller.settings.domain = "burrow"\nroles.peer.settings.domain = "burrow"\n')
    said = ten.warren("machines", "update", "--json", code=4)
    assert states(said) == {name: "not-reached" if name == "laptop5" else "done" for name in MACHINES}
    assert json.loads(said.out)["out_of_date"] == {"laptop5": ["vpn"]}
    assert "laptop5: not reached" in said.err
    assert ten.failing([("laptop1", "laptop2")], "burrow") == []
    assert ten.warren("check").err == "out of date: laptop5 (warren machines update)\n"
    ten.revive("laptop5")
    before = connections(ten)
    said = ten.warren("machines", "update")
    assert "1 updated, 9 were up to date" in said.err
    assert visited(ten, before) == {"laptop5"}


# Passes on to ssh, except for one machine, where it says that it is there and waits for ever.
STUCK = """#!/bin/sh
for each; do
    [ "$each" = laptop6 ] && echo there >> /root/stuck && exec sleep 1000
done
exec ssh "$@"
"""


def test_a_run_that_was_interrupted_is_continued_by_the_next_one(ten: Fleet) -> None:
    """One machine hangs: all others are through meanwhile; then the operator loses patience."""
    ten.write("/root/stuck-ssh", STUCK, mode=0o755)
    with_settings(ten, 'roles.controller.settings.domain = "burrow"\nroles.peer.settings.domain = "burrow"\n')
    script = (
        f"cd {FOLDER}; echo $$ > /root/pid; WARREN_SSH=/root/stuck-ssh exec {sys.executable} -m warren machines update"
    )
    ten.spawn(OPERATOR, ["sh", "-c", script], "/root/log")
    others = len(MACHINES) - 1
    wait_until(
        lambda: ten.sh(OPERATOR, "grep -c updated: /root/log || true").strip() == str(others), 60, "the others' updates"
    )
    ten.sh(OPERATOR, "kill -INT $(cat /root/pid)")
    wait_until(lambda: "interrupted" in ten.sh(OPERATOR, "cat /root/log"), 20, "the end of the run")
    assert ten.sh(OPERATOR, "git status --short vars") == ""
    assert ten.sh(OPERATOR, "ps -e -o args | grep -c '^slee[p] 1000' || true").strip() == "0"
    before = connections(ten)
    assert "1 updated, 9 were up to date" in ten.warren("machines", "update").err
    assert visited(ten, before) == {"laptop6"}


def test_after_a_canary_that_failed_nobody_else_is_touched(ten: Fleet) -> None:
    """Somebody else has the port that the controller is to listen on."""
    code = 'import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("", 51999)); input()'
    ten.spawn(
        "server1",
        ["sh", "-c", f"sleep 1000 | {sys.executable} -c '{code}' & echo $! > /root/holder; wait"],
        "/root/log",
    )
    wait_until(lambda: ":CB1F" in ten.sh("server1", "cat /proc/net/udp"), what="the port's holder")
    with_settings(ten, "roles.controller.settings.port = 51999\n")
    before = connections(ten)
    said = ten.warren("machines", "update", "--canary", "1", "--json", code=4)
    assert states(said) == {name: "failed" if name == "server1" else "not-begun" for name in MACHINES}
    assert "51999" in said.err
    assert visited(ten, before) == {"server1"}
    assert ten.failing(all_pairs(("server1", "laptop1", "laptop2"))) == []
    ten.sh("server1", "kill $(cat /root/holder)")
    wait_until(lambda: ":CB1F" not in ten.sh("server1", "cat /proc/net/udp"), what="the port's freedom")
    said = ten.warren("machines", "update", "--canary", "1")
    assert said.out.startswith("server1: updated")
    assert "10 updated" in said.err
    assert ten.failing(all_pairs(("server1", "laptop1", "laptop2"))) == []


def test_with_too_many_failures_no_further_machine_is_begun(ten: Fleet) -> None:
    ten.kill("laptop1")
    with_settings(ten, 'roles.controller.settings.domain = "burrow"\nroles.peer.settings.domain = "burrow"\n')
    said = ten.warren("machines", "update", "--parallel", "1", "--max-failures", "0", "--json", code=4)
    expected = dict.fromkeys(PEERS, "not-begun") | dict.fromkeys(CONTROLLERS, "done") | {"laptop1": "not-reached"}
    assert states(said) == expected
    ten.revive("laptop1")


def test_a_change_that_cannot_be_confirmed_is_taken_back(ten: Fleet) -> None:
    with_settings(ten, "roles.peer.machines.laptop3.settings.mtu = 1300\n")
    said = ten.update_unconfirmed(confirm_within_s=5)
    assert "after the change it is not reached any more (laptop3: it does not answer)" in said.err
    assert "it goes back by itself" in said.err
    wait_until(lambda: "mtu 1420" in ten.sh("laptop3", "ip link show dev vpn"), 30, "the way back")
    assert ten.warren("check").err == "out of date: laptop3 (warren machines update)\n"
    assert ten.failing([("laptop3", "laptop1"), ("laptop1", "laptop3")]) == []


def test_a_machine_that_leaves_an_instance_but_not_the_inventory(ten: Fleet) -> None:
    text = inventory(tuple(name for name in PEERS if name != "laptop8"), machines="laptop8 = {}\n")
    ten.write(f"{FOLDER}/warren.toml", text)
    said = ten.warren("machines", "update")
    assert "laptop8: updated: vpn: 1 change\n  warren down vpn\n" in said.out
    assert not re.search(r"^vpn |\.vpn$", ten.sh("laptop8", "ip -br link; cat /etc/hosts"), re.MULTILINE)
    assert ten.sh(OPERATOR, "find vars/per-machine/laptop8 -name value | wc -l").strip() == "1"
    ten.write(f"{FOLDER}/warren.toml", inventory())
    ten.warren("machines", "update")
    assert ten.failing([("laptop8", "laptop1"), ("laptop1", "laptop8")]) == []


def test_documents_of_an_operator_who_was_not_pinned_are_refused(ten: Fleet) -> None:
    ten.sh(OPERATOR, "ssh-keygen -q -t ed25519 -N '' -f /root/other")
    with_settings(ten, "roles.peer.machines.laptop3.settings.mtu = 1300\n")
    said = ten.warren("machines", "update", "--sign-key", "/root/other", code=4)
    assert "laptop3: failed" in said.err
    assert "sign" in said.err
    assert "mtu 1420" in ten.sh("laptop3", "ip link show dev vpn")
    ten.warren("machines", "install", "laptop3", "--sign-key", "/root/other")
    assert "laptop3: updated" in ten.warren("machines", "update", "--sign-key", "/root/other").out
