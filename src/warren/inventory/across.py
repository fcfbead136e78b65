"""What only several instances together can show: one machine cannot be the same thing twice."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from warren.inventory.machines import Machines
from warren.inventory.mesh import Mesh
from warren.inventory.report import Report
from warren.inventory.wording import quoted
from warren.names import InstanceName, MachineName
from warren.wireguard.endpoint import DEFAULT_PORT


def check_across(meshes: Sequence[Mesh], machines: Machines, report: Report) -> None:
    _check_expiries(meshes, machines, report)
    _check_pulls(meshes, machines, report)
    if len(meshes) > 1:
        _check_names(meshes, report)
        _check_ports(meshes, machines, report)
        _check_interfaces(meshes, machines, report)
        _check_domains(meshes, report)


def _check_expiries(meshes: Sequence[Mesh], machines: Machines, report: Report) -> None:
    """The operator's own way must not run out: through controllers, and through jump hosts."""
    controllers = {machine for mesh in meshes for machine in mesh.controller.entered}
    jumps = {hop.rpartition("@")[2] for each in machines.by_name.values() for hop in each.deploy.via.split(",")}
    domains = [mesh.instance.domain for mesh in meshes]
    for name, machine in machines.by_name.items():
        if machine.expires_unix_s is None:
            continue
        known_as = {name, machine.deploy.host.rpartition("@")[2], *(f"{name}.{domain}" for domain in domains)}
        if name in controllers:
            what = "is a controller, which others are reached through"
        elif known_as & (jumps - {""}):
            what = "is the way to others (deploy.via)"
        else:
            continue
        report.add(
            ("machines", name, "expires"),
            f"machine {quoted(name)} {what}, and cannot expire",
            "remove it; to take the machine out, take it out of the inventory",
        )


def _check_pulls(meshes: Sequence[Mesh], machines: Machines, report: Report) -> None:
    """Controllers hand documents out: they are brought theirs."""
    for name in sorted({machine for mesh in meshes for machine in mesh.controller.entered}):
        if machines.by_name[name].deploy.pull:
            report.add(
                ("machines", name, "deploy", "pull"),
                f"machine {quoted(name)} is a controller, and controllers hand documents out: they fetch none",
                "remove it, and let deploy.host say how ssh reaches it",
            )


def _check_names(meshes: Sequence[Mesh], report: Report) -> None:
    first: dict[str, InstanceName] = {}
    for mesh in meshes:
        name = mesh.instance.name
        other = first.setdefault(name.lower(), name)
        if other != name:
            message = f"instances {quoted(other)} and {quoted(name)} differ only in case, and host names have no case"
            report.add(mesh.path, message, "rename one of them", at_key=True)


def _check_ports(meshes: Sequence[Mesh], machines: Machines, report: Report) -> None:
    used: dict[MachineName, dict[int, InstanceName]] = {}
    clashes = []
    for mesh in meshes:
        for machine in mesh.controller.entered:
            setting = mesh.controller.settings(machine, machines).get("port")
            port = setting.value if setting else DEFAULT_PORT
            other = used.setdefault(machine, {}).setdefault(port, mesh.instance.name)
            if other != mesh.instance.name and not mesh.controller.may_have_set("port", machine, machines, report):
                clashes.append((mesh, other, machine, port, setting))
    for mesh, other, machine, port, setting in clashes:
        path, at_key = mesh.controller.place(machine, setting)
        free = next(free for free in chain(range(port + 1, 0x10000), range(1024, port)) if free not in used[machine])
        used[machine][free] = mesh.instance.name
        option = report.dotted(*mesh.controller.path, "machines", machine, "settings", "port")
        report.add(
            path,
            f"machine {quoted(machine)} listens on UDP port {port} in instances {quoted(other)} and "
            f"{quoted(mesh.instance.name)}",
            f"set {option} to another port, such as {free}",
            at_key=at_key,
        )


def _check_interfaces(meshes: Sequence[Mesh], machines: Machines, report: Report) -> None:
    first: dict[tuple[MachineName, str], InstanceName] = {}
    for mesh in meshes:
        for role in (mesh.controller, mesh.peer):
            for machine in role.entered:
                setting = role.settings(machine, machines).get("interface")
                interface = setting.value if setting else mesh.instance.name
                other = first.setdefault((machine, interface), mesh.instance.name)
                if other == mesh.instance.name:
                    continue
                path, at_key = role.place(machine, setting)
                option = report.dotted(*role.path, "machines", machine, "settings", "interface")
                report.add(
                    path,
                    f"instances {quoted(other)} and {quoted(mesh.instance.name)} both have the interface "
                    f"{quoted(interface)} on machine {quoted(machine)}",
                    f"{'remove the setting, or ' if setting else ''}set {option} to another name",
                    at_key=at_key,
                )


def _check_domains(meshes: Sequence[Mesh], report: Report) -> None:
    """A machine in two meshes of one domain would have two addresses under each name."""
    seen: list[Mesh] = []
    for mesh in meshes:
        members = mesh.controller.entered.keys() | mesh.peer.entered.keys()
        domain = mesh.instance.domain
        for other in seen:
            shared = members & (other.controller.entered.keys() | other.peer.entered.keys())
            if shared and other.instance.domain.lower() == domain.lower() and not _same_name(mesh, other):
                name = f"{min(shared)}.{domain}"
                report.add(
                    mesh.path,
                    f"instances {quoted(other.instance.name)} and {quoted(mesh.instance.name)} both have the domain "
                    f"{quoted(domain)} and a machine in common: {name} would have two addresses",
                    f"set another domain in one of them, such as {quoted(f'{mesh.instance.name}.internal')}",
                    at_key=True,
                )
        seen.append(mesh)


def _same_name(mesh: Mesh, other: Mesh) -> bool:
    """Whether the names differ only in case, which has a finding of its own."""
    return mesh.instance.name.lower() == other.instance.name.lower()
