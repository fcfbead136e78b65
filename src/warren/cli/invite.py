"""`warren machines invite` and `accept`: machines come in by themselves, where no ssh reaches them."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from warren.cli import EXIT_MACHINE_FAILED
from warren.cli.inventory import opened_folder
from warren.cli.machines_options import commit_option, instance_option, parallel_option, sign_key_option
from warren.errors import MachineError, UsageError
from warren.inventory.wording import listed, quoted
from warren.names import MachineName
from warren.render.columns import columns

if TYPE_CHECKING:
    from warren.fleet.heard import Pair
    from warren.fleet.invite import Seen
    from warren.fleet.run import Run
    from warren.fleet.sign import SigningKey
    from warren.network.invitations import Invitation
    from warren.workspace.folder import Folder

_UNITS_S = {"m": 60, "h": 3600, "d": 86400}
_LONGEST_S = 30 * 86400
_LOOK_PAUSE_S = 2.0
_LIVE_WITHIN_S = 30.0


@click.command()
@click.argument("names", nargs=-1, metavar="[MACHINE]...")
@instance_option
@click.option("--valid", default="1h", show_default=True, metavar="TIME", help="For how long: 10m, 1h, 2d.")
@click.option(
    "--wait", is_flag=True, help="Accept each as soon as its key comes in; until then, or the invitation ends."
)
@click.option("--qr/--no-qr", default=None, help="The line as a QR code, too; on a terminal it is.")
@click.option("--list", "listing", is_flag=True, help="Invitations, and what controllers have of those who came.")
@click.option("--withdraw", is_flag=True, help="Take the open invitations of these machines back.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@sign_key_option
@parallel_option
@commit_option
@click.pass_obj
def invite(
    given: str | None,
    names: tuple[str, ...],
    instance: str | None,
    valid: str,
    wait: bool,
    qr: bool | None,
    listing: bool,
    withdraw: bool,
    as_json: bool,
    sign_key: str | None,
    parallel: int,
    commits: bool,
) -> int:
    """Let machines come in by themselves: one line for each, to be given to `warren join` there.

    A line is good once, for that machine, for an hour. It has a one-time key, by which controllers take the public key
    that the machine makes; they tell nobody anything before you accept it (`--wait`, or `warren machines accept`). The
    line is shown once and stored nowhere: hand it over as you would a password.
    """
    folder = opened_folder(given)
    if listing:
        return _list(folder, names, as_json)
    if not names:
        raise UsageError("which machines?", mend="warren machines invite MACHINE…, or --list")
    pairs = _pairs(folder, names, instance)
    run, key = _begun(folder, sign_key)
    if withdraw:
        return _withdraw(run, pairs, key, parallel, commits)
    lines = _invited(run, pairs, _seconds(valid), key, parallel, commits)
    _show(lines, as_json, sys.stdout.isatty() if qr is None else qr)
    return _wait(run, pairs, key, parallel, commits) if wait else 0


@click.command()
@click.argument("names", nargs=-1, metavar="[MACHINE]...")
@instance_option
@click.option("--all", "everything", is_flag=True, help="All that were invited and have come.")
@click.option("--key", "prefix", default="", metavar="KEY", help="The key, or how it begins, where several came.")
@sign_key_option
@parallel_option
@commit_option
@click.pass_obj
def accept(
    given: str | None,
    names: tuple[str, ...],
    instance: str | None,
    everything: bool,
    prefix: str,
    sign_key: str | None,
    parallel: int,
    commits: bool,
) -> int:
    """Take in machines that came by an invitation: their public keys are stored, and controllers told.

    Controllers are asked over ssh what was handed in. Two different keys for one invitation are accepted by none of
    them, unless --key says which: somebody else has the line.
    """
    from warren.fleet import invite as inviting

    folder = opened_folder(given)
    if not names and not everything:
        raise UsageError("which machines?", mend="warren machines accept MACHINE…, or --all")
    if everything:
        pairs = [(each.machine, name) for name, document in folder.documents.items() for each in document.invitations]
        pairs = [pair for pair in dict.fromkeys(pairs) if _open(folder, [pair])]
    else:
        pairs = _pairs(folder, names, instance)
        for machine, name in pairs:
            inviting.check_without_key(folder, machine, name)
    run, key = _begun(folder, sign_key)
    done = _accept(run, pairs, prefix, key, parallel, commits)
    missing = [machine for machine, name in pairs if (machine, name) not in done]
    if missing and not everything:
        raise MachineError(
            f"nobody came yet by the invitation of {listed(missing)}", mend="on it: warren join LINE; then this again"
        )
    _say_live(run.folder, done)
    return 0


def _pairs(folder: Folder, names: Sequence[str], instance: str | None) -> list[Pair]:
    from warren.fleet import invite as inviting

    return [
        (MachineName(name), inviting.instance_for(folder, MachineName(name), instance)) for name in dict.fromkeys(names)
    ]


def _begun(folder: Folder, sign_key: str | None) -> tuple[Run, SigningKey]:
    from warren.fleet.run import Run
    from warren.fleet.sign import find_key

    return Run(folder, _say), find_key(sign_key, folder.path)


def _invited(
    run: Run, pairs: Sequence[Pair], valid_s: float, key: SigningKey, parallel: int, commits: bool
) -> dict[Pair, tuple[str, Invitation]]:
    """The lines. If no controller could be told, there are none."""
    from warren.fleet import invite as inviting
    from warren.plan.line import encode

    for machine, instance in pairs:
        inviting.check_without_key(run.folder, machine, instance)
    made = {}
    with run.locked("invite", commits=commits):
        signers = run.allow(key)
        now_unix_s = time.time()
        for machine, instance in pairs:
            private_key, invitation, texts = inviting.invited(run.folder, machine, instance, valid_s, now_unix_s)
            inviting.line_of(run.folder.documents[instance], private_key, invitation, signers)  # or why there is none
            made[machine, instance] = private_key, invitation
            run.keep(texts)
        untold = _told(run, pairs, key, parallel)
        if untold:
            for machine, instance in pairs:
                if instance in untold:
                    run.keep(inviting.withdrawn(run.folder, machine, instance))
            raise MachineError(f"no controller of {listed(sorted(untold))} could be told: nobody is invited")
    return {
        (machine, instance): (
            encode(inviting.line_of(run.folder.documents[instance], private_key, invitation, signers)),
            invitation,
        )
        for (machine, instance), (private_key, invitation) in made.items()
    }


def _told(run: Run, pairs: Sequence[Pair], key: SigningKey, parallel: int) -> set[str]:
    """Bring controllers their document; the instances of which none has it."""
    from warren.cli.machines_progress import watcher
    from warren.fleet import invite as inviting
    from warren.fleet.rollout import Limits

    targets = inviting.controllers_of(run.folder, {instance for _, instance in pairs})
    with watcher(quiet=True, every_step=False) as watching:
        result = run.update(targets, key, Limits(parallel), watching, dry_run=False)
    documents = run.folder.documents
    return {
        instance
        for _, instance in pairs
        if all(instance in result.out_of_date.get(each, ()) for each in documents[instance].controllers)
    }


def _withdraw(run: Run, pairs: Sequence[Pair], key: SigningKey, parallel: int, commits: bool) -> int:
    from warren.fleet import invite as inviting

    with run.locked("withdraw", commits=commits):
        for machine, instance in pairs:
            run.keep(inviting.withdrawn(run.folder, machine, instance))
        untold = _told(run, pairs, key, parallel)
    if untold:
        _say(f"no controller of {listed(sorted(untold))} could be told: warren machines update")
    return EXIT_MACHINE_FAILED if untold else 0


def _accept(
    run: Run,
    pairs: Sequence[Pair],
    prefix: str,
    key: SigningKey,
    parallel: int,
    commits: bool,
    disputed: set[Pair] | None = None,
) -> list[Pair]:
    """Those of which a key has come; it is theirs from now on, and controllers know.

    `disputed`: where those go for whom several keys came; None: that is an error.
    """
    from warren.fleet import invite as inviting
    from warren.fleet.plans import FETCHES

    done = []
    with run.locked("accept", commits=commits):
        seen = {
            instance: asyncio.run(inviting.look(run.folder, instance))
            for instance in dict.fromkeys(i for _, i in pairs)
        }
        for each in seen.values():
            _say_silent(each)
        for machine, instance in pairs:
            for invitation in _open(run.folder, [(machine, instance)]):
                try:
                    hand_in = inviting.chosen(invitation, seen[instance], prefix)
                except UsageError as error:
                    if disputed is None:
                        raise
                    _say(str(error))
                    disputed.add((machine, instance))
                    continue
                if hand_in is None:
                    continue
                run.keep(inviting.accepted(run.folder, invitation, instance, hand_in.public_key))
                if run.folder.inventory.machines[machine].deploy.pull:
                    run.note(machine, {instance: FETCHES})
                at = f"{datetime.fromtimestamp(hand_in.unix_s, UTC):%Y-%m-%d %H:%M:%S} UTC"
                _say(f"{machine}: key {hand_in.public_key}, handed in from {hand_in.came_from or 'somewhere'} at {at}")
                done.append((machine, instance))
        if done and (untold := _told(run, done, key, parallel)):
            raise MachineError(
                f"accepted, but no controller of {listed(sorted(untold))} could be told", mend="warren machines update"
            )
    return done


def _open(folder: Folder, pairs: Sequence[Pair]) -> list[Invitation]:
    from warren.fleet import invite as inviting

    now_unix_s = time.time()
    return [
        each for machine, name in pairs for each in inviting.open_now(folder.documents[name], [machine], now_unix_s)
    ]


def _wait(run: Run, pairs: Sequence[Pair], key: SigningKey, parallel: int, commits: bool) -> int:
    """Accept each as it comes; those that did not come in time are named."""
    left = list(pairs)
    disputed: set[Pair] = set()
    end_unix_s = max((each.expires_unix_s for each in _open(run.folder, pairs)), default=0)
    while left and time.time() < end_unix_s:
        if _anybody_came(run.folder, left):
            done = _accept(run, left, "", key, parallel, commits, disputed)
            _say_live(run.folder, done)
            left = [pair for pair in left if pair not in disputed.union(done)]
        else:
            time.sleep(_LOOK_PAUSE_S)
    if left:
        _say(f"did not come: {listed([machine for machine, _ in left])}")
    return EXIT_MACHINE_FAILED if left or disputed else 0


def _anybody_came(folder: Folder, pairs: Sequence[Pair]) -> bool:
    from warren.fleet import invite as inviting

    for instance in dict.fromkeys(instance for _, instance in pairs):
        seen = asyncio.run(inviting.look(folder, instance))
        if any(seen.hand_ins(each) for each in _open(folder, [pair for pair in pairs if pair[1] == instance])):
            return True
    return False


def _say_live(folder: Folder, pairs: Sequence[Pair]) -> None:
    """Say who is in the mesh by now."""
    from warren.fleet import invite as inviting

    live = asyncio.run(inviting.await_live(folder, pairs, _LIVE_WITHIN_S)) if pairs else set()
    for machine, instance in pairs:
        if (machine, instance) not in live:
            _say(f"{machine}: accepted; it is not in {instance} yet: its `warren join` has to go on, or begin again")
        else:
            alone = "" if folder.inventory.machines[machine].deploy.pull else (
                f"; if ssh does not reach it, set machines.{machine}.deploy.pull = true, for updates"
            )  # fmt: skip
            _say(f"{machine}: is in {instance}{alone}")


def _show(lines: dict[Pair, tuple[str, Invitation]], as_json: bool, with_code: bool) -> None:
    """The only time that the lines are seen."""
    from warren.render.qr import text_code

    if as_json:
        tree = {
            machine: {"instance": instance, "line": line, "expires_unix_s": invitation.expires_unix_s}
            for (machine, instance), (line, invitation) in lines.items()
        }
        click.echo(json.dumps({"invitations": tree}, indent=2))
        return
    for (machine, _), (line, invitation) in lines.items():
        at = f"{datetime.fromtimestamp(invitation.expires_unix_s, UTC):%H:%M} UTC"
        _say(f"on {machine}, until {at}, once: sudo warren join LINE")
        click.echo(line)
        if with_code:
            click.echo(text_code(line), nl=False)


def _list(folder: Folder, names: Sequence[str], as_json: bool) -> int:
    """Invitations, who came by them, and who was refused."""
    from warren.fleet import invite as inviting

    seen = {
        name: asyncio.run(inviting.look(folder, name))
        for name, document in folder.documents.items()
        if document.invitations
    }
    found = [
        _row(name, each, seen[name])
        for name in seen
        for each in folder.documents[name].invitations
        if not names or each.machine in names
    ]
    silent = {controller: why for each in seen.values() for controller, why in each.silent.items()}
    if as_json:
        click.echo(json.dumps({"invitations": found, "not_reached": silent}, indent=2))
    else:
        head = ("MACHINE", "INSTANCE", "STATE", "UNTIL", "CAME")
        cells = [
            (row["machine"], row["instance"], row["state"], _moment(row["expires_unix_s"]), _came(row)) for row in found
        ]
        click.echo(columns([head, *cells]), nl=False)
        for row in found:
            for each in row["refusals"]:
                times = f", {each['times']} times" if each["times"] > 1 else ""
                where = f" from {each['from']}" if each["from"] else ""
                click.echo(
                    f"{row['machine']}: refused{where} by {each['by']}{times}: {each['reason']} ({each['asked']})"
                )
        for each in seen.values():
            _say_silent(each)
    return EXIT_MACHINE_FAILED if silent else 0


def _row(instance: str, invitation: Invitation, seen: Seen) -> dict[str, Any]:
    state = invitation.closed or ("open" if time.time() < invitation.expires_unix_s else "expired")
    return {
        "machine": invitation.machine,
        "instance": instance,
        "state": state,
        "expires_unix_s": invitation.expires_unix_s,
        "hand_ins": [
            {"by": name, "public_key": each.public_key.text, "from": each.came_from, "unix_s": each.unix_s}
            for name, each in seen.hand_ins(invitation)
        ],
        "refusals": [
            {
                "by": name, "reason": each.reason, "asked": each.asked, "from": each.came_from,
                "unix_s": each.unix_s, "times": each.times,
            }
            for name, book in seen.books.items()
            for each in book.refusals
            if each.invitation == invitation.public_key
        ],
    }  # fmt: skip


def _came(row: dict[str, Any]) -> str:
    keys = {each["public_key"]: each["from"] for each in row["hand_ins"]}
    return ", ".join(f"{key[:8]}… from {where or '?'}" for key, where in keys.items()) or "-"


def _moment(unix_s: float) -> str:
    return f"{datetime.fromtimestamp(unix_s, UTC):%Y-%m-%d %H:%M} UTC"


def _say_silent(seen: Seen) -> None:
    for why in seen.silent.values():
        _say(why)


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d{1,5})([mhd])", text)
    seconds = int(found[1]) * float(_UNITS_S[found[2]]) if found else 0.0
    if not 60 <= seconds <= _LONGEST_S:
        raise UsageError(f"{quoted(text)} is no such time", mend="write a number and m, h or d, 30 days at most: 1h")
    return seconds


def _say(line: str) -> None:
    click.echo(line, err=True)
