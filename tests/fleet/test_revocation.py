"""A stolen machine is shut out by one command and one update, one whose time is over by the agents themselves."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from fleet.fleets import FOLDER, OPERATOR, Fleet, installed_fleet
from fleet.test_rotation import INVENTORY, KEYS, MACHINES, device_keys, public_key
from namespaces import wait_until

pytestmark = [pytest.mark.root, pytest.mark.lab]


@pytest.fixture(scope="module")
def five() -> Iterator[Fleet]:
    with installed_fleet(INVENTORY, MACHINES) as made:
        yield made


def test_a_revoked_machine_is_shut_out_by_all_and_comes_back_with_a_new_key_alone(five: Fleet) -> None:
    stolen = public_key(five, "laptop2")
    assert stolen is not None
    said = five.warren("machines", "revoke", "laptop2")
    assert "laptop2: its keys are revoked in vpn" in said.err
    assert "git commit" in said.err
    assert public_key(five, "laptop2", "revoked") == stolen
    five.warren("machines", "update")
    others = [name for name in MACHINES if name != "laptop2"]
    assert {name for name in others if stolen in device_keys(five, name)} == set()
    assert {name: five.sh(name, "cat /var/lib/warren/vpn/revoked").strip() for name in others} == dict.fromkeys(
        others, stolen
    )
    assert set(five.failing([("laptop2", "laptop1"), ("laptop1", "laptop2")])) == {
        ("laptop2", "laptop1"),
        ("laptop1", "laptop2"),
    }
    assert five.warren("check").err == ""
    assert five.warren("vars", "check").err == ""
    assert "revoked" in next(line for line in five.warren("machines", "list").out.splitlines() if "laptop2" in line)
    assert five.warren("machines", "update").err.startswith("4 were up to date")

    # Its old key is taken from nobody's hand: not from the vars of before ...
    five.sh(OPERATOR, f"mkdir -p {FOLDER}/vars/per-machine/laptop2/{KEYS}/publickey")
    five.write(f"{FOLDER}/vars/per-machine/laptop2/{KEYS}/publickey/value", f"{stolen}\n")
    assert "is revoked for good" in five.warren("check", code=1).err
    five.sh(OPERATOR, "git checkout -q -- vars && git clean -qfd vars")

    # ... and it comes back with another one.
    five.warren("vars", "generate", "--regenerate", "--machine", "laptop2")
    assert public_key(five, "laptop2") == five.sh("laptop2", "wg pubkey < /var/lib/warren/vpn/private.key").strip()
    five.warren("machines", "update")
    assert five.failing([("laptop2", "laptop1"), ("laptop1", "laptop2")]) == []
    assert public_key(five, "laptop2", "revoked") == stolen


def test_a_machine_without_a_key_cannot_be_revoked(five: Fleet) -> None:
    assert 'machine "laptop9" is not known' in five.warren("machines", "revoke", "laptop9", code=2).err


@pytest.mark.slow
def test_a_machine_whose_time_is_over_is_shut_out_by_the_agents_and_let_in_again_when_it_is_prolonged(
    five: Fleet,
) -> None:
    """Nobody does anything at that moment; the operator may be asleep."""
    pairs = [("laptop3", "laptop1"), ("laptop1", "laptop3")]
    key = public_key(five, "laptop3")
    end = datetime.now(UTC) + timedelta(seconds=60)
    with_expiry = INVENTORY.replace("[instances.vpn]", f'laptop3.expires = "{end:%Y-%m-%dT%H:%M:%S}"\n[instances.vpn]')
    five.write(f"{FOLDER}/warren.toml", with_expiry)
    five.warren("machines", "update")
    assert "laptop3 expires in 0 hours" in five.warren("check").err
    assert "laptop3 expires in 0 hours" in five.sh("server1", "warren status")
    # The agents' slow clock is 30 s; what is protected is that it happens at all.
    for name in ("server1", "server2"):
        wait_until(lambda: key not in device_keys(five, name), 150, f"{name} to drop it")  # noqa: B023
    assert datetime.now(UTC) >= end
    assert set(five.failing(pairs)) == set(pairs)
    assert "laptop3 expired at" in five.warren("check").err
    assert "expired" in next(line for line in five.warren("machines", "list").out.splitlines() if "laptop3" in line)
    assert "laptop3" not in five.warren("machines", "update").out
    said = five.on("laptop3", "warren", "apply", code=4)
    assert "the time of this machine ended at" in said.err
    five.write(f"{FOLDER}/warren.toml", INVENTORY)
    five.warren("machines", "update")
    wait_until(lambda: five.failing(pairs) == [], 60, "laptop3 to be in the mesh again")
