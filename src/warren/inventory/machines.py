"""Who there is: the machines of the inventory, and who has which tag."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from warren.inventory.findings import Path
from warren.inventory.model import Deploy, Machine
from warren.inventory.report import Report
from warren.inventory.wording import listed, quoted
from warren.names import MachineName

if TYPE_CHECKING:
    from warren.inventory import schema

ALL = "all"

_DEFAULT_DEPLOY = Deploy()


@dataclass(frozen=True, slots=True)
class Machines:
    """Machines by name, and the names behind each tag, both in order."""

    by_name: Mapping[MachineName, Machine]
    by_tag: Mapping[str, Sequence[MachineName]]


def read_machines(tree: schema.Tree, report: Report) -> Machines:
    """The machines of the table; without one, those that the roles name."""
    paths = _paths(tree)
    _check_distinct(paths, report)
    tags_from_table = _tags_from_table(tree, paths, report)
    entries = tree.get("machines", {})
    tag_sets: dict[tuple[str, ...], frozenset[str]] = {}  # fleets have few different ones
    by_tag: dict[str, list[MachineName]] = {ALL: []}
    machines = {}
    for name in sorted(paths):
        entry = entries.get(name, _NO_ENTRY)
        tags = (*entry.get("tags", ()), *tags_from_table.get(name, ()))
        if tags not in tag_sets:
            tag_sets[tags] = frozenset((ALL, *tags))
        description, managed = entry.get("description") or "", entry.get("managed") is not False
        deploy, expires_unix_s = _deploy(name, entry, report), _expires(name, entry, report)
        has_vault_keys = entry.get("keys") == "vault"
        machines[name] = Machine(name, tag_sets[tags], description, deploy, managed, expires_unix_s, has_vault_keys)
        for tag in tag_sets[tags]:
            by_tag.setdefault(tag, []).append(name)
    return Machines(machines, dict(sorted(by_tag.items())))


_NO_ENTRY: schema.Machine = {}


def _paths(tree: schema.Tree) -> dict[MachineName, Path]:
    """Every machine's name, and where it stands."""
    if "machines" in tree:
        return {MachineName(name): ("machines", name) for name in tree["machines"]}
    paths: dict[MachineName, Path] = {}
    for path, names in _named_by_roles(tree):
        for name in names:
            paths.setdefault(MachineName(name), (*path, name))
    return paths


def _named_by_roles(tree: schema.Tree) -> Iterator[tuple[Path, Sequence[str]]]:
    for instance, entry in tree.get("instances", {}).items():
        roles = entry.get("roles", {})
        path = ("instances", instance, "roles")
        yield (*path, "controller", "machines"), tuple(roles.get("controller", {}).get("machines", {}))
        yield (*path, "peer", "machines"), tuple(roles.get("peer", {}).get("machines", {}))


def _check_distinct(paths: Mapping[MachineName, Path], report: Report) -> None:
    first: dict[str, MachineName] = {}
    for name, path in paths.items():
        other = first.setdefault(name.lower(), name)
        if other != name:
            message = f"machines {quoted(other)} and {quoted(name)} differ only in case, and host names have no case"
            report.add(path, message, "write one name for one machine, or choose another for the second", at_key=True)


def _tags_from_table(
    tree: schema.Tree, machines: Mapping[MachineName, Path], report: Report
) -> dict[MachineName, list[str]]:
    tags: dict[MachineName, list[str]] = {}
    for tag, names in tree.get("tags", {}).items():
        for index, text in enumerate(names):
            name = MachineName(text)
            if name not in machines:
                report.add(("tags", tag, index), *unknown_machine(name, machines, report))
            tags.setdefault(name, []).append(tag)
    return tags


def unknown_machine(name: str, known: Mapping[MachineName, object], report: Report) -> tuple[str, str]:
    """The message, and how to mend it."""
    nearest = report.nearest.to(name, tuple(known))
    question = f"did you mean {quoted(nearest)}? " if nearest else ""
    new = f"{report.dotted('machines', name)} = {{}}"
    mend = f"{question}Machines: {listed(known) or 'none'}; a new one is added with {new}"
    return f"there is no machine {quoted(name)}", mend


def _expires(name: MachineName, entry: schema.Machine, report: Report) -> int | None:
    text = entry.get("expires")
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        report.add(("machines", name, "expires"), f"there is no such time: {quoted(text)}", "write a day: 2026-12-31")
        return None
    if len(text) == len("2026-12-31"):
        moment += timedelta(days=1)
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def _deploy(name: MachineName, entry: schema.Machine, report: Report) -> Deploy:
    tree = entry.get("deploy")
    if not tree:
        return _DEFAULT_DEPLOY
    host, clans_host = tree.get("host"), tree.get("targetHost")
    if host and clans_host and host != clans_host:
        message = f"host {quoted(host)} and targetHost {quoted(clans_host)} are two names of one setting, and differ"
        report.add(("machines", name, "deploy", "targetHost"), message, "remove one of them")
    return Deploy(host or clans_host or "", tree.get("port"), tree.get("via") or "", tree.get("pull") is True)
