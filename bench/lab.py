"""From `warren lab up` to all pairs answering, beside bare shell commands for the same topology; memory; down.

The shell's way (lab.sh) is the least that can be done: namespaces, cables, wireguard-go, `wg setconf`, pings. It has
no disks, no hosts files, no agents, no firewall, no NAT, and addresses that a counter gives.

All of it happens in a network, mount and process namespace of its own.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

# Controllers, peers, runs.
SIZES = ((2, 3, 7), (4, 26, 3))

_INSIDE = 'mount -t tmpfs tmpfs /run && mkdir /run/wireguard && ip link set lo up && exec "$@"'
_LAB = (sys.executable, "-m", "warren", "lab")

_SHELL = Path(__file__).with_suffix(".sh")


def run() -> None:
    """Print the tables."""
    command = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    subprocess.run([*command, "sh", "-c", _INSIDE, "sh", sys.executable, "-m", "bench.lab"], check=True)


def main() -> None:
    for controllers, peers, runs in SIZES:
        _measure(controllers, peers, runs)


def _measure(controllers: int, peers: int, runs: int) -> None:
    inventory = Path(f"/run/{controllers}+{peers}.toml")
    inventory.write_text(_inventory(controllers, peers))
    shell, warren = [], []
    for _ in range(runs):  # by turns, so that what else this machine does falls on both
        shell.append(_shell(controllers, peers))
        warren.append(_warren(inventory))
    print(f"  {controllers} controllers, {peers} peers; medians of {runs}")
    yardstick = statistics.median(each["all pairs"] for each in shell)
    for who, measured in (("warren", warren), ("shell", shell)):
        for part in measured[0]:
            seconds = statistics.median(each[part] for each in measured)
            unit = "MB" if part.startswith("memory") else "s "
            ratio = f"{seconds / yardstick:8.2f} x shell" if part == "all pairs" else ""
            print(f"    {who if part == 'all pairs' else '':<8}{part:<28}{seconds:8.2f} {unit}{ratio}", flush=True)


def _warren(inventory: Path) -> dict[str, float]:
    start = time.perf_counter()
    result = subprocess.run([*_LAB, "up", str(inventory)], check=True, capture_output=True, text=True)
    measured = {"all pairs": time.perf_counter() - start}
    # The rest is the interpreter's start, and the matrix that is measured once more at the end.
    measured |= {f"  {name}": float(text) for name, text in re.findall(r"(\w+) ([\d.]+)[,)]", result.stderr)}
    measured |= {f"memory of {program}": size for program, size in _memory_mb().items()}
    for word in ("status", "down"):
        start = time.perf_counter()
        subprocess.run([*_LAB, word], check=True, stdout=subprocess.DEVNULL)
        measured[word] = time.perf_counter() - start
    return measured


def _memory_mb() -> dict[str, float]:
    """Proportional set sizes of the lab's processes, by program: all that lives in here but this one."""
    sizes: dict[str, float] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(ProcessLookupError):  # dead, and nobody here waits for it
            found = re.search(r"^Pss: +(\d+)", (entry / "smaps_rollup").read_text(), re.MULTILINE)
            if found and entry.name != "1":
                program = (entry / "comm").read_text().strip()
                sizes[program] = sizes.get(program, 0) + int(found[1]) / 1024
    return {**dict(sorted(sizes.items())), "all of it": sum(sizes.values())}


def _shell(controllers: int, peers: int) -> dict[str, float]:
    command = ["bash", str(_SHELL), str(controllers), str(peers)]
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=120)
    times = [(name, float(text)) for name, text in map(str.split, result.stdout.splitlines())]
    return _parts(times)


def _parts(times: Sequence[tuple[str, float]]) -> dict[str, float]:
    ends = dict(times)
    parts = {name: end - before for (name, end), (_, before) in zip(times[1:], times, strict=False)}
    down = parts.pop("down")
    return {
        "all pairs": ends["pings"] - ends["start"],
        **{f"  {name}": seconds for name, seconds in parts.items()},
        "down": down,
    }


def _inventory(controllers: int, peers: int) -> str:
    names = [f"server{number}" for number in range(1, controllers + 1)]
    endpoints = [f'roles.controller.machines.{name}.settings.endpoint = "{name}.example.com"' for name in names]
    laptops = [f"laptop{number:02}" for number in range(1, peers + 1)]
    return "\n".join(
        [
            'meta.name = "bench"',
            "[machines]",
            *(f"{name} = {{}}" for name in names + laptops),
            "[instances.vpn]",
            'module.name = "wireguard"',
            *endpoints,
            'roles.peer.settings.controller = "server1"',
            *(f"roles.peer.machines.{name} = {{}}" for name in laptops),
            "",
        ]
    )


if __name__ == "__main__":
    main()
