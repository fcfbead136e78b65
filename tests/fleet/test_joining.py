"""Machines that nobody can log in to come into a mesh by invitations, and thieves of invitations do not."""

from __future__ import annotations

import base64
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from fleet.fleets import FOLDER, Fleet, fleet
from namespaces import wait_until
from warren.fleet.bundle import bundle
from warren.names import MachineName
from warren.plan import line as line_format
from warren.wireguard import x25519
from warren.wireguard.keys import PrivateKey

pytestmark = [pytest.mark.root, pytest.mark.lab]

GUESTS = tuple(f"guest{number}" for number in range(1, 21))
INVENTORY = f"""\
[machines]
server1 = {{}}
server2 = {{}}
laptop1.deploy.pull = true
laptop2 = {{}}
victim.deploy.pull = true
thief = {{}}
{"".join(f"{name}.deploy.pull = true{chr(10)}" for name in GUESTS)}
[instances.vpn]
module.name = "wireguard"
roles.controller.machines.server1.settings.endpoint = "vpn1.example.com"
roles.controller.machines.server2.settings.endpoint = "vpn2.example.com"
roles.peer.settings.controller = "server1"
{"".join(f"roles.peer.machines.{name} = {{}}{chr(10)}" for name in ("laptop1", "laptop2", "victim", *GUESTS))}
"""
ARCHIVE = "/root/warren.pyz"
SERVERS = ("server1", "server2")
# Not the one that looks after the interface, which is a fork with the same words.
KILL_JOIN = (
    "for each in $(pgrep -f '[w]arren.pyz join'); do"
    " case $(cat /proc/$each/comm) in python*) kill -9 $each ;; esac; done"
)
# Two machines use one line, and WireGuard answers whoever spoke last: so it is tried again.
ASK = """
import socket, sys
question = sys.stdin.buffer.read()
for _ in range(20):
    try:
        with socket.create_connection((sys.argv[1], 51819), 2) as connection:
            connection.sendall(question)
            sys.exit(print(connection.recv(9999)))
    except OSError as error:
        print(error, file=sys.stderr)
"""
OUTSIDE = ("laptop1", "victim", *GUESTS)


@pytest.fixture(scope="module")
def mesh() -> Iterator[Fleet]:
    """Two controllers and a peer that are there; the others are behind NAT, and have nothing but an archive."""
    with fleet(INVENTORY, behind_nat=OUTSIDE) as made:
        made.warren("machines", "install", *SERVERS, "laptop2")
        made.start_agents((*SERVERS, "laptop2"))
        made.warren("machines", "update", *SERVERS, "laptop2")
        archive = base64.b64encode(bundle()).decode()
        for name in (*OUTSIDE, "thief"):
            made.write("/root/warren.base64", archive, name)
            made.sh(name, f"base64 -d < /root/warren.base64 > {ARCHIVE}")
        yield made


def invite(fleet: Fleet, *names: str) -> dict[str, str]:
    tree = json.loads(fleet.warren("machines", "invite", *names, "--json").out)
    return {name: each["line"] for name, each in tree["invitations"].items()}


def begin_join(fleet: Fleet, machine: str, line: str) -> None:
    """What somebody types there."""
    fleet.write("/run/line", line, machine, 0o600)
    fleet.sh(machine, "rm -f /run/joined /run/join.log")
    script = f"{sys.executable} {ARCHIVE} join - < /run/line; echo $? > /run/joined"
    fleet.spawn(machine, ["sh", "-c", script], "/run/join.log")


def joined(fleet: Fleet, machine: str, within_s: float = 60) -> tuple[int, str]:
    """How it ended, and what it said."""
    wait_until(
        lambda: not fleet.on(machine, "test", "-s", "/run/joined", code=None).code, within_s, f"the end on {machine}"
    )
    return int(fleet.sh(machine, "cat /run/joined")), fleet.sh(machine, "cat /run/join.log")


def invitations(fleet: Fleet) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(fleet.warren("machines", "invite", "--list", "--json").out)["invitations"]
    return found


