"""`warren vars rotate`: the routine of replacing old keys."""

from __future__ import annotations

import re
import time
from pathlib import Path

import click

from warren.errors import UsageError
from warren.fleet.key_ages import DAY_S, too_old
from warren.fleet.staging import follows_of
from warren.inventory.wording import Nearest, listed, quoted
from warren.network.stored import keys_generator
from warren.vars.generate import Selection
from warren.workspace.folder import open_folder
from warren.workspace.source import find_inventory

_UNITS_S = {"h": 3600, "d": DAY_S, "w": 7 * DAY_S}


@click.command()
@click.argument("machines", nargs=-1, metavar="[MACHINE]...")
@click.option("--older-than", "age", metavar="AGE", help="Such as 90d, 12w, 36h; else meta.max_key_age_days.")
@click.option("--all", "everything", is_flag=True, help="Whatever their age.")
@click.option(
    "--commit/--no-commit", "commits", default=True, help="Commit what was written, if this is a git repository."
)
@click.pass_obj
def rotate(given: str | None, machines: tuple[str, ...], age: str | None, everything: bool, commits: bool) -> int:
    """Stage the next keys of machines whose keys are old; `warren machines update` brings them into use without loss.

    A key's age counts from when git saw it change. Only machines that follow a published document are asked, over ssh,
    and none whose key is being rotated already.
    """
    from warren.cli.vars import generate_selected

    if everything and age:
        raise UsageError("--all and --older-than contradict each other", mend="say one of them")
    folder = open_folder(find_inventory(Path.cwd(), given))
    for name in machines:
        if name not in folder.inventory.machines:
            known = folder.inventory.machines
            raise UsageError(f"there is no machine {quoted(name)}", mend=Nearest().hint(name, known, "Machines"))
    limit_s = 0.0 if everything else _seconds(age) if age else None
    if limit_s is None and folder.inventory.max_key_age_days is None:
        raise UsageError("older than what?", mend="warren vars rotate --older-than 90d, or set meta.max_key_age_days")
    follows = follows_of(folder)
    code = 0
    found = {
        instance: [name for name in old if not machines or name in machines]
        for instance, old in too_old(folder, time.time(), limit_s).items()
    }
    for instance, old in found.items():
        names = [name for name in old if (name, instance) in follows]
        if left := [name for name in old if name not in names]:
            click.echo(f"{instance}: {listed(left)} left as it is: no published document is followed there", err=True)
        if names:
            click.echo(f"{instance}: {listed(names)}", err=True)
            selection = Selection(frozenset({keys_generator(instance)}), frozenset(names), True, follows)
            code = generate_selected(open_folder(folder.inventory_file), selection, [], commits) or code
    if not any(found.values()):
        click.echo("no key is that old", err=True)
    return code


def _seconds(age: str) -> float:
    found = re.fullmatch(r"(\d{1,6})([hdw])", age)
    if not found:
        raise UsageError(f"{quoted(age)} is no age", mend="write a number and h, d or w: 90d")
    return int(found[1]) * float(_UNITS_S[found[2]])
