"""`warren init`, `warren check`, `warren schema`: the inventory as a file."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from warren.errors import InventoryError, Problem, UsageError

if TYPE_CHECKING:
    from warren.workspace.folder import Folder

_FIRST_FILE = Path("warren.toml")
_FALLBACK_NAME = "burrow"


@click.command()
@click.argument("name", required=False)
def init(name: str | None) -> None:
    """Write a first warren.toml here, with comments; NAME is what the whole is called."""
    from warren.inventory.first import first_inventory
    from warren.names import HOST_NAME_RULE, is_host_name

    if name is not None and not is_host_name(name):
        raise UsageError(f"{name!r} cannot be the inventory's name", mend=f"choose one of {HOST_NAME_RULE}")
    here = Path.cwd().name
    text = first_inventory(name or (here if is_host_name(here) else _FALLBACK_NAME))
    try:
        file = _FIRST_FILE.open("x", encoding="utf-8")
    except FileExistsError:
        raise UsageError("there is one already", where=str(_FIRST_FILE), mend="edit it, or move it away") from None
    except OSError as error:
        raise UsageError(f"cannot write it: {error.strerror}", where=str(_FIRST_FILE)) from None
    try:
        with file:
            file.write(text)
    except OSError as error:
        _FIRST_FILE.unlink()
        raise UsageError(f"cannot write it: {error.strerror}", where=str(_FIRST_FILE)) from None
    click.echo(f"{_FIRST_FILE} is written: put your machines into it, then `warren check`.", err=True)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="The errors as JSON, on stdout.")
@click.pass_obj
def check(inventory_file: str | None, as_json: bool) -> int:
    """Check the inventory and the vars; silent when all is well."""
    errors, notes = _checked(inventory_file)
    if as_json:
        click.echo(json.dumps({"errors": [_error(problem) for problem in errors], "notes": notes}, indent=2))
    else:
        for note in notes:
            click.echo(note, err=True)
        if errors:
            click.echo(str(InventoryError(tuple(errors))), err=True)
    return InventoryError.exit_code if errors else 0


def _checked(inventory_file: str | None) -> tuple[list[Problem], list[str]]:
    """Everything that is wrong, and the lines worth saying."""
    from warren.workspace.folder import open_folder
    from warren.workspace.source import find_inventory

    folder = open_folder(find_inventory(Path.cwd(), inventory_file))
    try:
        notes = [*folder.inventory.notes, *_out_of_date(folder)]
        # What else is missing in the vars is no mistake: `warren vars check` says what `vars generate` has to make.
        return [*folder.findings.problems, *folder.missing_by_hand], notes
    except InventoryError as error:
        return list(error.problems), []


def _out_of_date(folder: Folder) -> list[str]:
    """A line about the machines that do not follow what the inventory says now; no error, for they can be updated."""
    from warren.fleet.key_ages import too_old_lines
    from warren.fleet.outdated import behind_line, overdue
    from warren.fleet.preshared import lines_of_unmanaged, preshared_lines
    from warren.fleet.rotations import rotations_of
    from warren.plan.admission import expiry_lines

    stale = overdue(folder)
    lines = [behind_line(stale)] if stale else []
    expiries = [line for each in folder.documents.values() for line in expiry_lines(each, time.time())]
    return [
        *lines,
        *expiries,
        *(rotation.line for rotation in rotations_of(folder)),
        *preshared_lines(folder),
        *lines_of_unmanaged(folder.inventory),
        *too_old_lines(folder, time.time()),
    ]


def _error(problem: Problem) -> dict[str, str | int]:
    return {
        "file": problem.file,
        "line": problem.line,
        "column": problem.column,
        "message": problem.message,
        "mend": problem.mend,
    }


@click.command()
def schema() -> None:
    """The JSON Schema of the inventory, for editors."""
    from warren.inventory.json_schema import json_schema_text

    click.echo(json_schema_text(), nl=False)
