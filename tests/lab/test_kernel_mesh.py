"""The whole mesh on the kernel's own WireGuard, in the guest of `make test-kernel` on an overlay as root."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator

import pytest

from lab.labs import DEMO, Computer, between, computer
from lab.streams import await_carrier, sender, server
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


TRIALS = 2


def test_a_stream_survives_controllers_that_die_are_drained_and_return(demo: Computer) -> None:
    """How long it was silent is among pytest's warnings: an emulated machine says little of a real one."""
    wait_until(lambda: not demo.failing("--wait", PATIENCE), float(PATIENCE), "the mesh")
    drain, undrain = (["warren", "machine", verb, "vpn"] for verb in ("drain", "undrain"))
    ways: dict[str, tuple[str, Callable[[], object]]] = {
        "killed": ("server2", lambda: demo.warren("fault", "kill", "server1")),
        "return": ("server1", lambda: demo.warren("fault", "heal", "server1")),
        "drained": ("server2", lambda: demo.on("server1", *drain)),
        "return from it": ("server1", lambda: demo.on("server1", *undrain)),
    }
    silences: dict[str, list[float]] = {way: [] for way in ways}
    with server(demo, "laptop3"):
        for way, (carrier, act) in TRIALS * list(ways.items()):
            with sender(demo, "laptop1", "laptop3", 0.05) as going:
                act()
                for name in ("laptop1", "laptop3"):
                    await_carrier(demo, name, carrier)
                going.check()
                silences[way].append(going.so_far()["stream_silence_s"])
    found = "; ".join(f"{way}: {', '.join(f'{each:.2f}' for each in times)} s" for way, times in silences.items())
    warnings.warn(f"measured, longest silence of a stream on this kernel's WireGuard: {found}", stacklevel=1)
