"""Preshared keys in a lab, on whatever WireGuard there is: the kernel's own in `make test-kernel`."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from lab.labs import CONTROLLERS, Computer, computer

pytestmark = [pytest.mark.root, pytest.mark.lab, pytest.mark.kernel]

EMULATED = os.environ.get("WARREN_REQUIRE_KERNEL") == "1"
WAIT = ("--wait", "300" if EMULATED else "30")

# No more machines than there are kinds of pairs: an emulated one takes its time.
WITHOUT = """\
meta.name = "demo"
machines = { server1 = {}, server2 = {}, laptop1 = {} }

[instances.vpn]
module.name = "wireguard"
roles.controller.machines.server1.settings.endpoint = "vpn1.example.com"
roles.controller.machines.server2.settings.endpoint = "vpn2.example.com"
roles.peer.machines.laptop1.settings.controller = "server1"
"""
WITH = WITHOUT.replace('module.name = "wireguard"\n', 'module.name = "wireguard"\npsk = true\n')
MACHINES = (*CONTROLLERS, "laptop1")
PAIRS = {frozenset(CONTROLLERS), *(frozenset(("laptop1", each)) for each in CONTROLLERS)}


@pytest.fixture
def demo() -> Iterator[Computer]:
    with computer() as made:
        yield made


def set_keys(demo: Computer) -> dict[frozenset[str], set[str]]:
    """What both ends of each pair have set in WireGuard."""
    names = {demo.on(name, "wg", "show", "vpn", "public-key").strip(): name for name in MACHINES}
    found: dict[frozenset[str], set[str]] = {}
    for name in MACHINES:
        for line in demo.on(name, "wg", "show", "vpn", "preshared-keys").splitlines():
            key, preshared = line.split()
            found.setdefault(frozenset((name, names[key])), set()).add(preshared)
    return found


def test_a_lab_has_preshared_keys_and_loses_them_as_its_file_says(demo: Computer) -> None:
    demo.up(WITH, *WAIT)
    first = set_keys(demo)
    assert first.keys() == PAIRS
    assert {len(each) for each in first.values()} == {1}
    assert len(set.union(*first.values()) - {"(none)"}) == len(PAIRS)
    if not EMULATED:
        demo.up(WITH, *WAIT)
        assert set_keys(demo) == first  # what both ends have already they keep
    demo.up(WITHOUT, *WAIT)
    assert set.union(*set_keys(demo).values()) == {"(none)"}
