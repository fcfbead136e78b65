"""Invitations as the operator makes, sees and accepts them. The one-time private key is in memory, and in the line."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from warren.errors import MachineError, UsageError
from warren.fleet import heard, machine_side
from warren.fleet.ssh import Target, target_of
from warren.inventory.wording import Nearest, listed, quoted
from warren.names import InstanceName, MachineName
from warren.network.document import Document
from warren.network.invitations import KEPT_S, OPEN, USED, WITHDRAWN, Invitation, invitations_text, parse_invitations
from warren.network.stored import INVITATIONS_FILE, PUBLIC_KEY_FILE, keys_generator
from warren.plan.joining import Guestbook, HandIn
from warren.plan.line import Line, Way
from warren.vars.generators import Variable
from warren.wireguard.keys import KEY_BYTES, PrivateKey, PublicKey
from warren.wireguard.x25519 import public_key
from warren.workspace.folder import Folder


@dataclass(frozen=True, slots=True)
class Seen:
    """What controllers of one instance have of those who came. `silent`: controllers that did not answer, and why."""

    books: Mapping[MachineName, Guestbook]
    silent: Mapping[MachineName, str]

    def hand_ins(self, invitation: Invitation) -> list[tuple[MachineName, HandIn]]:
        """Of one invitation, with the controller that was reached; the oldest first."""
        found = [
            (name, each)
            for name, book in self.books.items()
            for each in book.hand_ins
            if each.invitation == invitation.public_key
        ]
        return sorted(found, key=lambda pair: pair[1].unix_s)


def instance_for(folder: Folder, machine: MachineName, given: str | None) -> InstanceName:
    """The instance in which the machine is a peer; UsageError where that is not one."""
    inventory = folder.inventory
    if machine not in inventory.machines:
        raise UsageError(
            f"there is no machine {quoted(machine)}", mend=Nearest().hint(machine, inventory.machines, "Machines")
        )
    if not inventory.machines[machine].managed:
        raise UsageError(f"machine {quoted(machine)} is not managed: Warren does not run on it")
    peers = [name for name, each in inventory.instances.items() if machine in each.peers]
    chosen = [name for name in peers if given in (None, name)]
    if len(chosen) == 1:
        return chosen[0]
    if chosen:
        raise UsageError(f"machine {quoted(machine)} is a peer in {listed(chosen)}", mend="say which: --instance NAME")
    where = f"of instance {quoted(given)}" if given else "of any instance"
    raise UsageError(
        f"machine {quoted(machine)} is no peer {where}", mend="only peers are invited; give it the role first"
    )


def stored(folder: Folder, machine: MachineName, instance: InstanceName) -> tuple[Invitation, ...]:
    return tuple(each for each in folder.documents[instance].invitations if each.machine == machine)


def check_without_key(folder: Folder, machine: MachineName, instance: InstanceName) -> None:
    """Raise UsageError where the machine has a key already: an invitation would give it to somebody else."""
    entry = folder.documents[instance].entry(machine)
    if entry is not None and entry.public_key is not None:
        raise UsageError(
            f"machine {quoted(machine)} has a key in {instance} already",
            mend=f"if it is to begin anew: warren machines revoke {machine}, or warren machines uninstall {machine}",
        )


def invited(
    folder: Folder, machine: MachineName, instance: InstanceName, valid_s: float, now_unix_s: float
) -> tuple[PrivateKey, Invitation, dict[Variable, str]]:
    """A new invitation, and what is to be stored: those that were open are withdrawn, old ones forgotten."""
    key = PrivateKey(secrets.token_bytes(KEY_BYTES))
    new = Invitation(machine, public_key(key), int(now_unix_s + valid_s))
    kept = [
        Invitation(each.machine, each.public_key, each.expires_unix_s, each.closed or WITHDRAWN)
        for each in stored(folder, machine, instance)
        if each.is_kept(now_unix_s)
    ]
    return key, new, {_variable(machine, instance): invitations_text([*kept, new])}


def accepted(folder: Folder, invitation: Invitation, instance: InstanceName, key: PublicKey) -> dict[Variable, str]:
    """What is to be stored when a key that was handed in is the machine's from now on."""
    machine = invitation.machine
    left = [
        Invitation(
            each.machine,
            each.public_key,
            each.expires_unix_s,
            USED if each.public_key == invitation.public_key else each.closed or WITHDRAWN,
        )
        for each in stored(folder, machine, instance)
    ]
    return {
        Variable(machine, keys_generator(instance), PUBLIC_KEY_FILE): key.text,
        _variable(machine, instance): invitations_text(left),
    }


