"""`warren lab`: a mesh of real machines made of namespaces, on this computer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from warren.cli import EXIT_MACHINE_FAILED
from warren.errors import InventoryError, UsageError
from warren.names import MachineName

if TYPE_CHECKING:
    from warren.inventory.model import Inventory
    from warren.lab.lab import Lab
    from warren.lab.up import Report
    from warren.vars.generators import Variable

STATUS_WAIT_S = 2.0
DEMO = Path(__file__).parent.parent / "lab" / "demo.toml"

name_option = click.option("--name", metavar="NAME", help="Which lab; not needed where one runs.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def lab() -> None:
    """A real mesh on this computer: each machine of an inventory is a set of namespaces, with real WireGuard.

    Nothing of it touches this computer's own network, and all of it goes with `warren lab down`.
    """


@lab.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--name", metavar="NAME", help="The lab's name; else the inventory's.")
@click.option("--nat", "natted", multiple=True, metavar="MACHINE", help="Behind a NAT router of its own (repeatable).")
@click.option("--no-nat", is_flag=True, help="Nobody is behind NAT; else, the last peer is.")
@click.option("--ssh", is_flag=True, help="An sshd on every machine, all trusting each other.")
@click.option("--wait", default=30.0, show_default=True, metavar="SECONDS", help="Until all pairs must answer.")
@click.pass_obj
def up(
    given: str | None,
    file: Path | None,
    name: str | None,
    natted: tuple[str, ...],
    no_nat: bool,
    ssh: bool,
    wait: float,
) -> int:
    """Bring up the mesh of FILE, or make one that is up what FILE says now.

    Without FILE: the inventory that other commands would use; where there is none, a small mesh to play with.
    """
    from warren.cli.lab_screen import watcher
    from warren.lab.up import Wanted, bring_up

    source = file or _inventory_here(given)
    inventory, stored = _read(source)
    for machine in sorted(set(natted) - set(inventory.machines)):
        from warren.inventory.wording import Nearest, quoted

        mend = Nearest().hint(machine, inventory.machines, "Machines")
        raise UsageError(f"there is no machine {quoted(machine)}", mend=mend)
    wanted = Wanted(
        name=name or inventory.name,
        source=str(source.resolve()),
        inventory=inventory,
        stored=stored,
        behind_nat=frozenset(map(MachineName, natted)) if natted or no_nat else None,
        with_ssh=ssh,
        wait_s=wait,
    )
    with watcher() as progress:
        report = bring_up(wanted, progress)
    return _tell(report)


@lab.command(context_settings={"allow_interspersed_args": False, "ignore_unknown_options": True})
@name_option
@click.argument("machine")
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[--name NAME] [--] CMD...")
def exec(name: str | None, machine: str, command: tuple[str, ...]) -> int:  # noqa: A001 - the command's name
    """Run CMD on MACHINE as root, with this terminal; its exit code is the command's. Without CMD: a shell."""
    from warren.lab.run import run

    name, words = _name_before_command(name, command)
    return run(_find(name).state, machine, words)


@lab.command()
@name_option
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option(
    "--wait", default=STATUS_WAIT_S, show_default=True, metavar="SECONDS", help="How long a pair has to answer."
)
def status(name: str | None, as_json: bool, wait: float) -> int:
    """Who reaches whom, measured now, by name, from inside each machine. Exit code 4 if a pair fails."""
    from warren.cli.lab_screen import machines_text, machines_tree, matrix_text, pair_tree

    found = _find(name)
    answers = found.measure(wait)
    if as_json:
        click.echo(
            json.dumps({"machines": machines_tree(found), "pairs": [pair_tree(each) for each in answers]}, indent=2)
        )
    else:
        click.echo(machines_text(found), nl=False)
        click.echo(matrix_text(answers), nl=False)
    return 0 if all(answer.ok for answer in answers) else EXIT_MACHINE_FAILED


@lab.command("list")
def list_labs() -> None:
    """The labs that run."""
    from warren.lab.lab import running_labs
    from warren.render.columns import columns

    rows = [(state.name, f"{len(state.machines)} machines", state.source) for state in running_labs()]
    click.echo(columns(rows), nl=False)


@lab.group()
def fault() -> None:
    """Break the way between a machine and the internet, or the machine itself; `heal` mends all of it."""


@fault.command()
@click.argument("machine")
@name_option
def kill(machine: str, name: str | None) -> None:
    """Everything on MACHINE dies at once, as when the power goes; its disk stays."""
    _change(name, lambda lab: lab.kill(machine))


@fault.command()
@click.argument("machine")
@name_option
def cut(machine: str, name: str | None) -> None:
    """Nothing passes to or from MACHINE any more, and nobody is told."""
    _change(name, lambda lab: lab.cut(machine))


