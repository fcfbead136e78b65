"""What watching controllers costs: a peer with 2, 4, 16 of them, and a controller that 1,000 peers watch.

The peer is one of a real lab; what its agent sends is counted there, and its CPU is all that the agent uses. In use, a
stream of 20 records a second goes to another peer. The controller's 1,000 peers are simulated: their packets, as
WireGuard would deliver them, come out of a tun device that is called as its interface. The kernel answers and forwards
probes; the agent hears reports, and it is the agent's CPU that is shown.
"""

from __future__ import annotations

import os
import selectors
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from fcntl import ioctl
from pathlib import Path
from unittest.mock import Mock, patch

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from lab.labs import Computer, computer
from lab.streams import agent, sender, server
from meshes import inventory, mesh
from namespaces import in_namespace, wait_until
from strategies import public_key
from warren.agent import redundancy
from warren.agent.held import HeldDocuments
from warren.host import wireguard
from warren.host.machine import Host
from warren.names import InstanceName, MachineName
from warren.network import addresses
from warren.network.document import Document
from warren.network.resolve import resolve
from warren.network.stored import Stored
from warren.plan import signals
from warren.plan.health import TUNING
from warren.plan.signals import NOTHING_LOST, Directory
from warren.wireguard.device import ObservedDevice

WINDOW_S = float(os.environ.get("WARREN_WINDOW_S", "30"))
CONTROLLERS = (2, 4, 16)
PEERS = 1_000
SETTLED_S = 5.0
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_COUNT = (
    "table inet count { chain out { type filter hook output priority 0;"
    ' oifname "vpn" icmpv6 type echo-request counter; oifname "vpn" udp dport 51819 counter; }; }'
)
_VPN, _SERVER = InstanceName("vpn"), MachineName("server1")


@dataclass(frozen=True)
class Row:
    """One agent. Packets are those that it, or for the controller its peers, send a second."""

    agent: str
    use: str
    cpu_s_per_hour: float
    probes_per_s: float
    signals_per_s: float


def run() -> list[Row]:
    rows: list[Row] = []
    for number in CONTROLLERS:
        with computer() as on:
            rows += _peer(on, number)
    for use, pace_s in (("at rest", TUNING.at_rest_s), ("in use", TUNING.in_use_s)):
        rows.append(in_namespace(_controller, use, pace_s, timeout_s=WINDOW_S + 120))
    return rows


# A peer of a lab


def _peer(on: Computer, number: int) -> Iterator[Row]:
    names = [f"server{each}" for each in range(1, number + 1)]
    lines = [f"{name} = {{}}" for name in names] + ['laptop1.tags = ["laptop"]', 'laptop2.tags = ["laptop"]']
    endpoints = [f'roles.controller.machines.{name}.settings.endpoint = "{name}.example.com"' for name in names]
    one = 'roles.peer.tags.laptop.settings.controller = "server1"'
    on.up(
        "\n".join(
            [
                'meta.name = "demo"',
                "[machines]",
                *lines,
                "[instances.vpn]",
                'module.name = "wireguard"',
                *endpoints,
                one,
                "",
            ]
        )
    )
    carriers = {name: name for name in names}
    wait_until(lambda: agent(on, "laptop1").get("carriers") == carriers, 120, "all controllers in use")
    on.on("laptop1", "nft", _COUNT)
    for use in ("at rest", "in use"):
        with _stream(on) if use == "in use" else nullcontext():
            time.sleep(SETTLED_S)
            before, began_s = _counted(on), time.monotonic()
            time.sleep(WINDOW_S)
            after, passed_s = _counted(on), time.monotonic() - began_s
        cpu_s, probes, said = (now - then for now, then in zip(after, before, strict=True))
        yield Row(f"peer, {number} controllers", use, cpu_s / passed_s * 3600, probes / passed_s, said / passed_s)


@contextmanager
def _stream(on: Computer) -> Iterator[None]:
    with server(on, "laptop2"), sender(on, "laptop1", "laptop2", 0.05):
        yield


def _counted(on: Computer) -> tuple[float, int, int]:
    """CPU of laptop1's agent and its children in seconds, and the probes and signals that it sent."""
    pid = on.shell("laptop1", "pgrep -o -f 'warren.* agent'").strip()
    fields = on.on("laptop1", "cat", f"/proc/{pid}/stat").rpartition(")")[2].split()
    rules = on.on("laptop1", "nft", "list", "table", "inet", "count")
    probes, said = (int(line.split("packets ")[1].split()[0]) for line in rules.splitlines() if "packets" in line)
    return sum(map(int, fields[11:15])) / _TICKS_PER_S, probes, said


# A controller with simulated peers


