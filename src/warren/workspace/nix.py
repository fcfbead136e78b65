"""`clan.nix`, evaluated by the program `nix-instantiate`.

Nothing is built, and no Nix store is needed: the evaluation stands on one that exists in memory only.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

from warren.errors import InventoryError, UsageError
from warren.inventory.findings import Finding, Place, problem
from warren.inventory.model import Inventory
from warren.inventory.modules import MODULES
from warren.inventory.read import read_tree

_PROGRAM = "nix-instantiate"
_TIMEOUT_S = 60.0
_PRINT_IT = (
    "have the whole clan printed, and read that: "
    "nix eval --json .#clanInternals.inventoryClass.inventory > inventory.json"
)


def read_nix(path: Path, name: str) -> Inventory:
    """Read a file of clan; `name` is what errors call it."""
    tree = _evaluate(path, name, "tree")
    return read_tree(tree, name, partial(_places, path, name))


def _evaluate(path: Path, name: str, what: str) -> Any:
    """An attribute of inventory.nix, for this file."""
    program = resources.files("warren.workspace").joinpath("inventory.nix").read_text(encoding="utf-8")
    modules = " ".join(map(_nix_text, MODULES))
    expression = f"(({program}) {{ path = {_nix_text(str(path.absolute()))}; modules = [ {modules} ]; }}).{what}"
    try:
        done = subprocess.run(
            [_PROGRAM, "--eval", "--strict", "--json", "--store", "dummy://", "-"],
            input=expression.encode(),
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except FileNotFoundError:
        raise UsageError(
            f"reading it needs the program {_PROGRAM}, which is not installed",
            where=name,
            mend=f"install it (Debian and Ubuntu: apt-get install nix-bin), or {_PRINT_IT}",
        ) from None
    except subprocess.TimeoutExpired:
        raise _error(name, Place(), f"Nix did not finish within {_TIMEOUT_S:.0f} seconds", _PRINT_IT) from None
    if done.returncode != 0:
        message, place = explain(done.stderr.decode(errors="replace"), path, name)
        raise _error(name, place, message, _mend(message))
    try:
        return json.loads(done.stdout.decode(errors="replace"))  # Nix does not mind what its texts are made of
    except RecursionError:
        raise _error(name, Place(), "nested too deeply", "write it flatter") from None


def _error(name: str, place: Place, message: str, mend: str) -> InventoryError:
    return InventoryError((problem(place, name, message, mend),))


def _mend(message: str) -> str:
    if "expecting ';'" in message:
        return "end what stands before this place with ;"
    if "syntax error" in message:
        return "correct the syntax; `nix-instantiate --parse FILE` says whether it is right"
    return f"correct it; or, where it is right as a part of its flake, {_PRINT_IT}"


def _nix_text(text: str) -> str:
    return '"' + re.sub(r'(["\\]|\$\{)', r"\\\1", text) + '"'


def explain(stderr: str, path: Path, name: str) -> tuple[str, Place]:
    """The message of a Nix that failed, and the place that it names last: older ones print one, newer ones a trace."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", stderr)
    *_, last = re.split(r"^\s*error: ", text, flags=re.MULTILINE)
    lines = []
    for line in last.splitlines():
        if not line.strip() or _PLACE.match(line):
            break
        lines.append(line.strip())
    places = [match for match in _PLACE.finditer(text) if not match[1].startswith("«")]
    message = f"Nix says: {' '.join(lines) or 'nothing'}"
    if not places:
        return message, Place()
    file, line, column = places[-1][1], int(places[-1][2]), int(places[-1][3])
    files = _Files(path, name)
    return message, Place(line, column, 1, files.line(file, line), files.name(file))


_PLACE = re.compile(r"^\s*at (.+):(\d+):(\d+):\s*$", re.MULTILINE)


def _places(path: Path, name: str, findings: Sequence[Finding]) -> list[Place]:
    """Where the findings' keys are written; Nix knows where a chain of keys begins, the rest is seen in the line."""
    wanted = _nix_text(json.dumps([finding.path for finding in findings]))
    try:
        found = _evaluate(path, name, f"places (builtins.fromJSON {wanted})")
    except InventoryError:
        return [Place() for _ in findings]  # what is to be said matters more than where
    files = _Files(path, name)
    return [_place(files, finding, where) for finding, where in zip(findings, found, strict=True)]


def _place(files: _Files, finding: Finding, where: Mapping[str, Any] | None) -> Place:
    if where is None:
        return Place()
    file, line, column, depth = where["file"], where["line"], where["column"], where["depth"]
    text = files.line(file, line)
    at_key = finding.at_key or depth < len(finding.path)
    start, width = _span(text, column, str(finding.path[depth - 1]), at_key)
    return Place(line, start, width, text, files.name(file))


def _span(line: str, column: int, key: str, at_key: bool) -> tuple[int, int]:
    """Column and width of the key in a chain that begins at `column`, or of its value where that stands in the line."""
    name = re.compile(rf'"?(?<![\w-]){re.escape(key)}(?![\w-])"?')
    found = name.search(line, column - 1)
    if found is None:
        return column, 1
    value = None if at_key else re.compile(r'\s*=\s*("(?:[^"\\]|\\.)*"|[^\s;{}\[\]]+)').match(line, found.end())
    start, end = value.span(1) if value else found.span()
    return start + 1, end - start


@dataclass(frozen=True, slots=True)
class _Files:
    """The lines of files that Nix names: the one that is read, and what it imports."""

    path: Path
    shown: str
    _lines: dict[str, list[str]] = field(default_factory=dict)

    def line(self, file: str, number: int) -> str:
        if file not in self._lines:
            self._lines[file] = []
            with suppress(OSError):
                self._lines[file] = Path(file).read_text(errors="replace").split("\n")
        lines = self._lines[file]
        return lines[number - 1].rstrip("\r") if number <= len(lines) else ""

    def name(self, file: str) -> str:
        return "" if Path(file) == self.path.absolute() else file
