"""How long connections are silent when a controller fails, goes on purpose, or comes back; with agents and without.

A lab of two controllers and three peers on real WireGuard; a TCP stream and a train of datagrams every 5 ms, between
two peers whose traffic goes through server1, which has the trouble. After each trial the peers' agents start anew, or
flap damping would make each return longer. WARREN_TRIALS and WARREN_FAULTS choose how many trials, and which faults;
WARREN_INTERVAL_MS how often something is sent (5): a slow computer is kept busy by that alone.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.traffic import PORT
from warren.agent.use import CHECK_S
from warren.names import MachineName

LONG = True  # not among those that run when nobody names one

TRIALS = int(os.environ.get("WARREN_TRIALS", "30"))
INTERVAL_MS = float(os.environ.get("WARREN_INTERVAL_MS", "5"))
TRIALS_WITHOUT_AGENT = 2
UNDISTURBED_S = 3.0
AWAY_S = 10.0  # for how long a fault lasts that nobody moves around
BOUND_S = 20.0  # for what does not come by itself
_NAME = "failover"
_TRAFFIC = str(Path(__file__).with_name("traffic.py"))
_INSIDE = 'mount -t tmpfs tmpfs /run && mkdir /run/wireguard && ip link set lo up && exec "$@"'
_NOTHING = "nothing happens"
_PEERS = ("laptop1", "laptop2", "laptop3")
_NO_FORWARDING = "table inet broken { chain forward { type filter hook forward priority -5; policy drop; }; }"
_ONE_WAY = 'table inet oneway {{ chain c {{ type filter hook prerouting priority raw; iifname "{link}" drop; }}; }}'


@dataclass(frozen=True)
class Row:
    """Longest silences of one kind of trouble, in milliseconds."""

    trouble: str
    trials: int
    stream_p50_ms: float
    stream_p99_ms: float
    stream_max_ms: float
    train_p50_ms: float
    train_max_ms: float
    datagrams_lost: float  # per trial
    streams_broken: int
    bytes_lost: int


def run() -> list[Row]:
    """In namespaces of its own; what it prints are tables."""
    command = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    subprocess.run([*command, "sh", "-c", _INSIDE, "sh", sys.executable, "-m", "bench.failover"], check=True)
    return []


def main() -> None:
    from bench.__main__ import table

    wanted = [each for each in os.environ.get("WARREN_FAULTS", "").split(",") if each] or list(FAULTS)
    with _lab("two", controllers=2) as mesh:
        if "process stopped" in wanted and not mesh.has_wireguard_process():
            wanted.remove("process stopped")
            print("  left out: process stopped (WireGuard is the kernel's here, and no process)", flush=True)
        rows = [mesh.undisturbed(TRIALS), *(row for name in wanted for row in mesh.trials(name, TRIALS))]
        print(table(rows), flush=True)
        _say_targets(rows)
        mesh.stop_agents()
        print(f"  the same without agents on the peers: each is over after {AWAY_S:.0f} s; until all is well again")
        names = [name for name in wanted if name in _SUDDEN] or ["killed"]
        print(table([mesh.without_agents(name, TRIALS_WITHOUT_AGENT) for name in names]), flush=True)
    with _lab("one", controllers=1) as mesh:
        print("  a single controller that restarts: from its return to the first packet through it")
        for text, with_agents in (("with the agent", True), ("without", False)):
            if not with_agents:
                mesh.stop_agents()
            found = [mesh.seconds_after_return() for _ in range(max(2, TRIALS // 10) if with_agents else 2)]
            print(f"    {text:<16}{statistics.median(found):8.2f} s   (longest {max(found):.2f} s)", flush=True)


def _say_targets(rows: list[Row]) -> None:
    sudden = [row for row in rows if row.trouble in _SUDDEN]
    gentle = [
        row for row in rows if row.trouble not in _SUDDEN and row.trouble not in (_NOTHING, "agent restarts meanwhile")
    ]
    checks = {
        "sudden death: p99 at most 1.5 s": all(row.stream_p99_ms <= 1500 for row in sudden),
        "drain and return: p99 under 50 ms": all(row.stream_p99_ms < 50 for row in gentle),
        "no stream broken": not any(row.streams_broken for row in rows),
        "no byte lost": not any(row.bytes_lost for row in rows),
    }
    for text, met in checks.items():
        print(f"  {'met' if met else 'NOT MET'}: {text}", flush=True)


class Mesh:
    """A lab that is up, with traffic from laptop1 to laptop2."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._server = self._exec("laptop2", sys.executable, _TRAFFIC, "serve")
        self.sender: subprocess.Popen[str] | None = None
        _wait(lambda: f":{PORT:04X} " in _output(self.name, "laptop2", "cat", "/proc/net/tcp6"), "the server")

    def has_wireguard_process(self) -> bool:
        return bool(_output(self.name, "server1", "pgrep", "-x", "wireguard-go"))

    def trials(self, fault: str, count: int) -> Iterator[Row]:
        """The trouble, and where it has one, the return from it."""
        away, back = [], []
        for number in range(count):
            self._restart_traffic()
            began_s = time.monotonic()
            FAULTS[fault](self)
            self._await_carrier("server2")
            self._settle()
            away.append(self._report(began_s))
            began_s = time.monotonic()
            HEALS.get(fault, _heal)(self)
            self._await_carrier("server1")
            self._settle()
            back.append(self._report(began_s))
            print(f"    {fault} {number + 1}: {away[-1]} {back[-1]}", file=sys.stderr, flush=True)
            self._restart_agents()
        yield _row(fault, away)
        yield _row(f"return after: {fault}", back)

    def undisturbed(self, count: int) -> Row:
        """What this computer itself makes a connection wait: no other silence can be measured as shorter."""
        found = []
        for _ in range(count):
            self._restart_traffic()
            began_s = time.monotonic()
            self._await_carrier("server1")
            time.sleep(UNDISTURBED_S)
            found.append(self._report(began_s))
        return _row(_NOTHING, found)

    def without_agents(self, fault: str, count: int) -> Row:
        """From the trouble until it is over, and traffic flows again or BOUND_S have passed."""
        found = []
        for number in range(count):
            self._restart_traffic()
            began_s = time.monotonic()
            FAULTS[fault](self)
            time.sleep(AWAY_S)
            HEALS.get(fault, _heal)(self)
            deadline_s = time.monotonic() + BOUND_S
            while self._report(time.monotonic() - 1)["train_silence_s"] > 0.5 and time.monotonic() < deadline_s:
                time.sleep(0.2)
            self._settle()
            found.append(self._report(began_s))
            print(f"    {fault} {number + 1}: {found[-1]}", file=sys.stderr, flush=True)
        return _row(fault, found)

    def seconds_after_return(self) -> float:
        self._restart_traffic()
        _kill(self)
        time.sleep(3)
        with _changing(self.name) as lab:
            lab.heal("server1")
        _wait(lambda: "peer" in _output(self.name, "server1", "wg", "show", "vpn"), "the controller's return")
        returned_s = time.monotonic()
        deadline_s = returned_s + 150
        while (found := self._report(returned_s))["first_train_s"] is None and time.monotonic() < deadline_s:
            time.sleep(0.05)
        return float(found["first_train_s"] or deadline_s) - returned_s

    def stop_agents(self) -> None:
        for name in _PEERS:
            _output(self.name, name, "sh", "-c", "kill -9 $(pgrep -o -f 'warren.* agent')")

    def restart_agent(self, machine: str) -> None:
        from warren.lab.lab import find_lab

        _output(self.name, machine, "sh", "-c", "kill -9 $(pgrep -o -f 'warren.* agent')")
        find_lab(self.name).start_agents([machine])  # type: ignore[list-item]

    def _restart_agents(self) -> None:
        with ThreadPoolExecutor() as pool:
            list(pool.map(self.restart_agent, _PEERS))
        for name in _PEERS:
            _wait(lambda name=name: self._carrier(name) == "server1", "the agents")  # type: ignore[misc]

    def _carrier(self, machine: str) -> str:
        """Who has server1's subnet there, as its agent says; asked without a new interpreter, which all would feel."""
        from warren.agent import status_socket
        from warren.lab.lab import find_lab
        from warren.lab.place import call

        place = find_lab(self.name).places()[MachineName(machine)]
        said: Any = call(place, status_socket.ask) or {}
        return str(said.get("instances", {}).get("vpn", {}).get("carriers", {}).get("server1", ""))

    def _await_carrier(self, carrier: str) -> None:
        for name in ("laptop1", "laptop2"):
            _wait(lambda name=name: self._carrier(name) == carrier, f"{carrier} as the carrier on {name}")  # type: ignore[misc]

    def _settle(self) -> None:
        """Until the stream has caught up, and a moment more."""
        deadline_s = time.monotonic() + BOUND_S
        while self._report(time.monotonic())["stream_behind"] > 20 and time.monotonic() < deadline_s:
            time.sleep(0.1)
        time.sleep(0.3)

    def _report(self, began_s: float) -> dict[str, Any]:
        assert self.sender is not None
        assert self.sender.stdin is not None
        assert self.sender.stdout is not None
        self.sender.stdin.write(f"{began_s} {time.monotonic() - 0.1}\n")
        self.sender.stdin.flush()
        found: dict[str, Any] = json.loads(self.sender.stdout.readline())
        return found

    def _restart_traffic(self) -> None:
        known_s = 0.0 if self.sender else 2 * CHECK_S  # until agents know that the controller is in use
        self.close()
        self.sender = self._exec("laptop1", sys.executable, _TRAFFIC, "send", "laptop2.vpn", str(INTERVAL_MS / 1000))
        self._settle()
        time.sleep(known_s)

    def _exec(self, machine: str, *command: str) -> subprocess.Popen[str]:
        words = [sys.executable, "-m", "warren", "lab", "exec", machine, "--name", self.name, "--", *command]
        return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def close(self) -> None:
        if self.sender is not None:
            assert self.sender.stdin is not None
            self.sender.stdin.close()
            self.sender.wait()


