"""wg-quick itself, on real WireGuard: what was rendered comes up as Warren would have made it, works, and goes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from namespaces import Namespace, wait_until
from render.foreign_fleet import VPN, fleet, left_to_do, own_files, private_key, wg_quick_up, wire
from warren.agent import reconcile
from warren.host.machine import Host
from warren.names import MachineName
from warren.workspace.folder import open_folder

pytestmark = [pytest.mark.root]

NAMES = ("server1", "laptop1", "laptop2")
# Addresses of the cables settle by themselves.
SNAPSHOT = "ip -6 address show scope global; ip -6 route show table main; ip -o link; nft list ruleset"


@pytest.fixture
def machines() -> Iterator[dict[str, Namespace]]:
    """server1 with a cable to each laptop."""
    with ExitStack() as stack:
        found = {name: stack.enter_context(Namespace()) for name in NAMES}
        wire(*found.values())
        for name, machine in found.items():
            own_files(machine, name)
        yield found


@pytest.mark.kernel
def test_a_mesh_of_machines_without_warren(tmp_path: Path, machines: dict[str, Namespace]) -> None:
    """Both ends of every pair were rendered: keys on their machines, the controller forwards, names answer."""
    operator = fleet(tmp_path)
    before = {name: machine.sh(SNAPSHOT) for name, machine in machines.items()}
    for name, machine in machines.items():
        wg_quick_up(machine, operator.render(name, "wg-quick"))
        machine.sh(f"cat >> /etc/hosts <<'END'\n{operator.render(name, 'hosts')}END")
    for name, machine in machines.items():
        assert left_to_do(machine, operator.desired(name)) == ()
    for name, machine in machines.items():
        for other in set(NAMES) - {name}:
            machine.sh(f"ping -6 -c 1 -W 10 {other}.vpn")
    assert "1380" in machines["laptop2"].sh("ip link show dev vpn")
    base = operator.desired("laptop1").base
    assert "No route to host" in machines["laptop1"].sh(f"ip -6 route get {base[1 << 80]} 2>&1 || true")
    for name, machine in machines.items():
        machine.sh("wg-quick down vpn 2>&1; wg-quick up vpn 2>&1; wg-quick down vpn 2>&1")
        assert machine.sh(SNAPSHOT) == before[name]


def test_it_speaks_before_anybody_asks(tmp_path: Path, machines: dict[str, Namespace]) -> None:
    """The key comes after the peers, and still the first keepalive goes out: others reach it behind its NAT."""
    operator = fleet(tmp_path)
    wg_quick_up(machines["server1"], operator.render("server1", "wg-quick"))
    wg_quick_up(machines["laptop1"], operator.render("laptop1", "wg-quick"))
    key = operator.desired("laptop1").public_key
    assert key is not None

    def heard() -> bool:
        times = machines["server1"].sh("wg show vpn latest-handshakes").split()
        return times[times.index(key.text) + 1] != "0"

    wait_until(heard, what="a handshake without traffic")


def test_with_the_key_in_the_file(tmp_path: Path, machines: dict[str, Namespace]) -> None:
    operator = fleet(tmp_path)
    wg_quick_up(machines["server1"], operator.render("server1", "wg-quick"))
    secret = private_key("laptop1").reveal_text()
    wg_quick_up(machines["laptop1"], operator.render("laptop1", "wg-quick", "--private-key-file", "-", stdin=secret))
    assert left_to_do(machines["laptop1"], operator.desired("laptop1")) == ()
    machines["laptop1"].sh(f"ping -6 -c 1 -W 10 {operator.desired('server1').hosts[-1].address}")


def test_in_a_mesh_that_warren_keeps(tmp_path: Path, machines: dict[str, Namespace]) -> None:
    """The controller is managed, one laptop is not, and the other has no idea of the difference."""
    operator = fleet(tmp_path)
    document = open_folder(operator.inventory).documents[VPN]

    def keep(name: str) -> None:
        host = Host()
        folder = host.state / VPN
        folder.mkdir(mode=0o700, parents=True)
        shutil.copy("/etc/wireguard/vpn.key", folder / "private.key")
        reconcile.perform(host, reconcile.prepare(host, document, MachineName(name), frozenset()))

    for name in ("server1", "laptop2"):
        machines[name].run(keep, name)
    wg_quick_up(machines["laptop1"], operator.render("laptop1", "wg-quick"))
    laptop1, laptop2, _ = (line.address for line in operator.desired("laptop1").hosts)
    machines["laptop1"].sh(f"ping -6 -c 1 -W 10 {laptop2}")
    machines["laptop2"].sh(f"ping -6 -c 1 -W 10 {laptop1}")


@pytest.mark.parametrize("damage", ["rm /etc/wireguard/vpn.key", "echo no key > /etc/wireguard/vpn.key"])
def test_without_a_key_nothing_is_touched(tmp_path: Path, machines: dict[str, Namespace], damage: str) -> None:
    operator, machine = fleet(tmp_path), machines["laptop1"]
    before = machine.sh(SNAPSHOT)
    machine.sh(damage)
    with pytest.raises(RuntimeError, match=r"vpn\.key|Key is not"):
        wg_quick_up(machine, operator.render("laptop1", "wg-quick"))
    assert machine.sh(SNAPSHOT) == before


def test_what_an_app_takes_is_a_good_file(tmp_path: Path, machines: dict[str, Namespace]) -> None:
    """The text of the QR code has nothing but WireGuard's own words, and works."""
    operator = fleet(tmp_path)
    wg_quick_up(machines["server1"], operator.render("server1", "wg-quick"))
    target = tmp_path / "phone.conf"
    secret = private_key("laptop1").reveal_text()
    operator.render("laptop1", "qr", "--private-key-file", "-", "--output", str(target), stdin=secret)
    wg_quick_up(machines["laptop1"], target.read_text())
    machines["laptop1"].sh(f"ping -6 -c 1 -W 10 {operator.desired('server1').hosts[-1].address}")
