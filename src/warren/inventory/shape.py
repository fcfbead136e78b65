"""What is wrong with the shape of a tree, in words, and the tree without it.

Whoever misspelled a key should not hear in the same breath that the key is missing: what is broken is taken out of the
tree and remembered, so that the check of the meaning goes on around it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from warren.inventory.findings import Path
from warren.inventory.modules import MODULES
from warren.inventory.report import Broken, Report
from warren.inventory.schema import KEY_AGES_DAYS, MTUS, PORTS, known_keys, shape_errors
from warren.inventory.wording import dotted, listed, quoted, shown
from warren.names import HOST_NAME_RULE

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from warren.inventory.schema import Tree

_KEY = "[key]"  # how pydantic marks an error of a key


def mend_shape(tree: dict[str, Any], report: Report) -> Tree:
    """The tree without what is wrong with its shape; the findings, and where it was broken, go to the report.

    `tree` itself is changed: of ten thousand machines no copy is made.
    """
    errors = shape_errors(tree)
    for error in errors:
        _explain(error, report)
    paths = [error["loc"] for error in errors if error["loc"][-1] != _KEY]  # a bad name breaks nothing
    paths.sort(key=len)
    for path in reversed(paths):  # what lies deeper goes first, and of a list the last item first
        _take_out(tree, path)
    report.broken = Broken.at(paths)
    return cast("Tree", tree)


def _take_out(tree: Any, path: Path) -> None:
    """An entry that should be a table stays as an empty one: the machine that it names is still named."""
    *above, last = path
    for key in above:
        tree = tree[key]
    if len(path) >= 2 and path[-2] in ("machines", "instances", "tags") and path[0] != "tags" and isinstance(last, str):
        tree[last] = {}
    else:
        del tree[last]


def _explain(error: ErrorDetails, report: Report) -> None:
    path: Path = error["loc"]
    if path[-1] == _KEY:
        _bad_name(path[:-1], report)
    elif error["type"] == "extra_forbidden":
        _unknown_key(path, report)
    else:
        explain = _EXPLANATIONS.get(error["type"])
        what = explain(path, error["input"]) if explain else (f"{_key_of(path)}: {error['msg']}", "correct the value")
        report.add(path, *what)


def _bad_name(path: Path, report: Report) -> None:
    name, kind = str(path[-1]), "an instance" if path[-2] == "instances" else "a machine"
    report.add(path, f"{quoted(name)} cannot be the name of {kind}", _better_name(name), at_key=True)


def _better_name(name: str) -> str:
    better = re.sub("[^A-Za-z0-9_-]+", "-", name)[:63].strip("-")
    example = f", such as {quoted(better)}" if better else ""
    return f"choose a name of {HOST_NAME_RULE}{example}"


def _unknown_key(path: Path, report: Report) -> None:
    above, key = path[:-1], str(path[-1])
    message = f"unknown key {quoted(key)}" + (f" in {report.dotted(*above)}" if above else "")
    mend = report.nearest.hint(key, known_keys(above), "known keys")
    report.add(path, *(_known_elsewhere(path, report) or (message, mend)), at_key=True)


def _known_elsewhere(path: Path, report: Report) -> tuple[str, str] | None:
    """What to say of a key that would be known in another place."""
    above, key = path[:-1], str(path[-1])
    role = path[3] if path[2:3] == ("roles",) and len(path) > 4 else None
    if role not in ("controller", "peer"):
        return None
    if key in _settings_of(role):
        return f"{key} stands outside of settings", f"write {report.dotted(*above, 'settings', key)}"
    other = "peer" if role == "controller" else "controller"
    if key in _settings_of(other):
        there = report.dotted(*path[:3], other)
        return f"{key} is a setting of {other}s, not of {role}s", f"remove it, or set it under {there}"
    return None


def _settings_of(role: str) -> tuple[str, ...]:
    return known_keys(("instances", "", "roles", role, "settings"))


def _needs_table(path: Path, value: Any) -> tuple[str, str]:
    message = f"{_key_of(path)} must be a table, this is {shown(value)}"
    known = known_keys(path)
    if path[-1] == "module":
        return message, f"write module.name = {quoted(value) if isinstance(value, str) else quoted(MODULES[0])}"
    if known:
        return message, f"its keys may be: {listed(known)}"
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return message, f"write {dotted((*path, value[0]))} = {{}}, and so on for each"
    return message, f"write {dotted((*path, 'NAME'))} = {{}} for each"


def _needs_list(path: Path, value: Any) -> tuple[str, str]:
    return f"{_key_of(path)} must be a list, this is {shown(value)}", (
        f"write [{quoted(value)}]" if isinstance(value, str) else 'write texts in brackets: ["one", "two"]'
    )


def _needs_text(path: Path, value: Any) -> tuple[str, str]:
    if path[-1] == "endpoint":
        return f"{_key_of(path)} must be text, this is {shown(value)}", 'write a host in quotes: "vpn.example.com"'
    simple = isinstance(value, int | float) and not isinstance(value, bool)
    example = f': "{shown(value)}"' if simple else ""
    return f"{_key_of(path)} must be text, this is {shown(value)}", f"write it in quotes{example}"


def _needs_number(path: Path, value: Any) -> tuple[str, str]:
    message = f"{_key_of(path)} must be a whole number, this is {shown(value)}"
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return f"{message}, which is text", f"write it without quotes: {value}"
    return message, "write digits only, without quotes"


def _needs_truth(path: Path, value: Any) -> tuple[str, str]:
    return f"{_key_of(path)} must be true or false, this is {shown(value)}", "write true or false, without quotes"


def _outside(path: Path, value: Any) -> tuple[str, str]:
    allowed, mend = _RANGES.get(str(path[-1]), (PORTS, _USUAL_PORT))
    if path[-2] == "deploy":
        mend = "remove it, and ssh uses its own default"
    return f"{path[-1]} {shown(value)} is outside {allowed.start}–{allowed.stop - 1}", mend


_USUAL_PORT = "choose a free UDP port of the machine; WireGuard's usual one is 51820"
_USUAL_MTU = "remove it, and the MTU is derived from the path to the endpoints; IPv6 needs 1280"
_USUAL_AGE = "choose after how many days a key should be replaced; 90 is usual"
_RANGES = {"mtu": (MTUS, _USUAL_MTU), "max_key_age_days": (KEY_AGES_DAYS, _USUAL_AGE)}


def _not_one_of(path: Path, value: Any) -> tuple[str, str]:
    mend = 'write "machine" (it makes its private key itself) or "vault" (made here, kept encrypted)'
    return f"{_key_of(path)} cannot be {shown(value)}", mend


def _bad_text(path: Path, value: Any) -> tuple[str, str]:
    if path[-1] == "name":
        return f"{quoted(value)} cannot be the inventory's name", _better_name(value)
    if path[-1] == "psk_command":
        mend = 'name a program in /etc/warren/psk-commands, which root of each machine puts there: "rosenpass"'
        return f"{quoted(value)} is no program's name", mend
    if path[-1] == "expires":
        mend = 'write the last day, or a time: "2026-12-31", "2026-12-31T18:00+01:00"'
        return f"{quoted(value)} is no day and no time", mend
    return f"{quoted(value)} is nothing that ssh can be given", 'write a host, or user@host: "root@server1.example.com"'


def _key_of(path: Path) -> str:
    return quoted(path[-1]) if isinstance(path[-1], str) else f"every item of {dotted(path[:-1][-1:])}"


_EXPLANATIONS: dict[str, Callable[[Path, Any], tuple[str, str]]] = {
    "dict_type": _needs_table,
    "list_type": _needs_list,
    "tag_list": lambda path, _: (f"every item of {dotted(path[-1:])} must be text", 'write ["laptop", "phone"]'),
    "string_type": _needs_text,
    "int_type": _needs_number,
    "literal_error": _not_one_of,
    "bool_type": _needs_truth,
    "greater_than_equal": _outside,
    "less_than": _outside,
    "string_pattern_mismatch": _bad_text,
}
