"""`warren machines revoke`: a machine's keys count nowhere any more."""

from __future__ import annotations

import click

from warren.cli.inventory import opened_folder
from warren.errors import UsageError
from warren.names import MachineName


@click.command()
@click.argument("name", metavar="MACHINE")
@click.option(
    "--commit/--no-commit", "commits", default=True, help="Commit what was written, if this is a git repository."
)
@click.pass_obj
def revoke(given: str | None, name: str, commits: bool) -> None:
    """Have nobody accept the machine's keys ever again: it was stolen, or somebody else has its key.

    Its keys go on the list of revoked ones, which only grows. `warren machines update` brings the list to all machines:
    each drops the keys at once, keeps that on its own disk, and refuses documents that bring them back. The machine may
    come back with a new key: warren vars generate --regenerate --machine MACHINE. An invitation of it that is open is
    withdrawn.
    """
    from warren.fleet.run import Run
    from warren.inventory.wording import Nearest, listed, quoted

    folder = opened_folder(given)
    run = Run(folder, _say)
    with run.locked("revoke", commits=commits):
        withdrawn = run.withdraw_invitations(MachineName(name))
        instances = run.revoke(MachineName(name))
    if withdrawn:
        _say(f"{name}: its open invitation is withdrawn in {listed(withdrawn)}")
    if not (instances or withdrawn):
        known = sorted({variable.machine for variable in folder.texts} | folder.inventory.machines.keys())
        what = "has no key" if name in known else "is not known"
        mend = "nobody accepts it" if name in known else Nearest().hint(name, known, "Machines")
        raise UsageError(f"machine {quoted(name)} {what}", mend=mend)
    if instances:
        _say(f"{name}: its keys are revoked in {listed(instances)}")
    _say("next: warren machines update, so that all machines hear of it")


def _say(line: str) -> None:
    click.echo(line, err=True)
