"""Text, or a tree that somebody else read -> Inventory, or every problem at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from warren.errors import InventoryError
from warren.inventory.check import check
from warren.inventory.findings import Finding, Locate, Place, problems
from warren.inventory.model import Inventory
from warren.inventory.modules import notes_on, report_nothing, set_others_aside
from warren.inventory.parse import Format, parse
from warren.inventory.report import Report
from warren.inventory.wording import quoted, shown

_WRAPPER = "inventory"


def read(text: str, file_format: Format, file: str) -> Inventory:
    """Read an inventory; `file` is what errors call it. InventoryError holds all problems, in the order of the file."""
    text = text.removeprefix("\ufeff")  # some editors begin a file with a byte order mark

    def locate(findings: Sequence[Finding]) -> Sequence[Place]:
        from warren.inventory import positions  # only when there is something to show

        find = positions.places_in_toml if file_format == "toml" else positions.places_in_json
        return find(text, findings)

    return read_tree(parse(text, file_format, file, locate), file, locate)


def read_tree(tree: dict[str, Any], file: str, locate: Locate) -> Inventory:
    """Check a tree of dicts, lists, texts and numbers; do not use it afterwards: where it is wrong, it is changed."""
    report = Report()
    inventory = _check(_unwrapped(tree, report), report)
    if report.findings:
        raise InventoryError(problems(report.findings, file, locate))
    return inventory


def _check(tree: dict[str, Any], report: Report) -> Inventory:
    from warren.inventory.shape import mend_shape  # with pydantic, which takes longer to import than all else

    tree, others = set_others_aside(tree)
    shaped = mend_shape(tree, report)
    if not shaped.get("instances") and not report.findings:
        report_nothing(others, report)
    return check(shaped, notes_on(others), report)


def _unwrapped(tree: dict[str, Any], report: Report) -> dict[str, Any]:
    """The tree that has `instances`: a whole clan has it under `inventory`."""
    if _WRAPPER not in tree:
        return tree
    for key in sorted(tree.keys() - {_WRAPPER, "meta"}):
        message = f"{quoted(key)} stands beside {quoted(_WRAPPER)}"
        report.add((key,), message, f"move it into {quoted(_WRAPPER)}, or remove it", at_key=True)
    inner = tree[_WRAPPER]
    if not isinstance(inner, dict):
        report.add((_WRAPPER,), f"{quoted(_WRAPPER)} must be a table, this is {shown(inner)}", "write [inventory]")
        return {}
    report.root = (_WRAPPER,)
    return {"meta": tree["meta"], **inner} if "meta" in tree else inner
