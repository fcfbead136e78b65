"""`warren vars reseal` and `upload`: private keys that are kept encrypted, for those who open them and for machines."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from warren.cli import EXIT_MACHINE_FAILED
from warren.cli.inventory import opened_folder
from warren.errors import MachineError, UsageError, VarsError
from warren.inventory.wording import listed, quoted
from warren.names import MachineName

if TYPE_CHECKING:
    from warren.fleet.run import Run
    from warren.fleet.ssh import Target
    from warren.vars.sealing import Identities

identity_option = click.option(
    "--identity",
    metavar="FILE",
    help="What opens the vault: an identity of age's or an ssh key; else WARREN_IDENTITY, ~/.config/warren/identity, "
    "~/.config/sops/age/keys.txt, ~/.ssh/id_ed25519, ~/.ssh/id_rsa.",
)
_commit_option = click.option(
    "--commit/--no-commit", "commits", default=True, help="Commit what was written, if this is a git repository."
)


def identities(given: str | None) -> Identities:
    """The operator's; a passphrase is asked for where somebody is there."""
    from warren.vars.sealing import Identities

    return Identities(given, _passphrase if sys.stdin.isatty() else None)


def _passphrase(name: str) -> str:
    return str(click.prompt(f"Passphrase of {name}", hide_input=True, err=True))


@click.command()
@identity_option
@_commit_option
@click.pass_obj
def reseal(given: str | None, identity: str | None, commits: bool) -> int:
    """Encrypt the vault anew to those whom the inventory names now (meta.recipients), and to each key's machine.

    Only what is encrypted to others is touched. You have to be able to open it; machines are not needed. Who was taken
    out cannot open what is written from now on, but may have kept what he read: so rotate those keys as well, with
    `warren vars generate --regenerate` and `warren machines update`.
    """
    from warren.fleet.run import Run

    folder = opened_folder(given)
    run = Run(folder, _say, identities(identity))
    with run.locked("reseal", commits=commits):
        problems = run.reseal()
        if not problems and not run.has_written:
            _say("everything can be opened by those who shall, and by nobody else")
    for problem in problems:
        _say(str(problem))
    return VarsError.exit_code if problems else 0


@click.command()
@click.argument("names", nargs=-1, metavar="[MACHINE]...")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="The machines with this tag (repeatable).")
@click.option("--parallel", default=32, show_default=True, metavar="N", type=click.IntRange(min=1), help="At once.")
@identity_option
@_commit_option
@click.pass_obj
def upload(
    given: str | None, names: tuple[str, ...], tags: tuple[str, ...], parallel: int, identity: str | None, commits: bool
) -> int:
    """Bring machines their private keys out of the vault; without MACHINE and --tag, all that have some there.

    A key goes over ssh, on stdin, from this process's memory to the machine's disk. A key that is there stays in use:
    another one waits beside it until `warren machines update` brings it into use. `machines install` and `update` do
    all this by themselves.
    """
    from warren.fleet.run import Run, select

    folder = opened_folder(given)
    targets = select(folder.inventory, names, tags)
    for name in names:
        if name not in folder.inventory.vault_machines:
            raise UsageError(
                f"machine {quoted(name)} makes its keys itself, and has none in the vault",
                mend=f'keys = "vault" in its settings; with it: {listed(folder.inventory.vault_machines) or "none"}',
            )
    run = Run(folder, _say, identities(identity))
    with run.locked("upload", commits=commits):
        failed = bring_keys(run, targets, parallel)
    return EXIT_MACHINE_FAILED if failed else 0


def bring_keys(run: Run, targets: Mapping[MachineName, Target], parallel: int) -> list[MachineName]:
    """Bring these machines what the vault has for them, and say so; those that did not get it."""
    from warren.fleet.delivery import bring_all, opened
    from warren.fleet.machine_side import Kept

    folder, keys, failed = run.folder, {}, []
    for name in folder.inventory.vault_machines:
        if name not in targets:
            continue
        try:
            if found := opened(folder, name, run.identities):
                keys[name] = found
            else:
                raise VarsError("the vault has no key of it", where=name, mend="warren vars check")
        except VarsError as error:
            failed.append(name)
            _say(f"{name}: its key stays in the vault: {error}")
    results = asyncio.run(bring_all(targets, keys, parallel))
    for name, result in results.items():
        if isinstance(result, MachineError):
            failed.append(name)
            _say(str(result))
            continue
        had = "" if result.was_empty else " already, or waits for the next update"
        _say(f"{name}: has its key of {listed(list(keys[name]))}{had}")
    run.set_up_anew([name for name, kept in results.items() if isinstance(kept, Kept) and kept.was_empty])
    return failed


def _say(line: Any) -> None:
    click.echo(line, err=True)
