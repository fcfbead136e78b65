"""10,000 peers and 4 controllers: from the text of the inventory to plans, parts apart, with the memory they take.

Each run is a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from warren.inventory.parse import Format
from warren.inventory.read import read
from warren.names import InstanceName, MachineName
from warren.network.allocate import allocate
from warren.network.document import decode, encode
from warren.network.preshared import Exchange, exchanges_text, pairs
from warren.network.resolve import resolve
from warren.network.stored import Stored
from warren.plan.plan import plan
from warren.render.desired import desired_tree
from warren.render.show import shown_tree
from warren.wireguard.keys import PublicKey
from warren.wireguard.preshared import fingerprint

T = TypeVar("T")

PEERS, CONTROLLERS, RUNS = 10_000, 4, 5
FORMATS = ("toml", "json")


def inventory_tree() -> dict[str, Any]:
    """Every peer has a setting of its own, as a fleet that was entered machine by machine has."""
    controllers = [f"server{n}" for n in range(1, CONTROLLERS + 1)]
    peers = [f"laptop{n}" for n in range(1, PEERS + 1)]
    return {
        "meta": {"name": "burrow"},
        "machines": {name: {"tags": ["laptop"] if name in set(peers) else ["server"]} for name in controllers + peers},
        "instances": {
            "vpn": {
                "module": {"name": "wireguard"},
                "roles": {
                    "controller": {
                        "machines": {name: {"settings": {"endpoint": f"{name}.example.com"}} for name in controllers}
                    },
                    "peer": {
                        "machines": {
                            name: {"settings": {"controller": controllers[n % CONTROLLERS]}}
                            for n, name in enumerate(peers)
                        }
                    },
                },
            }
        },
    }


def toml_lines(tree: dict[str, Any], path: str = "") -> Iterator[str]:
    """The tree as lines of dotted keys, the shape of the design's example."""
    for key, value in tree.items():
        where = f"{path}.{key}" if path else key
        if isinstance(value, dict):
            yield from toml_lines(value, where)
        else:
            yield f"{where} = {json.dumps(value)}"


def measure(file: Path) -> list[tuple[str, float, float]]:
    """Part, milliseconds, and the process's peak memory in MB once it is done."""
    parts: list[tuple[str, float, float]] = []

    def timed(part: str, work: Callable[[], T]) -> T:
        start = time.perf_counter()
        value = work()
        parts.append((part, (time.perf_counter() - start) * 1000, _peak_mb()))
        return value

    text = file.read_text()
    file_format: Format = "toml" if file.suffix == ".toml" else "json"
    timed("start", lambda: None)
    inventory = timed("parse and check", lambda: read(text, file_format, file.name))
    timed("addresses", lambda: allocate(inventory, {}))
    vpn = InstanceName("vpn")
    keys = {name: PublicKey(sha256(name.encode()).digest()).text for name in inventory.instances[vpn].members}
    document = timed("resolve (addresses again)", lambda: resolve(inventory, {vpn: Stored(public_keys=keys)})[vpn])
    data = timed("document: encode", lambda: encode(document))
    timed("machine: decode", lambda: decode(data))
    controller = timed("plan of a controller", lambda: plan(document, MachineName("server1")))
    timed("plan --json of it", lambda: json.dumps(desired_tree(MachineName("server1"), [controller])))
    timed("plan of a peer", lambda: plan(document, MachineName("laptop1")))
    timed("show --json", lambda: json.dumps(shown_tree([document])))
    instance = inventory.instances[vpn]
    made: dict[MachineName, dict[MachineName, Exchange]] = {}
    for maker, other in pairs(instance.controllers, instance.peers):
        made.setdefault(maker, {})[other] = Exchange(fingerprint(f"{maker} {other}".encode()))
    stored = Stored(public_keys=keys, preshared={maker: exchanges_text(others) for maker, others in made.items()})
    document = timed("preshared keys: resolve", lambda: resolve(inventory, {vpn: stored})[vpn])
    data = timed("preshared keys: encode", lambda: encode(document))
    timed("preshared keys: decode", lambda: decode(data))
    timed("preshared keys: controller", lambda: plan(document, MachineName("server1")))
    timed("preshared keys: peer", lambda: plan(document, MachineName("laptop1")))
    return parts


def _peak_mb() -> float:
    # Not getrusage: its ru_maxrss outlives exec, and would begin with what the parent had.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def run() -> None:
    """Print the table."""
    tree = inventory_tree()
    texts = {"toml": "\n".join(toml_lines(tree)) + "\n", "json": json.dumps(tree)}
    with TemporaryDirectory() as folder:
        for file_format in FORMATS:
            file = Path(folder) / f"warren.{file_format}"
            file.write_text(texts[file_format])
            print(f"{PEERS:,} peers, {CONTROLLERS} controllers: {file.stat().st_size / 1e6:.1f} MB of {file_format}")
            plain_ms = statistics.median(_plain_ms(texts[file_format], file_format) for _ in range(RUNS))
            runs = [_in_process(file) for _ in range(RUNS)]
            for index, (part, _, _) in enumerate(runs[0]):
                milliseconds = statistics.median(each[index][1] for each in runs)
                peak_mb = statistics.median(each[index][2] for each in runs)
                print(f"  {part:<28}{milliseconds:9.1f} ms{milliseconds / plain_ms:8.2f} x plain{peak_mb:8.0f} MB")
            through = statistics.median(sum(part[1] for part in each[:5]) - each[2][1] for each in runs)
            print(f"  {'parse through document':<28}{through:9.1f} ms{through / plain_ms:8.2f} x plain")
            print(f"  {'plain parser of the same':<28}{plain_ms:9.1f} ms")


def _plain_ms(text: str, file_format: str) -> float:
    start = time.perf_counter()
    _ = tomllib.loads(text) if file_format == "toml" else json.loads(text)
    return (time.perf_counter() - start) * 1000


def _in_process(file: Path) -> list[list[Any]]:
    command = [sys.executable, "-m", "bench.scale", str(file)]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    parts = json.loads(result.stdout)
    assert isinstance(parts, list)
    return parts


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]))))
