"""While documents are refused and machines updated, packets keep flowing: ping trains meanwhile, nothing lost."""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from fleet.fleets import FOLDER, OPERATOR, Fleet, all_pairs, installed_fleet
from namespaces import wait_until

pytestmark = [pytest.mark.root, pytest.mark.lab]

MACHINES = ("server1", "server2", "laptop1", "laptop2", "laptop3")
TRAINS = (("laptop1", "laptop2.vpn"), ("laptop2", "server2.vpn"), ("server2", "server1.home"))
REKEY_S = 110  # WireGuard makes a new handshake by itself after 120 s

PEERS = 'roles.peer.tags.laptop.settings.controller = "server1"'

# server2 is a controller in one mesh and a peer in the other; server1 listens for both.
INVENTORY = """\
meta.name = "traffic"

[machines]
server1 = {}
server2 = {}
laptop1.tags = ["laptop"]
laptop2.tags = ["laptop"]
laptop3.tags = ["laptop"]

[instances.vpn]
module.name = "wireguard"
roles.controller.machines.server1.settings.endpoint = "vpn1.example.com"
roles.controller.machines.server2.settings.endpoint = "vpn2.example.com"
roles.peer.tags.laptop.settings.controller = "server1"

[instances.home]
module.name = "wireguard"
roles.controller.machines.server1.settings = { endpoint = "vpn1.example.com", port = 51821 }
roles.peer.machines = { server2 = {}, laptop3 = {} }
"""


@pytest.fixture(scope="module")
def five() -> Iterator[Fleet]:
    with installed_fleet(INVENTORY, MACHINES) as made:
        assert made.failing(all_pairs(MACHINES)) == []
        yield made


def change(fleet: Fleet, *lines: str) -> None:
    """Lines of the instance vpn beside what it has always, in place of those of an earlier change."""
    mesh, home = INVENTORY.split("[instances.home]")
    written = "".join(f"{line}\n" for line in lines)
    fleet.write(f"{FOLDER}/warren.toml", f"{mesh}{written}\n[instances.home]{home}")


@contextmanager
def nothing_lost(fleet: Fleet, trains: Sequence[tuple[str, str]] = TRAINS) -> Iterator[None]:
    """50 packets a second on each way, meanwhile; every one of them must have had its answer."""
    with few_lost(fleet, 0, trains):
        yield


@contextmanager
def few_lost(fleet: Fleet, most: int, trains: Sequence[tuple[str, str]] = TRAINS) -> Iterator[None]:
    """The same with so many lost on each way."""
    for each in sorted({end for machine, name in trains for end in (machine, name.split(".")[0])}):
        wait_until(partial(_is_settled, fleet, each), 30, f"{each} uses every controller, as all others do")
    for machine, name in trains:
        fleet.sh(machine, f"for each in $(seq 15); do ping -6 -c 1 -W 2 {name} && exit; done; exit 1")
        fleet.spawn(machine, ["sh", "-c", f"echo $$ > /run/train; exec ping -6 -i 0.02 {name}"], "/var/log/train")
        _await(fleet, machine, 9)
    yield
    for machine, name in trains:
        _await(fleet, machine, _last(fleet, machine) + 5)
        answered = _answered(fleet, machine)
        fleet.sh(machine, "kill $(cat /run/train); rm /var/log/train")
        lost = sorted(set(range(1, answered[-1])) - set(answered))
        assert len(lost) <= most, f"{machine} to {name}: {len(lost)} of {answered[-1]} packets lost: {lost[:20]}"


def _is_settled(fleet: Fleet, machine: str) -> bool:
    """A mesh that has just been brought up moves for some seconds yet: not all of it is there at one moment."""
    agents = [each["agent"] for each in json.loads(fleet.sh(machine, "warren status --json"))["instances"].values()]
    return all(
        not any(agent["lost_by_others"].values())
        and all(found["verdict"] == "up" for found in agent["health"].values())
        and all(name == carrier for name, carrier in agent["carriers"].items())
        for agent in agents
    )


def _await(fleet: Fleet, machine: str, number: int) -> None:
    wait_until(lambda: _last(fleet, machine) >= number, 10, f"answer {number} on {machine}")


def _last(fleet: Fleet, machine: str) -> int:
    return max(_answered(fleet, machine), default=0)


def _answered(fleet: Fleet, machine: str) -> list[int]:
    log = fleet.sh(machine, "cat /var/log/train 2> /dev/null || :")
    return [int(number) for number in re.findall(r"icmp_seq=(\d+) .*time=", log)]


