"""`warren init`, `warren check`, `warren schema`, called as programs call them."""

import json
import resource
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from warren.cli import cli
from warren.errors import UsageError

GOOD = '[instances.wireguard]\nroles.controller.machines.a.settings.endpoint = "a.example.com"\n'


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "castle"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("WARREN_INVENTORY", raising=False)
    return folder


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments, standalone_mode=False)


def test_check_is_silent_when_all_is_well() -> None:
    Path("warren.toml").write_text(GOOD)
    result = run("check")
    assert (result.return_value, result.output) == (0, "")


def test_check_says_all_that_is_wrong_on_stderr() -> None:
    Path("warren.toml").write_text(GOOD + "roles.peers = {}\nrole = {}\n")
    result = run("check")
    assert (result.return_value, result.stdout) == (1, "")
    assert result.stderr.count("unknown key") == 2
    assert result.stderr.startswith("warren.toml:3:7: ")


def test_check_has_a_line_on_what_it_skips() -> None:
    Path("warren.toml").write_text(GOOD + '[instances.zt]\nmodule.name = "zerotier"\n')
    result = run("check")
    assert (result.return_value, result.stdout) == (0, "")
    assert result.stderr == 'instance "zt" is skipped: its module is "zerotier"\n'


def test_check_as_json() -> None:
    Path("warren.toml").write_text(GOOD + "roles.controller.settings.port = 0\n")
    result = run("check", "--json")
    assert (result.return_value, result.stderr) == (1, "")
    assert json.loads(result.stdout)["errors"] == [
        {
            "file": "warren.toml",
            "line": 3,
            "column": 34,
            "message": "port 0 is outside 1–65535",
            "mend": "choose a free UDP port of the machine; WireGuard's usual one is 51820",
        }
    ]


def test_check_as_json_when_all_is_well() -> None:
    Path("warren.toml").write_text(GOOD)
    result = run("check", "--json")
    assert result.return_value == 0
    assert json.loads(result.stdout)["errors"] == []


def test_the_inventory_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("other.toml").write_text(GOOD)
    assert run("-f", "other.toml", "check").return_value == 0
    assert run("--inventory", "other.toml", "check").return_value == 0
    monkeypatch.setenv("WARREN_INVENTORY", "other.toml")
    assert run("check").return_value == 0


def test_no_inventory_is_a_usage_error() -> None:
    assert isinstance(run("check").exception, UsageError)


def test_init_writes_a_file_that_checks() -> None:
    result = run("init")
    assert result.exit_code == 0
    assert result.stdout == ""
    assert 'meta.name = "castle"' in Path("warren.toml").read_text()
    assert run("check").output == ""


def test_init_with_a_name() -> None:
    run("init", "fortress")
    assert 'meta.name = "fortress"' in Path("warren.toml").read_text()


def test_init_in_a_folder_whose_name_is_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "my folder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    run("init")
    assert run("check").return_value == 0


def test_init_overwrites_nothing() -> None:
    Path("warren.toml").write_text("mine")
    assert isinstance(run("init").exception, UsageError)
    assert Path("warren.toml").read_text() == "mine"


def test_init_refuses_a_bad_name_and_writes_nothing() -> None:
    assert isinstance(run("init", "my castle").exception, UsageError)
    assert not Path("warren.toml").exists()


def test_init_that_cannot_write_all_of_it_leaves_nothing() -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        result = run("init")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert isinstance(result.exception, UsageError)
    assert "cannot write it: File too large" in str(result.exception)
    assert not Path("warren.toml").exists()


def test_schema_is_the_one_in_the_repository() -> None:
    stored = Path(__file__).parents[2] / "docs/schema/inventory.schema.json"
    assert run("schema").stdout == stored.read_text()