@fault.command()
@click.argument("machine")
@click.argument("share", metavar="PERCENT")
@name_option
def loss(machine: str, share: str, name: str | None) -> None:
    """So much of what goes to and from MACHINE is lost, each way: 20%."""
    from warren.lab.faults import parse_loss

    percent = parse_loss(share)
    _change(name, lambda lab: lab.lose(machine, percent))


@fault.command()
@click.argument("machine")
@click.argument("time")
@name_option
def delay(machine: str, time: str, name: str | None) -> None:
    """What goes to and from MACHINE is late by so much, each way: 50ms."""
    from warren.lab.faults import parse_delay

    milliseconds = parse_delay(time)
    _change(name, lambda lab: lab.delay(machine, milliseconds))


@fault.command()
@click.argument("machine")
@name_option
def heal(machine: str, name: str | None) -> None:
    """Take all faults of MACHINE away; one that is dead starts again."""
    _change(name, lambda lab: lab.heal(machine))


@lab.command()
@name_option
def down(name: str | None) -> None:
    """End the lab: its machines, its network, its files. Clears what an interrupted `up` left, too."""
    from warren.lab.lab import take_down

    name = name or _only_lab(running=False)
    if not take_down(name):
        raise UsageError(f'there is no lab "{name}"', mend="see what runs: warren lab list")


def _inventory_here(given: str | None) -> Path:
    from warren.workspace.source import find_inventory

    try:
        return find_inventory(Path.cwd(), given)
    except UsageError:
        if given:
            raise
        click.echo("no inventory here: this is a small mesh to play with", err=True)
        return DEMO


def _read(source: Path) -> tuple[Inventory, Mapping[Variable, str]]:
    """The inventory, and what the operator has stored beside it."""
    from warren.vars.store import Store
    from warren.workspace.source import load_inventory

    inventory = load_inventory(source)
    for note in inventory.notes:
        click.echo(note, err=True)
    stored = Store(source.parent).read()
    if stored.problems:
        raise InventoryError(stored.problems)
    return inventory, stored.texts


def _name_before_command(name: str | None, words: Sequence[str]) -> tuple[str | None, Sequence[str]]:
    """`M --name N -- CMD`: click leaves all that follows M to the command."""
    if words and words[0].startswith("--name="):
        name, words = words[0].removeprefix("--name="), words[1:]
    elif len(words) > 1 and words[0] == "--name":
        name, words = words[1], words[2:]
    return name, words[1:] if words and words[0] == "--" else words


def _find(name: str | None) -> Lab:
    from warren.lab.lab import find_lab

    return find_lab(name or _only_lab())


def _change(name: str | None, change: Callable[[Lab], None]) -> None:
    from warren.lab.lab import changing

    with changing(name or _only_lab()) as found:
        change(found)


def _only_lab(*, running: bool = True) -> str:
    """The lab that is meant where none is named: the only one, or that of the inventory here."""
    from warren.lab.lab import running_labs
    from warren.lab.state import all_labs

    labs = running_labs()
    names = [state.name for state in labs] if running else all_labs()
    if len(names) == 1:
        return names[0]
    if not names:
        raise UsageError("no lab is running", mend="warren lab up")
    from warren.workspace.source import find_inventory

    try:
        here = str(find_inventory(Path.cwd(), None).resolve())
    except UsageError:
        here = ""
    names_here = [state.name for state in labs if state.source == here]
    if len(names_here) == 1:
        return names_here[0]
    raise UsageError(f"there are several labs: {', '.join(names)}", mend="say which one: --name NAME")


def _tell(report: Report) -> int:
    """The matrix on stdout; how it went, and what to try, on stderr."""
    from warren.cli.lab_screen import matrix_text
    from warren.lab.mesh import AGENT_LOG

    parts = ", ".join(f"{name} {seconds:.2f}" for name, seconds in report.parts.items())
    working = all(answer.ok for answer in report.answers)
    # Measured again: the first answers came while sessions were being made.
    click.echo(matrix_text(report.lab.measure(STATUS_WAIT_S) if working else report.answers), nl=False)
    natted = [name for name, machine in report.lab.state.machines.items() if machine.site.behind_nat]
    if natted:
        click.echo(f"behind NAT: {', '.join(natted)}", err=True)
    click.echo(f"{'up' if working else 'NOT ALL UP'} in {sum(report.parts.values()):.2f} s ({parts})", err=True)
    lab_name, machine = report.lab.state.name, next(iter(report.lab.state.machines), "MACHINE")
    if not working:
        click.echo(f"see why: warren lab exec {machine} --name {lab_name} -- cat {AGENT_LOG}", err=True)
        return EXIT_MACHINE_FAILED
    pair = report.answers[0].pair if report.answers else None
    if pair:
        click.echo(f"try: warren lab exec {pair.source} --name {lab_name} -- ping6 -c 3 {pair.name}", err=True)
    click.echo(f"     warren lab fault kill {machine} --name {lab_name}    (then: status, fault heal)", err=True)
    click.echo(f"     warren lab down --name {lab_name}", err=True)
    return 0
