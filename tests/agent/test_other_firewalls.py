"""Other firewalls on a controller: ufw and firewalld are asked, the real ones; of others the operator is told."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from meshes import mesh
from namespaces import Namespace, wait_until
from operators import SERVER1, VPN
from warren.agent import machine as this_machine
from warren.agent.machine import Verdict
from warren.host import state
from warren.host.machine import Host
from warren.plan import other_firewalls
from wired import Wired

pytestmark = pytest.mark.root


@dataclass(frozen=True)
class Manager:
    """Another firewall: how it is started, how it starts anew, and what it says of itself."""

    start: str
    again: str
    listing: str


# All of this computer's /etc, as a copy, under what the machine has already.
WHOLE_ETC = "umount /etc; cp -an /etc/. /run/etc/; mount --bind /run/etc /etc"

UFW = Manager(
    start="ufw --force enable",
    again="ufw reload",
    listing="ufw status numbered; grep -v '^#' /etc/ufw/user.rules; grep -v '^#' /etc/ufw/user6.rules",
)
FIREWALLD = Manager(
    start="""mkdir -p /run/dbus; dbus-daemon --system --fork --nopidfile
firewalld --nofork --nopid > /run/firewalld.log 2>&1 &
for each in $(seq 60); do firewall-cmd --state > /run/state 2>&1 && break; sleep 0.1; done; cat /run/state""",
    again="firewall-cmd --reload",
    listing="firewall-cmd --list-all-zones; firewall-cmd --permanent --list-all-zones",
)
DROPS = (
    "table inet filter { chain input { type filter hook input priority 0; policy drop; ct state established accept; }; "
)
DROPS += "chain forward { type filter hook forward priority 0; policy drop; }; }"
AGENT = (
    f"env PYTHONPATH={Path(state.__file__).parents[2]} {sys.executable} -m warren.agent.main agent --machine server1"
)


@contextmanager
def guarded(manager: Manager) -> Iterator[tuple[Wired, str]]:
    """A controller with the manager at work, two peers, and what the manager says before Warren comes."""
    with Wired(mesh("server1", "laptop1 laptop2")) as machines:
        server = machines["server1"]
        server.sh(WHOLE_ETC)
        server.sh(manager.start)
        yield machines, server.sh(manager.listing)


def reaches(machine: Namespace, name: str, tries: int = 15) -> bool:
    """WireGuard repeats a first message that was dropped after 5 s."""
    try:
        machine.sh(f"for try in $(seq {tries}); do ping -6 -c 1 -W 1 {name} && exit; done; exit 1")
    except RuntimeError:
        return False
    return True


def hears_words(machines: Wired) -> bool:
    """Whether a datagram of a peer's agent comes in at the controller."""
    listen = "import socket; s = socket.socket(10, 2); s.bind(('::', 51819)); s.settimeout(20); print(s.recv(9))"
    send = "import socket; socket.socket(10, 2).sendto(b'word', (socket.getaddrinfo('server1.vpn', 0)[0][4][0], 51819))"
    machines["server1"].sh(f'{sys.executable} -c "{listen}" > /run/heard 2>&1 &')
    wait_until(lambda: ":CA6B " in machines["server1"].sh("cat /proc/net/udp6"), 10, "who listens")
    machines["laptop1"].sh(f'for each in 1 2 3; do {sys.executable} -c "{send}"; done')
    try:
        wait_until(lambda: "word" in machines["server1"].sh("cat /run/heard"), 5, "a word")
    except AssertionError:
        return False
    return True


def may_ask(machines: Wired) -> bool:
    """Whether a peer's connection comes in at the controller, where it asks for documents."""
    listen = "import socket; s = socket.create_server(('::', 51819), family=10); s.settimeout(20); s.accept()"
    ask = "import socket; socket.create_connection((socket.getaddrinfo('server1.vpn', 0)[0][4][0], 51819), 3)"
    machines["server1"].sh(f'{sys.executable} -c "{listen}" > /run/asked 2>&1 &')
    wait_until(lambda: ":CA6B " in machines["server1"].sh("cat /proc/net/tcp6"), 10, "who listens")
    return not machines["laptop1"].sh(f'{sys.executable} -c "{ask}" 2> /dev/null || echo no')


def waiting() -> Verdict:
    host = Host()
    documents, _ = this_machine.read_documents(host)
    return this_machine.check(host, SERVER1, documents)[VPN]


@pytest.mark.parametrize("manager", [UFW, FIREWALLD], ids=["ufw", "firewalld"])
def test_it_lets_the_mesh_in_while_there_is_one(manager: Manager) -> None:
    with guarded(manager) as (machines, before):
        server, laptop = machines["server1"], machines["laptop1"]
        machines.follow()
        assert reaches(laptop, "server1.vpn"), "through the port"
        assert reaches(laptop, "laptop2.vpn"), "through the controller's forwarding"
        assert hears_words(machines), "by the mesh, what agents say"
        assert may_ask(machines), "and ask"
        verdict = server.run(waiting)
        assert (verdict.error, verdict.steps, verdict.notes) == (None, (), ())

        server.sh(manager.again)
        machines.follow(port=51821)
        assert reaches(laptop, "laptop2.vpn")
        assert "51820" not in server.sh("nft list ruleset; ufw show added 2> /dev/null || :")

        server.run(take_down)
        assert server.sh(manager.listing) == before


