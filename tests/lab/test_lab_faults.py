"""Each fault on a mesh that runs, and its healing."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator

import pytest

from lab.labs import DEMO, MACHINES, Computer, between, computer
from namespaces import wait_until

pytestmark = [pytest.mark.root, pytest.mark.lab]

PATIENCE_S = 40.0  # a peer that speaks into a dead session notices after 15 s (WireGuard whitepaper, section 6.5)


@pytest.fixture(scope="module")
def lab() -> Iterator[Computer]:
    with computer() as made:
        made.up(DEMO)
        yield made


@pytest.fixture
def demo(lab: Computer) -> Iterator[Computer]:
    """The mesh, whole before the test and again after it."""
    yield lab
    for machine in MACHINES:
        lab.warren("fault", "heal", machine)
    wait_until(lambda: not lab.failing("--wait", "5"), PATIENCE_S, "the mesh")


def test_a_killed_machine_is_silent_and_the_others_go_on(demo: Computer) -> None:
    demo.shell("laptop1", "echo kept > /root/file; echo lost > /run/file")
    demo.warren("fault", "kill", "laptop1")
    status = demo.status("--wait", "1")
    assert {(pair["from"], pair["to"]) for pair in status["pairs"] if not pair["ok"]} == between("laptop1")
    assert status["machines"]["laptop1"]["state"] == "dead"
    result = demo.warren("exec", "laptop1", "true", code=4)
    assert result.stderr == "laptop1 is dead\nmend: warren lab fault heal laptop1\n"

    demo.warren("fault", "heal", "laptop1")
    wait_until(lambda: not demo.failing("--wait", "5"), PATIENCE_S, "the mesh")
    assert demo.on("laptop1", "cat", "/root/file") == "kept\n"
    assert "No such file" in demo.warren("exec", "laptop1", "cat", "/run/file", code=1).stderr


def test_killing_ends_every_process_of_the_machine_at_once(demo: Computer) -> None:
    def sleepers() -> str:
        return demo.run("pgrep", "-f", "^sleep 1234$").stdout

    demo.shell("laptop2", "sleep 1234 > /dev/null 2>&1 < /dev/null & setsid sleep 1234 > /dev/null 2>&1 < /dev/null &")
    assert sleepers().count("\n") == 2
    demo.warren("fault", "kill", "laptop2")
    assert sleepers() == ""


def test_a_killed_controller_takes_its_own_subnet_with_it_and_comes_back(demo: Computer) -> None:
    demo.warren("fault", "kill", "server2")
    failing = demo.failing("--wait", "1")
    assert between("server2") <= failing
    # server1 carries on; only laptop2 is known by an address in the other's subnet.
    assert all(target == "laptop2" for _, target in failing - between("server2"))


def test_killing_twice_and_healing_twice_is_no_harm(demo: Computer) -> None:
    for _ in range(2):
        demo.warren("fault", "kill", "laptop3")
    for _ in range(2):
        demo.warren("fault", "heal", "laptop3")
    wait_until(lambda: not demo.failing("--wait", "5"), PATIENCE_S, "the mesh")


def test_a_machine_behind_nat_comes_back_with_its_router(demo: Computer) -> None:
    before = demo.on("laptop3", "ip", "-br", "addr", "show", "dev", "eth0")
    demo.warren("fault", "kill", "laptop3")
    demo.warren("fault", "heal", "laptop3")
    assert addresses(demo.on("laptop3", "ip", "-br", "addr", "show", "dev", "eth0")) == addresses(before)


def addresses(brief: str) -> list[str]:
    return brief.split()[2:]


@pytest.mark.parametrize("machine", ["laptop2", "laptop3", "server1"])
def test_a_cut_link_drops_everything_and_tells_nobody(demo: Computer, machine: str) -> None:
    other = "laptop1"
    target = underlay(demo, machine)
    assert " 0% packet loss" in demo.on(other, "ping", "-c", "1", "-W", "5", target)
    demo.warren("fault", "cut", machine)
    assert between(machine) <= demo.failing("--wait", "0.5")
    for source, destination in ((other, target), (machine, underlay(demo, other))):
        said = demo.on(source, "ping", "-c", "2", "-i", "0.1", "-W", "1", destination, code=1)
        assert "2 packets transmitted, 0 received, 100% packet loss" in said
    assert demo.status("--wait", "0")["machines"][machine]["faults"]["cut"]

    demo.warren("fault", "heal", machine)
    assert not demo.status("--wait", "0")["machines"][machine]["faults"]["cut"]
    assert " 0% packet loss" in demo.on(other, "ping", "-c", "1", "-W", "5", target)


def underlay(demo: Computer, machine: str) -> str:
    """A machine's IPv4 address in the lab's internet."""
    address: str = demo.status("--wait", "0")["machines"][machine]["underlay"][0]
    return address


def test_so_much_is_lost_each_way(demo: Computer) -> None:
    demo.warren("fault", "loss", "laptop2", "30%")
    ping = ("ping", "-q", "-c", "400", "-i", "0.005", "-W", "1", underlay(demo, "server1"))
    result = demo.warren("exec", "laptop2", "--", *ping)
    found = re.search(r"400 packets transmitted, (\d+) received", result.stdout)
    assert found
    # 0.7 there and 0.7 back; six standard deviations to each side.
    assert 0.34 < int(found[1]) / 400 < 0.64


def test_all_is_lost_at_a_hundred_percent(demo: Computer) -> None:
    demo.warren("fault", "loss", "laptop2", "100%")
    assert demo.failing("--wait", "0.5") >= between("laptop2")


def test_delays_count_each_way_and_add_up(demo: Computer) -> None:
    demo.warren("fault", "delay", "laptop1", "60ms")
    demo.warren("fault", "delay", "laptop3", "40ms")
    times = {(pair["from"], pair["to"]): pair["rtt_ms"] for pair in demo.status("--wait", "5")["pairs"]}
    assert times["laptop1", "server1"] >= 120
    assert times["server1", "laptop1"] >= 120
    assert times["laptop3", "server2"] >= 80
    assert times["laptop1", "laptop3"] >= 200
    assert times["laptop2", "server1"] < 120

    demo.warren("fault", "heal", "laptop1")
    demo.warren("fault", "heal", "laptop3")
    times = {(pair["from"], pair["to"]): pair["rtt_ms"] for pair in demo.status()["pairs"]}
    assert times["laptop1", "laptop3"] < 200


def test_a_delay_can_be_changed_and_taken_back(demo: Computer) -> None:
    demo.warren("fault", "delay", "laptop1", "300ms")
    demo.warren("fault", "delay", "laptop1", "30ms")
    times = {(pair["from"], pair["to"]): pair["rtt_ms"] for pair in demo.status("--wait", "5")["pairs"]}
    assert 60 <= times["laptop1", "server1"] < 600
    demo.warren("fault", "delay", "laptop1", "0")
    assert demo.status("--wait", "5")["machines"]["laptop1"]["faults"]["delay_ms"] == 0


SEND = """
import socket, sys
speaker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for number in range(150):
    speaker.sendto(str(number).encode(), (sys.argv[1], 6000))
