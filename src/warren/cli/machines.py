"""`warren machines`: the machines of the inventory, over ssh."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click

from warren.cli import EXIT_MACHINE_FAILED
from warren.cli.inventory import opened_folder
from warren.cli.invite import accept, invite
from warren.cli.machines_options import commit_option, parallel_option, sign_key_option
from warren.cli.revoke import revoke
from warren.cli.vault import bring_keys, identities, identity_option
from warren.errors import MachineError, UsageError
from warren.names import MachineName
from warren.render.columns import columns

if TYPE_CHECKING:
    from warren.fleet.run import Result
    from warren.fleet.ssh import Target
    from warren.network.document import Document
    from warren.workspace.folder import Folder

T = TypeVar("T")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def machines() -> None:
    """The machines of the inventory, reached with ssh as you have it configured.

    `deploy.host`, `deploy.port` and `deploy.via` (a jump host) in the inventory say where a machine is; without them,
    ssh is given the machine's name. A machine that is only reached through the mesh has its mesh name as
    `deploy.host` (laptop1.vpn, from a computer that is in the mesh) or a controller as `deploy.via`.
    """


@machines.command("list")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_obj
def list_machines(given: str | None, as_json: bool) -> None:
    """Machines, their roles, the way to them, and whether they follow what the inventory says."""
    folder = opened_folder(given)
    rows = _rows(folder)
    if as_json:
        click.echo(json.dumps({"machines": {row["machine"]: row for row in rows}}, indent=2))
    else:
        head = ("MACHINE", "ROLES", "REACHED BY", "STATE")
        cells = [(row["machine"], ", ".join(row["roles"]) or "-", row["reached_by"], row["state"]) for row in rows]
        click.echo(columns([head, *cells]), nl=False)


def _rows(folder: Folder) -> list[dict[str, Any]]:
    from warren.fleet.outdated import behind_now, has_expired
    from warren.fleet.rotations import rotations_of
    from warren.fleet.ssh import target_of
    from warren.vars.check import is_revoked
    from warren.vars.generators import key_variable

    documents, stale, rotated = folder.documents, behind_now(folder), rotations_of(folder)
    shut_out = {name for name in folder.inventory.machines if has_expired(folder, name)}
    rows = []
    for name, machine in folder.inventory.machines.items():
        entries = {instance: entry for instance, document in documents.items() if (entry := document.entry(name))}
        roles = [
            f"{instance} {'controller' if name in documents[instance].controllers else 'peer'}" for instance in entries
        ]
        if not machine.managed:
            state = "not managed"
        elif any(is_revoked(folder.texts, key_variable(name, each)) for each in entries):
            state = "revoked"
        elif any(entry.public_key is None for entry in entries.values()):
            state = "no key yet" + _invited(documents.values(), name)
        elif name in stale:
            state = f"out of date: {', '.join(stale[name])}"
        else:
            state = "up to date" if entries else "no role"
        if name in shut_out:
            state = "expired"
        state = "; ".join([state, *(each.short_line for each in rotated if each.machine == name)])
        reached_by = "fetches by itself" if machine.deploy.pull else target_of(machine).by_hand
        rows.append({"machine": name, "roles": roles, "reached_by": reached_by, "state": state})
    return rows


def _invited(documents: Iterable[Document], name: MachineName) -> str:
    """Whether an invitation to the machine is open."""
    until_unix_s = [
        each.expires_unix_s
        for document in documents
        for each in document.invitations
        if each.machine == name and not each.closed
    ]
    if not until_unix_s or max(until_unix_s) <= time.time():
        return ""
    return f", invited until {datetime.fromtimestamp(max(until_unix_s), UTC):%Y-%m-%d %H:%M} UTC"


@machines.command()
@click.argument("names", nargs=-1, metavar="[MACHINE]...")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="The machines with this tag (repeatable).")
@click.option("--install-packages", is_flag=True, help="Have apt or dnf install what is missing there.")
@sign_key_option
@identity_option
@parallel_option
@commit_option
@click.pass_obj
def install(
    given: str | None,
    names: tuple[str, ...],
    tags: tuple[str, ...],
    install_packages: bool,
    sign_key: str | None,
    identity: str | None,
    parallel: int,
    commits: bool,
) -> int:
    """Bring Warren to machines: one file, and a systemd service that runs its agent.

    Each machine makes its own keys; the public ones come back and are stored. Those whose keys are in the vault get
    them, the same as before where they were set up anew. Machines with `deploy.pull` are passed over unless they are
    named. The signing key is pinned there: later
    documents must be signed by it, or by another operator's that was pinned. Run it again to bring a newer Warren.
    """
    from warren.fleet import install as installing
    from warren.fleet.heard import fetching
    from warren.fleet.run import Run, select
    from warren.fleet.sign import find_key

    if not names and not tags:
        raise UsageError("which machines?", mend="warren machines install MACHINE…, or --tag all")
    folder = opened_folder(given)
    chosen = select(folder.inventory, names, tags)
    alone = fetching(folder, chosen) - set(names)
    targets = {name: target for name, target in chosen.items() if name not in alone}
    key = find_key(sign_key, folder.path)
    run = Run(folder, _say, identities(identity))
    with run.locked("install", commits=commits):
        signers = run.allow(key)
        done, failed = asyncio.run(
            _on_all(
                targets,
                parallel,
                lambda target: installing.install(target, signers, with_packages=install_packages),
                _say_installed,
            )
        )
        installed = {name: targets[name] for name in done}
        has_new_host_keys = run.learn_host_keys(installed, parallel)
        without_key = run.make_vars(installed, parallel)
        for problem in run.reseal() if has_new_host_keys else ():
            _say(str(problem))
        failed += bring_keys(run, installed, parallel)
    for outcome in without_key.values():
        _say(f"{outcome.problem}")
    if done and not (failed or without_key):
        _say("next: warren machines update")
    return EXIT_MACHINE_FAILED if failed or without_key else 0


def _say_installed(machine: MachineName, installed: Any) -> None:
    service = (
        "its agent runs" if installed.service else "no systemd there: have your init run /usr/local/bin/warren agent"
    )
    _say(f"{machine}: installed ({installed.wireguard} WireGuard; {service})")


@machines.command()
@click.argument("names", nargs=-1, required=True, metavar="MACHINE...")
@parallel_option
@commit_option
@click.pass_obj
def uninstall(given: str | None, names: tuple[str, ...], parallel: int, commits: bool) -> int:
    """Take Warren off machines: instances down, files and private keys gone.

    Their public keys leave the vars, their addresses stay theirs.
    """
    from warren.fleet import install as installing
    from warren.fleet.run import Run, select

    folder = opened_folder(given)
    targets = select(folder.inventory, names, ())
    run = Run(folder, _say)
    with run.locked("forget", commits=commits):
        done, failed = asyncio.run(_on_all(targets, parallel, installing.uninstall, _say_uninstalled))
        for name in done:
            run.forget_keys(name)
    _say_behind(run.folder)
    return EXIT_MACHINE_FAILED if failed else 0


def _say_uninstalled(machine: MachineName, instances: tuple[str, ...]) -> None:
    _say(f"{machine}: uninstalled{', taken down: ' + ', '.join(instances) if instances else ''}")


@machines.command()
@click.argument("names", nargs=-1, metavar="[MACHINE]...")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="The machines with this tag (repeatable).")
@click.option("--dry-run", is_flag=True, help="Ask the machines what they would do; nothing is changed anywhere.")
@click.option("--force", is_flag=True, help="Let machines switch to new keys that not all others know yet; see above.")
@click.option("--canary", "canaries", default=0, metavar="N", type=click.IntRange(min=0),
              help="So many first; the others only when all went well.")  # fmt: skip
@click.option("--max-failures", metavar="N", type=click.IntRange(min=0), help="Begin no further machine after more.")
@parallel_option
@sign_key_option
@identity_option
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@commit_option
@click.pass_obj
def update(
    given: str | None,
    names: tuple[str, ...],
    tags: tuple[str, ...],
    dry_run: bool,
    force: bool,
    canaries: int,
    max_failures: int | None,
    parallel: int,
    sign_key: str | None,
    identity: str | None,
    as_json: bool,
    commits: bool,
) -> int:
    """Make machines what the inventory says; without MACHINE and --tag, all of them.

    Machines with `deploy.pull` fetch their documents from controllers by themselves, as soon as these have them: they
    are not visited, and what controllers hear of them confirms that they follow. Those that are off come later.

    Only machines whose own part changed are visited. Each one checks what it is to become, applies it, and is reached
    once more over a new connection: otherwise it goes back by itself. Run it again to continue after a failure.

    Keys that were staged (`warren vars rotate`) are brought into use without loss: all learn the new key, its machine
    switches, all forget the old one. A machine that is not reached is waited for, in this run and in later ones;
    with --force it is not, and loses those whose new key it does not know until it is reached.
    """
    from warren.cli.machines_progress import watcher
    from warren.fleet import report
    from warren.fleet.rollout import Limits
    from warren.fleet.run import Run, select
    from warren.fleet.sign import find_key

    folder = opened_folder(given)
    targets = select(folder.inventory, names, tags)
    key = find_key(sign_key, folder.path)
    run = Run(folder, _say, identities(identity))
    limits = Limits(parallel, canaries, max_failures)
    began = time.monotonic()
    with run.locked("update", commits=commits and not dry_run), watcher(quiet=as_json, every_step=dry_run) as watching:
        result = run.update(targets, key, limits, watching, dry_run=dry_run, force=force)
    if as_json:
        tree = report.tree(result.outcomes, result.up_to_date, result.without_key, result.out_of_date)
        tree["rotations"] = [each.tree for each in result.rotations]
        tree["preshared"] = list(result.preshared)
        click.echo(json.dumps(tree, indent=2))
    _tell(result, time.monotonic() - began, dry_run)
    return 0 if result.is_well else EXIT_MACHINE_FAILED


def _tell(result: Result, seconds: float, dry_run: bool) -> None:
    from warren.fleet import report
    from warren.fleet.outdated import behind_line

    for machine in result.without_key:
        _say(f"{machine}: no key yet{', the update has it make one' if dry_run else ''}")
    _say(report.summary(result.outcomes, len(result.up_to_date), seconds))
    if result.out_of_date and not dry_run:
        _say(behind_line(result.out_of_date))
    for line in (*(rotation.line for rotation in result.rotations), *result.preshared):
        _say(line)


for each in (invite, accept, revoke):
    machines.add_command(each)


@machines.command()
@click.argument("name", metavar="MACHINE")
@commit_option
@click.pass_obj
def remove(given: str | None, name: str, commits: bool) -> None:
    """Forget a machine that is in the inventory no longer: its public keys leave the vars.

    The next update makes the others forget it. Its addresses stay taken, so that nobody else is mistaken for it, until
    `warren vars fix --leftovers --machine MACHINE`.
    """
    from warren.fleet.run import Run
    from warren.inventory.wording import Nearest, quoted

    folder = opened_folder(given)
    if name in folder.inventory.machines:
        raise UsageError(
            f"machine {quoted(name)} is in the inventory",
            mend="take it out of the inventory first, with the roles and settings that name it",
        )
    stored = sorted({variable.machine for variable in folder.texts} - folder.inventory.machines.keys())
    if name not in stored:
        raise UsageError(
            f"nothing is stored of a machine {quoted(name)}", mend=Nearest().hint(name, stored, "Machines that left")
        )
    run = Run(folder, _say)
    with run.locked("remove", commits=commits):
        forgotten = run.forget_keys(MachineName(name))
    _say(f"{name}: {'its keys are removed; ' if forgotten else ''}its addresses stay taken")
    _say_behind(run.folder)


def _say_behind(folder: Folder) -> None:
    from warren.fleet.outdated import behind_line, overdue

    if stale := overdue(folder):
        _say(behind_line(stale))


async def _on_all(
    targets: Mapping[MachineName, Target],
    parallel: int,
    visit: Callable[[Target], Coroutine[Any, Any, T]],
    done: Callable[[MachineName, T], None],
) -> tuple[list[MachineName], list[MachineName]]:
    """Visit all; those that went well, and those that did not, whose errors are said as they come."""
    free = asyncio.Semaphore(parallel)
    well: list[MachineName] = []
    failed: list[MachineName] = []

    async def one(target: Target) -> None:
        async with free:
            try:
                answer = await visit(target)
            except MachineError as error:
                failed.append(target.machine)
                _say(str(error))
                return
        well.append(target.machine)
        done(target.machine, answer)

    await asyncio.gather(*map(one, targets.values()))
    return sorted(well), sorted(failed)


def _say(line: str) -> None:
    click.echo(line, err=True)
