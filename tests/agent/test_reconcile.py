"""What is done again, when an agent at work on the same machine has set something else meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

from meshes import inventory, mesh
from strategies import public_key
from warren.agent import reconcile, status_socket
from warren.agent.reconcile import Pending
from warren.errors import NotConverged
from warren.host.machine import Host
from warren.names import InstanceName, InterfaceName, MachineName
from warren.network.resolve import resolve
from warren.network.stored import Stored
from warren.plan.desired import Observed
from warren.plan.plan import plan
from warren.plan.steps import PeerChange, SetPeers
from warren.wireguard.preshared import fingerprint

LAPTOP1 = MachineName("laptop1")
STEP = SetPeers(InterfaceName("vpn"), (PeerChange(public_key("server1"), preshared=fingerprint(b"new")),))


class Fake:
    """A machine on which the step has to be done so many times, until nobody undoes it."""

    def __init__(self, times: int) -> None:
        self.left = times

    def perform(self, *_: object) -> None:
        self.left -= 1

    def diff(self, *_: object) -> tuple[SetPeers, ...]:
        return (STEP,) if self.left > 0 else ()

    def observe(self, *_: object) -> Observed:
        return cast(Observed, self)

    def preshared(self, _: object) -> dict[MachineName, Any]:
        return {}


@pytest.fixture
def performed(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, bool], Fake]:
    def run(times: int, has_agent: bool) -> Fake:
        fake = Fake(times)
        monkeypatch.setattr(reconcile, "diff", fake.diff)
        monkeypatch.setattr(reconcile, "notes", lambda *_: ())
        monkeypatch.setattr(reconcile, "_as_it_is_now", lambda _, pending, __: pending.desired)
        monkeypatch.setattr(status_socket, "is_served", lambda: has_agent)
        instance = mesh("server1", "laptop1")
        stored = Stored(public_keys={name: public_key(name).text for name in instance.members})
        document = resolve(inventory(instance), {instance.name: stored})[InstanceName("vpn")]
        desired = plan(document, LAPTOP1)
        pending = Pending(desired, fake.observe(), frozenset(), (STEP,), {}, document, None)
        reconcile.perform(cast(Host, fake), pending)
        return fake

    return run


def test_a_preshared_key_that_the_agent_tried_meanwhile_is_set_again(performed: Callable[[int, bool], Fake]) -> None:
    assert performed(2, True).left == 0


@pytest.mark.parametrize(("times", "has_agent"), [(2, False), (4, True)])
def test_what_stays_another_is_said(performed: Callable[[int, bool], Fake], times: int, has_agent: bool) -> None:
    with pytest.raises(NotConverged, match="still to do after everything was done: SetPeers"):
        performed(times, has_agent)
