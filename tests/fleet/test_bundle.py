"""The machine side as one file: the same bytes each time, complete, and nothing else needed to run it."""

from __future__ import annotations

import importlib.util
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import warren
from warren.agent.installation import CARRIED
from warren.fleet import bootstrap
from warren.fleet import bundle as bundling
from warren.fleet.bundle import bundle, closure

PACKAGE = Path(warren.__file__).parent


@pytest.fixture(scope="module")
def content() -> bytes:
    return bundle()


def entries(content: bytes) -> list[str]:
    return zipfile.ZipFile(io.BytesIO(content)).namelist()


def test_two_builds_are_equal_bytes(content: bytes) -> None:
    """In another process too, with another hash seed and at another time zone's clock."""
    code = "import sys; from warren.fleet.bundle import bundle; sys.stdout.buffer.write(bundle())"
    environment = {"PYTHONPATH": str(PACKAGE.parent), "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"}
    other = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True).stdout
    bundle.cache_clear()
    assert content == bundle() == other


def test_it_says_how_to_run_it_and_is_an_archive_of_plain_python(content: bytes) -> None:
    assert content.startswith(b"#!/usr/bin/env python3\n")
    names = entries(content)
    assert names[0] == "__main__.py"
    assert names[1:] == sorted(names[1:])
    assert [name for name in names if not name.endswith(".py")] == ["warren/fleet/warren.service"]


def test_it_holds_what_the_machine_side_imports_and_no_more(content: bytes) -> None:
    names = set(entries(content))
    assert {"warren/agent/main.py", "warren/host/netlink.py", "warren/plan/diff.py", "warren/__init__.py"} <= names
    of_the_operator = {name for name in names if name.startswith(("warren/cli/", "warren/fleet/", "warren/inventory/"))}
    assert of_the_operator == {"warren/fleet/__init__.py", *(f"warren/fleet/{name}" for name in CARRIED)}


def test_a_bare_interpreter_runs_it(content: bytes, tmp_path: Path) -> None:
    """Isolated, without site-packages, without anything of this project on its path."""
    file = tmp_path / "warren.pyz"
    file.write_bytes(content)
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(file), "--help"], cwd="/", env={}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "agent" in done.stdout


def test_every_module_in_it_can_be_imported_there(content: bytes, tmp_path: Path) -> None:
    """What is imported late is in it, too."""
    file = tmp_path / "warren.pyz"
    file.write_bytes(content)
    modules = [name for name in entries(content)[1:] if not name.startswith("warren/fleet/")]
    names = [name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in modules]
    code = f"import sys; sys.path.insert(0, {str(file)!r}); import {', '.join(names)}"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_imports_are_followed_into_functions_but_not_into_those_for_type_checkers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "warren"
    (package / "agent").mkdir(parents=True)
    for name in ("__init__.py", "late.py", "types.py", "agent/__init__.py", "agent/other.py"):
        (package / name).write_text("")
    (package / "agent/main.py").write_text(
        "from typing import TYPE_CHECKING\nimport json\n"
        "if TYPE_CHECKING:\n    import warren.types\n"
        "def f():\n    if json:\n        from warren import late\n        from warren.agent import other\n"
    )
    assert set(closure(package)) == {"warren", "warren.agent", "warren.agent.main", "warren.agent.other", "warren.late"}
    monkeypatch.setattr(bundling, "ENTRY", "warren.agent.none")
    with pytest.raises(AssertionError):
        closure(package)


@pytest.mark.parametrize("magic", [importlib.util.MAGIC_NUMBER, b"\0\0\r\n"], ids=["its own Python", "another Python"])
def test_a_machine_compiles_it_and_any_python_still_runs_it(content: bytes, magic: bytes, tmp_path: Path) -> None:
    made = bootstrap.compiled(content).replace(importlib.util.MAGIC_NUMBER, magic)
    with zipfile.ZipFile(io.BytesIO(made)) as archive:
        names = archive.namelist()
    assert {name for name in names if name.endswith(".pyc")} == {f"{name}c" for name in names if name.endswith(".py")}
    file = tmp_path / "warren.pyz"
    file.write_bytes(made)
    code = f"import sys; sys.path.insert(0, {str(file)!r}); from warren import names; print(names.__spec__.origin)"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"{file}/warren/names.py{'c' if magic == importlib.util.MAGIC_NUMBER else ''}\n"
    subprocess.run([sys.executable, "-I", file, "--version"], check=True)
