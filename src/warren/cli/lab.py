"""`warren lab`: a mesh of real machines made of namespaces, on this computer."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from warren.cli import EXIT_MACHINE_FAILED
from warren.errors import InventoryError, UsageError
from warren.names import MachineName

if TYPE_CHECKING:
    from warren.lab.lab import Lab
    from warren.lab.probe import Answer
    from warren.lab.up import Report

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
    from warren.cli.lab_progress import watcher
    from warren.inventory.wording import Nearest, quoted
    from warren.lab.up import Wanted, bring_up
    from warren.vars.store import Store
    from warren.workspace.source import load_inventory

    source = file or _inventory_here(given)
    inventory = load_inventory(source)
    stored = Store(source.parent).read()
    if stored.problems:
        raise InventoryError(stored.problems)
    for note in inventory.notes:
        click.echo(note, err=True)
    for machine in sorted(set(natted) - set(inventory.machines)):
        mend = Nearest().hint(machine, inventory.machines, "Machines")
        raise UsageError(f"there is no machine {quoted(machine)}", mend=mend)
    wanted = Wanted(
        name=name or inventory.name,
        source=str(source.resolve()),
        inventory=inventory,
        stored=stored.texts,
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
    found = _find(name)
    answers = found.measure(wait)
    if as_json:
        click.echo(
            json.dumps({"machines": _machines_tree(found), "pairs": [_pair_tree(each) for each in answers]}, indent=2)
        )
    else:
        click.echo(_machines_text(found), nl=False)
        click.echo(_matrix(answers), nl=False)
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
    from warren.lab.mesh import AGENT_LOG

    parts = ", ".join(f"{name} {seconds:.2f}" for name, seconds in report.parts.items())
    working = all(answer.ok for answer in report.answers)
    # Measured again: the first answers came while sessions were being made.
    click.echo(_matrix(report.lab.measure(STATUS_WAIT_S) if working else report.answers), nl=False)
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


def _matrix(answers: Sequence[Answer]) -> str:
    """One matrix for each instance; what fails stands out where there is colour."""
    from warren.render.matrix import Reach, matrix

    by_instance: dict[str, list[Reach]] = {}
    for answer in answers:
        machines_between = None if answer.hops is None else answer.hops - 1
        reach = Reach(answer.pair.source, answer.pair.target, answer.ok, answer.rtt_ms, machines_between)
        by_instance.setdefault(answer.pair.instance, []).append(reach)
    texts = [
        (f"{instance}:\n" if len(by_instance) > 1 else "") + matrix(reaches)
        for instance, reaches in by_instance.items()
    ]
    return "\n".join(texts).replace("FAILS", click.style("FAILS", fg="red", bold=True))


def _machines_text(lab: Lab) -> str:
    from warren.render.columns import columns

    rows = []
    for name, machine in lab.state.machines.items():
        state = str(machine.faults) if lab.state.place(name) else "dead"
        nat = "behind NAT" if machine.site.behind_nat else ""
        rows.append((name, ", ".join(map(str, machine.site.addresses)), ", ".join(filter(None, (nat, state)))))
    return columns(rows) + "\n"


def _machines_tree(lab: Lab) -> dict[str, Any]:
    documents = lab.folder.read_documents()
    return {
        name: {
            "state": "running" if lab.state.place(name) else "dead",
            "pid": machine.init.pid if machine.init else None,
            "roles": {
                document.instance: "controller" if name in document.controllers else "peer"
                for document in documents.values()
                if document.entry(name)
            },
            "underlay": [str(address) for address in machine.site.addresses],
            "behind_nat": machine.site.behind_nat,
            "faults": {
                "cut": machine.faults.cut,
                "loss_percent": machine.faults.loss_percent,
                "delay_ms": machine.faults.delay_ms,
            },
        }
        for name, machine in lab.state.machines.items()
    }


def _pair_tree(answer: Answer) -> dict[str, Any]:
    return {
        "from": answer.pair.source,
        "to": answer.pair.target,
        "name": answer.pair.name,
        "instance": answer.pair.instance,
        "ok": answer.ok,
        "rtt_ms": None if answer.rtt_ms is None else round(answer.rtt_ms, 3),
        "hops": answer.hops,
        **({"problem": answer.problem} if answer.problem else {}),
    }
