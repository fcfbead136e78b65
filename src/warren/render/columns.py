"""Rows as aligned text: whole words at any width, in a terminal and in a pipe alike."""

from __future__ import annotations

from collections.abc import Sequence

GAP = "   "


def columns(rows: Sequence[Sequence[str]], indent: str = "") -> str:
    """The rows as lines, each cell as wide as its column's widest; a row may have fewer cells than the others."""
    widths = [0] * max(map(len, rows), default=0)
    for row in rows:
        for i, cell in enumerate(row):
            widths[i] = max(widths[i], len(cell))
    lines = (GAP.join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)) for row in rows)
    return "".join(f"{indent}{line}".rstrip() + "\n" for line in lines)
