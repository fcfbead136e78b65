"""Whether a controller is in use: on counters of the test's own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from meshes import inventory, mesh
from strategies import public_key
from warren.agent import use
from warren.agent.use import CHECK_S, LASTS_S, Use
from warren.errors import KernelError
from warren.host import traffic, wireguard
from warren.names import InstanceName, InterfaceName, MachineName
from warren.network.document import ControllerEntry
from warren.network.resolve import resolve
from warren.network.stored import Stored
from warren.wireguard.device import ObservedDevice, ObservedPeer

VPN = InterfaceName("vpn")
SERVERS = SERVER1, SERVER2 = MachineName("server1"), MachineName("server2")
NOBODY: frozenset[MachineName] = frozenset()
PROBE_BYTES = 56  # an echo request of ours, as the interface counts it


class Wire:
    """An interface with two controllers behind it: how much went over, and how often WireGuard was asked."""

    def __init__(self) -> None:
        self.bytes = {SERVER1: 0, SERVER2: 0}
        self.packets = dict.fromkeys(SERVERS, 0)
        self.asked = 0
        self.is_there = True

    def pass_over(self, controller: MachineName, size_bytes: int, packets: int = 1) -> None:
        self.bytes[controller] += size_bytes * packets
        self.packets[controller] += packets

    def read(self) -> ObservedDevice:
        self.asked += 1
        if not self.is_there:
            raise KernelError("no such device")
        keys = {name: public_key(name) for name in SERVERS}
        peers = {
            key: ObservedPeer(key, frozenset(), sent_bytes=self.bytes[name] + 32 * self.packets[name])
            for name, key in keys.items()
        }
        return ObservedDevice(public_key("own"), 0, peers)

    def traffic(self, _: InterfaceName) -> traffic.Traffic:
        return traffic.Traffic(sum(self.bytes.values()), sum(self.packets.values()))


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Wire:
    made = Wire()
    monkeypatch.setattr(wireguard, "open_device", lambda _: made)
    monkeypatch.setattr(use, "traffic", made.traffic)
    return made


@pytest.fixture(scope="module")
def controllers() -> Mapping[MachineName, ControllerEntry]:
    instance = mesh("server1 server2", "laptop1")
    stored = Stored(public_keys={name: public_key(name).text for name in instance.members})
    return resolve(inventory(instance), {InstanceName("vpn"): stored})[InstanceName("vpn")].controllers


def settled(wire: Wire, controllers: Mapping[MachineName, ControllerEntry]) -> tuple[Use, float]:
    """At rest, and the time by then."""
    now_s = 1000.0
    found = Use(VPN, dict.fromkeys(SERVERS, now_s - 1))
    assert found.look(controllers, now_s) == frozenset(SERVERS)
    now_s += LASTS_S
    assert found.look(controllers, now_s) == NOBODY
    wire.asked = 0
    return found, now_s


def probe(found: Use, wire: Wire, names: Iterable[MachineName]) -> None:
    for name in names:
        found.sent_round(name)
        wire.pass_over(name, PROBE_BYTES, 2)


def test_at_rest_wireguard_is_not_asked(wire: Wire, controllers: Mapping[MachineName, ControllerEntry]) -> None:
    found, now_s = settled(wire, controllers)
    for _ in range(100):
        probe(found, wire, SERVERS)
        now_s += 2 * CHECK_S
        assert found.look(controllers, now_s) == NOBODY
    assert wire.asked == 0


def test_many_probes_of_its_own_are_nobodys_use(wire: Wire, controllers: Mapping[MachineName, ControllerEntry]) -> None:
    found, now_s = settled(wire, controllers)
    for _ in range(20):
        probe(found, wire, SERVERS * 5)
        now_s += CHECK_S
        assert found.look(controllers, now_s) == NOBODY
    assert wire.asked == 0


def test_it_is_looked_at_once_a_second(wire: Wire, controllers: Mapping[MachineName, ControllerEntry]) -> None:
    found, now_s = settled(wire, controllers)
    wire.pass_over(SERVER1, 1400, 100)
    assert found.look(controllers, now_s + 0.9 * CHECK_S) is None
    assert wire.asked == 0
    assert found.look(controllers, now_s + CHECK_S) == frozenset({SERVER1})


@pytest.mark.parametrize("rest_s", [2, 60, 3600])
def test_after_a_rest_a_controller_that_is_used_is_known_by_the_second_look(
    wire: Wire, controllers: Mapping[MachineName, ControllerEntry], rest_s: int
) -> None:
    found, now_s = settled(wire, controllers)
    for _ in range(0, rest_s, 2):
        probe(found, wire, SERVERS)
        now_s += 2.0
        assert found.look(controllers, now_s) == NOBODY
    looks = []
    for _ in range(8):
        wire.pass_over(SERVER2, 200, 20)
        probe(found, wire, SERVERS * 3)
        now_s += CHECK_S
        looks.append(found.look(controllers, now_s))
    assert looks[1:] == [frozenset({SERVER2})] * 7
    for _ in range(int(LASTS_S / CHECK_S)):
        now_s += CHECK_S
        last = found.look(controllers, now_s)
    assert last == NOBODY


def test_small_messages_to_many_controllers_at_once_are_nobodys_use(
    wire: Wire, controllers: Mapping[MachineName, ControllerEntry]
) -> None:
    """Reports, say: then WireGuard is asked, and each has its share."""
    found, now_s = settled(wire, controllers)
    for _ in range(10):
        for name in SERVERS:
            wire.pass_over(name, 300, 4)
        now_s += CHECK_S
        assert found.look(controllers, now_s) == NOBODY
    assert wire.asked == 10


def test_probes_of_those_in_use_do_not_keep_them_in_use(
    wire: Wire, controllers: Mapping[MachineName, ControllerEntry]
) -> None:
    """Where there are many, the interface's counters are now a little above, now a little below what probes explain."""
    found, now_s = settled(wire, controllers)
    wire.pass_over(SERVER2, 200, 20)
    for seconds in range(60):
        probe(found, wire, SERVERS * (12 + seconds % 2))
        now_s += CHECK_S
        last = found.look(controllers, now_s)
    assert last == NOBODY


def test_an_interface_that_is_gone_is_nobodys_use_and_no_error(
    wire: Wire, controllers: Mapping[MachineName, ControllerEntry]
) -> None:
    found, now_s = settled(wire, controllers)
    wire.is_there = False
    wire.pass_over(SERVER1, 1400, 100)
    assert found.look(controllers, now_s + CHECK_S) == NOBODY
    assert wire.asked == 1


def test_the_kernels_counters(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = """\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     100       2    0    0    0     0          0         0      100       2    0    0    0     0       0          0
   vpn: 1024000    1000    0    3    0     0          0         0     2048      20    0    0    0     0       0          0
"""  # noqa: E501
    monkeypatch.setattr(traffic, "COUNTERS", tmp_path / "dev")
    assert traffic.traffic(VPN) is None
    (tmp_path / "dev").write_text(text)
    assert traffic.traffic(VPN) == (1024000 + 2048, 1020)
    assert traffic.traffic(InterfaceName("pn")) is None


def test_here_there_is_a_loopback() -> None:
    assert traffic.traffic(InterfaceName("lo")) is not None
