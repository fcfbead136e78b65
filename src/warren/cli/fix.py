"""`warren vars fix`: mend what can be mended without a loss, and say of the rest which command decides it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from warren.cli import EXIT_CHANGES_PENDING, EXIT_MACHINE_FAILED
from warren.cli.vars_check import deployment_of, exit_code, findings_text, findings_tree
from warren.cli.vars_options import commit_option, json_option, machines_option, services_option
from warren.fleet.deployed import Deployment, remembered
from warren.vars.check import Findings, Scope
from warren.vars.fix import Repair, repair, unused, works
from warren.vars.generators import Validation, Variable, generators, shortened
from warren.workspace.folder import Folder, open_folder
from warren.workspace.source import find_inventory

if TYPE_CHECKING:
    from warren.vars.generate import Failure, Work
    from warren.vars.store import Reading


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a run does, in this order. `confirmed`: the values whose hash is put right, and nothing else of them."""

    repair: Repair
    confirmed: tuple[Variable, ...]
    works: tuple[Work, ...]
    gone: tuple[Variable, ...]
    gone_hashes: tuple[Validation, ...]

    @property
    def values(self) -> dict[Variable, str]:
        """What will be stored, as far as it is known before: not the keys."""
        return dict(self.repair.texts) | {each: text for work in self.works for each, text in work.values.items()}

    @property
    def keys(self) -> list[Variable]:
        return [request.variable for work in self.works for request in (*work.keys, *work.vault)]

    @property
    def made_here(self) -> list[Variable]:
        return [request.variable for work in self.works for request in work.vault]

    @property
    def is_empty(self) -> bool:
        return not (self.values or self.confirmed or self.keys or self.gone)

    @property
    def lines(self) -> list[str]:
        """For people, before it is done."""
        return [
            *(f"{variable} {shortened(variable, text)}" for variable, text in self.values.items()),
            *map(_confirmed_line, self.confirmed),
            *(f"{each}: {'made here' if each in self.made_here else 'its machine makes it'}" for each in self.keys),
            *map(_gone_line, self.gone),
        ]


@dataclass(slots=True)
class Done:
    """How far a run has come."""

    written: dict[Variable, str] = field(default_factory=dict)
    removed: list[Variable] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)


@click.command()
@services_option
@machines_option
@click.option("--leftovers", "with_leftovers", is_flag=True, help="Remove what is left over, too; see above.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done; exit code 3 if there is something.")
@json_option
@commit_option
@click.pass_obj
def fix(
    given: str | None,
    services: tuple[str, ...],
    machines: tuple[str, ...],
    with_leftovers: bool,
    dry_run: bool,
    as_json: bool,
    commits: bool,
) -> int:
    """Mend what can be mended without a loss; one git commit of it.

    Nothing is done while a file cannot be read at all.

    No address and no key that is in use becomes another one. What is missing is made, as by generate. Prefixes that
    lost their trailing zero groups, or are written as networks, get all four groups, where no doubt is left what they
    mean. A text that says nothing any more becomes what its machine confirmed last. A value that was made for another
    name, and is the one that would be made for this one, is noted as such.

    What then is still not as it should be is left as it is, and said as by `warren vars check`, with its exit codes.

    --leftovers removes the values of machines and instances that left, and of roles that machines had before. Their
    addresses may be given to others then.
    """
    folder = open_folder(find_inventory(Path.cwd(), given))
    scope = Scope(frozenset(services), frozenset(machines))
    scope.refuse_unknown(folder.inventory, folder.texts)
    if dry_run:
        return _preview(folder, scope, _plan(folder, scope, with_leftovers), as_json=as_json)
    return _fix(folder, scope, with_leftovers=with_leftovers, commits=commits, as_json=as_json)


def _plan(folder: Folder, scope: Scope, with_leftovers: bool) -> Plan:
    inventory = folder.inventory
    reading = replace(folder.reading, texts=folder.texts)  # an InventoryError where a file cannot be read
    mended = repair(inventory, reading, scope, remembered(folder))
    every = generators(inventory)
    confirmed = [every[each.generator].variable(each.machine) for each in mended.hashes]
    after = mended.applied_to(reading)
    gone, gone_hashes = unused(inventory, reading, scope) if with_leftovers else ([], [])
    return Plan(mended, tuple(confirmed), tuple(works(inventory, after, scope)), tuple(gone), tuple(gone_hashes))


