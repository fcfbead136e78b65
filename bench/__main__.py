"""python -m bench [NAME...]: measure, each in a process of its own, so that none warms or fills another's memory."""

from __future__ import annotations

import importlib
import os
import pkgutil
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import bench

ONE = "--one"  # how this module calls itself for one name


def main(arguments: list[str]) -> int:
    if arguments[:1] == [ONE]:
        _measure(arguments[1])
        return 0
    known = [module.name for module in pkgutil.iter_modules(bench.__path__) if module.name != "__main__"]
    unknown = sorted(set(arguments) - set(known))
    if unknown:
        print(f"no bench named {', '.join(unknown)}; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    print(f"commit {_commit()}; {_machine()}", flush=True)
    failed = [name for name in arguments or _usual(known) if not _succeeds(name)]
    if failed:
        print(f"\nfailed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _usual(known: Sequence[str]) -> list[str]:
    """Without those that take many minutes, and those that are tools of others."""
    modules = {name: importlib.import_module(f"bench.{name}") for name in known}
    return [name for name, module in modules.items() if hasattr(module, "run") and not hasattr(module, "LONG")]


def table(rows: Sequence[Any]) -> str:
    """Rows of one dataclass as aligned columns, its `ratio` the last one where that is a property."""
    trees = [asdict(row) | ({"ratio": row.ratio} if hasattr(row, "ratio") else {}) for row in rows]
    columns = [name.replace("_", " ") for name in trees[0]]
    cells = [[f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in tree.values()] for tree in trees]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    numeric = [isinstance(cell, int | float) for cell in trees[0].values()]
    return "\n".join(
        "  " + "  ".join(f"{cell:{'>' if n else '<'}{w}}" for cell, w, n in zip(line, widths, numeric, strict=True))
        for line in [columns, *cells]
    )


def _succeeds(name: str) -> bool:
    return subprocess.run([sys.executable, "-m", "bench", ONE, name], check=False).returncode == 0


def _measure(name: str) -> None:
    module = importlib.import_module(f"bench.{name}")
    print(f"\n{name}: {(module.__doc__ or '').partition(chr(10))[0]}", flush=True)
    rows = module.run()
    if rows:
        print(table(rows))


def _commit() -> str:
    git = ["git", "-C", str(Path(__file__).parent)]
    commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    changes = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=False)
    return (commit.stdout.strip() or "none") + (" and changes" if changes.stdout else "")


def _machine() -> str:
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} cores, {memory_gb:.0f} GB, load {os.getloadavg()[0]:.1f}; "
        f"Linux {platform.release()}; Python {platform.python_version()}"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
