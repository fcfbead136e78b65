"""How soon a command answers, beside the interpreter's own start; whole processes, by turns, medians.

The bytecode is compiled, as an installation has it: `make` sees to that.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

RUNS = 31
INVENTORY = """
meta.name = "burrow"

[machines]
server1 = {}
laptop1 = {}
laptop2 = {}

[instances.vpn]
module.name = "wireguard"
roles.controller.machines.server1.settings.endpoint = "vpn1.example.com"
roles.peer.machines.laptop1 = {}
roles.peer.machines.laptop2 = {}
"""


@dataclass(frozen=True, slots=True)
class Row:
    command: str
    median_ms: float
    ratio: float  # to the first row


def run() -> list[Row]:
    warren = str(Path(sys.executable).with_name("warren"))
    with TemporaryDirectory() as folder:
        inventory = Path(folder) / "warren.toml"
        inventory.write_text(INVENTORY)
        commands = {
            "python -c pass": [sys.executable, "-c", "pass"],
            "warren --version": [warren, "--version"],
            "warren --help": [warren, "--help"],
            "warren check (3 machines)": [warren, "--inventory", str(inventory), "check"],
        }
        times: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(RUNS):
            for name, command in commands.items():
                times[name].append(_milliseconds(command))
    medians = {name: statistics.median(each) for name, each in times.items()}
    yardstick = medians["python -c pass"]
    return [Row(name, median, median / yardstick) for name, median in medians.items()]


def _milliseconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - start) * 1000