def withdrawn(folder: Folder, machine: MachineName, instance: InstanceName) -> dict[Variable, str]:
    closed = [
        Invitation(each.machine, each.public_key, each.expires_unix_s, each.closed or WITHDRAWN)
        for each in stored(folder, machine, instance)
    ]
    return {_variable(machine, instance): invitations_text(closed)} if closed else {}


def withdrawn_open(texts: Mapping[Variable, str], machine: MachineName) -> dict[Variable, str]:
    """What is to be stored so that none of the machine's invitations is open. Broken texts are left for `check`."""
    found = {}
    for variable, text in texts.items():
        if variable.machine == machine and variable.file == INVITATIONS_FILE:
            with suppress(ValueError):
                every = parse_invitations(machine, text)
                closed = [replace(each, closed=each.closed or WITHDRAWN) for each in every]
                if closed != list(every):
                    found[variable] = invitations_text(closed)
    return found


def _variable(machine: MachineName, instance: InstanceName) -> Variable:
    return Variable(machine, keys_generator(instance), INVITATIONS_FILE)


def line_of(document: Document, key: PrivateKey, invitation: Invitation, signers: str) -> Line:
    ways = [
        Way(each.public_key, each.endpoint, each.subnet)
        for each in document.controllers.values()
        if each.public_key is not None
    ]
    lines = tuple(line for line in signers.splitlines() if line.strip() and not line.startswith("#"))
    if not ways:
        raise UsageError(
            "no controller has a key yet", mend="warren machines install, then update, for controllers first"
        )
    return Line(document.instance, invitation.machine, key, tuple(ways), lines, invitation.expires_unix_s)


def controllers_of(folder: Folder, instances: Collection[InstanceName]) -> dict[MachineName, Target]:
    names = sorted({name for instance in instances for name in folder.documents[instance].controllers})
    return {name: target_of(folder.inventory.machines[name]) for name in names}


def open_now(document: Document, machines: Iterable[MachineName], now_unix_s: float) -> list[Invitation]:
    """Those that may still be accepted; handed in before its end is in time."""
    return [
        each
        for each in document.invitations
        if each.machine in machines and each.closed == OPEN and now_unix_s < each.expires_unix_s + KEPT_S
    ]


async def look(folder: Folder, instance: InstanceName) -> Seen:
    """Ask the controllers of the instance who came."""
    targets = controllers_of(folder, [instance])

    async def one(target: Target) -> Guestbook | str:
        try:
            return await machine_side.guests(target, instance)
        except MachineError as error:
            return str(error)

    answers = dict(zip(targets, await asyncio.gather(*map(one, targets.values())), strict=True))
    return Seen(
        {name: each for name, each in answers.items() if isinstance(each, Guestbook)},
        {name: each for name, each in answers.items() if isinstance(each, str)},
    )


def chosen(invitation: Invitation, seen: Seen, prefix: str) -> HandIn | None:
    """The one key that was handed in; None: none was yet. UsageError where there are several, and none is told."""
    hand_ins = [each for _, each in seen.hand_ins(invitation)]
    found = [each for each in hand_ins if each.public_key.text.startswith(prefix)]
    if prefix and hand_ins and not found:
        raise UsageError(f"no key that begins with {prefix} was handed in for {invitation.machine}")
    different = {each.public_key for each in found}
    if len(different) > 1:
        who = "; ".join(f"{each.public_key} from {each.came_from or 'an unknown address'}" for each in found)
        raise UsageError(
            f"{len(different)} different keys were handed in for {invitation.machine}: {who}",
            mend=f"ask on the machine which one is its own (warren facts there, or what join printed), then: "
            f"warren machines accept {invitation.machine} --key KEY; or invite it anew",
        )
    return found[0] if found else None


async def await_live(folder: Folder, pairs: Collection[heard.Pair], within_s: float) -> set[heard.Pair]:
    """Those of the machines with which a controller comes to have a session by their own key."""
    targets = controllers_of(folder, {instance for _, instance in pairs})
    deadline = time.monotonic() + within_s
    live: set[heard.Pair] = set()
    while live != set(pairs) and time.monotonic() < deadline:
        trees = await asyncio.gather(*map(_status, targets.values()))
        for machine, instance in pairs:
            for tree in trees:
                peers = tree.get("instances", {}).get(instance, {}).get("machines", {})
                if peers.get(machine, {}).get("has_session"):
                    live.add((machine, instance))
        if live != set(pairs):
            await asyncio.sleep(0.5)
    return live


async def _status(target: Target) -> dict[str, Any]:
    try:
        return await machine_side.status(target)
    except MachineError:
        return {}
