"""`warren plan`: what machines would become, before any of them does."""

from __future__ import annotations

import json
from collections.abc import Iterable

import click

from warren.cli.inventory import opened_folder
from warren.errors import UsageError
from warren.inventory.model import Inventory
from warren.inventory.wording import Nearest, quoted
from warren.names import MachineName
from warren.network.document import Document
from warren.plan.desired import Desired
from warren.plan.plan import plan as planned
from warren.render.desired import desired_tree
from warren.render.preview import missing_keys, preview, summaries, summary_table, summary_tree, with_stand_ins
from warren.wireguard.keys import PublicKey


@click.command()
@click.argument("machine", required=False)
@click.option("--json", "as_json", is_flag=True, help="The machine's desired state, for programs.")
@click.pass_obj
def plan(inventory_file: str | None, machine: str | None, as_json: bool) -> None:
    """What MACHINE would become, as commands for a machine that has nothing yet; without MACHINE, a line for each.

    On a machine that has something already, `warren apply --check` says what is left to do there.
    """
    folder = opened_folder(inventory_file)
    documents = list(folder.documents.values())
    if machine is None:
        _say_what_is_missing(documents)
        rows = (summary for document in documents for summary in summaries(document))
        click.echo(json.dumps(summary_tree(rows), indent=2) if as_json else summary_table(rows), nl=as_json)
    else:
        name = known_machine(folder.inventory, machine)
        own = [document for document in documents if document.entry(name)]
        _say_what_is_missing(own)
        _show_plan(name, own, as_json)


def _say_what_is_missing(documents: Iterable[Document]) -> None:
    for document in documents:
        if note := missing_keys(document):
            click.echo(note, err=True)


def _show_plan(machine: MachineName, documents: Iterable[Document], as_json: bool) -> None:
    """The plans for the documents that know the machine."""
    plans: list[Desired] = []
    unknown: frozenset[PublicKey] = frozenset()
    for document in documents:
        completed, stand_ins = with_stand_ins(document)
        plans.append(planned(completed, machine))
        unknown |= stand_ins
    if not plans:
        click.echo(f'machine "{machine}" has no role in any instance', err=True)
    if as_json:
        click.echo(json.dumps(desired_tree(machine, plans, unknown), indent=2))
    else:
        click.echo("\n".join(preview(each, unknown) for each in plans), nl=False)


def known_machine(inventory: Inventory, machine: str) -> MachineName:
    """The name, if it is one; UsageError with the one that was probably meant."""
    if machine not in inventory.machines:
        raise UsageError(
            f"there is no machine {quoted(machine)}", mend=Nearest().hint(machine, inventory.machines, "Machines")
        )
    return MachineName(machine)
