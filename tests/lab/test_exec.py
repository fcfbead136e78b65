"""`warren lab exec`: as if one had logged in on the machine."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.labs import WARREN, Computer, computer
from namespaces import wait_until

pytestmark = [pytest.mark.root, pytest.mark.lab]

SMALL = """\
meta.name = "small"
[machines]
server1 = {}
laptop1 = {}
[instances.vpn]
module.name = "wireguard"
roles.controller.machines.server1.settings.endpoint = "vpn1.example.com"
roles.peer.machines.laptop1 = {}
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Computer]:
    with computer() as made:
        made.up(SMALL)
        yield made


def test_a_command_runs_as_root_in_its_home(lab: Computer) -> None:
    said = lab.warren("exec", "laptop1", "--", "sh", "-c", "id -un; pwd; echo $HOME; hostname; cat /etc/hostname")
    assert said.stdout.split() == ["root", "/root", "/root", "laptop1", "laptop1"]


@pytest.mark.parametrize(
    ("words", "output"),
    [
        (("laptop1", "--name", "small", "--", "echo", "--name", "-c"), "--name -c\n"),
        (("laptop1", "--name=small", "echo", "-n", "--json"), "--json"),
        (("--name", "small", "laptop1", "echo", "--", "x"), "-- x\n"),
        (("laptop1", "echo", "--name", "x"), "--name x\n"),
        (("laptop1", "--", "--name"), None),
    ],
)
def test_what_is_the_commands_own_is_left_to_it(lab: Computer, words: tuple[str, ...], output: str | None) -> None:
    result = lab.run(*WARREN, "lab", "exec", *words)
    if output is None:
        assert (result.returncode, result.stderr) == (127, "laptop1: --name: no such program\n")
    else:
        assert (result.returncode, result.stdout) == (0, output)


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("sh", "-c", "exit 3"), 3),
        (("sh", "-c", "kill -9 $$"), 128 + signal.SIGKILL),
        (("sh", "-c", "kill -TERM $$"), 128 + signal.SIGTERM),
        (("no-such-program",), 127),
        (("/etc/hosts",), 126),
    ],
)
def test_the_exit_code_is_the_commands(lab: Computer, command: tuple[str, ...], code: int) -> None:
    lab.warren("exec", "laptop1", "--", *command, code=code)


def test_stdin_stdout_and_stderr_are_apart_and_whole(lab: Computer) -> None:
    def piped() -> tuple[bytes, bytes]:
        command = [*WARREN, "lab", "exec", "laptop1", "--", "sh", "-c", "cat; echo problem >&2"]
        done = subprocess.run(command, input=bytes(range(256)) * 1000, capture_output=True)
        return done.stdout, done.stderr

    assert lab.namespace.run(piped) == (bytes(range(256)) * 1000, b"problem\n")


def test_programs_of_the_system_and_warren_are_found(lab: Computer) -> None:
    found = lab.warren("exec", "laptop1", "which", "wg", "ip", "sshd", "warren", "nft").stdout.split()
    assert [Path(path).name for path in found] == ["wg", "ip", "sshd", "warren", "nft"]
    assert lab.warren("exec", "server1", "warren", "--version").stdout.startswith("warren ")


def test_signals_reach_the_command(lab: Computer) -> None:
    pid = lab.start(
        "exec", "laptop1", "--", "sh", "-c", "trap 'echo told; exit 9' TERM; echo ready; while :; do sleep 0.1; done"
    )
    output = lab.folder / "output"
    wait_until(lambda: "ready" in output.read_text())
    lab.namespace.sh(f"kill -TERM {pid}")
    wait_until(lambda: "told" in output.read_text())


def test_a_command_does_not_outlive_an_exec_that_was_killed(lab: Computer) -> None:
    pid = lab.start("exec", "laptop1", "--", "sleep", "4321")
    wait_until(lambda: lab.run("pgrep", "-f", "^sleep 4321").stdout != "")
    lab.namespace.sh(f"kill -9 {pid}")
    wait_until(lambda: lab.run("pgrep", "-f", "^sleep 4321").stdout == "")


def on_a_terminal(command: list[str], typed: bytes) -> tuple[bytes, int]:
    """What is seen on a terminal after something was typed there, and the exit code."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvp(command[0], command)
    seen = b""
    while b"ready" not in seen:
        seen += os.read(terminal, 1000)
    os.write(terminal, typed)
    try:
        while part := os.read(terminal, 1000):
            seen += part
    except OSError:  # the last program closed the terminal
        pass
    return seen, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_terminal_is_the_commands_too(lab: Computer) -> None:
    script = "test -t 0 && test -t 1 && tty; stty size > /dev/null && echo ready; read line; echo got $line"
    command = [*WARREN, "lab", "exec", "laptop1", "--", "sh", "-c", script]
    seen, code = lab.namespace.run(on_a_terminal, command, b"typed\n")
    assert b"/dev/pts/" in seen
    assert b"got typed" in seen
    assert code == 0


def test_control_c_is_for_the_command(lab: Computer) -> None:
    script = "trap 'exit 5' INT; echo ready; while :; do sleep 0.05; done"
    command = [*WARREN, "lab", "exec", "laptop1", "--", "sh", "-c", script]
    seen, code = lab.namespace.run(on_a_terminal, command, b"\x03")
    assert code == 5, seen


def test_without_a_command_there_is_a_shell(lab: Computer) -> None:
    command = ["sh", "-c", f"echo ready; exec {' '.join(WARREN)} lab exec laptop1"]
    seen, code = lab.namespace.run(on_a_terminal, command, b"hostname; exit 6\n")
    assert b"laptop1\r\n" in seen
    assert code == 6


def test_an_unknown_machine_is_named_with_the_nearest(lab: Computer) -> None:
    result = lab.warren("exec", "latop1", "true", code=2)
    assert (
        result.stderr
        == 'lab "small" has no machine "latop1"\nmend: did you mean "laptop1"? Machines: laptop1, server1\n'
    )
