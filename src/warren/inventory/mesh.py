"""One instance: its roles put together, and what no single role can show."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv6Network
from itertools import pairwise
from typing import TYPE_CHECKING

from warren.inventory.findings import Path
from warren.inventory.machines import Machines
from warren.inventory.model import Controller, Instance, PeerMachine
from warren.inventory.report import Report
from warren.inventory.roles import Role, read_role
from warren.inventory.settings import Setting
from warren.inventory.wording import listed, quoted
from warren.names import (
    INTERFACE_NAME_BYTES,
    InstanceName,
    InterfaceName,
    MachineName,
    interface_name_problem,
    is_host_name,
)
from warren.wireguard.device import parse_route
from warren.wireguard.endpoint import DEFAULT_PORT, Endpoint, parse_endpoint

if TYPE_CHECKING:
    from warren.inventory import schema


@dataclass(frozen=True, slots=True)
class Mesh:
    """An instance as it was read. `instance` holds all members only when nothing was found."""

    instance: Instance
    path: Path
    controller: Role
    peer: Role


def read_mesh(name: InstanceName, tree: schema.Instance, machines: Machines, report: Report) -> Mesh:
    path = ("instances", name)
    controller = read_role("controller", path, tree, machines, report)
    peer = read_role("peer", path, tree, machines, report)
    _check_members(name, controller, peer, report)
    _check_interface(name, controller, peer, machines, report)
    domain = _domain(name, controller, peer, report)
    controllers = _controllers(name, controller, machines, report)
    _check_endpoints_distinct(controllers, controller, machines, report)
    _check_routes_distinct(controllers, controller, machines, report)
    _check_controller_settings(name, controller, peer, machines, report)
    peers = _peers(name, controller, peer, machines, report)
    psk, psk_command = _preshared(path, tree, report)
    return Mesh(Instance(name, domain, controllers, peers, psk, psk_command), path, controller, peer)


def _preshared(path: Path, tree: schema.Instance, report: Report) -> tuple[bool, str]:
    psk, command = tree.get("psk") is True, tree.get("psk_command") or ""
    if psk and command:
        message = "psk and psk_command contradict each other: a pair has one preshared key"
        report.add((*path, "psk_command"), message, "remove one of them", at_key=True)
    return psk, command


def _check_members(name: InstanceName, controller: Role, peer: Role, report: Report) -> None:
    for machine in sorted(controller.entered.keys() & peer.entered.keys()):
        way_in = peer.entered[machine]
        tag = next((tag for tag, path in peer.tags.items() if path == way_in), None)
        mend = "remove it from one of the two roles"
        if tag is not None:
            mend = f"give the peers a tag of their own, and name that one in place of {quoted(tag)}"
        message = f"machine {quoted(machine)} is a controller and a peer of instance {quoted(name)}"
        report.add(way_in, message, mend, at_key=True)
    if controller.entered or controller.doubtful:
        return
    what = "no controller" if peer.entered or peer.doubtful else "no machines"
    option = report.dotted(*controller.path, "machines", "NAME", "settings", "endpoint")
    mend = f"name a machine that the others can reach: set {option} to its host name or address"
    report.add(("instances", name), f"instance {quoted(name)} has {what}", mend, at_key=True)


def _check_interface(name: InstanceName, controller: Role, peer: Role, machines: Machines, report: Report) -> None:
    problem = interface_name_problem(name)
    if problem is None or not is_host_name(name):  # a bad name has its own finding
        return
    roles = [
        role.path[-1]
        for role in (controller, peer)
        if any("interface" not in role.settings(machine, machines) for machine in role.entered)
    ]
    if not roles:
        return
    better = name[:INTERFACE_NAME_BYTES].rstrip("-_") if len(name) > INTERFACE_NAME_BYTES else f"wg-{name}"
    options = " and ".join(report.dotted("instances", name, "roles", role, "settings", "interface") for role in roles)
    report.add(
        ("instances", name),
        f"{quoted(name)} cannot be the name of an interface: {problem}",
        f"set {options} to another name, such as {quoted(better)}",
        at_key=True,
    )


def _domain(name: InstanceName, controller: Role, peer: Role, report: Report) -> str:
    written = list(_written("domain", controller, peer))
    for setting in written[1:]:
        if setting.value.lower() != written[0].value.lower():
            where = report.dotted(*written[0].path)
            message = f"domain {quoted(setting.value)} is not {quoted(written[0].value)}, which {where} says"
            report.add(setting.path, message, "an instance has one domain: write the same, or remove one of them")
    return written[0].value if written else str(name)


def _written(option: str, *roles: Role) -> Iterator[Setting]:
    """The option wherever it was set."""
    for role in roles:
        for settings in role.layers.everything():
            if option in settings:
                yield settings[option]


def _controllers(name: InstanceName, role: Role, machines: Machines, report: Report) -> dict[MachineName, Controller]:
    controllers = {}
    without_endpoint = []
    for machine in sorted(role.entered):
        settings = role.settings(machine, machines)
        port = settings["port"].value if "port" in settings else DEFAULT_PORT
        if "endpoint" in settings:
            endpoint = _endpoint(settings["endpoint"].value, port)
            if endpoint:
                interface = InterfaceName(settings["interface"].value if "interface" in settings else name)
                mtu_bytes = settings["mtu"].value if "mtu" in settings else None
                routes = _routes(settings["routes"].value) if "routes" in settings else ()
                in_vault = has_vault_key(role, machine, machines)
                controllers[machine] = Controller(machine, endpoint, port, interface, mtu_bytes, routes, in_vault)
        elif not role.may_have_set("endpoint", machine, machines, report):
            without_endpoint.append(machine)
    for path, members in role.ways_in(without_endpoint).items():
        who = f"controller {quoted(members[0])} has" if len(members) == 1 else f"controllers {listed(members)} have"
        option = report.dotted(*role.path, "machines", members[0], "settings", "endpoint")
        mend = f"set {option} to the host name or address at which others reach it"
        report.add(path, f"{who} no endpoint", mend, at_key=True)
    return controllers


def has_vault_key(role: Role, machine: MachineName, machines: Machines) -> bool:
    """As the settings say, or the machine for all of its meshes."""
    setting = role.settings(machine, machines).get("keys")
    return setting.value == "vault" if setting else machines.by_name[machine].has_vault_keys


def _endpoint(text: str, port: int) -> Endpoint | None:
    """None where the text is wrong, which has its finding already."""
    try:
        return parse_endpoint(text, port)
    except ValueError:
        return None


def _routes(texts: list[str]) -> tuple[IPv6Network, ...]:
    """Those that are right; the others have their findings already."""
    found = set()
    for text in texts:
        with suppress(ValueError):
            found.add(parse_route(text))
    return tuple(sorted(found))


def _check_routes_distinct(
    controllers: dict[MachineName, Controller], role: Role, machines: Machines, report: Report
) -> None:
    """WireGuard leads an address to one machine, so a network lies behind one of them."""
    everything = sorted((network, name) for name, each in controllers.items() for network in each.routes)
    for (network, one), (inner, other) in pairwise(everything):
        if network.overlaps(inner):
            path, at_key = role.place(other, role.settings(other, machines).get("routes"))
            message = f"routes: {inner} of controller {quoted(other)} lies within {network} of controller {quoted(one)}"
            report.add(path, message, "an address is reached through one of them: name the network once", at_key=at_key)


def _check_endpoints_distinct(
    controllers: dict[MachineName, Controller], role: Role, machines: Machines, report: Report
) -> None:
    first: dict[Endpoint, MachineName] = {}
    for machine, controller in controllers.items():
        other = first.setdefault(controller.endpoint, machine)
        if other != machine:
            path, at_key = role.place(machine, role.settings(machine, machines).get("endpoint"))
            option = report.dotted(*role.path, "machines", machine, "settings", "endpoint")
            message = f"controllers {quoted(other)} and {quoted(machine)} have one endpoint: {controller.endpoint}"
            report.add(path, message, f"set {option} to where {machine} is reached", at_key=at_key)


def _check_controller_settings(
    name: InstanceName, controller: Role, peer: Role, machines: Machines, report: Report
) -> None:
    """Whether the controllers that peers name are controllers."""
    if not controller.entered:
        return
    known = sorted(controller.entered)
    for setting in _written("controller", peer):
        chosen = setting.value
        if chosen in controller.entered or (controller.doubtful and chosen in machines.by_name):
            continue
        message = f"{_who(setting.path)} names controller {quoted(chosen)}, "
        message += f"which is not a controller of instance {quoted(name)}"
        mend = report.nearest.hint(chosen, known, f"controllers of {quoted(name)}")
        report.add(setting.path, message, mend)


def _who(path: Path) -> str:
    """Whose setting it is, in words."""
    where, name = path[4], path[5]
    if where == "machines":
        return f"peer {quoted(str(name))}"
    return f"tag {quoted(str(name))}" if where == "tags" else "the role peer"


def _peers(
    name: InstanceName, controller: Role, role: Role, machines: Machines, report: Report
) -> dict[MachineName, PeerMachine]:
    peers = {}
    undecided = []
    default = next(iter(controller.entered)) if len(controller.entered) == 1 else None
    for machine in sorted(role.entered):
        settings = role.settings(machine, machines)
        designated = settings["controller"].value if "controller" in settings else default
        if designated is not None:
            interface = InterfaceName(settings["interface"].value if "interface" in settings else name)
            mtu_bytes = settings["mtu"].value if "mtu" in settings else None
            in_vault = has_vault_key(role, machine, machines)
            peers[machine] = PeerMachine(machine, MachineName(designated), interface, mtu_bytes, in_vault)
        elif controller.entered and not role.may_have_set("controller", machine, machines, report):
            undecided.append(machine)
    for path, members in role.ways_in(undecided).items():
        _undecided(name, path, members, controller, role, report)
    return peers


def _undecided(
    name: InstanceName, path: Path, members: list[MachineName], controller: Role, role: Role, report: Report
) -> None:
    who = f"peer {quoted(members[0])} names" if len(members) == 1 else f"peers {listed(members)} name"
    known = sorted(controller.entered)
    where = path if path[-2] == "machines" else role.path
    option = report.dotted(*where, "settings", "controller")
    report.add(
        path,
        f"{who} no controller, and instance {quoted(name)} has {len(known)}",
        f"set {option} to the one whose subnet the name shall point into: {listed(known)}",
        at_key=True,
    )
