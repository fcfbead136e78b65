"""The resident agent: it mends what others damage, tells what it found, and keeps still when there is nothing to do."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.test_machine import SERVER1, VPN, example, on_a_machine
from namespaces import sh, wait_until
from warren.agent import run, status_socket
from warren.agent.main import main
from warren.errors import MachineError
from warren.host.machine import Host
from warren.network.document import encode

pytestmark = pytest.mark.root


@contextmanager
def agent(host: Host, environment: dict[str, str] | None = None) -> Iterator[int]:
    """The agent in a process of its own; its pid."""
    pid = os.fork()
    if pid == 0:
        os.environ.update(environment or {})
        run.Agent(host, SERVER1, main).run()
        os._exit(0)
    try:
        wait_until(lambda: status_socket.ask() is not None, what="the agent's socket")
        yield pid
    finally:
        os.kill(pid, signal.SIGTERM)
        assert os.waitpid(pid, 0)[1] == 0


def with_agent(body: Callable[[Host, int], None]) -> None:
    def on_machine(host: Host) -> None:
        host.write_document(VPN, encode(example(host)))
        with agent(host) as pid:
            wait_until(lambda: "51820" in sh("wg show all listen-port"), what="the interface")
            body(host, pid)

    on_a_machine(on_machine)


@pytest.mark.parametrize(
    "damage",
    [
        "ip link set vpn down",
        "ip link set vpn mtu 1300",
        "ip -6 addr flush dev vpn scope global",
        "nft delete table inet warren-vpn",
        "nft add rule inet warren-vpn forward accept",
        "sed -i '/server2.vpn/d' /etc/hosts",
    ],
)
def test_announced_drift_is_mended_soon(damage: str) -> None:
    def body(_: Host, __: int) -> None:
        def shown() -> str:
            return sh("ip -6 addr show dev vpn 2>&1 || true; ip -6 route; nft list ruleset; cat /etc/hosts")

        wait_until(lambda: "server2.vpn" in shown(), what="the whole machine")
        before = shown()
        sh(damage)
        # Far less than the slow clock: the event was noticed.
        wait_until(lambda: _without_index(shown()) == _without_index(before), run.SLOW_CLOCK_S / 2, damage)

    with_agent(body)


@pytest.mark.slow
def test_after_a_long_rest_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks that only its own clock caused are no reason to be slow when something happens."""
    monkeypatch.setattr(run, "SLOW_CLOCK_S", 4.0)

    def looked() -> object:
        return (status_socket.ask() or {}).get("looked_unix_s")

    def body(_: Host, __: int) -> None:
        wait_until(lambda: "server2.vpn" in sh("cat /etc/hosts"), what="the whole machine")
        for number in range(4):
            before = looked()
            wait_until(lambda before=before: looked() != before, what=f"look {number}")  # type: ignore[misc]
        sh("nft delete table inet warren-vpn")
        wait_until(lambda: "warren-vpn" in sh("nft list tables"), run.SLOW_CLOCK_S / 2, "the table")

    with_agent(body)


def _without_index(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if "fe80" not in line and "vpn:" not in line)


def test_the_socket_tells_what_the_agent_found() -> None:
    def body(host: Host, _: int) -> None:
        found = status_socket.ask()
        assert found is not None
        assert found["machine"] == SERVER1
        instances = found["instances"]
        assert isinstance(instances, dict)
        assert {name: each["error"] for name, each in instances.items()} == {VPN: None}
        assert status_socket.PATH.stat().st_mode & 0o777 == 0o600
        (host.state / VPN / "network.json").write_text("{}")
        wait_until(lambda: "'version' is missing" in str(status_socket.ask()), what="the refusal")
        assert "listening port: 51820" in sh("wg show vpn")  # the mesh goes on

    with_agent(body)


def test_one_that_does_not_read_does_not_hold_the_agent_up() -> None:
    def body(_: Host, __: int) -> None:
        with socket.socket(socket.AF_UNIX) as lazy:
            lazy.connect(str(status_socket.PATH))
            assert status_socket.ask() is not None

    with_agent(body)


def test_there_is_one_agent_on_a_machine() -> None:
    def body(host: Host, _: int) -> None:
        with pytest.raises(MachineError, match="another agent runs"):
            run.Agent(host, SERVER1, main).run()

    with_agent(body)


def _shown() -> str:
    """What a restart must not touch; wireguard-go tells its peers in any order."""
    return "\n".join(sorted(sh("wg show vpn; ip -6 addr show dev vpn scope global; ip -6 route").splitlines()))


def test_a_restart_leaves_a_healthy_mesh_alone() -> None:
    def body(host: Host, pid: int) -> None:
        before = _shown()
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: status_socket.ask() is None, what="the end of the agent")
        assert _shown() == before
        with agent(host):
            assert _shown() == before

    def on_machine(host: Host) -> None:
        host.write_document(VPN, encode(example(host)))
        first = os.fork()
        if first == 0:
            run.Agent(host, SERVER1, main).run()
            os._exit(0)
        wait_until(lambda: "server2.vpn" in sh("cat /etc/hosts"), what="the whole machine")
        body(host, first)
        os.waitpid(first, 0)

    on_a_machine(on_machine)


def test_the_service_manager_hears_that_it_is_ready_and_alive() -> None:
    def on_machine(host: Host) -> None:
        path = "/run/notify"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(path)
            manager.settimeout(20)
            with agent(host, {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "200000"}):
                assert b"READY=1\nSTATUS=as the documents say: there are none yet" in manager.recv(4096)
                assert [manager.recv(4096) for _ in range(2)] == [b"WATCHDOG=1"] * 2

    on_a_machine(on_machine)


def test_at_rest_the_agent_sleeps() -> None:
    def body(_: Host, pid: int) -> None:
        wait_until(lambda: "server2.vpn" in sh("cat /etc/hosts"), what="the whole machine")
        time.sleep(run.QUIET_S * 4)  # the events of its own making have passed by now
        before = _switches(pid)
        time.sleep(3.0)
        # It may look once on its slow clock; a loop that spins would switch thousands of times.
        assert _switches(pid) - before < 500

    with_agent(body)


def _switches(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if "ctxt_switches" in line)


def test_the_agent_imports_nothing_but_the_standard_library() -> None:
    script = "import sys, warren.agent.run; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    names = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert {name for name in names if name not in sys.stdlib_module_names and not name.startswith("_")} <= {
        "warren", "sitecustomize", "usercustomize",
    }  # fmt: skip
