"""The mesh of two controllers and three peers, as a whole: every machine reaches every other by name."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.labs import CONTROLLERS, DEMO, MACHINES, PEERS, Computer, computer
from namespaces import wait_until

pytestmark = [pytest.mark.root, pytest.mark.lab]

ORDERED_PAIRS = [(source, target) for source in MACHINES for target in MACHINES if source != target]


@pytest.fixture(scope="module")
def demo() -> Iterator[Computer]:
    with computer() as made:
        made.up(DEMO, "--ssh")
        yield made


# Listens, answers every packet with its own text; says nothing until it can.
HOLD = """
import os, socket, sys
listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
listener.bind(("0.0.0.0", int(sys.argv[1])))
if os.fork():
    os._exit(0)
open("/run/holder.pid", "w").write(str(os.getpid()))
while True:
    text, peer = listener.recvfrom(100)
    listener.sendto(text, peer)
"""
KNOCK = """
import socket, sys
speaker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
speaker.settimeout(5)
speaker.connect((sys.argv[1], int(sys.argv[2])))
speaker.send(b"heard")
try:
    print(speaker.recv(100).decode())
except OSError as error:
    print(type(error).__name__)
"""


def hold_port(demo: Computer, machine: str, port: int) -> None:
    """Have a process listen on a UDP port of a machine; its pid is in /run/holder.pid."""
    demo.shell(machine, f"{sys.executable} -c '{HOLD}' {port} > /dev/null 2>&1 < /dev/null")
    demo.shell(machine, "until [ -s /run/holder.pid ]; do :; done")


def addresses_by_name(demo: Computer) -> dict[str, str]:
    """What the hosts file of a machine says."""
    lines = [line.split() for line in demo.on("laptop1", "cat", "/etc/hosts").splitlines() if ".vpn" in line]
    return {words[1]: words[0] for words in lines if words[0] != "#"}


def test_twenty_of_twenty_pairs_answer_by_name(demo: Computer) -> None:
    status = demo.status()
    assert [(pair["from"], pair["to"]) for pair in status["pairs"]] == ORDERED_PAIRS
    assert all(pair["ok"] and pair["rtt_ms"] > 0 for pair in status["pairs"])
    assert {pair["name"] for pair in status["pairs"]} == {f"{name}.vpn" for name in MACHINES}


@pytest.mark.parametrize("source", MACHINES)
def test_every_other_machine_answers_to_a_real_ping_by_name(demo: Computer, source: str) -> None:
    for target in MACHINES:
        if target != source:
            assert " 0% packet loss" in demo.on(source, "ping6", "-c", "2", "-i", "0.1", "-W", "5", f"{target}.vpn")


def test_peers_reach_each_other_through_one_controller_and_controllers_directly(demo: Computer) -> None:
    hops = {(pair["from"], pair["to"]): pair["hops"] for pair in demo.status()["pairs"]}
    for source, target in ORDERED_PAIRS:
        assert hops[source, target] == (2 if source in PEERS and target in PEERS else 1)


def test_the_hop_limit_ends_at_the_controller_in_the_middle(demo: Computer) -> None:
    """With one hop left a packet from peer to peer comes as far as the designated controller of the target."""
    addresses = addresses_by_name(demo)
    for target, controller in {"laptop2": "server2", "laptop3": "server1"}.items():
        said = demo.on("laptop1", "ping6", "-n", "-c", "1", "-t", "1", "-W", "5", f"{target}.vpn", code=1)
        assert f"From {addresses[f'{controller}.vpn']} icmp_seq=1 Time exceeded: Hop limit" in said
        assert " 0% packet loss" in demo.on("laptop1", "ping6", "-c", "1", "-t", "2", "-W", "5", f"{target}.vpn")


def test_a_peers_name_leads_into_the_subnet_of_its_designated_controller(demo: Computer) -> None:
    addresses = addresses_by_name(demo)
    for peer, controller in {"laptop1": "server1", "laptop2": "server2", "laptop3": "server1"}.items():
        prefix = addresses[f"{controller}.vpn"].removesuffix("::1").removesuffix(":0")
        assert addresses[f"{peer}.vpn"].startswith(f"{prefix}:")


def test_a_peer_is_reached_through_either_controller(demo: Computer) -> None:
    """Its suffix is the same in both subnets."""
    own = re.findall(r"inet6 (\S+)/56", demo.on("laptop3", "ip", "-6", "addr", "show", "dev", "vpn"))
    assert len(own) == 2
    for address in own:
        assert " 0% packet loss" in demo.on("laptop1", "ping6", "-c", "1", "-W", "5", address)


def test_the_last_peer_is_behind_a_router_of_its_own(demo: Computer) -> None:
    machines = demo.status()["machines"]
    assert [name for name, machine in machines.items() if machine["behind_nat"]] == ["laptop3"]
    assert "192.168.1.2/24" in demo.on("laptop3", "ip", "-br", "-4", "addr", "show", "dev", "eth0")
    shown = demo.on("server1", "wg", "show", "vpn", "endpoints")
    router4, router6 = machines["laptop3"]["underlay"]
    # server1 sees the router's addresses and never those behind it.
    assert f"{router4}:" in shown or f"[{router6}]:" in shown
    assert "192.168." not in shown


def test_nobody_comes_through_the_router_uninvited(demo: Computer) -> None:
    router4, _ = demo.status()["machines"]["laptop3"]["underlay"]
    hold_port(demo, "laptop3", 5000)
    # The router itself answers: nobody listens there.
    said = demo.on("server1", sys.executable, "-c", KNOCK, router4, "5000")
    assert said == "ConnectionRefusedError\n"
    assert demo.on("laptop3", sys.executable, "-c", KNOCK, "127.0.0.1", "5000") == "heard\n"


def test_ssh_by_name_from_machine_to_machine(demo: Computer) -> None:
    assert demo.on("laptop1", "ssh", "-o", "BatchMode=yes", "root@laptop2.vpn", "hostname") == "laptop2\n"
    seen = demo.on("laptop3", "ssh", "-o", "BatchMode=yes", "root@laptop1.vpn", "echo $SSH_CONNECTION").split()
    addresses = addresses_by_name(demo)
    assert seen[2] == addresses["laptop1.vpn"]
    assert seen[3] == "22"


def test_ssh_as_a_user(demo: Computer) -> None:
    demo.shell("laptop1", "id user 2>/dev/null || useradd --create-home --shell /bin/sh --password '*' user")
    assert demo.on("server2", "ssh", "-o", "BatchMode=yes", "user@laptop1.vpn", "whoami") == "user\n"


def test_wg_show_on_a_peer_and_on_a_controller(demo: Computer) -> None:
    on_peer = demo.on("laptop1", "wg", "show")
    assert on_peer.count("latest handshake: ") == len(CONTROLLERS)
    assert "interface: vpn" in on_peer
    on_controller = demo.on("server1", "wg", "show")
    assert "listening port: 51820" in on_controller
    assert on_controller.count("latest handshake: ") == len(MACHINES) - 1


def test_addresses_and_routes_are_where_the_service_description_looks_for_them(demo: Computer) -> None:
    assert demo.on("laptop1", "ip", "addr", "show", "dev", "vpn").count("scope global") == len(CONTROLLERS)
    routes = demo.on("laptop1", "ip", "-6", "route", "show", "dev", "vpn").splitlines()
    assert len([line for line in routes if re.match(r"fd[0-9a-f:]+::/56 ", line)]) == len(CONTROLLERS)
    on_controller = demo.on("server1", "ip", "-6", "route", "show", "dev", "vpn")
    assert re.search(r"^fd[0-9a-f:]+::/40 ", on_controller, re.MULTILINE)


def test_each_machine_has_its_own_key_and_nobody_elses(demo: Computer) -> None:
    keys = {name: demo.shell(name, "wg pubkey < /var/lib/warren/vpn/private.key").strip() for name in MACHINES}
    assert len(set(keys.values())) == len(MACHINES)
    document = json.loads(demo.on("laptop1", "cat", "/var/lib/warren/vpn/network.json"))
    assert {name: entry["public_key"] for name, entry in document["machines"].items()} == keys
    secrets = [demo.on(name, "cat", "/var/lib/warren/vpn/private.key").strip() for name in MACHINES]
    state = demo.namespace.run(lab_files)
    assert not any(secret.encode() in content for secret in secrets for content in state)


def lab_files() -> list[bytes]:
    """What a lab keeps outside of itself."""
    return [path.read_bytes() for path in Path("/run/warren").rglob("*") if path.is_file()]


def test_a_taken_port_is_named_with_its_holder(demo: Computer) -> None:
    """What the seed calls "Address already in use"."""
    demo.shell("server2", "kill $(pgrep -f '[w]arren agent') && cp /var/lib/warren/vpn/network.json /root/")
    demo.on("server2", "warren", "down", "vpn")
    try:
        hold_port(demo, "server2", 51820)
        apply = ("warren", "apply", "--document", "/root/network.json", "--machine", "server2")
        result = demo.warren("exec", "server2", "--", *apply, code=4)
        assert "51820" in result.stderr
        assert f"Address already in use, by process {demo.on('server2', 'cat', '/run/holder.pid')} (" in result.stderr
        assert "vpn" not in demo.on("server2", "ip", "-br", "link")
    finally:
        demo.shell("server2", "kill $(cat /run/holder.pid)")
        demo.on("server2", *("warren", "apply", "--document", "/root/network.json", "--machine", "server2"))
    wait_until(lambda: not demo.failing("--wait", "6"), 20, "the mesh")