speaker.sendto(b"end", (sys.argv[1], 6000))
"""
LISTEN = """
import os, socket
listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
listener.bind(("0.0.0.0", 6000))
if os.fork():
    os._exit(0)
heard = []
while not heard or heard[-1] != "end":
    heard.append(listener.recv(100).decode())
open("/run/heard.new", "w").write(" ".join(heard))
os.rename("/run/heard.new", "/run/heard")
"""


def test_delayed_packets_stay_in_order_and_none_is_lost(demo: Computer) -> None:
    demo.warren("fault", "delay", "laptop1", "50ms")
    demo.shell("server1", f"{sys.executable} -c '{LISTEN}' > /dev/null 2>&1 < /dev/null")
    demo.on("laptop1", sys.executable, "-c", SEND, underlay(demo, "server1"))
    heard = demo.shell("server1", "timeout 20 sh -c 'until [ -e /run/heard ]; do :; done'; cat /run/heard").split()
    assert heard == [*map(str, range(150)), "end"]


def test_faults_of_one_link_are_kept_together(demo: Computer) -> None:
    demo.warren("fault", "delay", "laptop2", "20ms")
    demo.warren("fault", "loss", "laptop2", "1.5%")
    demo.warren("fault", "cut", "laptop2")
    assert demo.status("--wait", "0")["machines"]["laptop2"]["faults"] == {
        "cut": True,
        "loss_percent": 1.5,
        "delay_ms": 20.0,
    }
    assert "cut, loss 1.5%, delay 20ms" in demo.warren("status", "--wait", "0", code=4).stdout


def test_nothing_inside_a_machine_can_undo_its_faults(demo: Computer) -> None:
    demo.warren("fault", "cut", "laptop2")
    demo.shell(
        "laptop2", "nft flush ruleset; ip link set eth0 down; ip link set eth0 up; ip route add default dev eth0"
    )
    target = underlay(demo, "server1")
    assert "100% packet loss" in demo.on("laptop2", "ping", "-c", "1", "-W", "1", target, code=1)
    demo.warren("fault", "kill", "laptop2")  # its own network is what the test has broken


def test_a_dead_machine_has_no_link_to_break(demo: Computer) -> None:
    demo.warren("fault", "kill", "laptop1")
    result = demo.warren("fault", "cut", "laptop1", code=4)
    assert result.stderr == "laptop1 is dead\nmend: warren lab fault heal laptop1\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("kill", "lapto1"), 'lab "demo" has no machine "lapto1"\nmend: did you mean "laptop1"?'),
        (("loss", "laptop1", "120%"), "'120%' is no loss\nmend: write it as 20%"),
        (("delay", "laptop1", "soon"), "'soon' is no delay\nmend: write it as 50ms"),
    ],
)
def test_what_cannot_be_is_refused(demo: Computer, words: tuple[str, ...], message: str) -> None:
    result = demo.warren("fault", *words, code=2)
    assert result.stderr.startswith(message)
