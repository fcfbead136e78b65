"""Whatever is fed to the reader: an inventory or its own error comes out, and the error can be shown."""

from __future__ import annotations

import json
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inventory_trees import STYLES, Style, Tree, to_toml, trees
from warren.errors import InventoryError, Problem
from warren.inventory.parse import Format
from warren.inventory.read import read

FORMATS: tuple[Format, ...] = ("toml", "json")
EXAMPLES = settings.get_profile(settings.get_current_profile_name()).max_examples


def feed(text: str, file_format: Format) -> None:
    """Nothing but InventoryError; every problem points into the text and can be printed."""
    for problem in problems(text, file_format):
        str(problem).encode()
        assert problem.message
        assert problem.mend
        if problem.line:
            line = text.removeprefix("\ufeff").split("\n")[problem.line - 1]
            assert 1 <= problem.column <= len(line) + 1
            assert problem.width >= 1


def problems(text: str, file_format: Format) -> tuple[Problem, ...]:
    try:
        read(text, file_format, "file")
    except InventoryError as error:
        return error.problems
    return ()


@given(st.text(), st.sampled_from(FORMATS))
def test_any_text(text: str, file_format: Format) -> None:
    feed(text, file_format)


@given(st.binary(), st.sampled_from(FORMATS))
def test_any_bytes(data: bytes, file_format: Format) -> None:
    feed(data.decode("latin-1"), file_format)
    feed(data.decode("utf-8", errors="surrogateescape"), file_format)


# The pieces that these languages are made of: random text of them gets further than random characters.
PIECES = [
    *"[]{}=.,:\"'#\\\n\r\t -+_ü🐇\ud800\x00\x1b\u2028",
    *("[[", "]]", '"""', "'''", "\\u", "\\ud83d", "0x", "1e999", "inf", "nan", "NaN", "-Infinity", "null", "true"),
    *("1979-05-27", "07:32:00", "instances", "machines", "vpn", "roles", "settings", "wireguard", "inventory"),
]


@given(st.lists(st.sampled_from(PIECES), max_size=40).map("".join), st.sampled_from(FORMATS))
def test_any_pieces(text: str, file_format: Format) -> None:
    feed(text, file_format)


@given(st.data(), trees(), st.sampled_from(("json", *STYLES)))
@settings(max_examples=3 * EXAMPLES)
def test_a_good_inventory_damaged(data: st.DataObject, tree: Tree, style: Style | Literal["json"]) -> None:
    text = json.dumps(tree, indent=1) if style == "json" else to_toml(tree, style)
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 10)))
        text = text[:start] + data.draw(st.sampled_from(["", *PIECES])) + text[end:]
    feed(text, "json" if style == "json" else "toml")


