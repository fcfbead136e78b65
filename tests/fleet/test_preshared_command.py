"""Preshared keys that a program says on each machine, on a fleet."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fleet.fleets import FOLDER, Fleet, all_pairs, installed_fleet
from fleet.test_preshared import PAIRS, TRAINS, set_keys
from fleet.test_traffic import nothing_lost
from lab.labs import CONTROLLERS, DEMO, PEERS
from namespaces import wait_until

pytestmark = [pytest.mark.root, pytest.mark.lab]

MACHINES = (*CONTROLLERS, *PEERS)
WITH = DEMO.replace('module.name = "wireguard"\n', 'module.name = "wireguard"\npsk_command = "agreed"\n')
AGENTS = "pgrep -f '[w]arren.pyz agent'"
PROGRAM = "/etc/warren/psk-commands/agreed"

# Both ends of a pair say the same: of their names in order, and of what both have been told.
SCRIPT = """\
#!/bin/sh
set -e
told=$(cat /etc/warren/told)
ends=$(printf '%s\\n' $WARREN_MACHINE $WARREN_OTHER | sort)
echo "$WARREN_INSTANCE $ends $told" | openssl dgst -sha256 -binary | base64
"""


@pytest.fixture(scope="module")
def five() -> Iterator[Fleet]:
    with installed_fleet(DEMO, MACHINES) as made:
        assert made.failing(all_pairs(MACHINES)) == []
        yield made


def tell(fleet: Fleet, text: str) -> None:
    for name in MACHINES:
        fleet.write("/etc/warren/told", text, name)
        fleet.write(PROGRAM, SCRIPT, name, 0o755)


def restart_agents(fleet: Fleet, *machines: str) -> None:
    """They ask anew, as they do every minute."""
    for name in machines:
        fleet.sh(name, f"{AGENTS} | xargs kill; while {AGENTS} > /dev/null; do sleep 0.05; done")
    fleet.start_agents(machines)


def await_keys(fleet: Fleet, before: frozenset[str]) -> frozenset[str]:
    """Every pair has a key, the same at both ends, that is none of those."""

    def is_so() -> bool:
        keys = set_keys(fleet)
        every = set.union(*keys.values())
        return keys.keys() == PAIRS and len(every) == len(PAIRS) and not every & before

    wait_until(is_so, 30, "keys that the programs say")
    return frozenset(set.union(*set_keys(fleet).values()))


def test_programs_say_the_keys_and_no_packet_is_lost(five: Fleet) -> None:
    none = frozenset(("(none)",))
    with nothing_lost(five, TRAINS):
        five.write(f"{FOLDER}/warren.toml", WITH)
        said = five.warren("machines", "update", code=4).err  # nobody has the program
        assert "there is no such program, from which preshared keys are to come" in said
        assert set.union(*set_keys(five).values()) == none
        tell(five, "something")
        five.warren("machines", "update")
        first = await_keys(five, none)
        tell(five, "something else")
        restart_agents(five, *MACHINES)
        second = await_keys(five, none | first)
        five.sh("laptop1", "rm /etc/warren/told")  # its program fails: it keeps what it has
        restart_agents(five, "laptop1")
        log = "/var/log/warren-agent.log"
        wait_until(lambda: "vpn: no preshared key for server2" in five.sh("laptop1", f"cat {log}"), 30, "the warning")
        assert await_keys(five, none | first) == second
        assert five.sh("laptop1", f"grep -c 'no preshared key for server1' {log}").strip() == "1"
    five.warren("machines", "update")
    for text in second:  # no log has any of them
        assert text not in "".join(five.sh(name, f"cat {log}") for name in MACHINES)


def test_a_peer_that_has_none_yet_is_let_in_by_none(five: Fleet) -> None:
    """After a reboot, until its program says something."""
    five.sh("laptop2", f"mv {PROGRAM} /etc/warren/away")
    five.kill("laptop2")
    five.revive("laptop2")
    wait_until(lambda: bool(five.on("laptop2", "wg", "show", "vpn", "peers", code=None).out), 30, "its peers")
    closed = five.sh("laptop2", "wg show vpn preshared-keys").split()[1::2]
    assert "(none)" not in closed
    assert five.on("laptop2", "ping", "-6", "-c", "1", "-W", "2", "server1.vpn", code=None).code != 0
    five.sh("laptop2", f"mv /etc/warren/away {PROGRAM}")
    restart_agents(five, "laptop2")
    assert five.failing([("laptop2", "server1"), ("server2", "laptop2")]) == []


def test_without_the_program_nobody_has_any(five: Fleet) -> None:
    five.write(f"{FOLDER}/warren.toml", DEMO)
    five.warren("machines", "update")
    assert set.union(*set_keys(five).values()) == {"(none)"}
    assert five.failing(all_pairs(MACHINES)) == []
