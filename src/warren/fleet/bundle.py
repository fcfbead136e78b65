"""The machine side as one file: a zip archive of plain Python that `python3` runs, with nothing to install.

The same source gives the same bytes anywhere: entries are sorted and stored as they are (what deflate makes differs
between versions of zlib), with one fixed date.
"""

from __future__ import annotations

import ast
import io
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import warren
from warren.agent.installation import CARRIED

ENTRY = "warren.agent.main"

_SHEBANG = b"#!/usr/bin/env python3\n"
_MAIN = f"import sys\n\nfrom {ENTRY} import main\n\nsys.exit(main(sys.argv[1:]))\n"
_DATE = (1980, 1, 1, 0, 0, 0)  # the first that a zip archive can say
_MODE = 0o644 << 16


@cache
def bundle() -> bytes:
    """The archive, with `ENTRY` and every module of ours that it imports, at once or later."""
    package = Path(warren.__file__).parent
    buffer = io.BytesIO()
    buffer.write(_SHEBANG)
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_STORED) as archive:
        _add(archive, "__main__.py", _MAIN.encode())
        carried = [package / "fleet" / name for name in CARRIED]  # for a machine that joins by itself
        for path in sorted({*closure(package).values(), package / "fleet" / "__init__.py", *carried}):
            _add(archive, str(path.relative_to(package.parent)), path.read_bytes())
    return buffer.getvalue()


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name, _DATE)
    entry.external_attr = _MODE
    entry.create_system = 3  # Unix, also where it is built elsewhere
    archive.writestr(entry, content)


def closure(package: Path) -> dict[str, Path]:
    """The modules that `ENTRY` imports, itself included, by name."""
    found: dict[str, Path] = {}
    assert _file(package, ENTRY), f"{ENTRY} is not there"
    ahead = [ENTRY]
    while ahead:
        name = ahead.pop()
        path = _file(package, name)
        if name in found or path is None:
            continue
        found[name] = path
        ahead += [name.rpartition(".")[0], *_imports(ast.parse(path.read_bytes()))]
    return found


def _file(package: Path, name: str) -> Path | None:
    """Of a module of ours; None for those of others, and for what is no module."""
    top, *parts = name.split(".")
    if top != package.name:
        return None
    path = package.joinpath(*parts)
    candidates = (path / "__init__.py", path.with_suffix(".py"))
    return next((each for each in candidates if each.is_file()), None)


def _imports(tree: ast.AST) -> Iterator[str]:
    """Names that may be modules; what only a type checker reads is left out."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif not _is_type_checking(node):
            yield from _imports(node)


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
