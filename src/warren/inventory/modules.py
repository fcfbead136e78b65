"""Which instances of a tree are meshes of Warren."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from warren.inventory.report import Report
from warren.inventory.wording import listed, quoted

MODULES = ("wireguard", "@clan/wireguard")  # the second is how clan's own tests call it


def set_others_aside(tree: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The tree without the instances of other modules; and those, each with why it is not ours."""
    instances = tree.get("instances")
    if not isinstance(instances, dict):
        return tree, {}
    others = {name: reason for name, entry in instances.items() if (reason := _not_ours(name, entry))}
    ours = {name: entry for name, entry in instances.items() if name not in others}
    return {**tree, "instances": ours}, others


def _not_ours(name: str, entry: Any) -> str | None:
    """An instance that is no table, or whose module is none, is ours to complain about."""
    module = entry.get("module", {}) if isinstance(entry, dict) else None
    if not isinstance(module, dict):
        return None
    module_name = module.get("name")
    if module_name is None:
        return None if name in MODULES else "it has no module.name"  # clan takes the instance's name for it
    if not isinstance(module_name, str) or module_name in MODULES:
        return None
    return f"its module is {quoted(module_name)}"


def notes_on(others: Mapping[str, str]) -> tuple[str, ...]:
    """A line about each instance that is skipped."""
    return tuple(f"instance {quoted(name)} is skipped: {reason}" for name, reason in others.items())


def report_nothing(others: Mapping[str, str], report: Report) -> None:
    """There is no instance of ours."""
    option = report.dotted("instances", next(iter(others), "vpn"), "module", "name")
    mend = f"set {option} to {quoted(MODULES[0])}"
    if not others:
        report.add(("instances",), "there are no instances", f"{mend}; `warren init` writes an example", at_key=True)
    elif len(others) == 1:
        ((name, reason),) = others.items()
        message = f"instance {quoted(name)} is none of {quoted(MODULES[0])}: {reason}"
        report.add(("instances", name, "module", "name"), message, mend)
    else:
        message = f"none of the instances is of module {quoted(MODULES[0])}: {listed(others)}"
        report.add(("instances",), message, f"add one, or {mend}", at_key=True)