def _preview(folder: Folder, scope: Scope, plan: Plan, *, as_json: bool) -> int:
    findings = scope.of(folder.findings_of(_afterwards(folder.reading, plan)))
    findings = replace(findings, missing=tuple(each for each in findings.missing if each not in plan.keys))
    deployment = deployment_of(folder, scope)
    if as_json:
        _print_tree(folder, plan, plan.values, plan.keys, plan.gone, (), findings, deployment)
    else:
        click.echo("".join(f"would be done: {line}\n" for line in plan.lines), nl=False, err=True)
        _say_rest(plan, findings, deployment)
    return exit_code(findings, deployment) if plan.is_empty else EXIT_CHANGES_PENDING


def _afterwards(reading: Reading, plan: Plan) -> Reading:
    after = plan.repair.applied_to(reading)
    texts = {variable: text for variable, text in {**after.texts, **plan.values}.items() if variable not in plan.gone}
    hashes = {**after.hashes, **{each: text for work in plan.works for each, text in work.hashes.items()}}
    return replace(after, texts=texts, hashes=hashes)


def _fix(folder: Folder, scope: Scope, *, with_leftovers: bool, commits: bool, as_json: bool) -> int:
    from warren.cli.vars import commit_written, waiting

    done = Done()
    with folder.store.lock(waiting):
        folder = open_folder(folder.inventory_file)  # who was in before may have changed it
        plan = _plan(folder, scope, with_leftovers)
        try:
            _carry_out(folder, plan, done)
        finally:  # after an interruption or on a full disk too: what is stored is committed
            if commits:
                commit_written(folder, "fix", [*done.written, *done.removed, *folder.vault.taken_written()])
    for failure in done.failures:
        click.echo(f"{failure.variable.machine}: {failure.message}", err=True)
    folder = open_folder(folder.inventory_file)
    findings, deployment = scope.of(folder.findings), deployment_of(folder, scope)
    if as_json:
        _print_tree(folder, plan, done.written, [], done.removed, done.failures, findings, deployment)
    else:
        _say_rest(plan, findings, deployment)
    return EXIT_MACHINE_FAILED if done.failures else exit_code(findings, deployment)


def _carry_out(folder: Folder, plan: Plan, done: Done) -> None:
    from warren.cli.vars import have_made, ways

    def stored(variable: Variable, text: str) -> None:
        done.written[variable] = text
        click.echo(f"{variable} {shortened(variable, text)}", err=True)

    folder.store.write({**plan.repair.hashes, **plan.repair.texts})
    for variable, text in plan.repair.texts.items():
        stored(variable, text)
    for variable in plan.confirmed:
        done.written.setdefault(variable, folder.readable[variable])
        click.echo(_confirmed_line(variable), err=True)
    for work in plan.works:
        done.failures += have_made(folder, work, ways(folder), stored)
    folder.store.delete(plan.gone_hashes)  # first: a hash alone would be found by no later run
    for variable in plan.gone:
        folder.store.delete([variable])
        done.removed.append(variable)
        click.echo(_gone_line(variable), err=True)


def _confirmed_line(variable: Variable) -> str:
    return f"{variable}: it is what is made for this machine, and noted as that"


def _gone_line(variable: Variable) -> str:
    return f"{variable}: removed, it was left over"


def _say_rest(plan: Plan, findings: Findings, deployment: Deployment) -> None:
    doubtful = [str(problem) for problem in plan.repair.doubtful]
    blocks = [*doubtful, *filter(None, [findings_text(findings, deployment).rstrip("\n")])]
    click.echo("\n\n".join(blocks) + "\n" if blocks else "", nl=False, err=True)


def _print_tree(
    folder: Folder,
    plan: Plan,
    written: Mapping[Variable, str],
    keys: list[Variable],
    removed: list[Variable] | tuple[Variable, ...],
    failures: list[Failure] | tuple[Failure, ...],
    findings: Findings,
    deployment: Deployment,
) -> None:
    tree = {
        "written": [variable._asdict() | {"value": text} for variable, text in written.items()],
        "to_be_made": [variable._asdict() for variable in keys],
        "removed": [variable._asdict() for variable in removed],
        "failed": [failure.variable._asdict() | {"problem": failure.message} for failure in failures],
        "doubtful": [{"file": each.file, "message": each.message, "mend": each.mend} for each in plan.repair.doubtful],
        "left": findings_tree(folder, findings, deployment),
    }
    click.echo(json.dumps(tree, indent=2))
