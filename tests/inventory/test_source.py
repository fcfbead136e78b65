"""The file: which one it is, and what happens when it is none."""

import json
import os
import tomllib
from pathlib import Path

import pytest

from warren.errors import InventoryError, UsageError, WarrenError
from warren.workspace.source import find_inventory, load_inventory

TOML = '[instances.wireguard]\nroles.controller.machines.a.settings.endpoint = "a.example.com"\n'
JSON = json.dumps(tomllib.loads(TOML))


def test_the_first_one_going_up_is_found(tmp_path: Path) -> None:
    (tmp_path / "inventory.json").touch()
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    assert find_inventory(deep, None) == tmp_path / "inventory.json"
    (tmp_path / "a" / "clan.nix").touch()
    assert find_inventory(deep, None) == tmp_path / "a" / "clan.nix"
    (tmp_path / "a" / "warren.toml").touch()
    assert find_inventory(deep, None) == tmp_path / "a" / "warren.toml"
    (deep / "warren.toml").mkdir()  # a folder is not a file
    assert find_inventory(deep, None) == tmp_path / "a" / "warren.toml"


def test_the_given_one_is_taken(tmp_path: Path) -> None:
    (tmp_path / "warren.toml").touch()
    assert find_inventory(tmp_path, "elsewhere.json") == Path("elsewhere.json")
    assert find_inventory(tmp_path, "") == tmp_path / "warren.toml"  # WARREN_INVENTORY= in the environment


def test_where_it_was_looked_for_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        find_inventory(tmp_path / "a", None)
    assert f"in {tmp_path / 'a'}, {tmp_path}, {tmp_path.parent}" in str(error.value)
    assert "warren init" in error.value.mend


@pytest.mark.parametrize(
    ("name", "text"), [("x.toml", TOML), ("x.json", JSON), ("toml", TOML), ("json", "\ufeff\n " + JSON)]
)
def test_the_format_is_in_the_name_or_in_the_text(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    assert list(load_inventory(path).machines) == ["a"]


def test_a_pipe_is_read_as_well(tmp_path: Path) -> None:
    """`warren -f <(nix eval --json …) check`."""
    read_end, write_end = os.pipe()
    with os.fdopen(write_end, "w") as file:
        file.write(JSON)
    assert list(load_inventory(Path(f"/dev/fd/{read_end}")).machines) == ["a"]
    os.close(read_end)


def error_of(path: Path) -> WarrenError:
    with pytest.raises(WarrenError) as error:
        load_inventory(path)
    return error.value


def test_no_such_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    error = error_of(Path("warren.toml"))
    assert str(error) == (
        "warren.toml: cannot read it: No such file or directory\nmend: write a first one with `warren init`"
    )
    assert error.exit_code == 2


def test_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("examples").mkdir()
    assert str(error_of(Path("examples"))) == (
        "examples: cannot read it: Is a directory\nmend: name the file in it: examples/warren.toml"
    )


def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read every file")
    path = tmp_path / "warren.toml"
    path.touch(mode=0)
    assert "Permission denied" in str(error_of(path))


@pytest.mark.parametrize("name", ["a\0b", "x" * 300, "\udce4.toml"])
def test_names_that_no_file_has(name: str) -> None:
    assert isinstance(error_of(Path(name)), UsageError)
    str(error_of(Path(name))).encode()


def test_an_endless_file() -> None:
    assert "larger than" in str(error_of(Path("/dev/zero")))


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_other_encodings(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "warren.toml"
    path.write_bytes("# Büro\n[machines]\n".encode(encoding))
    error = error_of(path)
    assert isinstance(error, InventoryError)
    (problem,) = error.problems
    assert (problem.message, problem.mend) == ("not UTF-8 text", "save the file as UTF-8")
    assert problem.line == 1
