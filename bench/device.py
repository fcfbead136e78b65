"""10,000 peers on one WireGuard device: set afresh, read, brought in line with nothing or one peer changed.

Ours beside `wg`, alternately on the same device, which lives in a network, mount and process namespace of its own.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from ipaddress import IPv6Network
from pathlib import Path
from random import Random

from warren.host import rtnetlink, wireguard, wireguard_process
from warren.host.netlink import generic_family
from warren.host.wireguard import Device, PeerChange
from warren.host.wireguard_kernel import FAMILY, KernelDevice
from warren.host.wireguard_userspace import UserspaceDevice
from warren.names import InterfaceName
from warren.wireguard.device import AllowedIP
from warren.wireguard.keys import PrivateKey, PublicKey

INTERFACE = InterfaceName("vpn")
PRIVATE_KEY, PORT = PrivateKey(bytes(range(32))), 51820  # `wg` takes away what its file does not name
PEERS = 10_000
ALLOWED_IPS = (2, 4)  # of each peer: one /96 for every controller of the mesh
RUNS = 9
FRESH_RUNS = 3  # each on two new devices

_INSIDE = 'mount -t tmpfs tmpfs /run && mkdir /run/wireguard && exec "$@"'


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison; medians."""

    implementation: str
    allowed_ips: int
    what: str
    ours_ms: float
    wg: str
    wg_ms: float

    @property
    def ratio(self) -> float:
        return self.ours_ms / self.wg_ms


def run() -> list[Row]:
    """Measure with every WireGuard implementation that this machine has."""
    return [
        row
        for implementation in implementations()
        for allowed_ips in ALLOWED_IPS
        for row in _in_namespace(implementation, allowed_ips)
    ]


def implementations() -> list[str]:
    has_userspace = shutil.which(wireguard_process.PROGRAM) and Path("/dev/net/tun").exists()
    has_kernel = generic_family(FAMILY) is not None
    return [name for name, has in ((wireguard_process.PROGRAM, has_userspace), ("kernel", has_kernel)) if has]


def main() -> None:
    """Print the table."""
    print(f"one WireGuard device with {PEERS:,} peers: medians of {RUNS} runs, of a fresh set {FRESH_RUNS}")
    for row in run():
        print(
            f"  {row.implementation}, {row.allowed_ips} AllowedIPs  {row.what:<38}{row.ours_ms:>8.1f} ms"
            f"   {row.wg:<14}{row.wg_ms:>8.1f} ms   ratio {row.ratio:.2f}"
        )


def measure(implementation: str, allowed_ips: int) -> Iterator[Row]:
    """The rows of one implementation; touches the network namespace that it runs in."""
    peers = _peers(allowed_ips)
    first = next(iter(peers.values()))
    moved = replace(first, allowed_ips=frozenset([AllowedIP.of(IPv6Network("fd99::/96"))]))
    changed = {**peers, moved.public_key: moved}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "wg.conf"
        file.write_text(_configuration(peers))

        def row(what: str, wg: str, medians: tuple[float, float]) -> Row:
            return Row(implementation, allowed_ips, what, medians[0], wg, medians[1])

        yield row("set afresh", "wg setconf", _fresh(implementation, tuple(peers.values()), file))
        with _device(implementation) as device:
            device.set_peers(tuple(peers.values()))
            yield row("read", "wg show dump", _medians(device.read, lambda: _wg("show", "dump")))
            same = _medians(lambda: _sync(device, peers), lambda: _wg("syncconf", str(file)))
            yield row("read, compare: nothing changed", "wg syncconf", same)
            # Each finds one peer that differs: the one that the other has just changed.
            one = _medians(lambda: _sync(device, changed), lambda: _wg("syncconf", str(file)))
            yield row("read, compare, set: one peer changed", "wg syncconf", one)


def _fresh(implementation: str, changes: tuple[PeerChange, ...], file: Path) -> tuple[float, float]:
    ours, wg = [], []
    for _ in range(FRESH_RUNS):
        with _device(implementation) as device:
            ours.append(_milliseconds(partial(device.set_peers, changes)))
        with _device(implementation):
            wg.append(_milliseconds(partial(_wg, "setconf", str(file))))
    return statistics.median(ours), statistics.median(wg)


def _medians(ours: Callable[[], object], wg: Callable[[], object]) -> tuple[float, float]:
    times = [(_milliseconds(ours), _milliseconds(wg)) for _ in range(RUNS)]
    return statistics.median(each[0] for each in times), statistics.median(each[1] for each in times)


def _milliseconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1000


def _sync(device: Device, peers: Mapping[PublicKey, PeerChange]) -> None:
    """What a reconcile does to the device: read it, compare, set what differs."""
    held = device.read().peers
    changes = []
    for key, peer in peers.items():
        before = held.get(key)
        if before is None:
            changes.append(peer)
        elif before.allowed_ips != peer.allowed_ips or before.keepalive_s != peer.keepalive_s:
            changes.append(replace(peer, is_new=False))
    device.set_peers(changes, [key for key in held if key not in peers])


@contextmanager
def _device(implementation: str) -> Iterator[Device]:
    """A new device with a key; down, so that none of its peers is spoken to."""
    device: Device
    if implementation == "kernel":
        rtnetlink.create_wireguard_link(INTERFACE)
        device = KernelDevice(INTERFACE)
    else:
        wireguard_process.start(INTERFACE)
        device = UserspaceDevice(INTERFACE)
    device.set_private_key(PRIVATE_KEY)
    device.set_listen_port(PORT)
    yield device
    wireguard.delete(INTERFACE)


def _peers(allowed_ips: int) -> dict[PublicKey, PeerChange]:
    random = Random(PEERS)  # the same in every run
    peers = {}
    for _ in range(PEERS):
        key = PublicKey(random.randbytes(32))
        suffix = random.getrandbits(32) << 32
        ranges = (IPv6Network((0xFD28 << 112 | controller << 72 | suffix, 96)) for controller in range(allowed_ips))
        peers[key] = PeerChange(key, is_new=True, allowed_ips=frozenset(map(AllowedIP.of, ranges)), keepalive_s=0)
    return peers


def _configuration(peers: Mapping[PublicKey, PeerChange]) -> str:
    """The same for `wg`."""
    sections = [f"[Interface]\nPrivateKey = {PRIVATE_KEY.reveal_text()}\nListenPort = {PORT}\n"]
    for peer in peers.values():
        allowed_ips = ", ".join(map(str, peer.allowed_ips or ()))
        sections.append(f"[Peer]\nPublicKey = {peer.public_key.text}\nAllowedIPs = {allowed_ips}\n")
    return "".join(sections)


def _wg(command: str, argument: str) -> None:
    subprocess.run(["wg", command, INTERFACE, argument], check=True, stdout=subprocess.DEVNULL)


def _in_namespace(implementation: str, allowed_ips: int) -> list[Row]:
    unshare = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    command = [sys.executable, "-m", "bench.device", implementation, str(allowed_ips)]
    result = subprocess.run([*unshare, "sh", "-ec", _INSIDE, "sh", *command], check=True, stdout=subprocess.PIPE)
    return [Row(**row) for row in json.loads(result.stdout)]


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps([asdict(row) for row in measure(sys.argv[1], int(sys.argv[2]))]))
    else:
        main()
