"""The ground that the tests marked `kernel` stand on: this kernel makes WireGuard links, and they speak."""

import os
import subprocess

import pytest

from namespaces import Namespace, in_namespace, wait_until

pytestmark = [pytest.mark.kernel, pytest.mark.root]

REQUIRED = os.environ.get("WARREN_REQUIRE_KERNEL") == "1"  # make test-kernel: a skip would prove nothing


def add_link() -> str:
    """What `ip` says against a WireGuard link; nothing where the kernel has it."""
    return subprocess.run(["ip", "link", "add", "vpn", "type", "wireguard"], capture_output=True, text=True).stderr


@pytest.fixture(autouse=True)
def _kernel_has_wireguard() -> None:
    problem = in_namespace(add_link)
    if problem and not REQUIRED:
        pytest.skip(f"this kernel has no WireGuard ({problem.strip()}): make test-kernel brings one that has")
    assert not problem


def test_two_machines_shake_hands_and_ping() -> None:
    with Namespace() as left, Namespace() as right:
        left.connect(right, "fd99::1/64", "fd99::2/64")
        keys = {machine: _wireguard_link(machine, f"fd00::{number}/64") for number, machine in enumerate((left, right))}
        left.sh(f"wg set vpn peer {keys[right]} allowed-ips fd00::1/128 endpoint [fd99::2]:51820")
        right.sh(f"wg set vpn peer {keys[left]} allowed-ips fd00::/128")

        left.sh("ping -6 -c 1 -W 10 fd00::1")

        latest = right.sh("wg show vpn latest-handshakes").split()
        assert latest[0] == keys[left]
        assert int(latest[1]) > 0


def test_the_link_is_the_kernels_own() -> None:
    """No process stands behind it: the kernel says the kind, and there is no control socket."""
    with Namespace() as machine:
        _wireguard_link(machine, "fd00::1/64")
        assert '"info_kind":"wireguard"' in machine.sh("ip -details -json link show dev vpn")
        assert machine.sh("ls /run/wireguard") == ""


def test_packets_can_be_held_back() -> None:
    """netem, for faults that the machine's own kernel may not offer."""
    with Namespace() as left, Namespace() as right:
        left.connect(right, "fd99::1/64", "fd99::2/64")
        wait_until(lambda: left.sh("ping -6 -c 1 -W 10 fd99::2"))
        left.sh("tc qdisc add dev eth0 root netem delay 300ms")
        reply = left.sh("ping -6 -c 1 -W 10 fd99::2")
        assert float(reply.split("time=")[1].split()[0]) >= 300


def _wireguard_link(machine: Namespace, address: str) -> str:
    """A WireGuard link named vpn, up, listening on 51820; its public key."""
    machine.sh("umask 077; wg genkey > /run/private; ip link add vpn type wireguard")
    machine.sh("wg set vpn private-key /run/private listen-port 51820")
    machine.sh(f"ip address add {address} dev vpn nodad; ip link set vpn up")
    return machine.sh("wg pubkey < /run/private").strip()