def _row(trouble: str, found: list[dict[str, Any]]) -> Row:
    stream = sorted(1000 * each["stream_silence_s"] for each in found)
    train = sorted(1000 * each["train_silence_s"] for each in found)
    return Row(
        trouble,
        len(found),
        statistics.median(stream),
        stream[min(len(stream) - 1, round(0.99 * (len(stream) - 1)))],
        stream[-1],
        statistics.median(train),
        train[-1],
        statistics.mean(each["datagrams_lost"] for each in found),
        sum(bool(each["broken"]) for each in found),
        sum(each["bytes_wrong"] for each in found),
    )


# Faults, and how each is healed


def _changing(name: str) -> Any:
    from warren.lab.lab import changing

    return changing(name)


def _kill(mesh: Mesh) -> None:
    with _changing(mesh.name) as lab:
        lab.kill("server1")


def _cut(mesh: Mesh) -> None:
    with _changing(mesh.name) as lab:
        lab.cut("server1")


def _heal(mesh: Mesh) -> None:
    with _changing(mesh.name) as lab:
        lab.heal("server1")


def _reboot(mesh: Mesh) -> None:
    _kill(mesh)
    _heal(mesh)


def _stop(mesh: Mesh) -> None:
    _signal(mesh, signal.SIGSTOP)


