"""Line and column of everything that can be wrong, in every way in which it can be written."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inventory_trees import STYLES, Style, Tree, to_toml, trees
from warren.inventory.findings import EXCERPT_CHARACTERS, Finding, Path, Place, problem
from warren.inventory.positions import places_in_json, places_in_toml, repeated_json_keys


def underlined(place: Place) -> str:
    return place.source_line[place.column - 1 : place.column - 1 + place.width]


def in_toml(text: str, *path: str | int, at_key: bool = False) -> tuple[int, int, str]:
    (place,) = places_in_toml(text, [Finding(path, "", at_key=at_key)])
    return place.line, place.column, underlined(place)


def in_json(text: str, *path: str | int, at_key: bool = False) -> tuple[int, int, str]:
    (place,) = places_in_json(text, [Finding(path, "", at_key=at_key)])
    return place.line, place.column, underlined(place)


TOML = """\
a.b.c = 1  # dotted
"ü x" . 'y' = "ß"

[t . "u"]
v = { w = [1, 2, { x = 3 }], "→" = true }
list = [
  "one",  # first
  # second
  2,
]
"""


@pytest.mark.parametrize(
    ("path", "value", "key"),
    [
        (("a",), (1, 1, "a"), (1, 1, "a")),
        (("a", "b"), (1, 3, "b"), (1, 3, "b")),
        (("a", "b", "c"), (1, 9, "1"), (1, 5, "c")),
        (("ü x", "y"), (2, 15, '"ß"'), (2, 9, "'y'")),
        (("t",), (4, 2, "t"), (4, 2, "t")),
        (("t", "u"), (4, 6, '"u"'), (4, 6, '"u"')),
        (("t", "u", "v", "w", 1), (5, 15, "2"), (5, 7, "w")),
        (("t", "u", "v", "w", 2, "x"), (5, 24, "3"), (5, 20, "x")),
        (("t", "u", "v", "→"), (5, 36, "true"), (5, 30, '"→"')),
        (("t", "u", "list", 1), (9, 3, "2"), (6, 1, "list")),
    ],
)
def test_toml(path: Path, value: tuple[int, int, str], key: tuple[int, int, str]) -> None:
    assert in_toml(TOML, *path) == value
    if not isinstance(path[-1], int):
        assert in_toml(TOML, *path, at_key=True) == key


JSON = """\
{"a": {"b": 1, "ü": "ß"},
 "c\\u00e9": [1, {"d": null}]}
"""


@pytest.mark.parametrize(
    ("path", "value", "key"),
    [
        (("a",), (1, 7, '{"b": 1, "ü": "ß"}'), (1, 2, '"a"')),
        (("a", "ü"), (1, 21, '"ß"'), (1, 16, '"ü"')),
        (("cé", 0), (2, 14, "1"), None),
        (("cé", 1, "d"), (2, 23, "null"), (2, 18, '"d"')),
    ],
)
def test_json(path: Path, value: tuple[int, int, str], key: tuple[int, int, str] | None) -> None:
    assert in_json(JSON, *path) == value
    if key:
        assert in_json(JSON, *path, at_key=True) == key


def test_what_is_not_there_has_the_place_of_what_is_above() -> None:
    assert in_toml(TOML, "t", "u", "nothing", "at", "all") == (4, 6, '"u"')
    assert in_json(JSON, "a", "nothing", at_key=True) == (1, 2, '"a"')
    assert in_toml("", "nothing") == (0, 0, "")


def test_a_table_array_has_the_place_of_its_name() -> None:
    assert in_toml("[[instances]]\nname = 1\n", "instances") == (1, 3, "instances")


def test_a_value_of_several_lines_is_underlined_in_its_first() -> None:
    assert in_toml('a = """x\ny"""\n', "a") == (1, 5, '"""x')


def test_carriage_returns_are_not_part_of_a_line() -> None:
    (place,) = places_in_toml("a = 1\r\nb = 2\r\n", [Finding(("b",), "")])
    assert place == Place(2, 5, 1, "b = 2")


def test_every_repeated_key_is_found() -> None:
    text = '{"a": 1, "a": 2,\n "b": [{"c": 1, "\\u0063": 2}], "a": 3}'
    found = [(key, place.line, place.column) for key, place in repeated_json_keys(text)]
    assert found == [("a", 1, 10), ("c", 2, 17), ("a", 2, 32)]


def paths(tree: Any, path: Path = ()) -> list[Path]:
    """Every path of the tree."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    below = [found for key, child in items for found in paths(child, (*path, key))]
    return [path, *below] if path else below


def value_at(tree: Any, path: Path) -> Any:
    for key in path:
        tree = tree[key]
    return tree


@given(trees(), st.sampled_from(STYLES))
def test_the_underlined_text_of_a_leaf_is_its_value(tree: Tree, style: Style) -> None:
    leaves = [path for path in paths(tree) if not isinstance(value_at(tree, path), dict | list)]
    findings = [Finding(path, "") for path in leaves]
    for text, places in (
        (toml := to_toml(tree, style), places_in_toml(toml, findings)),
        (as_json := json.dumps(tree, ensure_ascii=False, indent=1), places_in_json(as_json, findings)),
    ):
        for path, place in zip(leaves, places, strict=True):
            assert place.source_line == text.split("\n")[place.line - 1]
            assert json.loads(underlined(place)) == value_at(tree, path)


@given(st.integers(1, 600), st.integers(1, 50), st.integers(0, 600))
def test_the_caret_of_an_excerpt_stands_under_its_text(start: int, width: int, rest: int) -> None:
    line = "." * (start - 1) + "x" * width + "." * rest
    shown = problem(Place(1, start, width, line), "file", "wrong", "mend it")
    _, source, carets, _ = str(shown).split("\n")
    assert len(source) <= EXCERPT_CHARACTERS + len("    1 | ……")
    under = [source[index] for index, mark in enumerate(carets) if mark == "^"]
    assert under == ["x"] * width
