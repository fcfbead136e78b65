"""Documents from the operator: verified, checked against what the machine follows, and applied on trial.

All that can be known is known before the first effect, and where one instance's document is refused, none changes. Then
the way back is armed outside this process, and only then anything is touched. What fails later is undone at once.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from warren.agent import drain, restore
from warren.agent import machine as this_machine
from warren.agent.machine import Documents, Verdict
from warren.agent.reconcile import Pending
from warren.errors import DocumentRefused, MachineError, UsageError, WarrenError
from warren.host import echo, preshared_command, signature, state, timer, trial
from warren.host.machine import Host
from warren.host.process import Process
from warren.host.trial import Trial, Tried
from warren.names import InstanceName, MachineName, is_host_name
from warren.network.document import ControllerEntry, Document
from warren.plan import admission, preshared, succession
from warren.plan.absence import interrupts, is_one_of_several
from warren.render.commands import log_lines
from warren.wireguard.device import REJECT_AFTER_TIME_S, REKEY_TIMEOUT_S

log = logging.getLogger("warren")

CONFIRM_WITHIN_S = 60.0
CONFIRM_RANGE_S = (1.0, 3600.0)
WAY_BEFORE_S = 2.0  # a controller that does not answer by then is none that the change could cut off
WAY_AFTER_S = 2.0 * REKEY_TIMEOUT_S  # a new session whose first message is lost takes one such time


@dataclass(frozen=True, slots=True)
class Signed:
    """A document's bytes, and the signature over them."""

    content: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Request:
    """What the operator's side sends."""

    documents: Mapping[InstanceName, Signed]
    confirm_within_s: float = CONFIRM_WITHIN_S
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """`token`: confirm it, or the machine goes back; None: nothing is to be confirmed. `restored`: it went back."""

    verdicts: Mapping[InstanceName, Verdict]
    token: str | None = None
    restored: bool = False


@dataclass(frozen=True, slots=True)
class _Accepted:
    """What may be done: every document that was sent, and what each instance of them needs."""

    documents: Documents
    held: Documents
    pending: Mapping[InstanceName, Pending]


def parse(text: bytes) -> Request:
    """Read a request; UsageError says what is wrong with it."""
    try:
        tree = json.loads(text)
        documents = {_instance(name): _signed(each) for name, each in tree["documents"].items()}
        confirm_within_s = float(tree.get("confirm_within_s", CONFIRM_WITHIN_S))
        dry_run = tree.get("dry_run", False)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"this is not what `machine receive` reads: {error!r}") from None
    shortest, longest = CONFIRM_RANGE_S
    if not shortest <= confirm_within_s <= longest or not isinstance(dry_run, bool):
        raise UsageError(f"confirm_within_s must be {shortest:g} to {longest:g}, dry_run true or false")
    return Request(documents, confirm_within_s, dry_run)


def _instance(name: str) -> InstanceName:
    if not is_host_name(name):
        raise ValueError(f"{name!r} is no instance's name")
    return InstanceName(name)


def _signed(tree: Any) -> Signed:
    return Signed(tree["document"].encode(), tree["signature"].encode())


def answer_tree(answer: Answer) -> dict[str, object]:
    """The answer as JSON has it."""
    return {
        "instances": {
            name: {
                "steps": [line for step in verdict.steps for line in log_lines(step, verdict.names)],
                "error": None if verdict.error is None else str(verdict.error),
                "notes": list(verdict.notes),
                "interrupts": interrupts(verdict.steps),
            }
            for name, verdict in answer.verdicts.items()
        },
        "token": answer.token,
        "restored": answer.restored,
    }


