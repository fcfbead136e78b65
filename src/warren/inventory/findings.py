"""Mistakes in the tree, and how they become problems that have a place in the file.

A mistake is found in the tree, where only keys are known. Lines and columns are looked up for all of them at once, and
only when there are any: a good inventory never pays for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from warren.errors import Problem

Path: TypeAlias = tuple[str | int, ...]
"""Keys and list indexes, from the top of the file."""

EXCERPT_CHARACTERS = 160  # of a longer line: `nix eval --json` writes everything in one


@dataclass(frozen=True, slots=True)
class Finding:
    """One mistake; it stands at the value of `path`, or at its last key."""

    path: Path
    message: str
    mend: str = ""
    at_key: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands. Line and column count from 1, in characters; line 0: unknown."""

    line: int = 0
    column: int = 0
    width: int = 1
    source_line: str = ""
    file: str = ""  # "": the file that is being read


class Locate(Protocol):
    """Finds the places of findings, one for each; a path that is not in the file has its nearest ancestor's place."""

    def __call__(self, findings: Sequence[Finding], /) -> Sequence[Place]: ...


def problems(findings: Iterable[Finding], file: str, locate: Locate) -> tuple[Problem, ...]:
    """The findings as problems in the order of the file, each once."""
    distinct = tuple(dict.fromkeys(findings))
    placed = zip(distinct, locate(distinct), strict=True)
    found = [problem(place, file, finding.message, finding.mend) for finding, place in placed]
    return tuple(sorted(found, key=lambda problem: (problem.line or float("inf"), problem.column)))


def problem(place: Place, file: str, message: str, mend: str) -> Problem:
    """One problem, with as much of its line as a person can look at."""
    line, column = place.source_line, place.column
    start, end = 0, len(line)
    if len(line) > EXCERPT_CHARACTERS:
        start = max(0, column - 1 - EXCERPT_CHARACTERS // 3)
        end = min(len(line), start + EXCERPT_CHARACTERS)
    before, after = "…" * (start > 0), "…" * (end < len(line))
    return Problem(
        file=place.file or file,
        line=place.line,
        column=column,
        message=message,
        mend=mend,
        source_line=f"{before}{_harmless(line[start:end])}{after}",
        width=max(1, min(place.width, end - column + 1)),
        caret_column=column - start + len(before) if start else 0,
    )


def _harmless(text: str) -> str:
    """Without characters that would move a terminal's cursor, so that the caret stands where it should."""
    return "".join(character if character.isprintable() or character == "\t" else "�" for character in text)
