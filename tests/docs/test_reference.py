"""The generated pages of the documentation are current."""

from pathlib import Path

from warren.cli.reference import reference

DOCS = Path(__file__).parents[2] / "docs"


def test_the_reference_is_current() -> None:
    assert (DOCS / "reference.md").read_text() == reference(), "run: make reference"
