"""The ground of all tests with namespaces: what happens inside stays inside, and nothing is left of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import namespaces
from namespaces import Namespace, in_namespace, sh, wait_until

pytestmark = pytest.mark.root


def test_results_come_back() -> None:
    assert in_namespace(pow, 2, 10) == 1024


def test_exceptions_come_back_with_their_place() -> None:
    with pytest.raises(ValueError, match="invalid literal") as raised:
        in_namespace(int, "x")
    assert "inside the namespace" in raised.value.__notes__[0]


def test_what_cannot_come_back_is_said() -> None:
    with pytest.raises(RuntimeError, match="cannot be sent out of the namespace"):
        in_namespace(lambda: lambda: None)


def test_skips_come_back() -> None:
    with pytest.raises(pytest.skip.Exception, match="not today"):
        in_namespace(pytest.skip, "not today")


def test_one_who_dies_inside_is_noticed() -> None:
    with pytest.raises(RuntimeError, match="died without a word"):
        in_namespace(lambda: os.kill(os.getpid(), signal.SIGKILL))


def test_one_who_hangs_is_not_awaited() -> None:
    with pytest.raises(TimeoutError):
        in_namespace(signal.pause, timeout_s=0.1)


def test_network_mounts_and_processes_are_its_own() -> None:
    def look() -> tuple[list[str], list[str], int]:
        return _names("/sys/class/net"), _names("/run"), len(sh("ps -e").splitlines())

    interfaces, run, processes = in_namespace(look)
    assert (interfaces, run) == (["lo"], ["wireguard"])
    assert processes < 10


def test_two_are_connected_and_the_first_packet_arrives_at_once() -> None:
    with Namespace() as left, Namespace() as right:
        left.connect(right, "fd99::1/64", "fd99::2/64")
        assert "1 received" in left.sh("ping -6 -c 1 -W 1 fd99::2")


def test_what_runs_inside_ends_with_it() -> None:
    with Namespace() as namespace:
        namespace.sh("sleep 1000 >/dev/null 2>&1 &")
        inside = _inside(namespace.pid)
        assert len(inside) == 2
    assert not any(map(_is_alive, inside))


def test_nothing_outlives_a_test_that_is_killed() -> None:
    code = f"""
import signal, sys
sys.path.insert(0, {str(Path(namespaces.__file__).parent)!r})
from namespaces import Namespace
with Namespace() as namespace:
    namespace.sh("sleep 1000 >/dev/null 2>&1 &")
    print(namespace.pid, flush=True)
    signal.pause()
"""
    test = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert test.stdout is not None
    inside = _inside(int(test.stdout.readline()))
    assert len(inside) == 2
    test.kill()
    test.wait()
    test.stdout.close()
    wait_until(lambda: not any(map(_is_alive, inside)), what="the end of all that was inside")


def _names(folder: str) -> list[str]:
    return sorted(each.name for each in Path(folder).iterdir())


def _inside(pid: int) -> list[int]:
    """The processes of the pid namespace whose first process this is."""
    wanted = Path(f"/proc/{pid}/ns/pid").readlink()
    found = []
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and (process / "ns/pid").readlink() == wanted:
                found.append(int(process.name))
        except OSError:  # it ended meanwhile
            continue
    return found


def _is_alive(process: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
