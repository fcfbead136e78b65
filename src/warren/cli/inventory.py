"""Commands that read the inventory and say what follows from it: `show`, `document`, `topology`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import click

from warren.errors import UsageError
from warren.inventory.wording import Nearest, listed, quoted
from warren.names import InstanceName
from warren.network.document import Document, encode
from warren.render import topology as pictures
from warren.render.show import shown_table, shown_tree
from warren.render.svg import svg
from warren.workspace.folder import Folder, open_folder
from warren.workspace.source import find_inventory

PICTURES: Mapping[str, Callable[[Document], str]] = {
    "text": pictures.text,
    "mermaid": pictures.mermaid,
    "dot": pictures.dot,
    "svg": svg,
}


def opened_folder(inventory_file: str | None) -> Folder:
    """The operator's folder, its inventory read; what is worth saying of it is said on stderr."""
    folder = open_folder(find_inventory(Path.cwd(), inventory_file))
    for note in folder.inventory.notes:
        click.echo(note, err=True)
    return folder


@click.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_obj
def show(inventory_file: str | None, as_json: bool) -> None:
    """Addresses, roles and names of every machine. Needs neither keys nor root."""
    documents = opened_folder(inventory_file).documents.values()
    if as_json:
        click.echo(json.dumps(shown_tree(documents), indent=2))
    else:
        click.echo("\n".join(map(shown_table, documents)), nl=False)


@click.command()
@click.argument("instance")
@click.pass_obj
def document(inventory_file: str | None, instance: str) -> None:
    """The network document of INSTANCE, as machines read it (`warren apply --document`). No secrets are in it."""
    click.echo(encode(_chosen(opened_folder(inventory_file).documents, instance)), nl=False)


@click.command()
@click.option("--format", "kind", type=click.Choice(list(PICTURES)), default="text", show_default=True)
@click.option("--instance", metavar="NAME", help="Which mesh; needed for a picture where there are several.")
@click.pass_obj
def topology(inventory_file: str | None, kind: str, instance: str | None) -> None:
    """The mesh as a picture: a tree, or for mermaid, Graphviz (dot) or a browser (svg)."""
    documents = opened_folder(inventory_file).documents
    chosen = list(documents.values()) if instance is None else [_chosen(documents, instance)]
    if kind != "text" and len(chosen) != 1:
        raise UsageError(
            f"a picture shows one instance, the inventory has {len(chosen)}",
            mend=f"--instance NAME; instances: {listed(documents)}" if documents else "",
        )
    click.echo("\n".join(map(PICTURES[kind], chosen)), nl=False)


def _chosen(documents: Mapping[InstanceName, Document], instance: str) -> Document:
    if instance not in documents:
        raise UsageError(
            f"there is no instance {quoted(instance)}", mend=Nearest().hint(instance, documents, "Instances")
        )
    return documents[InstanceName(instance)]