@pytest.mark.parametrize("manager", [UFW, FIREWALLD], ids=["ufw", "firewalld"])
def test_without_being_asked_it_keeps_the_mesh_out(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    """That the other test shows something."""
    with guarded(manager) as (machines, _):
        monkeypatch.setattr("warren.plan.diff.other_firewalls.asks", lambda *_: ())
        machines.follow()
        assert not reaches(machines["laptop1"], "server1.vpn", tries=3)


@pytest.mark.parametrize("manager", [UFW, FIREWALLD], ids=["ufw", "firewalld"])
def test_without_being_asked_it_keeps_words_out(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for what agents say."""
    with guarded(manager) as (machines, _):
        asks = other_firewalls.asks
        without = lambda *given: (each for each in asks(*given) if "51819" not in " ".join(each.words))  # noqa: E731
        monkeypatch.setattr("warren.plan.diff.other_firewalls.asks", without)
        machines.follow()
        assert reaches(machines["laptop1"], "laptop2.vpn")
        assert not hears_words(machines)
        assert not may_ask(machines)


@pytest.mark.parametrize(
    ("manager", "own_rule"),
    [
        (UFW, "ufw allow 51820/udp comment mine; ufw allow 51819; ufw route allow in on vpn out on vpn"),
        (FIREWALLD, "firewall-cmd --permanent --add-port=51819-51820/udp --add-port=51819/tcp; firewall-cmd --reload"),
    ],
    ids=["ufw", "firewalld"],
)
def test_what_its_user_asked_for_stays_when_the_mesh_goes(manager: Manager, own_rule: str) -> None:
    with guarded(manager) as (machines, _):
        server = machines["server1"]
        server.sh(own_rule)
        before = server.sh(manager.listing)
        machines.follow()
        assert reaches(machines["laptop1"], "laptop2.vpn")
        server.run(take_down)
        assert server.sh(manager.listing) == before


def test_the_agent_asks_again_after_the_manager_started_anew() -> None:
    with guarded(FIREWALLD) as (machines, _):
        server = machines["server1"]
        machines.follow()
        server.sh(f"{AGENT} > /run/agent.log 2>&1 &")
        wait_until(lambda: "keeping what" in server.sh("cat /run/agent.log"), 20, "the agent")
        server.sh(FIREWALLD.again)
        wait_until(lambda: "51820" in server.sh("nft list table inet firewalld"), 60, "the port, open again")


@pytest.mark.parametrize("rules", ["", "add rule inet filter input udp dport { 500, 51000-52000 } accept"])
def test_of_a_chain_that_drops_by_default_the_operator_is_told(rules: str) -> None:
    with Wired(mesh("server1", "laptop1 laptop2")) as machines:
        server, laptop = machines["server1"], machines["laptop1"]
        server.sh(f"echo '{DROPS}' | nft -f -; nft '{rules or 'list tables'}'")
        machines.follow()
        assert not reaches(
            laptop, "server1.vpn", tries=3
        )  # what comes out of the mesh is for this chain's owner to say
        notes = server.run(waiting).notes
        port, within = "udp dport 51820 accept", 'iifname "vpn" oifname "vpn" accept'
        words = [f'iifname "vpn" {each} dport 51819 accept' for each in ("udp", "tcp")]
        inserted = [note.rpartition(": ")[2] for note in notes]
        wanted = [f"nft insert rule inet filter input {each}" for each in (words[1:] if rules else (port, *words))]
        assert inserted == [*wanted, f"nft insert rule inet filter forward {within}"]
        for command in inserted:
            server.sh(f"nft '{command.removeprefix('nft ')}'")
        assert server.run(waiting).notes == ()
        assert reaches(laptop, "laptop2.vpn")


def test_iptables_own_chains_are_told_in_its_words() -> None:
    with Wired(mesh("server1", "laptop1 laptop2")) as machines:
        server = machines["server1"]
        server.sh(WHOLE_ETC)
        server.sh("ip6tables -P FORWARD DROP; iptables -P INPUT DROP; ip6tables -P INPUT DROP")
        machines.follow()
        commands = [note.rpartition(": ")[2] for note in server.run(waiting).notes]
        assert sorted(commands) == [
            "ip6tables -I FORWARD -i vpn -o vpn -j ACCEPT",
            "ip6tables -I INPUT -i vpn -p tcp --dport 51819 -j ACCEPT",
            "ip6tables -I INPUT -i vpn -p udp --dport 51819 -j ACCEPT",
            "ip6tables -I INPUT -p udp --dport 51820 -j ACCEPT",
            "iptables -I INPUT -p udp --dport 51820 -j ACCEPT",
        ]
        server.sh("; ".join(commands))
        assert server.run(waiting).notes == ()
        assert reaches(machines["laptop1"], "laptop2.vpn")


def take_down() -> None:
    this_machine.take_down(Host(), VPN)
