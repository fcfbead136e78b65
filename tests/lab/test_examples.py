"""Every example is a mesh that works, the two of the service description as they stand there among them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lab.labs import computer

pytestmark = [pytest.mark.root, pytest.mark.lab]

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").iterdir())


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_all_pairs_of_the_example_answer(example: Path) -> None:
    if example.suffix == ".nix" and not shutil.which("nix-instantiate"):
        pytest.skip("nix-instantiate is missing: apt install nix-bin")
    with computer() as made:
        (made.folder / example.name).write_bytes(example.read_bytes())
        made.warren("up", example.name)
        pairs = made.status()["pairs"]
        assert pairs
        assert all(pair["ok"] for pair in pairs)
