"""Labs for tests, each on a computer of its own: a namespace, which nothing outlives (see namespaces.py)."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from namespaces import Namespace

Result = subprocess.CompletedProcess[str]

DEMO = """\
meta.name = "demo"

[machines]
server1 = {}
server2 = {}
laptop1.tags = ["laptop"]
laptop2.tags = ["laptop"]
laptop3.tags = ["laptop"]

[instances.vpn]
module.name = "wireguard"
roles.controller.machines.server1.settings.endpoint = "vpn1.example.com"
roles.controller.machines.server2.settings.endpoint = "vpn2.example.com"
roles.peer.tags.laptop.settings.controller = "server1"
roles.peer.machines.laptop2.settings.controller = "server2"
"""
CONTROLLERS = ("server1", "server2")
PEERS = ("laptop1", "laptop2", "laptop3")
MACHINES = tuple(sorted(CONTROLLERS + PEERS))
WARREN = (sys.executable, "-m", "warren")


HOME = Path("/run/operator")  # of who types, on the computer: its /run is its own
COMMAND_TIMEOUT_S = 600.0  # in an emulated kernel everything takes long


class Computer:
    """A computer that labs are made on: what is typed there, as root. `folder` is where, as it is seen from here."""

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace
        self.folder = Path(f"/proc/{namespace.pid}/root{HOME}")
        self.folder.mkdir()

    def warren(self, *words: str, code: int = 0) -> Result:
        """`warren lab …`, which must end with `code`."""
        result = self.run(*WARREN, "lab", *words)
        assert result.returncode == code, f"{words} ended with {result.returncode}: {result.stdout}{result.stderr}"
        return result

    def run(self, *command: str) -> Result:
        return self.namespace.run(_run, command, timeout_s=COMMAND_TIMEOUT_S)

    def start(self, *words: str) -> int:
        """`warren lab …` in the background; its pid on this computer. Output goes to the file `output`."""
        return self.namespace.run(_start, (*WARREN, "lab", *words))

    def file(self, name: str, text: str) -> str:
        (self.folder / name).write_text(text)
        return str(HOME / name)

    def up(self, text: str = DEMO, *options: str) -> Result:
        return self.warren("up", self.file("warren.toml", text), *options)

    def on(self, machine: str, *command: str, code: int = 0, lab: str = "demo") -> str:
        """What a command on a machine of the lab says."""
        return self.warren("exec", machine, "--name", lab, "--", *command, code=code).stdout

    def shell(self, machine: str, script: str, code: int = 0, lab: str = "demo") -> str:
        return self.on(machine, "sh", "-c", script, code=code, lab=lab)

    def status(self, *options: str) -> dict[str, Any]:
        result = self.run(*WARREN, "lab", "status", "--json", *options)
        assert result.returncode in (0, 4), result.stderr
        tree: dict[str, Any] = json.loads(result.stdout)
        return tree

    def failing(self, *options: str) -> set[tuple[str, str]]:
        return {(pair["from"], pair["to"]) for pair in self.status(*options)["pairs"] if not pair["ok"]}


@contextmanager
def computer() -> Iterator[Computer]:
    with Namespace() as namespace:
        yield Computer(namespace)


def between(source: str, others: tuple[str, ...] = MACHINES) -> set[tuple[str, str]]:
    """The pairs that one machine is an end of."""
    return {pair for other in others if other != source for pair in ((source, other), (other, source))}


def _run(command: tuple[str, ...]) -> Result:
    return subprocess.run(command, cwd=HOME, capture_output=True, text=True, stdin=subprocess.DEVNULL)


def _start(command: tuple[str, ...]) -> int:
    with (HOME / "output").open("w") as output:
        process = subprocess.Popen(command, cwd=HOME, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
    return process.pid
