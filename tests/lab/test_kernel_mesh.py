"""The whole mesh on the kernel's own WireGuard, in the guest of `make test-kernel` on an overlay as root."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from lab.labs import DEMO, Computer, between, computer
from namespaces import wait_until

pytestmark = [pytest.mark.root, pytest.mark.lab, pytest.mark.kernel]

REQUIRED = os.environ.get("WARREN_REQUIRE_KERNEL") == "1"  # make test-kernel: a skip would prove nothing
PATIENCE = "300"  # seconds; the guest is emulated


@pytest.fixture(scope="module")
def demo() -> Iterator[Computer]:
    with computer() as made:
        if made.run("ip", "link", "add", "probe", "type", "wireguard").returncode and not REQUIRED:
            pytest.skip("this kernel has no WireGuard: make test-kernel brings one that has")
        made.up(DEMO, "--wait", PATIENCE)
        yield made


def test_machines_use_the_kernels_wireguard(demo: Computer) -> None:
    for machine in ("laptop1", "server1"):
        assert "wireguard" in demo.on(machine, "ip", "-d", "link", "show", "dev", "vpn")
    assert demo.run("pgrep", "wireguard-go").stdout == ""


def test_all_pairs_answer_by_name(demo: Computer) -> None:
    status = demo.status("--wait", PATIENCE)
    assert len(status["pairs"]) == 20
    assert all(pair["ok"] for pair in status["pairs"])
    assert {pair["hops"] for pair in status["pairs"]} == {1, 2}
    assert " 0% packet loss" in demo.on("laptop1", "ping6", "-c", "3", "-W", "30", "laptop2.vpn")


def test_faults_and_healing(demo: Computer) -> None:
    demo.warren("fault", "delay", "laptop1", "40ms")
    times = {(pair["from"], pair["to"]): pair["rtt_ms"] for pair in demo.status("--wait", PATIENCE)["pairs"]}
    assert times["laptop1", "server1"] >= 80
    demo.warren("fault", "heal", "laptop1")
    demo.warren("fault", "kill", "laptop3")
    assert demo.failing("--wait", "10") == between("laptop3")
    demo.warren("fault", "heal", "laptop3")
    wait_until(lambda: not demo.failing("--wait", "60"), float(PATIENCE), "the mesh")
