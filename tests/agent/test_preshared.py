"""The agent follows the other ends of its pairs: which key it tries when, on a device and a clock of the test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import pytest

from meshes import inventory, mesh
from strategies import public_key
from warren.agent import preshared as watch
from warren.agent.preshared import PresharedWatch
from warren.host import wireguard
from warren.host.machine import Host
from warren.names import InstanceName, MachineName
from warren.network.document import Document
from warren.network.preshared import Exchange, exchanges_text
from warren.network.resolve import resolve
from warren.network.stored import Stored
from warren.plan.preshared import OVERDUE_S
from warren.plan.steps import SetPeers
from warren.wireguard.device import ObservedDevice, ObservedPeer
from warren.wireguard.preshared import Fingerprint, fingerprint

SERVER1, LAPTOP1 = MachineName("server1"), MachineName("laptop1")
OLD, NEW = fingerprint(b"old"), fingerprint(b"new")
START_S = 1_800_000_000.0


class Device:
    """What WireGuard says, and what the agent sets."""

    def __init__(self) -> None:
        self.observed = ObservedDevice(
            public_key("own"),
            0,
            {
                public_key(SERVER1): ObservedPeer(
                    public_key(SERVER1), frozenset(), preshared=OLD, handshake_unix_s=START_S - 1.0
                )
            },
        )
        self.tried: list[Fingerprint | None] = []

    def read(self) -> ObservedDevice:
        return self.observed

    def preshared(self, _: InstanceName) -> Mapping[MachineName, tuple[Fingerprint, ...]]:
        return {SERVER1: (OLD, NEW)}

    def perform(self, step: SetPeers, _: object) -> None:
        self.tried += [change.preshared for change in step.changes]

    def get_another_key(self) -> None:
        self.observed = ObservedDevice(public_key("another"), 0, self.observed.peers)


class Clock:
    def __init__(self) -> None:
        self.now_s = START_S

    def time(self) -> float:
        return self.now_s

    monotonic = time


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    made = Device()
    monkeypatch.setattr(wireguard, "open_device", lambda _: made)
    return made


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(watch, "time", made)
    return made


def document() -> Document:
    instance = mesh("server1", "laptop1")
    texts = {LAPTOP1: exchanges_text({SERVER1: Exchange(NEW, former=OLD)})}
    stored = Stored(public_keys={name: public_key(name).text for name in instance.members}, preshared=texts)
    return resolve(inventory(instance), {instance.name: stored})[instance.name]


def looks(device: Device, clock: Clock, seconds: float, found: PresharedWatch | None = None) -> PresharedWatch:
    """A look each second, as the agent takes them."""
    if found is None:
        found = PresharedWatch(cast(Host, device), LAPTOP1)
        found.refresh({InstanceName("vpn"): document()})
    for _ in range(int(seconds)):
        found.look()
        clock.now_s += 1.0
    return found


def test_while_a_handshake_is_fresh_nothing_is_tried(device: Device, clock: Clock) -> None:
    looks(device, clock, OVERDUE_S - 2)
    assert device.tried == []


def test_an_overdue_one_is_tried_by_the_next_key(device: Device, clock: Clock) -> None:
    looks(device, clock, OVERDUE_S + watch.TURN_S + 2)
    assert device.tried == [NEW]


def test_with_another_key_of_its_own_no_handshake_counts_that_was_before(device: Device, clock: Clock) -> None:
    found = looks(device, clock, 5)
    device.get_another_key()
    looks(device, clock, watch.FIRST_TURN_S + 1, found)
    assert device.tried == [NEW]