def handshakes(fleet: Fleet) -> dict[tuple[str, str], int]:
    """When each machine last had one with each of its peers; by machine and key."""
    found = {}
    for machine in MACHINES:
        for line in fleet.sh(machine, "wg show all latest-handshakes").splitlines():
            _, key, unix_s = line.split()
            found[machine, key] = int(unix_s)
    return found


def sent(fleet: Fleet, machine: str, document: str, signature: str) -> tuple[int, str]:
    """Bring a machine a document by hand, as the operator's side does; exit code and the instance's error."""
    request = {"documents": {"vpn": {"document": document, "signature": signature}}}
    fleet.write("/run/request", json.dumps(request), machine)
    said = fleet.on(machine, "sh", "-c", "/usr/local/bin/warren machine receive < /run/request", code=None)
    return said.code, json.loads(said.out)["instances"]["vpn"]["error"]


def signed(fleet: Fleet, document: str, key: str = "/root/.ssh/id_ed25519") -> str:
    fleet.write("/run/document", document)
    return fleet.sh(OPERATOR, f"ssh-keygen -q -Y sign -f {key} -n warren < /run/document")


def test_refused_documents_cost_no_packet(five: Fleet) -> None:
    held = five.sh("laptop1", "cat /var/lib/warren/vpn/network.json")
    held_signature = five.sh("laptop1", "cat /var/lib/warren/vpn/network.json.sig")
    change(five, "roles.peer.tags.laptop.settings.mtu = 1380")
    five.warren("machines", "update")
    now = five.sh("laptop1", "cat /var/lib/warren/vpn/network.json")
    tree = json.loads(now)
    five.sh(OPERATOR, "rm -f /root/stranger*; ssh-keygen -q -t ed25519 -N '' -f /root/stranger")

    def text(**changes: object) -> str:
        return (
            json.dumps({**tree, "serial": tree["serial"] + 1, **changes}, sort_keys=True, separators=(",", ":")) + "\n"
        )

    nobody = {
        name: {key: value for key, value in each.items() if key != "public_key" or each["role"] == "peer"}
        for name, each in tree["machines"].items()
    }
    refusals = [
        (text(), signed(five, text(), "/root/stranger"), "no operator that this machine knows signed it"),
        (text().replace("1380", "1381", 1), signed(five, text()), "it was changed after it was signed"),
        (held, held_signature, "an old document comes again"),
        (text(version=2), signed(five, text(version=2)), "version 2, this Warren reads version 1"),
        (text(machines=nobody), signed(five, text(machines=nobody)), "the machine would reach nobody"),
    ]
    with nothing_lost(five):
        for document, signature, words in refusals:
            code, error = sent(five, "laptop1", document, signature)
            assert code == 4
            assert words in error
    assert five.sh("laptop1", "cat /var/lib/warren/vpn/network.json") == now
    assert five.sh("laptop1", "ls /var/lib/warren/trial.json 2> /dev/null || :") == ""


def test_an_update_of_one_peer_costs_nobody_else_a_packet_or_a_handshake(five: Fleet) -> None:
    change(five, "roles.peer.machines.laptop3.settings.mtu = 1400")
    before, began = handshakes(five), time.time()
    with nothing_lost(five):
        said = five.warren("machines", "update")
    assert "ip link set dev vpn mtu 1400" in said.out
    # New ones are WireGuard's own affair where the last one was old enough.
    again = [
        pair
        for pair, unix_s in handshakes(five).items()
        if unix_s != before[pair] and began - before[pair] < REKEY_S - 60
    ]
    assert again == []


AT_MOVES = 20  # packets of 20 ms: those under way when all move at one moment; one lost controller costs 30 or more


def test_peers_leave_a_controller_while_an_update_interrupts_it(five: Fleet) -> None:
    """Its port changes: its sessions end. Traffic through it goes through the other one until it can be used again."""
    change(five)
    five.warren("machines", "update")
    assert draining(five, "server1") is False
    change(five, "roles.controller.machines.server1.settings.port = 51830")
    with few_lost(five, AT_MOVES, [("laptop1", "laptop2.vpn"), ("laptop2", "laptop3.vpn")]):
        said = five.warren("machines", "update")
        assert "set vpn listen-port 51830" in said.out
        wait_until(lambda: draining(five, "server1") is False, 10, "the end of the drain")
        for laptop in ("laptop1", "laptop2", "laptop3"):
            await_carrier(five, laptop, "server1")
    for laptop in ("laptop1", "laptop2", "laptop3"):
        left = [each["cause"] for each in _agent(five, laptop)["events"] if each["text"] == "carries nothing any more"]
        assert left[-1] == "it asks to be left"
    assert five.sh("server1", "ls /var/lib/warren/vpn/draining 2> /dev/null || :") == ""