def _controller(use: str, pace_s: float) -> Row:
    document = _document()
    entry = document.controllers[_SERVER]
    tun = _tun("vpn")
    for command in (
        f"ip -6 addr add {entry.address}/40 dev vpn nodad",
        "ip link set vpn up",
        "sysctl -qw net.ipv6.conf.all.forwarding=1",
    ):
        subprocess.run(command.split(), check=True)
    writer = os.fork()
    if writer == 0:
        try:
            _send_all(tun, document, pace_s)
        finally:
            os._exit(1)
    os.close(tun)
    try:
        cpu_s, signals_per_s = _watched(document)
    finally:
        os.kill(writer, 9)
        os.waitpid(writer, 0)
    return Row(f"controller, {PEERS:,} peers", use, cpu_s * 3600, 2 * PEERS / pace_s, signals_per_s)


def _document() -> Document:
    named = inventory(mesh("server1", " ".join(f"laptop{number}" for number in range(1, PEERS + 1))))
    texts = {name: public_key(name).text for name in named.instances[_VPN].members}
    return resolve(named, {_VPN: Stored(public_keys=texts)}, 1)[_VPN]


def _watched(document: Document) -> tuple[float, float]:
    """CPU seconds a second of what watches controllers, and how many reports a second it heard."""
    device = Mock(read=lambda: ObservedDevice(None, 51820, {}))
    heard = Mock(side_effect=signals.decode_report)
    with (
        patch.object(wireguard, "open_device", lambda _: device),
        patch.object(signals, "decode_report", heard),
        redundancy.ControllerWatch(Host(), _SERVER, HeldDocuments(Host())) as watch,
        selectors.DefaultSelector() as selector,
    ):
        selector.register(watch, selectors.EVENT_READ)
        watch.refresh({_VPN: document})

        def go_on(for_s: float) -> None:
            end_s = time.monotonic() + for_s
            while (left_s := end_s - time.monotonic()) > 0:
                patience_s = max(0.0, watch.due_s - time.clock_gettime(time.CLOCK_BOOTTIME))
                selector.select(min(left_s, patience_s))
                watch.step()

        go_on(SETTLED_S)
        heard.reset_mock()
        before, began_s = time.process_time(), time.monotonic()
        go_on(WINDOW_S)
        passed_s = time.monotonic() - began_s
        cpu_s, reports = time.process_time() - before, heard.call_count
        assert reports > 0.5 * PEERS / TUNING.report_s * passed_s, f"only {reports} reports came in"
        return cpu_s / passed_s, reports / passed_s


def _tun(name: str) -> int:
    """A device whose packets this process writes and reads (linux/if_tun.h)."""
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    set_interface, tun_without_header = 0x400454CA, 0x0001 | 0x1000
    ioctl(tun, set_interface, struct.pack("16sH22x", name.encode(), tun_without_header))
    return tun


def _send_all(tun: int, document: Document, pace_s: float) -> None:
    """What all peers send: two probes each at that pace, a report every 10 s; and read what comes back."""
    entry, directory = document.controllers[_SERVER], Directory.of(document)
    report = signals.encode_report(NOTHING_LOST, directory)
    probes, reports = [], []
    for number, peer in enumerate(document.peers.values(), 1):
        own = addresses.peer_address(entry.subnet, peer.suffix)
        turning = addresses.turning_address(entry.subnet, peer.suffix)
        ping = struct.pack("!BBHHH", 128, 0, 0, number, 1) + bytes(8)
        probes.append(_packet(own.packed, entry.address.packed, socket.IPPROTO_ICMPV6, ping, 2, 64))
        probes.append(_packet(own.packed, turning.packed, socket.IPPROTO_ICMPV6, ping, 2, 2))
        datagram = struct.pack("!HHHH", signals.PORT, signals.PORT, 8 + len(report), 0) + report
        reports.append(_packet(own.packed, entry.address.packed, socket.IPPROTO_UDP, datagram, 6, 64))
    began_s = time.monotonic()
    sent_probes = sent_reports = 0
    while True:
        passed_s = time.monotonic() - began_s
        while sent_probes < passed_s * len(probes) / pace_s:
            _write(tun, probes[sent_probes % len(probes)])
            sent_probes += 1
        while sent_reports < passed_s * len(reports) / TUNING.report_s:
            _write(tun, reports[sent_reports % len(reports)])
            sent_reports += 1
        try:
            while os.read(tun, 2048):
                pass
        except BlockingIOError:
            time.sleep(0.002)


def _write(tun: int, packet: bytes) -> None:
    while True:
        try:
            os.write(tun, packet)
            return
        except BlockingIOError:
            time.sleep(0.001)
        except OSError:  # not up yet
            time.sleep(0.01)


def _packet(source: bytes, target: bytes, protocol: int, content: bytes, checksum_at: int, hops: int) -> bytes:
    """An IPv6 packet (RFC 8200) with its checksum (RFC 4443, section 2.3; RFC 768)."""
    pseudo = source + target + struct.pack("!IxxxB", len(content), protocol) + content + bytes(len(content) % 2)
    total = sum(word for (word,) in struct.iter_unpack("!H", pseudo))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    checked = content[:checksum_at] + struct.pack("!H", 0xFFFF - total or 0xFFFF) + content[checksum_at + 2 :]
    return struct.pack("!IHBB", 6 << 28, len(content), protocol, hops) + source + target + checked
