"""What a user reads, case by case: a folder with a file that is wrong, and the message, byte for byte."""

import shutil
from pathlib import Path

import pytest

from warren.errors import InventoryError
from warren.workspace.source import FILE_NAMES, load_inventory

CASES = sorted(path for path in (Path(__file__).parents[1] / "errors").iterdir() if path.is_dir())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_message(case: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(case)
    (file,) = (Path(name) for name in FILE_NAMES if Path(name).exists())
    if file.suffix == ".nix" and shutil.which("nix-instantiate") is None:
        pytest.skip("nix-instantiate is not installed (Debian: nix-bin)")
    with pytest.raises(InventoryError) as error:
        load_inventory(file)
    assert f"{error.value}\n".encode() == Path("message.txt").read_bytes()


def test_there_are_enough_cases() -> None:
    assert len(CASES) >= 100


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_problem_says_how_to_mend_it(case: Path) -> None:
    problems = (case / "message.txt").read_text().split("\n\n")
    assert all("\nmend: " in problem for problem in problems)
