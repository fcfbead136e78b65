"""A machine joins by an invitation, thieves do not, and updates follow: on whatever WireGuard there is.

One controller and no ssh: documents are signed and brought to it by hand. tests/fleet/test_joining.py has the side of
the operator, and what `join` installs.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from meshes import mesh
from namespaces import sh, wait_until
from operators import errors, send
from warren.agent import installation, join, restore, run
from warren.agent.main import main
from warren.errors import WarrenError
from warren.fleet import invite
from warren.host import guestbook, keys, process, trial
from warren.host.machine import Host
from warren.host.signature import ALLOWED_SIGNERS
from warren.inventory.model import Deploy, Inventory, Machine
from warren.names import InstanceName, MachineName
from warren.network.document import Document
from warren.network.invitations import OPEN, USED, Invitation, invitations_text
from warren.network.resolve import resolve
from warren.network.stored import Stored
from warren.plan.joining import Guestbook
from warren.plan.line import Line
from warren.wireguard.endpoint import Endpoint
from warren.wireguard.keys import PrivateKey, PublicKey
from warren.wireguard.x25519 import public_key
from wired import Wired

pytestmark = [pytest.mark.root, pytest.mark.kernel]

EMULATED = os.environ.get("WARREN_REQUIRE_KERNEL") == "1"
PATIENCE_S = 300.0 if EMULATED else 30.0
VPN, SERVER1, LAPTOP1 = InstanceName("vpn"), MachineName("server1"), MachineName("laptop1")
SAID = Path("/run/said")
JOINED = "joined"


class Operator:
    """Invites laptop1 and accepts it. What he signs is brought to the controller alone."""

    def __init__(self, machines: Wired) -> None:
        self._server = machines["server1"]
        self._server_key = self._server.run(keys.ensure_key, VPN)
        self._one_time = PrivateKey(os.urandom(32))
        self._invitation = Invitation(LAPTOP1, public_key(self._one_time), int(time.time()) + 3600, OPEN)
        self._serial = 0

    def invite(self) -> Line:
        document = self.publish()
        signers = self._server.run(ALLOWED_SIGNERS.read_text)
        return invite.line_of(document, self._one_time, self._invitation, signers)

    def publish(self, accepted: PublicKey | None = None, mtu_bytes: int = 1420) -> Document:
        self._serial += 1
        instance = mesh("server1", "laptop1")
        instance = replace(
            instance,
            controllers={SERVER1: replace(instance.controllers[SERVER1], endpoint=Endpoint("198.51.100.1", 51820))},
            peers={LAPTOP1: replace(instance.peers[LAPTOP1], mtu_bytes=mtu_bytes)},
        )
        machines = {SERVER1: Machine(SERVER1), LAPTOP1: Machine(LAPTOP1, deploy=Deploy(pull=True))}
        invitation = replace(self._invitation, closed=USED if accepted else OPEN)
        stored = Stored(
            public_keys={SERVER1: self._server_key.text, **({LAPTOP1: accepted.text} if accepted else {})},
            invitations={LAPTOP1: invitations_text([invitation])},
        )
        document = resolve(Inventory("wired", machines, {VPN: instance}), {VPN: stored}, self._serial)[VPN]
        self._server.run(follow, document)
        return document

    def book(self) -> Guestbook:
        return self._server.run(guestbook.read, VPN)


# On a machine


def follow(document: Document) -> None:
    answer = send(Host(), document)
    assert errors(answer) == {}
    if answer.token is not None:
        restore.confirm(Host(), answer.token)


def start_agent(me: MachineName) -> None:
    process.detach("agent", (), lambda: run.Agent(Host(), me, main).run())


def begin_join(line: Line, reach_within_s: float = PATIENCE_S) -> None:
    """On a machine that has Warren, and is in no mesh."""
    SAID.unlink(missing_ok=True)
    ALLOWED_SIGNERS.write_text(f"{line.signers[0]}\n")
    join.REACH_WITHIN_S = reach_within_s  # a fork of the test: of nobody else
    installation.BUNDLE = ALLOWED_SIGNERS  # is there
    process.detach("join", (), partial(_join, line))


def _join(line: Line) -> None:
    try:
        join.join(Host(), line, b"", lambda _: None)
        said = JOINED
    except WarrenError as error:
        said = str(error)
    new = SAID.with_suffix(".new")
    new.write_text(said)
    new.rename(SAID)


def leftovers() -> str:
    """What a machine that was refused must not have."""
    return sh("wg show interfaces; find /var/lib/warren -name '*.key'")


def serial() -> int:
    """Of the document that was confirmed here."""
    document = Host().read_document(VPN)
    assert document is not None
    return document.serial if trial.read() is None else 0


def test_who_is_invited_joins_and_fetches_and_thieves_get_nothing() -> None:
    with Wired(mesh("server1", "laptop1 thief")) as machines:
        operator, laptop, thief = Operator(machines), machines["laptop1"], machines["thief"]

        def said(machine: str) -> str:
            wait_until(lambda: machines[machine].run(SAID.exists), PATIENCE_S, f"the end on {machine}")
            return machines[machine].run(SAID.read_text)

        line = operator.invite()
        machines["server1"].run(start_agent, SERVER1)
        thief.run(begin_join, replace(line, private_key=PrivateKey(os.urandom(32))), 5.0)
        laptop.run(begin_join, line)
        wait_until(lambda: operator.book().hand_ins, PATIENCE_S, "the key")
        (handed,) = operator.book().hand_ins
        assert handed.public_key == laptop.run(keys.ensure_key, VPN)
        assert handed.came_from == "198.51.100.2"
        assert "no controller answers within 5 s" in said("thief")  # the one-time key was guessed
        assert operator.book() == Guestbook(hand_ins=(handed,))

        operator.publish(handed.public_key)
        assert said("laptop1") == JOINED
        assert laptop.sh("wg show interfaces") == "vpn\n"
        assert " 0% packet loss" in laptop.sh("ping -6 -c 3 -i 0.1 -W 20 server1.vpn")
        if EMULATED:
            assert "wireguard" in laptop.sh("ip -d link show dev vpn").split("link/none")[1]

        thief.run(begin_join, line)  # it was stolen, and is used
        assert "refused: this invitation was used already, by another key" in said("thief")
        (refusal,) = operator.book().refusals
        assert (refusal.came_from, refusal.machine) == ("198.51.100.6", LAPTOP1)
        assert thief.run(leftovers) == ""

        laptop.run(start_agent, LAPTOP1)
        operator.publish(handed.public_key, mtu_bytes=1300)
        wait_until(lambda: laptop.run(serial) == 3, PATIENCE_S, "what it fetches")
        assert "mtu 1300" in laptop.sh("ip link show dev vpn; ping -6 -c 1 -w 30 server1.vpn")
