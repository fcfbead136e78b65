"""Machines that no ssh comes to are brought up to date by controllers, whose bad documents change nothing."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from fleet.fleets import AGENT_LOG, FOLDER, Fleet, all_pairs, fleet
from namespaces import wait_until
from warren.plan import asking

pytestmark = [pytest.mark.root, pytest.mark.lab]

MACHINES = ("laptop1", "laptop2", "server1", "server2")
INVENTORY = """\
[machines]
server1 = {}
server2 = {}
laptop1.deploy.pull = true
laptop2.tags = ["new"]

[instances.vpn]
module.name = "wireguard"
roles.controller.machines.server1.settings.endpoint = "vpn1.example.com"
roles.controller.machines.server2.settings.endpoint = "vpn2.example.com"
roles.peer.machines.laptop1.settings.controller = "server1"
roles.peer.machines.laptop2.settings.controller = "server2"
"""
NARROW = INVENTORY.replace(
    'laptop1.settings.controller = "server1"', 'laptop1.settings = {controller="server1",mtu=1300}'
)
Answer: TypeAlias = Callable[[bytes, bytes], bytes]

EVIL = Path(__file__).with_name("evil_controller.py")


@pytest.fixture(scope="module")
def four() -> Iterator[Fleet]:
    """laptop1 was told over ssh that it fetches from now on, and nobody can log in to it any more."""
    with fleet(INVENTORY) as made:
        made.warren("machines", "install", *MACHINES)
        made.start_agents(MACHINES)
        made.warren("machines", "update")
        assert made.failing(all_pairs(MACHINES)) == []
        made.sh("laptop1", "kill $(cat /run/sshd.pid)")
        yield made


def serial(fleet: Fleet, machine: str) -> int:
    return int(json.loads(fleet.sh(machine, "cat /var/lib/warren/vpn/network.json"))["serial"])


def mtu(fleet: Fleet, machine: str) -> int:
    """0: the interface is not there yet."""
    return int(fleet.sh(machine, "cat /sys/class/net/vpn/mtu || echo 0"))


def row(fleet: Fleet, machine: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(fleet.warren("machines", "list", "--json").out)["machines"][machine]
    return found


def test_an_update_comes_to_a_machine_that_ssh_does_not_reach(four: Fleet) -> None:
    four.write(f"{FOLDER}/warren.toml", NARROW)
    said = four.warren("machines", "update", "--json")
    tree = json.loads(said.out)
    assert tree["machines"]["laptop1"]["state"] == "done", said
    assert tree["out_of_date"] == {}
    assert mtu(four, "laptop1") == 1300
    assert row(four, "laptop1")["state"] == "up to date"
    assert row(four, "laptop1")["reached_by"] == "fetches by itself"
    assert "4 were up to date" in four.warren("machines", "update").err
    heard = json.loads(four.warren("status", "--json").out)["machines"]["laptop1"]["heard"]["vpn"]
    assert heard["serial"] == serial(four, "server1")
    assert "heard by server" in four.warren("status").out


def test_one_that_is_named_gets_it_and_one_that_is_off_gets_it_later(four: Fleet) -> None:
    """Naming it has its controllers updated, though nothing of theirs changes."""
    four.kill("laptop1")
    four.write(f"{FOLDER}/warren.toml", NARROW.replace("1300", "1310"))
    said = four.warren("machines", "update", "laptop1")
    assert "laptop1: fetches it by itself" in said.out
    assert serial(four, "server1") == serial(four, "server2") > serial(four, "laptop2")
    assert row(four, "laptop1")["state"] == "out of date: vpn"
    assert "out of date, fetches by itself" in four.warren("status", code=4).out
    four.revive("laptop1")
    four.sh("laptop1", "kill $(cat /run/sshd.pid)")
    wait_until(lambda: mtu(four, "laptop1") == 1310, 60, "the update on laptop1")
    four.warren("machines", "update")
    assert row(four, "laptop1")["state"] == "up to date"


def test_a_document_that_cuts_the_machine_off_is_taken_back_and_not_tried_again_at_once(four: Fleet) -> None:
    before = serial(four, "laptop1")
    four.write(
        f"{FOLDER}/warren.toml",
        INVENTORY.replace("vpn1.example.com", "192.0.2.1").replace("vpn2.example.com", "192.0.2.2"),
    )
    said = four.warren("machines", "update", "laptop1", code=4)
    assert "could not follow it, and went back" in said.err
    assert "could not follow document" in four.warren("status", code=4).out
    assert "cannot be followed here" in status(four)
    assert "no controller answers any more" in status(four)
    assert serial(four, "laptop1") == before < serial(four, "server1")
    assert four.failing([("laptop1", "server1"), ("laptop1", "laptop2"), ("laptop2", "laptop1")]) == []
    attempts = four.sh("laptop1", f"grep -c 'handed out by' {AGENT_LOG}")
    four.write(f"{FOLDER}/warren.toml", INVENTORY)
    said = four.warren("machines", "update")
    assert "laptop1: updated" in said.out
    assert serial(four, "laptop1") == serial(four, "server1")
    assert int(four.sh("laptop1", f"grep -c 'handed out by' {AGENT_LOG}")) == int(attempts) + 1
    assert "cannot be followed" not in status(four)


def status(fleet: Fleet) -> str:
    return fleet.sh("laptop1", "warren status")


def test_a_new_key_is_not_asked_of_it_and_it_gets_one_by_joining_anew(four: Fleet) -> None:
    """The commands are those of the message."""
    before = four.warren("vars", "get", "laptop1", "wireguard-keys-vpn/publickey").out
    for words in (("generate", "--service", "wireguard-keys-vpn", "--regenerate", "--machine"), ("rotate", "--all")):
        said = four.warren("vars", *words, "laptop1", code=4)
        assert "no new key: new ones are asked for over ssh alone" in said.err
        assert "sudo warren machine forget vpn; sudo warren join" in said.err
    assert four.warren("vars", "get", "laptop1", "wireguard-keys-vpn/publickey").out == before
    four.warren("machines", "revoke", "laptop1")
    four.warren("machines", "update")
    line = json.loads(four.warren("machines", "invite", "laptop1", "--json").out)["invitations"]["laptop1"]["line"]
    four.write("/run/line", line, "laptop1", 0o600)
    four.sh("laptop1", "warren machine forget vpn")
    four.spawn("laptop1", ["sh", "-c", "warren join - < /run/line; echo $? > /run/joined"], "/run/join.log")
    wait_until(lambda: "waits for the operator" in four.sh("laptop1", "cat /run/join.log"), 30, "the hand-in")
    four.warren("machines", "accept", "laptop1")
    wait_until(lambda: four.sh("laptop1", "cat /run/joined || :").strip() == "0", 60, "laptop1 in the mesh")
    assert four.warren("vars", "get", "laptop1", "wireguard-keys-vpn/publickey").out != before
    wait_until(lambda: not four.failing([("laptop1", "laptop2"), ("laptop2", "laptop1")]), 20, "laptop1 reached")


def tampered(content: bytes, signature: bytes) -> bytes:
    return asking.hand(content.replace(b'"serial":', b'"serial":9'), signature)


def unsigned(content: bytes, _: bytes) -> bytes:
    return asking.hand(content.replace(b'"serial":', b'"serial":9'), b"none")


def old(content: bytes, signature: bytes) -> bytes:
    return asking.hand(content, signature)


def endless(content: bytes, signature: bytes) -> bytes:
    return b"document 60000000 1000\n" + content


def chatter(_: bytes, __: bytes) -> bytes:
    return b"x" * 300_000


def hidden(_: bytes, __: bytes) -> bytes:
    return asking.refuse("no \x1b[2J for you")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (tampered, "the signature is not over this document"),
        (unsigned, "this is no OpenSSH signature"),
        (old, "an old one"),
        (endless, "its answer was cut short"),
        (chatter, "no answer of Warren's"),
        (hidden, "it refuses: no ?[2J for you"),
    ],
)
def test_a_bad_controller_changes_nothing(four: Fleet, answer: Answer, words: str) -> None:
    """It says that it has something newer, and hands out what it likes; the other one is asked meanwhile."""
    folder = "/var/lib/warren/vpn"
    before = four.sh("laptop1", f"sha256sum {folder}/network.json")
    content, signature = (four.sh("server1", f"cat {folder}/{name}") for name in ("network.json", "network.json.sig"))
    four.sh("server1", "kill $(pgrep -f '[w]arren.pyz agent')")
    address = four.sh("laptop1", "getent hosts server1.vpn").split()[0]
    encoded = base64.b64encode(answer(content.encode(), signature.encode())).decode()
    four.write("/run/answer.base64", encoded, "server1")
    four.write("/run/evil.py", EVIL.read_text(), "server1")
    four.sh("server1", "rm -f /run/evil.pid; base64 -d < /run/answer.base64 > /run/answer")
    four.spawn("server1", [sys.executable, "/run/evil.py", address, "/run/answer"], "/run/evil.log")
    four.sh("laptop1", f"kill $(pgrep -f '[w]arren.pyz agent'); rm -f {folder}/fetching.json")
    four.start_agents(["laptop1"])  # which hears all controllers at once
    try:
        wait_until(lambda: words in status(four), 40, f"{words!r} in what laptop1 says")
        assert "server1 was asked for a newer document in vain" in status(four)
        assert four.sh("laptop1", f"sha256sum {folder}/network.json") == before
        assert four.failing([("laptop1", "laptop2"), ("laptop2", "laptop1"), ("laptop1", "server2")]) == []
    finally:
        four.sh("server1", "kill $(cat /run/evil.pid)")
        four.start_agents(["server1"])
