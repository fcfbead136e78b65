"""A stolen machine is shut out by one command and one update, and comes back with a new key only."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fleet.fleets import FOLDER, OPERATOR, Fleet, fleet
from fleet.test_rotation import INVENTORY, KEYS, MACHINES, device_keys, public_key

pytestmark = [pytest.mark.root, pytest.mark.lab]


@pytest.fixture(scope="module")
def five() -> Iterator[Fleet]:
    with fleet(INVENTORY) as made:
        made.warren("machines", "install", "--tag", "all")
        made.start_agents(MACHINES)
        made.warren("machines", "update")
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
    five.sh("laptop2", "warren down vpn")
    five.on("laptop2", "warren", "machine", "keygen", "vpn", "--replace")
    new = five.sh("laptop2", "wg pubkey < /var/lib/warren/vpn/private.key").strip()
    five.warren("vars", "set", "laptop2", f"{KEYS}/publickey", new)
    five.warren("machines", "update")
    assert five.failing([("laptop2", "laptop1"), ("laptop1", "laptop2")]) == []
    assert public_key(five, "laptop2", "revoked") == stolen


def test_a_machine_without_a_key_cannot_be_revoked(five: Fleet) -> None:
    assert 'machine "laptop9" is not known' in five.warren("machines", "revoke", "laptop9", code=2).err
