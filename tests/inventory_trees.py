"""Inventories as trees that are right, and ways to write them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

from hypothesis import strategies as st

from strategies import instance_names, machine_names

Tree: TypeAlias = dict[str, Any]
Style: TypeAlias = Literal["dotted", "tables", "inline"]

STYLES: tuple[Style, ...] = ("dotted", "tables", "inline")
TAGS = ("laptop", "büro 2")

_mtus = st.integers(1280, 65535)
_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    """A tree that reads without error: machines in or out of a table, in roles by name or by tag, settings anywhere."""
    names = draw(st.lists(machine_names, min_size=2, max_size=7, unique=True))
    instances = draw(st.lists(instance_names, min_size=1, max_size=2, unique=True))
    tagged = draw(st.booleans())
    tree: Tree = {"instances": {}}
    if tagged or draw(st.booleans()):
        tree["machines"] = {name: draw(_machines(tagged)) for name in names}
    if draw(st.booleans()):
        tree["meta"] = {"name": "burrow", "description": draw(_texts)}
    for number, instance in enumerate(instances):
        split = draw(st.integers(1, len(names) - 1))
        members = draw(st.permutations(names))
        tree["instances"][instance] = {
            "module": {"name": "wireguard"},
            "roles": draw(_roles(tree, members[:split], members[split:], 51820 + number)),
        }
    return tree


@st.composite
def _machines(draw: st.DrawFn, tagged: bool) -> Tree:
    machine: Tree = {}
    if tagged:
        machine["tags"] = draw(st.lists(st.sampled_from(TAGS), max_size=1))
    if draw(st.booleans()):
        machine["description"] = draw(_texts)
    if draw(st.booleans()):
        machine["deploy"] = {"host": "root@192.0.2.1", "port": draw(st.integers(1, 65535))}
    if draw(st.booleans()):
        machine["managed"] = draw(st.booleans())
    return machine


@st.composite
def _roles(draw: st.DrawFn, tree: Tree, controllers: Sequence[str], peers: Sequence[str], port: int) -> Tree:
    entries: Tree = {name: {"settings": {"endpoint": f"{name}.example.com"}} for name in controllers}
    controller: Tree = {"machines": entries, "settings": {"port": port}}
    if draw(st.booleans()):
        entries[draw(st.sampled_from(controllers))]["settings"]["mtu"] = draw(_mtus)
    settings = st.fixed_dictionaries(
        {}, optional={"mtu": _mtus, "controller": st.sampled_from(controllers), "interface": st.just(f"wg{port}")}
    )
    peer: Tree = {
        "machines": {name: draw(st.sampled_from(({}, {"settings": draw(settings)}))) for name in peers},
        "settings": {"controller": draw(st.sampled_from(controllers)), **draw(settings)},
    }
    free = _tags_without(tree, controllers)
    if free:
        peer["tags"] = {tag: {"settings": draw(settings)} for tag in free}
    return {"controller": controller, "peer": peer}


def _tags_without(tree: Tree, machines: Iterable[str]) -> list[str]:
    """Tags that somebody has, but none of these machines."""
    tags = {name: machine.get("tags", []) for name, machine in tree.get("machines", {}).items()}
    theirs = {tag for name in machines for tag in tags.get(name, [])}
    return sorted({tag for each in tags.values() for tag in each} - theirs)


def to_toml(tree: Mapping[str, Any], style: Style) -> str:
    """The tree as TOML, in one of the ways in which people write it."""
    if style == "inline":
        return "".join(f"{_key(key)} = {_value(value)}\n" for key, value in tree.items())
    lines: list[str] = []
    _write(tree, (), style, lines)
    return "\n".join(lines) + "\n"


def _write(tree: Mapping[str, Any], path: tuple[str, ...], style: Style, lines: list[str]) -> None:
    if style == "tables" and path:
        lines.append(f"\n[{'.'.join(path)}]")
    tables = {key: value for key, value in tree.items() if isinstance(value, dict) and (value or style == "tables")}
    prefix = path if style == "dotted" else ()
    for key, value in tree.items():
        if key not in tables:
            lines.append(f"{'.'.join((*prefix, _key(key)))} = {_value(value)}")
    for key, value in tables.items():
        _write(value, (*path, _key(key)), style, lines)


def _key(key: str) -> str:
    return key if key.isascii() and key.replace("-", "").replace("_", "").isalnum() else _value(key)


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(key)} = {_value(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
