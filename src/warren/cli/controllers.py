"""`warren controllers`: the machines that carry others' traffic, and how to take one away without a lost packet."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import click

from warren.cli import EXIT_MACHINE_FAILED
from warren.cli.inventory import opened_folder
from warren.errors import UsageError
from warren.names import InstanceName, MachineName
from warren.render.columns import columns

if TYPE_CHECKING:
    from warren.fleet.ssh import Target
    from warren.fleet.status import MachineStatus
    from warren.workspace.folder import Folder

instance_option = click.option(
    "--instance", "instance", metavar="NAME", help="One mesh; else all in which it is a controller."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def controllers() -> None:
    """The controllers of the inventory, reached with ssh as `warren machines` does."""


@controllers.command("list")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_obj
def list_controllers(given: str | None, as_json: bool) -> int:
    """Each controller, whether it is drained, and what it says of the others."""
    folder = opened_folder(given)
    targets = _targets(folder, None)
    said = _asked_all(targets)
    rows = [("CONTROLLER", "INSTANCE", "STATE")]
    tree: dict[str, Any] = {}
    for name in targets:
        answer = said[name]
        for instance, document in folder.documents.items():
            if name not in document.controllers:
                continue
            draining = _draining(answer, instance)
            tree.setdefault(name, {})[instance] = {"draining": draining, "problem": answer.problem or None}
            state = "drained" if draining else "in use" if draining is False else "not known: no agent there"
            rows.append((name, instance, "not reached" if answer.problem else state))
    if as_json:
        click.echo(json.dumps({"controllers": tree}, indent=2))
    else:
        click.echo(columns(rows), nl=False)
    problems = [answer.problem for answer in said.values() if answer.problem]
    for problem in problems:
        click.echo(problem, err=True)
    return EXIT_MACHINE_FAILED if problems else 0


@controllers.command()
@click.argument("name", metavar="CONTROLLER")
@instance_option
@click.pass_obj
def drain(given: str | None, name: str, instance: str | None) -> int:
    """Have all peers leave a controller, for maintenance; it returns when they did. It holds until `undrain`.

    Connections go on through the other controllers, and nothing is lost. Refused where no other one would be left.
    """
    folder = opened_folder(given)
    target, instances = _chosen(folder, name, instance)
    _check_another_is_left(folder, target.machine, instances)
    return _asked(target, instances, draining=True)


@controllers.command()
@click.argument("name", metavar="CONTROLLER")
@instance_option
@click.pass_obj
def undrain(given: str | None, name: str, instance: str | None) -> int:
    """Have peers use a controller again."""
    target, instances = _chosen(opened_folder(given), name, instance)
    return _asked(target, instances, draining=False)


def _asked(target: Target, instances: list[InstanceName], *, draining: bool) -> int:
    from warren.fleet import machine_side

    left = asyncio.run(machine_side.drain(target, instances, draining))
    if not left:
        click.echo(f"{target.machine}: some peers have not said that they followed; they may be asleep", err=True)
        return EXIT_MACHINE_FAILED
    done = "drained; back with: warren controllers undrain" if draining else "in use again:"
    click.echo(f"{target.machine}: {done} {target.machine if draining else ', '.join(instances)}", err=True)
    return 0


def _chosen(folder: Folder, name: str, instance: str | None) -> tuple[Target, list[InstanceName]]:
    targets = _targets(folder, name)
    instances = [each for each, document in folder.documents.items() if name in document.controllers]
    if instance is not None:
        instances = [each for each in instances if each == instance]
    if not instances:
        where = f"instance {instance}" if instance else "any instance"
        known = sorted({each for document in folder.documents.values() for each in document.controllers})
        raise UsageError(f"machine {name} is no controller of {where}", mend=f"controllers: {', '.join(known)}")
    return targets[MachineName(name)], instances


def _targets(folder: Folder, name: str | None) -> dict[MachineName, Target]:
    from warren.fleet.run import select

    known = {each for document in folder.documents.values() for each in document.controllers}
    found = select(folder.inventory, [name] if name else [], [])
    return {each: target for each, target in found.items() if name or each in known}


def _asked_all(targets: dict[MachineName, Target]) -> dict[MachineName, MachineStatus]:
    from warren.fleet.rollout import PARALLEL
    from warren.fleet.status import ask_all

    return asyncio.run(ask_all(targets, {}, PARALLEL))


def _draining(status: MachineStatus, instance: str) -> bool | None:
    found = status.said.get("instances", {}).get(instance, {}).get("agent") or {}
    draining = found.get("draining")
    return draining if isinstance(draining, bool) else None


def _check_another_is_left(folder: Folder, name: MachineName, instances: list[InstanceName]) -> None:
    others = {
        instance: [each for each in folder.documents[instance].controllers if each != name] for instance in instances
    }
    wanted = {each for names in others.values() for each in names}
    said = _asked_all({each: target for each, target in _targets(folder, None).items() if each in wanted})
    for instance, names in others.items():
        usable = [
            each
            for each in names
            if each in said and not said[each].problem and _draining(said[each], instance) is not True
        ]
        if not usable:
            raise UsageError(
                f"{instance}: no other controller is there that could carry what {name} carries",
                mend=f"one of them has to be reached and not drained: {', '.join(names) or 'there is none'}",
            )