def receive(host: Host, me: MachineName, request: Request) -> Answer:
    """Follow the documents on trial, if every one of them may be followed."""
    documents: dict[InstanceName, Document] = {}
    refused: dict[InstanceName, WarrenError] = {}
    for name, signed in request.documents.items():
        try:
            documents[name] = verified(name, signed)
        except WarrenError as error:
            refused[name] = error
    with host.locked():
        accepted = _accepted(host, me, documents, refused)
        if accepted is None:
            return _refusal(request, refused)
        if request.dry_run:
            return Answer({name: this_machine.verdict_of(each) for name, each in accepted.pending.items()})
        to_leave = _to_leave(me, accepted)
        if not to_leave:
            return _follow(host, me, request, accepted)
    # The lock is let go of while peers leave: the agent is to tell them. So all is looked at anew.
    with drain.left_during_update(host, to_leave), host.locked():
        accepted = _accepted(host, me, documents, refused)
        return _refusal(request, refused) if accepted is None else _follow(host, me, request, accepted)


def _to_leave(me: MachineName, accepted: _Accepted) -> list[InstanceName]:
    """The instances that the update interrupts, where this is a controller and others could carry its traffic."""
    if not any(is_one_of_several(each, me) for each in accepted.documents.values()):
        return []
    return [name for name, each in accepted.pending.items() if interrupts(each.steps)]


def verified(name: InstanceName, signed: Signed) -> Document:
    try:
        log.info("%s: signed by %s", name, signature.verify(signed.content, signed.signature))
        document = state.decoded(signed.content)
    except DocumentRefused as error:
        raise DocumentRefused(error.what, where=error.where or name, mend=error.mend) from None
    if document.instance != name:
        raise DocumentRefused(
            f'this is the document of instance "{document.instance}", sent as that of "{name}"',
            where=name,
            mend="bring each instance its own",
        )
    return document


def _accepted(
    host: Host, me: MachineName, documents: Documents, refused: dict[InstanceName, WarrenError]
) -> _Accepted | None:
    """What may be done; None: `refused` says why nothing may."""
    # One that broke on this disk is mended by a new one, so it is no reason to refuse.
    held, _ = this_machine.read_documents(host)
    for name, document in documents.items():
        try:
            succession.check(document, held.get(name), me)
            admission.check(document, host.revoked(name), f"{name} on {me}")
            if document.preshared_command:
                preshared_command.check(document.preshared_command)
        except WarrenError as error:
            refused[name] = error
    try:
        prepared = this_machine.prepare(host, me, {**held, **documents}, held)
    except WarrenError as error:  # instances in each other's way
        prepared = dict.fromkeys(documents, error)
    for name in documents.keys() - refused.keys():
        each = prepared[name]
        if isinstance(each, WarrenError):
            refused[name] = each
        elif each.desired.left_out:
            refused[name] = DocumentRefused(preshared.lost_line(each.desired), where=f"{name} on {me}")
    if refused:
        return None
    pending = {name: each for name, each in prepared.items() if name in documents and isinstance(each, Pending)}
    return _Accepted(documents, held, pending)


def _refusal(request: Request, refused: Mapping[InstanceName, WarrenError]) -> Answer:
    others = MachineError(f"left as it was, since this was refused: {', '.join(sorted(refused))}")
    return Answer({name: Verdict(error=refused.get(name, others)) for name in request.documents})


def _follow(host: Host, me: MachineName, request: Request, accepted: _Accepted) -> Answer:
    new = {
        name: signed
        for name, signed in request.documents.items()
        if state.read_document_content(name, host.state) != signed.content
    }
    earlier = trial.read(host.state)
    if earlier is None and not any(accepted.pending[name].steps for name in new):
        # Nothing to go back from: no document changes what this machine is. What drifted is put right.
        _write(host, new)
        return Answer({name: this_machine.perform(host, each) for name, each in accepted.pending.items()})
    ways = [name for name in new if _has_way(accepted.held.get(name), me, accepted.pending[name])]
    token = secrets.token_hex(8)
    with timer.armed(token, request.confirm_within_s, partial(restore.watch, host)):
        waiting = _begin(host, Trial(token, me, {}, request.confirm_within_s, Process.this()), accepted, new, earlier)
        return _try(host, waiting, accepted, new, ways)