def test_a_machine_behind_nat_joins_while_the_operator_waits(mesh: Fleet) -> None:
    (line,) = invite(mesh, "laptop1").values()
    secret = line_format.decode(line).private_key.reveal_text()
    for where in (f"grep -rF {secret} {FOLDER}", f"git -C {FOLDER} log -p --all | grep -F {secret}"):
        assert mesh.on("operator", "sh", "-c", where, code=None).code == 1, "the one-time key is stored nowhere"
    began = time.monotonic()
    begin_join(mesh, "laptop1", line)
    wait_until(lambda: any(each["hand_ins"] for each in invitations(mesh)), 30, "the key")
    print(mesh.warren("machines", "accept", "laptop1"))
    code, said = joined(mesh, "laptop1")
    assert code == 0, said
    mesh.start_agents(["laptop1"])
    assert mesh.failing([("laptop1", "laptop2"), ("laptop2", "laptop1"), ("laptop1", "server1")]) == []
    print(f"joined after {time.monotonic() - began:.1f} s", said)


def test_twenty_at_once_while_the_operator_waits(mesh: Fleet) -> None:
    """One command of the operator; twenty machines behind as many NATs."""
    mesh.sh("operator", "rm -f /run/invited")
    command = f"cd {FOLDER}; {sys.executable} -m warren machines invite {' '.join(GUESTS)} --wait --json"
    words = ["sh", "-c", f"{command} > /run/lines 2> /run/said; echo $? > /run/invited"]
    began = time.monotonic()
    mesh.spawn("operator", words, "/run/invite.log")
    wait_until(lambda: mesh.on("operator", "test", "-s", "/run/lines", code=None).code == 0, 60, "the lines")
    invited = time.monotonic()
    tree = json.loads(mesh.sh("operator", "cat /run/lines"))["invitations"]
    for name, each in tree.items():
        begin_join(mesh, name, each["line"])
    ends = {name: joined(mesh, name, 110) for name in GUESTS}
    print(f"invited in {invited - began:.1f} s, all joined {time.monotonic() - invited:.1f} s after that")
    assert {name: said for name, (code, said) in ends.items() if code} == {}
    wait_until(
        lambda: mesh.on("operator", "test", "-s", "/run/invited", code=None).code == 0, 60, "the operator's command"
    )
    assert mesh.sh("operator", "cat /run/invited").strip() == "0", mesh.sh("operator", "cat /run/said")
    assert mesh.failing([(name, "laptop2") for name in GUESTS] + [("server2", name) for name in GUESTS]) == []
    assert mesh.sh("guest1", "ip -br link").count("warren-join") == 0


def forged(line: str, **changes: Any) -> str:
    """The line with something in it that the operator did not write."""
    return line_format.encode(replace(line_format.decode(line), **changes))


def refused(fleet: Fleet, line: str, machine: str = "thief") -> str:
    """What the machine is told."""
    begin_join(fleet, machine, line)
    code, said = joined(fleet, machine)
    assert code == 4, said
    assert "warren-join" not in fleet.sh(machine, "ip -br link")
    assert "private.key" not in fleet.sh(machine, "find /var/lib/warren")
    return said


def waits(fleet: Fleet, machine: str) -> None:
    wait_until(
        lambda: "waits for the operator" in fleet.sh(machine, "cat /run/join.log"), 30, f"the hand-in of {machine}"
    )


def key_of(fleet: Fleet, machine: str) -> str:
    return fleet.sh(machine, "wg pubkey < /var/lib/warren/vpn/private.key").strip()


