"""`warren status`: this machine's own where it is in a mesh, else that of all machines of the inventory."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from warren.cli import EXIT_MACHINE_FAILED
from warren.cli.inventory import opened_folder
from warren.cli.machines_options import parallel_option

if TYPE_CHECKING:
    from warren.fleet.status import MachineStatus
    from warren.names import MachineName

WATCH_S = 2.0


@click.command()
@click.argument("names", nargs=-1, metavar="[MACHINE]...")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="The machines with this tag (repeatable).")
@click.option("--here", is_flag=True, help="This machine's own, also where it has an inventory.")
@click.option("--watch", is_flag=True, help="Look again every two seconds, until interrupted.")
@click.option("--json", "as_json", is_flag=True, help="For programs; with --watch, one object a line.")
@parallel_option
@click.pass_obj
def status(
    given: str | None,
    names: tuple[str, ...],
    tags: tuple[str, ...],
    here: bool,
    watch: bool,
    as_json: bool,
    parallel: int,
) -> int:
    """Sessions, handshakes, bytes, and who is out of date.

    On a computer that is in a mesh itself, it is what WireGuard says here, unless an inventory (-f), MACHINE or --tag
    is given. Elsewhere all machines of the inventory are asked over ssh. Exit code 4: one is not as it should be.
    """
    if here or not (given or names or tags or not _is_in_a_mesh()):
        return _repeated(watch, lambda: _own(as_json))

    def look() -> int:
        return _of_fleet(given, names, tags, parallel, as_json=as_json, one_line=watch)

    return _repeated(watch, look)


def _is_in_a_mesh() -> bool:
    from warren.errors import MachineError
    from warren.host import state

    try:
        return bool(state.instances())
    except MachineError:  # not for us to see: the command that reads it says so
        return True


def _own(as_json: bool) -> int:
    from warren.agent.main import main

    return main(["status", *(["--json"] if as_json else [])])


def _of_fleet(
    given: str | None, names: tuple[str, ...], tags: tuple[str, ...], parallel: int, *, as_json: bool, one_line: bool
) -> int:
    from warren.fleet import heard
    from warren.fleet.outdated import behind_now
    from warren.fleet.run import select
    from warren.fleet.status import ask_all, heard_of, tree
    from warren.render.fleet_status import fleet_status_text

    folder = opened_folder(given)
    targets, stale = select(folder.inventory, names, tags), behind_now(folder)
    alone = heard.fetching(folder, targets)
    found = asyncio.run(ask_all({name: each for name, each in targets.items() if name not in alone}, stale, parallel))
    if alone:
        pairs = asyncio.run(heard.ask(heard.servers(folder, alone)))
        found = dict(sorted((found | heard_of(pairs, alone, stale)).items()))
    whole = tree(found)
    if as_json:
        click.echo(json.dumps(whole, indent=None if one_line else 2))
    else:
        machines = whole["machines"]
        assert isinstance(machines, dict)
        click.echo(fleet_status_text(machines, time.time()), nl=False)
    return 0 if _all_well(found) else EXIT_MACHINE_FAILED


def _all_well(found: dict[MachineName, MachineStatus]) -> bool:
    return all(each.is_well for each in found.values())


def _repeated(watch: bool, look: Callable[[], int]) -> int:
    if not watch:
        return look()
    while True:
        if sys.stdout.isatty():
            click.clear()
        look()
        time.sleep(WATCH_S)