def _try(
    host: Host, waiting: Trial, accepted: _Accepted, new: Mapping[InstanceName, Signed], ways: Iterable[InstanceName]
) -> Answer:
    """From here on, whatever happens is undone unless it all works."""
    try:
        _write(host, new)
        verdicts = {name: this_machine.perform(host, each) for name, each in accepted.pending.items()}
        if not _errors(verdicts):
            verdicts |= _lost_ways(accepted, waiting.machine, ways)
        if not _errors(verdicts):
            trial.write(waiting.applied(), host.state)
            return Answer(verdicts, waiting.token)
    except WarrenError as error:
        verdicts = {name: this_machine.verdict_of(each, error) for name, each in accepted.pending.items()}
    return Answer(verdicts, None, _go_back(host, waiting, _errors(verdicts)[0]))


def _errors(verdicts: Mapping[InstanceName, Verdict]) -> list[WarrenError]:
    return [verdict.error for verdict in verdicts.values() if verdict.error is not None]


def _write(host: Host, new: Mapping[InstanceName, Signed]) -> None:
    for name, signed in new.items():
        state.write_document(name, signed.content, host.state, signature=signed.signature)


def _begin(
    host: Host, waiting: Trial, accepted: _Accepted, new: Iterable[InstanceName], earlier: Trial | None
) -> Trial:
    """Note what to go back to. A trial that goes on is taken over: what was confirmed before it still counts."""
    tried = dict(earlier.instances) if earlier else {}
    kept = [name for name in new if name not in tried]
    try:
        for name in kept:
            had_document = state.keep_confirmed(name, host.state)
            tried[name] = Tried(accepted.pending[name].desired.interface, had_document)
        waiting = replace(waiting, instances=tried)
        trial.write(waiting, host.state)
    except WarrenError:
        for name in kept:
            state.drop_confirmed(name, host.state)
        raise
    if earlier is not None:
        timer.disarm(earlier.token)
    return waiting


def _go_back(host: Host, waiting: Trial, error: WarrenError) -> bool:
    """Whether the machine is as it was. If not, the watchdog goes on trying as soon as this process has ended."""
    attempt = restore.put_back(host, waiting)
    if attempt.problems:
        log.error("the machine could not go back yet: %s", "; ".join(attempt.problems))
        return False
    restore.finish(host, waiting, f"it could not be applied: {error.what}")
    return True


def _has_way(held: Document | None, me: MachineName, pending: Pending) -> bool:
    """Whether a controller of the document before answers at this moment."""
    if held is None or pending.observed.device is None:
        return False
    now_unix_s = pending.observed.unix_s
    with_session = {
        key
        for key, peer in pending.observed.device.peers.items()
        if now_unix_s - peer.handshake_unix_s < REJECT_AFTER_TIME_S
    }
    reached = [each.address for each in _others(held, me) if each.public_key in with_session]
    return echo.any_answers(reached, WAY_BEFORE_S)


def _lost_ways(accepted: _Accepted, me: MachineName, ways: Iterable[InstanceName]) -> dict[InstanceName, Verdict]:
    """Of instances that had a way to a controller: those that have none now."""
    lost = {}
    for name in ways:
        others = _others(accepted.documents[name], me)
        if others and not echo.any_answers([each.address for each in others], WAY_AFTER_S):
            names = ", ".join(each.name for each in others)
            error = MachineError(
                f"no controller answers any more, of {names}; before the change one did",
                where=f"{name} on {me}",
                mend="if they change with the same update, let them go first, and bring it again",
            )
            lost[name] = this_machine.verdict_of(accepted.pending[name], error)
    return lost


def _others(document: Document, me: MachineName) -> list[ControllerEntry]:
    return [each for each in document.controllers.values() if each.name != me and each.public_key is not None]