def test_thieves_get_nothing_and_the_operator_sees_them(mesh: Fleet) -> None:
    (withdrawn,) = invite(mesh, "victim").values()
    mesh.sh("thief", "mkdir -p /var/lib/warren")
    assert "this invitation is for another machine" in refused(mesh, forged(withdrawn, machine=MachineName("laptop2")))

    (line,) = invite(mesh, "victim").values()
    assert "this invitation was withdrawn" in refused(mesh, withdrawn)

    begin_join(mesh, "thief", line)  # before the one who was meant
    waits(mesh, "thief")
    begin_join(mesh, "victim", line)
    waits(mesh, "victim")
    thiefs, victims = key_of(mesh, "thief"), key_of(mesh, "victim")
    said = mesh.warren("machines", "accept", "victim", code=2).err
    assert "2 different keys were handed in for victim" in said
    assert thiefs[:8] in said
    assert victims[:8] in said

    addresses = {
        name: mesh.sh("laptop2", f"getent hosts {name}.vpn").split()[0] for name in ("server1", "server2", "laptop2")
    }
    # What the one-time key is good for: one port of a controller, and there for one question.
    mesh.sh("thief", f"ip -6 route add {addresses['laptop2']} dev warren-join")
    for command in (
        f"ping -6 -c 2 -i 0.2 -W 1 {addresses['server1']}",
        f"ping -6 -c 2 -i 0.2 -W 1 {addresses['laptop2']}",
        f"ssh -o ConnectTimeout=2 -o BatchMode=yes {addresses['server1']} true",
    ):
        assert mesh.on("thief", "sh", "-c", command, code=None).code, command
    asked = {}
    mesh.write("/run/ask.py", ASK, "thief")
    for question in (
        "warren 1 newer 0",
        "warren 1 join ../../etc KEY",
        f"warren 1 join victim {'x' * 150}",
        "\x1b[2J",
        "x" * 5000,
    ):
        mesh.write("/run/question", question + "\n", "thief")
        asked[question] = mesh.sh("thief", f"{sys.executable} /run/ask.py {addresses['server1']} < /run/question")
    assert all("refused" in answer for answer in asked.values()), asked
    assert "document" not in "".join(asked.values())

    said = mesh.warren("machines", "accept", "victim", "--key", victims[:12]).err
    assert "victim: is in vpn" in said
    assert joined(mesh, "victim")[0] == 0
    code, said = joined(mesh, "thief")
    assert (code, "this invitation was used already, by another key" in said) == (4, True), said
    assert "used already" in refused(mesh, line)

    mesh.sh("thief", "wg genkey > /run/guess")
    guess = PrivateKey.parse(mesh.sh("thief", "cat /run/guess"))
    begin_join(mesh, "thief", forged(line, private_key=guess))
    wait_until(lambda: "warren-join" in mesh.sh("thief", "ip -br link"), 20, "the interface")
    mesh.sh("thief", f"sleep 5; {KILL_JOIN}")
    wait_until(lambda: "warren-join" not in mesh.sh("thief", "ip -br link"), 20, "its end")
    assert "handed in" not in mesh.sh("thief", "cat /run/join.log")

    rows = [row for row in invitations(mesh) if row["machine"] == "victim"]
    assert sorted(row["state"] for row in rows) == ["used", "withdrawn"]
    reasons = " ".join(each["reason"] for row in rows for each in row["refusals"])
    for words in (
        "for another machine",
        "withdrawn",
        "used already",
        "and nothing else",
        "no machine's name",
        "longer than",
    ):
        assert words in reasons, words
    assert "\x1b" not in mesh.warren("machines", "invite", "--list").out


def test_one_that_has_expired_is_refused_and_a_killed_one_goes_on_with_the_same_key(mesh: Fleet) -> None:
    """The controller's clock decides, whatever the line and the machine say."""
    mesh.warren("machines", "revoke", "victim")
    (line,) = invite(mesh, "victim").values()
    path = f"{FOLDER}/vars/per-machine/victim/wireguard-keys-vpn/invitations/value"
    one_time = x25519.public_key(line_format.decode(line).private_key).text
    kept = mesh.sh("operator", f"cat {path}")
    mesh.sh("operator", f"sed -i 's|^{one_time} [0-9]*|{one_time} {int(time.time()) - 5}|' {path}")
    mesh.warren("machines", "update", *SERVERS)
    mesh.sh("thief", "rm -rf /var/lib/warren/vpn")
    assert "this invitation expired at" in refused(mesh, line)
    mesh.write(path, kept)
    mesh.warren("machines", "update", *SERVERS)

    begin_join(mesh, "thief", line)
    waits(mesh, "thief")
    before = key_of(mesh, "thief")
    mesh.sh("thief", KILL_JOIN)
    wait_until(lambda: "warren-join" not in mesh.sh("thief", "ip -br link"), 20, "the interface's end")
    begin_join(mesh, "thief", line)
    waits(mesh, "thief")
    assert key_of(mesh, "thief") == before
    mesh.warren("machines", "accept", "victim")
    code, said = joined(mesh, "thief")
    assert code == 0, said
    assert "already" in mesh.on("thief", sys.executable, ARCHIVE, "join", line, code=2).err
