"""The agent at rest: CPU, memory and wake-ups, for a small and a large document, beside a bare interpreter.

Each is watched for WINDOW_S seconds, in a namespace, with real WireGuard. Nobody answers there but in the lab of five
machines, where a peer watches two controllers all the time (`bench.probing` has more of them). Children (`nft`, …)
count as the agent's. Published for daemons of this kind: 0.1 to 0.5 s of CPU a minute, 12 to 66 MB.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from lab.labs import CONTROLLERS, DEMO, Computer, computer
from lab.streams import agent
from meshes import inventory, mesh
from namespaces import Namespace, wait_until
from operators import machine_in
from strategies import public_key
from warren.agent import machine as this_machine
from warren.agent import status_socket
from warren.fleet import bootstrap
from warren.fleet.bundle import bundle
from warren.host import keys
from warren.host.machine import Host
from warren.names import InstanceName, MachineName
from warren.network.document import encode
from warren.network.resolve import resolve
from warren.network.stored import Stored
from warren.plan.health import Verdict

WINDOW_S = 95.0  # three turns of the slow clock
SETTLED_S = 10.0  # nothing counts as in use by then
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_VPN, _ME = InstanceName("vpn"), MachineName("server1")
_ARCHIVE = Path("/run/warren.pyz")
_PAUSE = [sys.executable, "-I", "-S", "-c", "import signal; signal.pause()"]


@dataclass(frozen=True)
class Row:
    """One process at rest."""

    process: str
    cpu_s_per_minute: float
    cpu_s_per_hour: float
    rss_mb: float
    own_mb: float  # USS: what its end would give back
    wakeups_per_minute: float


def run() -> list[Row]:
    rows = [_measured("bare interpreter", lambda: subprocess.Popen(_PAUSE))]
    for number in (5, 1000):
        with Namespace() as namespace:
            machine_in(namespace)
            rows.append(namespace.run(_agent, number, timeout_s=WINDOW_S + 120))
    with computer() as on:
        rows.append(_peer(on))
    return rows


def _peer(on: Computer) -> Row:
    """Of a peer that watches two controllers, with everything at rest."""
    on.up(DEMO)
    well = dict.fromkeys(CONTROLLERS, Verdict.UP.value)
    wait_until(lambda: _verdicts(on) == well, 60, "both controllers answer")
    time.sleep(SETTLED_S)
    pid = on.shell("laptop1", "pgrep -o -f 'warren.* agent'").strip()
    return _watched("agent, a peer of 5 machines", lambda name: on.on("laptop1", "cat", f"/proc/{pid}/{name}"))


def _verdicts(on: Computer) -> dict[str, str]:
    return {name: found["verdict"] for name, found in agent(on, "laptop1").get("health", {}).items()}


def _agent(number: int) -> Row:
    """Of a controller of a mesh of so many machines, as it is installed: from the archive, compiled there."""
    host = Host()
    peers = " ".join(f"laptop{each}" for each in range(1, number))
    named = inventory(mesh("server1", peers))
    texts = {name: public_key(name).text for name in named.instances[_VPN].members}
    texts[_ME] = keys.ensure_key(_VPN, host.state).text
    document = resolve(named, {_VPN: Stored(public_keys=texts)}, 1)[_VPN]
    verdict = this_machine.follow(host, _ME, {_VPN: encode(document)})[_VPN]
    assert verdict.error is None, verdict.error
    _ARCHIVE.write_bytes(bootstrap.compiled(bundle()))
    command = [sys.executable, "-I", str(_ARCHIVE), "agent", "--machine", _ME]
    return _measured(f"agent, {number:,} machines", lambda: _started(command))


def _started(command: list[str]) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    wait_until(lambda: (found := status_socket.ask()) and found["instances"], 60, "the agent's first look")
    return process


def _measured(name: str, start: Callable[[], subprocess.Popen[bytes]]) -> Row:
    process = start()
    try:
        time.sleep(2)
        return _watched(name, lambda file: Path(f"/proc/{process.pid}/{file}").read_text())
    finally:
        process.kill()
        process.wait()


def _watched(name: str, read: Callable[[str], str]) -> Row:
    """`read`: a file of the process under /proc."""
    before, woken, began = _cpu_s(read), _wakeups(read), time.monotonic()
    time.sleep(WINDOW_S)
    minutes = (time.monotonic() - began) / 60
    cpu_s = (_cpu_s(read) - before) / minutes
    wakeups = (_wakeups(read) - woken) / minutes
    memory = _memory_kb(read)
    own = memory["Private_Clean"] + memory["Private_Dirty"]
    return Row(name, cpu_s, cpu_s * 60, memory["Rss"] / 1024, own / 1024, wakeups)


def _cpu_s(read: Callable[[str], str]) -> float:
    """Its own and that of its children that ended."""
    fields = read("stat").rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / _TICKS_PER_S


def _wakeups(read: Callable[[str], str]) -> int:
    lines = read("status").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))


def _memory_kb(read: Callable[[str], str]) -> dict[str, int]:
    lines = read("smaps_rollup").splitlines()[1:]
    return {line.split(":")[0]: int(line.split()[1]) for line in lines}