def _go_on(mesh: Mesh) -> None:
    _signal(mesh, signal.SIGCONT)


def _signal(mesh: Mesh, number: signal.Signals) -> None:
    _output(mesh.name, "server1", "sh", "-c", f"kill -{int(number)} $(pgrep -x wireguard-go)")


def _one_way(mesh: Mesh) -> None:
    from warren.lab.lab import find_lab
    from warren.lab.place import call
    from warren.lab.programs import load_rules

    lab = find_lab(mesh.name)
    call(lab.grounds.cables, load_rules, _ONE_WAY.format(link=lab.state.machine("server1").site.link))


def _both_ways(mesh: Mesh) -> None:
    from warren.lab.lab import find_lab
    from warren.lab.place import call
    from warren.lab.programs import load_rules

    call(find_lab(mesh.name).grounds.cables, load_rules, "delete table inet oneway")


def _no_forwarding(mesh: Mesh) -> None:
    _output(mesh.name, "server1", "nft", _NO_FORWARDING)


def _forwarding(mesh: Mesh) -> None:
    _output(mesh.name, "server1", "nft", "delete table inet broken")


def _agent_meanwhile(mesh: Mesh) -> None:
    _kill(mesh)
    mesh.restart_agent("laptop1")


def _drain(mesh: Mesh) -> None:
    _output(mesh.name, "server1", "warren", "machine", "drain", "vpn")


def _undrain(mesh: Mesh) -> None:
    _output(mesh.name, "server1", "warren", "machine", "undrain", "vpn")


FAULTS: dict[str, Callable[[Mesh], None]] = {
    "killed": _kill,
    "process stopped": _stop,
    "cut": _cut,
    "one way lost": _one_way,
    "forwards no more": _no_forwarding,
    "rebooted": _reboot,
    "agent restarts meanwhile": _agent_meanwhile,
    "drained": _drain,
}
HEALS: dict[str, Callable[[Mesh], None]] = {
    "process stopped": _go_on,
    "one way lost": _both_ways,
    "forwards no more": _forwarding,
    "rebooted": lambda _: None,
    "drained": _undrain,
}
_SUDDEN = ("killed", "process stopped", "cut", "one way lost", "forwards no more", "rebooted")


@contextmanager
def _lab(kind: str, controllers: int) -> Iterator[Mesh]:
    inventory = Path(f"/run/{kind}.toml")
    inventory.write_text(_inventory(controllers))
    name = f"{_NAME}-{kind}"
    words = [sys.executable, "-m", "warren", "lab"]
    subprocess.run([*words, "up", str(inventory), "--name", name, "--wait", "300"], check=True, capture_output=True)
    mesh = Mesh(name)
    try:
        yield mesh
    finally:
        mesh.close()
        subprocess.run([*words, "down", "--name", name], check=True)


def _inventory(controllers: int) -> str:
    names = [f"server{number}" for number in range(1, controllers + 1)]
    lines = [f"{name} = {{}}" for name in names] + [f'{name}.tags = ["laptop"]' for name in _PEERS]
    endpoints = [f'roles.controller.machines.{name}.settings.endpoint = "{name}.example.com"' for name in names]
    mesh = ["", "[instances.vpn]", 'module.name = "wireguard"', *endpoints]
    return "\n".join(["[machines]", *lines, *mesh, 'roles.peer.tags.laptop.settings.controller = "server1"', ""])


def _output(lab: str, machine: str, *command: str) -> str:
    words = [sys.executable, "-m", "warren", "lab", "exec", machine, "--name", lab, "--", *command]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout


def _wait(condition: Callable[[], bool], what: str, timeout_s: float = 60.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, f"{what} did not come within {timeout_s:.0f} s"
        time.sleep(0.1)


if __name__ == "__main__":
    main()