def test_controllers_that_an_update_interrupts_are_left_one_after_the_other(five: Fleet) -> None:
    """How much is lost then depends on how soon peers, which are updated meanwhile, come back to the first one."""
    change(five)
    five.warren("machines", "update")
    change(five, "roles.controller.settings.port = 51840")
    five.warren("machines", "update")
    spans = []
    for server in ("server1", "server2"):
        wait_until(lambda name=server: draining(five, name) is False, 10, f"the end of {server}'s drain")  # type: ignore[misc]
        assert five.sh(server, "wg show vpn listen-port").strip() == "51840"
        spans.append([each["unix_s"] for each in _agent(five, server)["events"] if each["kind"] == "drain"][-2:])
    first, second = sorted(spans)
    assert first[1] - second[0] < 1.0  # the word that one may be used again is on its way while the other one begins
    for laptop in ("laptop1", "laptop2", "laptop3"):
        await_carrier(five, laptop, "server1")
    assert five.failing(all_pairs(MACHINES)) == []


def draining(fleet: Fleet, machine: str) -> bool | None:
    found: bool | None = _agent(fleet, machine)["draining"]
    return found


def await_carrier(fleet: Fleet, machine: str, name: str) -> None:
    """Who carries server1's subnet there."""
    wait_until(lambda: _agent(fleet, machine)["carriers"].get("server1") == name, 30, f"{name} as carrier on {machine}")


def _agent(fleet: Fleet, machine: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(fleet.sh(machine, "warren status --json"))["instances"]["vpn"]["agent"]
    return found


def test_a_machine_that_joins_costs_nobody_a_packet_or_a_handshake(five: Fleet) -> None:
    """All the others are touched: one WireGuard peer more on the controllers, one name more on everybody."""
    change(five)
    five.warren("machines", "update")
    before, began = handshakes(five), time.time()
    text = five.sh(OPERATOR, "cat warren.toml")
    joined = text.replace("\n\n[instances.vpn]", '\nlaptop4.tags = ["laptop"]\n\n[instances.vpn]', 1)
    with nothing_lost(five):
        five.join(joined)
        five.warren("machines", "install", "laptop4")
        five.start_agents(["laptop4"])
        five.warren("machines", "update")
    after = handshakes(five)
    assert [pair for pair in before if after[pair] != before[pair] and began - before[pair] < REKEY_S - 60] == []
    assert five.failing([("laptop4", "laptop1"), ("laptop1", "laptop4")]) == []


def test_a_machine_in_two_meshes_keeps_them_apart(five: Fleet) -> None:
    change(five)
    five.warren("machines", "update")
    ports = five.sh("server1", "wg show vpn listen-port; wg show home listen-port").split()
    assert ports == ["51820", "51821"]
    assert five.failing([("server2", "server1"), ("laptop3", "server2")], "home") == []
    assert five.failing([("laptop3", "server2"), ("server2", "laptop3")], "vpn") == []
    status = json.loads(five.sh("server2", "warren status --json"))["instances"]
    assert set(status) == {"vpn", "home"}
    assert set(status["home"]["machines"]) == {"server1"}
    # Whoever is in one of them alone reaches nothing of the other, though server1 forwards in both.
    home = five.sh("laptop3", "getent ahostsv6 laptop3.home").split()[0]
    five.sh(
        "laptop1", f"ip -6 route replace {home} dev vpn; ! ping -6 -c 2 -W 1 {home}; ip -6 route delete {home} dev vpn"
    )


def test_a_machine_that_only_the_mesh_reaches_is_updated_through_it(five: Fleet) -> None:
    text = INVENTORY.replace(
        "laptop2.tags", 'laptop2.deploy = { host = "laptop2.vpn", via = "server1" }\nlaptop2.tags', 1
    )
    five.write(f"{FOLDER}/warren.toml", text.replace(PEERS, f"{PEERS}\nroles.peer.tags.laptop.settings.mtu = 1390"))
    key = five.sh("laptop2", "cut -d ' ' -f 1,2 /etc/ssh/fleet_host_key.pub").strip()
    five.sh(OPERATOR, f"echo {shlex.quote(f'laptop2.vpn {key}')} >> /root/.ssh/known_hosts")
    five.sh(
        "laptop2",
        "nft add table inet closed; nft add chain inet closed input "
        "'{ type filter hook input priority 0; }'; nft add rule inet closed input iifname != vpn tcp dport 22 drop",
    )
    said = five.warren("machines", "update", "laptop2")
    assert "laptop2: updated" in said.out
    assert "mtu 1390" in five.sh("laptop2", "ip link show dev vpn")
    assert re.search(r"Accepted publickey for root from fd", five.sh("laptop2", "cat /var/log/sshd.log"))
    five.sh("laptop2", "nft delete table inet closed")
