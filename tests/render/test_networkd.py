"""systemd-networkd itself reads what was rendered: on a kernel with WireGuard all of it, else all but the tunnel."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from namespaces import Namespace, in_namespace, wait_until
from render.foreign_fleet import fleet, left_to_do, own_files, wg_quick_up, wire, write
from warren.host.machine import Host
from warren.plan import firewall
from warren.plan.desired import Desired, Observed

PROGRAM = Path("/lib/systemd/systemd-networkd")
NETWORK = "50-vpn.network"
NETDEV = "50-vpn.netdev"
FIREWALL = "warren-vpn-firewall.service"
SYSCTLS = "50-vpn.conf"

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not PROGRAM.exists(), reason="systemd-networkd is not installed (Debian: systemd)"),
]


def start(machine: Namespace, files: dict[str, str]) -> None:
    """networkd with these units; /sys is read-only, as in a container, or it would wait for udev."""
    for name, text in files.items():
        write(machine, f"/etc/systemd/network/{name}", text)
    machine.sh(
        "cd /etc/systemd/network; chmod 755 .; cp /etc/wireguard/vpn.key .\n"
        "chown root:systemd-network vpn.key; chmod 640 vpn.key\n"
        "mkdir -p /run/systemd/netif/links; chown -R systemd-network:systemd-network /run/systemd/netif\n"
        "mount -o remount,ro /sys\n"
        f"SYSTEMD_LOG_LEVEL=debug setsid {PROGRAM} </dev/null >/run/networkd.log 2>&1 &"
    )
    wait_until(lambda: "Enumeration completed" in log(machine), 60, "networkd's start")


def log(machine: Namespace) -> str:
    return machine.run(Path.read_text, Path("/run/networkd.log"))


def complaints(machine: Namespace) -> list[str]:
    """What networkd says of lines that it does not take."""
    return [line for line in log(machine).splitlines() if re.search(r"50-vpn\.\w+:\d+: ", line)]


def besides(machine: Namespace, files: dict[str, str]) -> None:
    """What systemd would do with the other files."""
    (command,) = re.findall(r"^ExecStart = (.*)$", files[FIREWALL], re.MULTILINE)
    machine.sh(command)
    if SYSCTLS in files:
        write(machine, f"/run/{SYSCTLS}", files[SYSCTLS])
        machine.sh(f"/lib/systemd/systemd-sysctl /run/{SYSCTLS}")


def observed(machine: Namespace, desired: Desired) -> Observed:
    return machine.run(Host().observe, desired.instance, desired.interface, frozenset())


@pytest.mark.parametrize("name", ["server1", "laptop2"])
def test_the_network(tmp_path: Path, name: str) -> None:
    """On an interface that wireguard-go made: networkd takes no tunnel for its own that it did not make."""
    operator = fleet(tmp_path)
    files, desired = operator.files(name, "networkd"), operator.desired(name)
    with Namespace() as machine:
        own_files(machine, name)
        machine.sh("WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD=1 wireguard-go vpn 2>/dev/null")
        start(machine, {NETWORK: files[NETWORK]})
        wait_until(lambda: observed(machine, desired).addresses == desired.addresses, what="the addresses")
        wait_until(lambda: observed(machine, desired).unreachable == {desired.base}, what="the unreachable route")
        assert complaints(machine) == []
        besides(machine, files)
        found = observed(machine, desired)
        assert found.link is not None
        assert found.link.is_up
        assert found.routes >= {address.network for address in desired.addresses}
        assert found.firewall == firewall.expected(desired.instance, desired.firewall)
        switches = [value for key, value in found.sysctls.items() if key.endswith("forwarding")]
        assert ("1" in switches) is desired.forwards


@pytest.mark.parametrize("name", ["server1", "laptop2"])
def test_the_tunnel_is_read(tmp_path: Path, name: str) -> None:
    """Each line is known to networkd, and good; whether it makes the interface is the kernel's part."""
    text = fleet(tmp_path).files(name, "networkd")[NETDEV]
    with Namespace() as machine:
        own_files(machine, name)
        start(machine, {NETDEV: text})
        assert 'vpn: loaded "wireguard"' in log(machine)
        assert complaints(machine) == []


@pytest.mark.parametrize(
    ("good", "bad"), [("/56", "/156"), ("Keepalive = 25", "Keepalive = often"), ("PublicKey", "Key")]
)
def test_a_bad_line_would_be_seen(tmp_path: Path, good: str, bad: str) -> None:
    text = fleet(tmp_path).files("laptop1", "networkd")[NETDEV]
    assert good in text
    with Namespace() as machine:
        own_files(machine, "laptop1")
        start(machine, {NETDEV: text.replace(good, bad)})
        assert complaints(machine)


@pytest.mark.kernel
def test_a_controller_by_networkd_and_its_peers_by_wg_quick(tmp_path: Path) -> None:
    """All of it, on the kernel's own WireGuard; then nothing is left for Warren to do."""
    operator = fleet(tmp_path)
    if problem := in_namespace(_link_problem):
        pytest.skip(f"this kernel has no WireGuard ({problem}): make test-kernel brings one that has")
    with Namespace() as server1, Namespace() as laptop1, Namespace() as laptop2:
        wire(server1, laptop1, laptop2)
        for name, machine in (("server1", server1), ("laptop1", laptop1), ("laptop2", laptop2)):
            own_files(machine, name)
        files, desired = operator.files("server1", "networkd"), operator.desired("server1")
        start(server1, {NETDEV: files[NETDEV], NETWORK: files[NETWORK]})
        wait_until(lambda: observed(server1, desired).unreachable == {desired.base}, 60, "the network")
        besides(server1, files)
        assert left_to_do(server1, desired) == ()
        for name, machine in (("laptop1", laptop1), ("laptop2", laptop2)):
            wg_quick_up(machine, operator.render(name, "wg-quick"))
        for line in desired.hosts:
            laptop1.sh(f"ping -6 -c 1 -W 20 {line.address}")


def _link_problem() -> str:
    done = subprocess.run(["ip", "link", "add", "vpn", "type", "wireguard"], capture_output=True, text=True)
    return done.stderr.strip()


@pytest.mark.parametrize("name", ["server1", "laptop1"])
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_the_firewalls_unit(tmp_path: Path, name: str) -> None:
    operator = fleet(tmp_path)
    operator.files(name, "networkd")
    unit = operator.folder / f"{name}.networkd" / FIREWALL
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    unit.write_text(unit.read_text().replace("Type = oneshot", "Type = once"))
    assert subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True).stderr
