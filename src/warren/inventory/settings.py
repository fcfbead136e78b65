"""Settings of one role: of the role, of its tags, of its machines; the nearer wins."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from warren.inventory.findings import Path


class Setting(NamedTuple):
    """What was set, and where."""

    value: Any
    path: Path


Settings: TypeAlias = dict[str, Setting]


@dataclass(frozen=True, slots=True)
class Layers:
    """What one role sets, near and far."""

    role: Settings
    tags: Mapping[str, Settings]
    machines: Mapping[str, Settings]

    def of(self, machine: str, tags: Container[str]) -> Settings:
        """What holds for a machine with these tags."""
        merged = self.role
        for tag, settings in self.tags.items():
            if tag in tags:
                merged = merged | settings
        own = self.machines.get(machine)
        return merged | own if own else merged

    def disagreements(self, machine: str, tags: Container[str]) -> Iterator[tuple[str, str, str]]:
        """Options that two of the tags set differently and the machine does not set: option, tag, other tag."""
        own = self.machines.get(machine, {})
        first: dict[str, str] = {}
        for tag in (tag for tag in self.tags if tag in tags):
            for option, setting in self.tags[tag].items():
                other = first.setdefault(option, tag)
                if option not in own and self.tags[other][option].value != setting.value:
                    yield option, other, tag

    def everything(self) -> Iterator[Settings]:
        """Each place where something is set, far to near."""
        yield self.role
        yield from self.tags.values()
        yield from self.machines.values()


def layers(role: Mapping[str, Any], path: Path) -> Layers:
    """The settings in the tree of a role at `path`."""
    tags = role.get("tags", {})
    return Layers(
        role=_settings(role, path),
        tags=_of_entries(tags, (*path, "tags")) if isinstance(tags, dict) else {},
        machines=_of_entries(role.get("machines", {}), (*path, "machines")),
    )


def _of_entries(entries: Mapping[str, Any], path: Path) -> dict[str, Settings]:
    return {name: found for name, entry in entries.items() if entry and (found := _settings(entry, (*path, name)))}


def _settings(entry: Mapping[str, Any], path: Path) -> Settings:
    """The settings of a role or an entry; those that clan evaluated come wrapped: `{"imports": [{…}]}`."""
    found: Settings = {}
    tree, path = entry.get("settings", {}), (*path, "settings")
    while tree:
        for option, value in tree.items():
            if value is not None and option not in ("imports", "_file"):
                found.setdefault(option, Setting(value, (*path, option)))
        wrapped = tree.get("imports")
        tree, path = (wrapped[0], (*path, "imports", 0)) if wrapped else ({}, path)
    return found
