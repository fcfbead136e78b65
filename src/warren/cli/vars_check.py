"""`warren vars check`: what of the generated values is not as it should be, here and on the machines."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeAlias

import click

from warren.cli import EXIT_CHANGES_PENDING, EXIT_MACHINE_FAILED
from warren.cli.machines_options import parallel_option
from warren.cli.vars_options import json_option, machines_option, services_option
from warren.errors import Problem
from warren.fleet.deployed import Deployment, ask, comparable, compare
from warren.fleet.ssh import target_of
from warren.names import InstanceName
from warren.vars.check import Findings, Scope
from warren.vars.generators import Kind, Variable, generators
from warren.workspace.folder import Folder, open_folder
from warren.workspace.source import find_inventory

Tree: TypeAlias = dict[str, object]


@click.command()
@services_option
@machines_option
@click.option("--ask", "asks", is_flag=True, help="Ask the machines over ssh which keys they have.")
@parallel_option
@json_option
@click.pass_obj
def check(
    given: str | None,
    services: tuple[str, ...],
    machines: tuple[str, ...],
    asks: bool,
    parallel: int,
    as_json: bool,
) -> int:
    """Say which values are missing, stale, broken, taken, left over, not deployed, or different on their machine.

    Silent when all is well. Stale is what was made for something else than the inventory says now: another role,
    another name. Not deployed is what its machine was never brought, of instances that were brought to machines at
    least once. Different is the key of a machine that has another one: as it confirmed when it was updated last, or,
    with --ask, as it says now; nothing is changed there. Values of machines and instances that left the inventory are
    left over. They are no error: they keep the addresses of those who may come back from being given to others.

    Exit code 1: something is wrong here; 4: a machine that was asked did not answer; 3: nothing is wrong, but not
    deployed.
    """
    folder = open_folder(find_inventory(Path.cwd(), given))
    scope = Scope(frozenset(services), frozenset(machines))
    scope.refuse_unknown(folder.inventory, folder.readable)
    findings = scope.of(folder.findings)
    deployment = deployment_of(folder, scope, parallel if asks else 0)
    if as_json:
        click.echo(json.dumps(findings_tree(folder, findings, deployment), indent=2))
    else:
        click.echo(findings_text(findings, deployment), nl=False, err=True)
    return exit_code(findings, deployment)


def exit_code(findings: Findings, deployment: Deployment) -> int:
    if findings.problems or findings.missing or findings.stale or deployment.different:
        return 1
    if deployment.failed:
        return EXIT_MACHINE_FAILED
    return EXIT_CHANGES_PENDING if deployment.not_deployed else 0


def deployment_of(folder: Folder, scope: Scope, parallel: int = 0) -> Deployment:
    """`parallel`: how many machines are asked at a time; 0: none."""
    variables = list(filter(scope.has, comparable(folder)))
    asked: dict[str, None] = {}
    instances: dict[InstanceName, None] = {}
    every = generators(folder.inventory)
    for variable in variables if parallel else ():
        if every[variable.generator].kind is Kind.KEYS:
            asked[variable.machine] = None
            instances[every[variable.generator].instance] = None
    machines = (machine for name, machine in folder.inventory.machines.items() if name in asked)
    targets = [target_of(machine) for machine in machines if not machine.deploy.pull]  # ssh does not get there
    return compare(folder, variables, asyncio.run(ask(targets, list(instances), parallel)) if targets else {})


def findings_text(findings: Findings, deployment: Deployment) -> str:
    blocks = [str(problem) for problem in findings.problems]
    blocks += _block("missing", findings.missing, "warren vars generate")
    blocks += [f"stale: {each.variable}: {each.reason}\nmend: {each.mend}" for each in findings.stale]
    blocks += [f"different: {each.variable}: {each.reason}\nmend: {each.mend}" for each in deployment.different]
    blocks += _block("not deployed", deployment.not_deployed, _update(deployment.not_deployed))
    blocks += deployment.failed.values()
    blocks += _block("left over", findings.leftovers)
    return "\n\n".join(blocks) + "\n" if blocks else ""


def _block(state: str, variables: Iterable[Variable], mend: str = "") -> list[str]:
    lines = [f"{state}: {variable}" for variable in variables]
    return ["\n".join([*lines, *([f"mend: {mend}"] if mend else [])])] if lines else []


def _update(variables: Iterable[Variable]) -> str:
    machines = list(dict.fromkeys(variable.machine for variable in variables))
    return " ".join(("warren machines update", *(machines if len(machines) <= 4 else ())))


def findings_tree(folder: Folder, findings: Findings, deployment: Deployment) -> Tree:
    """Each state has a list of its own; `errors` are what is wrong here, in the shape that `warren check` prints."""
    missing = {each: f"warren vars generate --machine {each.machine}" for each in findings.missing}
    not_deployed = {each: _update([each]) for each in deployment.not_deployed}
    errors = [
        *findings.problems,
        *(Problem(folder.shown(each), 0, 0, "missing", mend) for each, mend in missing.items()),
        *(Problem(folder.shown(each.variable), 0, 0, f"stale: {each.reason}", each.mend) for each in findings.stale),
        *(Problem(folder.shown(each.variable), 0, 0, each.reason, each.mend) for each in deployment.different),
    ]
    return {
        "errors": [
            {"file": each.file, "line": each.line, "column": each.column, "message": each.message, "mend": each.mend}
            for each in errors
        ],
        "missing": _entries(missing),
        "stale": [_entry(each.variable, each.reason, each.mend) for each in findings.stale],
        "not_deployed": _entries(not_deployed),
        "different": [
            {**_entry(each.variable, each.reason, each.mend), "there": each.there or None, "asked": each.was_asked}
            for each in deployment.different
        ],
        "failed": [{"machine": machine, "problem": problem} for machine, problem in deployment.failed.items()],
        "leftovers": [variable._asdict() for variable in findings.leftovers],
    }


def _entries(mends: Mapping[Variable, str]) -> list[Tree]:
    return [variable._asdict() | {"mend": mend} for variable, mend in mends.items()]


def _entry(variable: Variable, reason: str, mend: str) -> Tree:
    return variable._asdict() | {"reason": reason, "mend": mend}
