"""Which changes peers have to be away for."""

from __future__ import annotations

import pytest

from warren.names import InterfaceName
from warren.plan.absence import interrupts
from warren.plan.steps import CreateLink, DeleteLink, SetLinkUp, SetListenPort, SetMtu, Step

VPN = InterfaceName("vpn")


@pytest.mark.parametrize(
    ("steps", "found"),
    [
        ([], False),
        ([SetMtu(VPN, 1400), SetLinkUp(VPN)], False),
        ([SetListenPort(VPN, 51821)], True),
        ([CreateLink(VPN), SetListenPort(VPN, 51821), SetLinkUp(VPN)], False),  # new here: nobody uses it yet
        ([DeleteLink(InterfaceName("old")), CreateLink(VPN), SetListenPort(VPN, 51821)], True),
    ],
)
def test_only_what_ends_sessions_interrupts(steps: list[Step], found: bool) -> None:
    assert interrupts(steps) is found