KEYS = st.sampled_from(
    (
        *(
            "meta",
            "name",
            "description",
            "inventory",
            "machines",
            "server1",
            "laptop1",
            "tags",
            "all",
            "deploy",
            "host",
        ),
        *("targetHost", "port", "via", "instances", "vpn", "module", "roles", "controller", "peer", "settings"),
        *("endpoint", "domain", "mtu", "interface", "imports", "_file", "x"),
    )
)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.just(10**400),
    st.floats(allow_nan=False),
    st.sampled_from(["wireguard", "server1", "laptop1", "all", "vpn.example.com", "", "x y", "\x1b[31m", "\U0001f407"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
)


def _branches(below: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(st.dictionaries(KEYS, below, max_size=5), st.lists(below, max_size=3))


ANY_TREES: st.SearchStrategy[Any] = st.recursive(LEAVES, _branches, max_leaves=12)
PLACES = st.sampled_from(
    [
        (),
        ("instances",),
        ("instances", "vpn"),
        ("instances", "vpn", "roles"),
        ("instances", "vpn", "roles", "peer"),
        ("instances", "vpn", "roles", "controller", "machines", "server1"),
        ("instances", "vpn", "roles", "peer", "tags", "all", "settings"),
        ("machines",),
        ("machines", "server1"),
        ("tags",),
        ("inventory",),
        ("meta",),
    ]
)


@given(st.lists(st.tuples(PLACES, ANY_TREES), min_size=1, max_size=4), st.sampled_from(("json", *STYLES)))
@settings(max_examples=3 * EXAMPLES)
def test_any_tree(grafts: list[tuple[tuple[str, ...], Any]], style: Style | Literal["json"]) -> None:
    tree: Tree = {"instances": {"vpn": {"module": {"name": "wireguard"}}}}
    for path, graft in grafts:
        tree = _grafted(tree, path, graft)
    if style == "json":
        feed(json.dumps(tree), "json")
    else:
        feed(to_toml(_without_null(tree), style), "toml")


def _grafted(tree: Any, path: tuple[str, ...], graft: Any) -> Any:
    if not path:
        return {**tree, **graft} if isinstance(tree, dict) and isinstance(graft, dict) else tree
    inner = tree.get(path[0], {}) if isinstance(tree, dict) else {}
    below = graft if len(path) == 1 else _grafted(inner, path[1:], graft)
    return {**(tree if isinstance(tree, dict) else {}), path[0]: below}


def _without_null(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _without_null(value) for key, value in tree.items() if value is not None}
    if isinstance(tree, list):
        return [_without_null(item) for item in tree if item is not None]
    return tree


DEPTHS = (100, 500, 950, 3_000, 100_000)
DEEP = [
    *(("toml", "x = " + "[" * depth + "]" * depth) for depth in DEPTHS),
    *(("toml", "x = " + "{a=" * depth + "1" + "}" * depth) for depth in DEPTHS),
    *(("toml", ".".join("a" * min(depth, 5_000)) + " = 1") for depth in DEPTHS),
    *(("toml", f"[{'.'.join('a' * min(depth, 5_000))}]") for depth in DEPTHS),
    *(("json", "[" * depth + "]" * depth) for depth in DEPTHS),
    *(("json", '{"machines":' * depth + "1" + "}" * depth) for depth in DEPTHS),
    *(("json", '{"x":' * depth + '"\\ud800"' + "}" * depth) for depth in DEPTHS),
    *(("json", '{"x":' * depth + '{"y":1,"y":2}' + "}" * depth) for depth in DEPTHS),
    *(
        (
            "json",
            '{"instances":{"wireguard":{"roles":{"peer":{"settings":'
            + '{"imports":[' * depth
            + '{"x":1}'
            + "]}" * depth
            + "}}}}}",
        )
        for depth in DEPTHS
    ),
]


@pytest.mark.parametrize(("file_format", "text"), DEEP, ids=range(len(DEEP)))
def test_deep_nesting(file_format: Format, text: str) -> None:
    feed(text, file_format)


ODD = [
    ("toml", "machines.server1.deploy.port = " + "9" * 10_000),
    ("toml", "machines.server1.deploy.port = " + "9" * 1_000),
    ("toml", "machines.server1.deploy.port = 0x" + "f" * 10_000),
    ("toml", "x = 1979-99-99"),
    ("toml", 'x = "\\ud800"'),
    ("toml", "x = '\ud800'"),
    ("toml", "\x00"),
    ("toml", "x = 1\ry = 2"),
    ("toml", "\ufeff\ufeff"),
    ("toml", "[[instances]]\n[instances.x]\n[[instances]]\n"),
    ("toml", '"" = 1\n"\\u0000" = {}\n'),
    ("json", '{"machines": {"server1": {"deploy": {"port": ' + "9" * 10_000 + "}}}}"),
    ("json", '{"machines": {"server1": {"deploy": {"port": ' + "9" * 1_000 + "}}}}"),
    ("json", '{"machines": {"server1": {"deploy": {"port": 1e999}}}}'),
    ("json", '{"machines": {"server1": {"deploy": {"port": -0}}}}'),
    ("json", '{"a": "NaN", "b": NaN}'),
    ("json", '{"\\ud800": "\\udc00\\ud800", "instances": {"\\ud800": 1}}'),
    ("json", '{"instances": {"wireguard": {"roles": {"peer": {"settings": {"interface": "\\udc00"}}}}}}'),
    ("json", '{"a": 1, "a": NaN}'),
    ("json", '{"": {"": 1, "": 2}}'),
    ("json", '"\\u0000"'),
    ("json", ""),
    ("json", "\ufeff"),
    ("json", "\x00"),
]


@pytest.mark.parametrize(("file_format", "text"), ODD, ids=range(len(ODD)))
def test_odd_texts(file_format: Format, text: str) -> None:
    feed(text, file_format)
