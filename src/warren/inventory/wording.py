"""How findings name what they are about: values, lists of names, the name that was probably meant."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from itertools import islice

from warren.inventory.findings import Path

_LONGEST_SHOWN = 80
_MOST_LISTED = 10
_MOST_COMPARISONS = 200_000  # a second or two; whoever has more mistakes than that mends the first ones first


def quoted(text: str) -> str:
    """The text in double quotes, harmless to a terminal and not too long."""
    if len(text) > _LONGEST_SHOWN:
        text = f"{text[:_LONGEST_SHOWN]}…"
    return f'"{text}"' if text.isprintable() and '"' not in text and "\\" not in text else json.dumps(text)


def shown(value: object) -> str:
    """A value of the tree, as one would name it in a sentence."""
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, int) and value.bit_length() > 256:
        return "a number far too large"  # and its decimal text may be refused: sys.get_int_max_str_digits
    return str(value)


def dotted(path: Path) -> str:
    """`instances.vpn.roles`, keys quoted where TOML and Nix need it, list indexes from 0 in brackets."""
    text = ""
    for key in path:
        if isinstance(key, int):
            text += f"[{key}]"
        else:
            bare = key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else quoted(key)
            text += f".{bare}" if text else bare
    return text


def listed(names: Collection[str]) -> str:
    """Names with commas between them; of many, the first."""
    text = ", ".join(name if name.isprintable() else quoted(name) for name in islice(names, _MOST_LISTED))
    return text if len(names) <= _MOST_LISTED else f"{text} and {len(names) - _MOST_LISTED:,} more"


class Nearest:
    """Finds the name that was probably meant.

    Comparing is slow, so that it stops when much was compared: thousands of mistakes in a file of thousands of
    machines get no suggestions from some point on, instead of an answer after minutes.
    """

    def __init__(self) -> None:
        self._comparisons_left = _MOST_COMPARISONS

    def to(self, name: str, candidates: Collection[str]) -> str | None:
        self._comparisons_left -= len(candidates)
        if self._comparisons_left < 0 or len(name) > _LONGEST_SHOWN:
            return None
        import difflib  # only when there is something to say

        but_for_case = [candidate for candidate in candidates if candidate.lower() == name.lower()]
        found = but_for_case or difflib.get_close_matches(name, candidates, n=1, cutoff=0.7)
        return found[0] if found and found[0] != name else None

    def hint(self, name: str, candidates: Collection[str], all_of_them: str) -> str:
        """`did you mean "x"? Known keys: x, y`; `all_of_them` is what stands before the list."""
        known = f"{all_of_them}: {listed(candidates) or 'none'}"
        nearest = self.to(name, candidates)
        return f"did you mean {quoted(nearest)}? {known[:1].upper()}{known[1:]}" if nearest else known
