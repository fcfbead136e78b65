"""Who is in a role of an instance, how they came in, and what is set for them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from warren.inventory.findings import Path
from warren.inventory.machines import Machines, unknown_machine
from warren.inventory.report import Report
from warren.inventory.settings import Layers, Setting, Settings, layers
from warren.inventory.wording import quoted, shown
from warren.names import MachineName, interface_name_problem, is_domain
from warren.wireguard.device import parse_route
from warren.wireguard.endpoint import parse_endpoint

if TYPE_CHECKING:
    from warren.inventory import schema

_OPTIONS = (
    "endpoint",
    "port",
    "domain",
    "mtu",
    "interface",
    "routes",
    "keys",
)  # besides `controller`, which is a role too

RoleName: TypeAlias = Literal["controller", "peer"]


@dataclass(frozen=True, slots=True)
class Role:
    """One role of one instance. `entered` says for each member at which key it comes in: its name or a tag."""

    path: Path
    entered: dict[MachineName, Path]
    layers: Layers
    tags: dict[str, Path]
    doubtful: bool  # something about its members was wrong: somebody may be missing

    def settings(self, machine: MachineName, machines: Machines) -> Settings:
        tags = machines.by_name[machine].tags if self.layers.tags else ()
        return self.layers.of(machine, tags)

    def place(self, machine: MachineName, setting: Setting | None) -> tuple[Path, bool]:
        """Where to show something about a setting of the machine, and whether at the key: where it was not set."""
        return (setting.path, False) if setting else (self.entered[machine], True)

    def may_have_set(self, option: str, machine: MachineName, machines: Machines, report: Report) -> bool:
        """Whether something that was wrong where the machine's settings come from may have been meant to be this."""
        tags = machines.by_name[machine].tags
        sources = [(*self.path, "settings"), (*self.path, "machines", machine)]
        sources += [path for tag, path in self.tags.items() if tag in tags]
        broken = report.broken_but_for(*(other for other in _OPTIONS if other != option))
        return any(broken.within(path) for path in sources)

    def ways_in(self, members: list[MachineName]) -> dict[Path, list[MachineName]]:
        """The members by how they came in: one mistake in a tag is one finding."""
        ways: dict[Path, list[MachineName]] = {}
        for machine in members:
            ways.setdefault(self.entered[machine], []).append(machine)
        return ways


def read_role(name: RoleName, instance: Path, tree: schema.Instance, machines: Machines, report: Report) -> Role:
    """The role, its members checked to exist and its settings to be what they can be."""
    role = tree.get("roles", {}).get(name, {})
    path = (*instance, "roles", name)
    doubtful = report.broken.within(path) or any(
        report.broken.directly_in(above) for above in (instance, (*instance, "roles"))
    )
    entered: dict[MachineName, Path] = {}
    for text in role.get("machines", {}):
        machine = MachineName(text)
        place = (*path, "machines", text)
        if machine in machines.by_name:
            entered[machine] = place
        else:
            doubtful = True
            report.add(place, *unknown_machine(text, machines.by_name, report), at_key=True)
    tags = dict(_tags(role, path))
    for tag, place in tags.items():
        if tag not in machines.by_tag:
            doubtful = True
            _unknown_tag(tag, place, machines, report)
        for machine in machines.by_tag.get(tag, ()):
            entered.setdefault(machine, place)
    found = Role(path, entered, layers(role, path), tags, doubtful)
    _check_values(found, report)
    _check_agreement(found, machines, report)
    return found


def _tags(role: schema.ControllerRole | schema.PeerRole, path: Path) -> Iterator[tuple[str, Path]]:
    tags: object = role.get("tags", {})
    if isinstance(tags, list):
        yield from ((tag, (*path, "tags", index)) for index, tag in enumerate(tags))
    elif isinstance(tags, dict):
        yield from ((tag, (*path, "tags", tag)) for tag in tags)


def _unknown_tag(tag: str, path: Path, machines: Machines, report: Report) -> None:
    broken = report.broken_but_for("deploy", "description")
    if broken.within(("machines",)) or broken.within(("tags",)):
        return  # there it may have been given to somebody
    mend = report.nearest.hint(tag, machines.by_tag, "tags")
    report.add(path, f"no machine has the tag {quoted(tag)}", mend, at_key=True)


def _check_values(role: Role, report: Report) -> None:
    """What stands in the settings, each where it was written; controllers' names are checked when all are known."""
    for settings in role.layers.everything():
        for option, (value, path) in settings.items():
            if option == "routes":
                _check_routes(value, path, report)
            elif wrong := _wrong(option, value):
                report.add(path, *wrong)


def _check_routes(texts: list[str], path: Path, report: Report) -> None:
    for index, text in enumerate(texts):
        try:
            parse_route(text)
        except ValueError as error:
            mend = "write a network in IPv6 such as 2001:db8:5::/64"
            report.add((*path, index), f"routes: {quoted(text)} {error}", mend)


def _wrong(option: str, value: str) -> tuple[str, str] | None:
    """What is wrong with a value, and how to mend it; what a number can be, the shape has checked."""
    if option == "endpoint":
        return _wrong_endpoint(value)
    if option == "domain" and not is_domain(value):
        return f"{quoted(value)} cannot be a domain", 'write host names with dots between them, such as "vpn.internal"'
    if option == "interface" and (problem := interface_name_problem(value)):
        return f"{quoted(value)} cannot be the name of an interface: {problem}", 'choose a short one, such as "wg-vpn"'
    return None


def _wrong_endpoint(value: str) -> tuple[str, str] | None:
    if url := re.match(r"[a-z]+://(\[[^\]]*\]|[^/:]*)", value):
        return f"endpoint {quoted(value)} is a URL", f"write the host alone: {quoted(url[1])}"
    try:
        parse_endpoint(value)
    except ValueError as error:
        return (
            f"endpoint: {error}",
            'write a host such as "vpn.example.com", "192.0.2.1" or "[2001:db8::1]", or host:port',
        )
    return None


def _check_agreement(role: Role, machines: Machines, report: Report) -> None:
    if len(role.layers.tags) < 2:
        return
    seen = set()
    for machine in role.entered:
        for option, tag, other in role.layers.disagreements(machine, machines.by_name[machine].tags):
            if (option, tag, other) in seen:
                continue
            seen.add((option, tag, other))
            one, two = role.layers.tags[tag][option], role.layers.tags[other][option]
            own = report.dotted(*role.path, "machines", machine, "settings", option)
            report.add(
                two.path,
                f"tags {quoted(tag)} and {quoted(other)} set {option} differently, and {quoted(machine)} has both",
                f"set both to the same value, or set {own} to {shown(one.value)} or {shown(two.value)}",
            )
