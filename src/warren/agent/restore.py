"""The way back: from documents on trial to those that were confirmed last, and the confirmation that closes it.

Going back is a rename of files and one more reconcile; the diff reads the kernel, so it does not matter how far the
applying process came, or an earlier attempt to go back. The order is what makes it safe to be killed anywhere: the
record of the trial goes last, and as long as it is there, the watchdog, the agent, or the next command tries again.
"""

from __future__ import annotations

import logging
import select
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from warren.agent import machine as this_machine
from warren.agent import reconcile
from warren.errors import MachineError, WarrenError
from warren.host import absence, state, timer, trial
from warren.host.machine import Host
from warren.host.trial import Restored, Trial

log = logging.getLogger("warren")

RETRIES_S = (1.0, 2.0, 5.0, 15.0, 30.0)  # what stands in the way now may go: a lock, a full disk, a name server
POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class Attempt:
    """`is_complete`: the documents are as they were; any `problems` left are those of an ordinary reconcile."""

    is_complete: bool
    problems: tuple[str, ...]


def restore(host: Host, token: str) -> Restored | None:
    """Go back at once, if this trial goes on; None: it is over."""
    return _go_back(host, lambda waiting: "it was asked to" if waiting.token == token else "", RETRIES_S)


def restore_when_due(host: Host, armed_by: int) -> Restored | None:
    """Wait until no trial goes on, or until one has failed; then go back."""
    for _ in _failed(host, armed_by):
        if restored := _go_back(host, Trial.reason_to_go_back, RETRIES_S):
            return restored
    return None


def watch(host: Host, armed_by: int) -> None:
    """The same, in a fork of a process that may have been in the middle of anything."""
    for _ in _failed(host, armed_by):
        if timer.restores_anew() or _go_back(host, Trial.reason_to_go_back, RETRIES_S):
            return


def _failed(host: Host, armed_by: int) -> Iterator[Trial]:
    """The trial whenever it has failed; the end when none goes on.

    `armed_by`: a descriptor that ends with whoever is about to begin a trial. Whichever trial it is: where an update
    takes over an earlier one and dies on the spot, the earlier watchdog acts.
    """
    is_alone = False
    while True:
        if is_alone:
            time.sleep(POLL_S)
        else:
            is_alone = bool(select.select([armed_by], [], [], POLL_S)[0])
        waiting = trial.read(host.state)
        if waiting is None and is_alone:
            return
        if waiting and waiting.reason_to_go_back():
            yield waiting


def restore_if_due(host: Host) -> Restored | None:
    """Go back now if a trial has failed that nobody watches any more: after a reboot, or with its watchdog killed."""
    waiting = trial.read(host.state)
    return _go_back(host, Trial.reason_to_go_back, ()) if waiting and waiting.reason_to_go_back() else None


def _go_back(host: Host, reason: Callable[[Trial], str], pauses_s: tuple[float, ...]) -> Restored | None:
    """Go back if there is a reason, trying again after each pause; None: the trial is over, or goes on."""
    attempt = Attempt(False, ())
    for number, pause_s in enumerate((0.0, *pauses_s)):
        time.sleep(pause_s)
        try:
            waiting = trial.read(host.state)
            if waiting and waiting.applier and reason(waiting):
                waiting.applier.kill()  # it is too late, and may be stuck with the lock in its hand
            with host.locked():
                waiting = trial.read(host.state)
                why = reason(waiting) if waiting else ""
                if waiting is None or not why:
                    return None
                attempt = put_back(host, waiting)
                if attempt.is_complete and (not attempt.problems or number == len(pauses_s)):
                    return finish(host, waiting, why, attempt.problems)
        except WarrenError as error:  # somebody else has the lock
            attempt = Attempt(False, (str(error),))
        log.warning("going back does not work yet: %s", "; ".join(attempt.problems))
    raise MachineError(
        f"the machine could not go back: {'; '.join(attempt.problems)}",
        mend="see to that; the agent, or the next warren apply, tries again",
    )


def put_back(host: Host, waiting: Trial) -> Attempt:
    """Make the confirmed documents those that hold, and the machine what they say. To be called under the host's lock.

    Whatever an earlier attempt did or left.
    """
    tried, _ = this_machine.read_documents(host)
    before = _documents_back(host, waiting)
    documents, unreadable = this_machine.read_documents(host)
    try:
        prepared = this_machine.prepare(host, waiting.machine, documents, tried)
    except WarrenError as error:
        return Attempt(not before, (*before, str(error)))
    after = dict(unreadable)
    for name in waiting.instances.keys() & prepared.keys():
        if problem := this_machine.perform(host, prepared[name]).error:
            after[name] = problem
    left = [f"{name}: {error}" for name, error in after.items() if name in waiting.instances]
    return Attempt(not before, (*before, *left))


def _documents_back(host: Host, waiting: Trial) -> tuple[str, ...]:
    """What stood in the way of having the documents as they were, and instances that had none gone."""
    problems = []
    for name, tried in waiting.instances.items():
        try:
            if tried.had_document:
                state.put_back(name, host.state)
            else:
                documents, _ = this_machine.read_documents(host)
                documents.pop(name, None)
                reconcile.remove(host, name, tried.interface, this_machine.others(host, name, documents))
                state.remove_instance(name, host.state)
        except WarrenError as error:
            problems.append(f"{name}: {error}")
    return tuple(problems)


def finish(host: Host, waiting: Trial, why: str, problems: tuple[str, ...] = ()) -> Restored:
    """Close a trial that failed, and say so where people look. To be called under the host's lock."""
    restored = Restored(waiting.token, time.time(), why, tuple(sorted(waiting.instances)), problems)
    try:
        trial.write_restored(restored, host.state)
    except WarrenError as error:  # a full disk is a likely reason to be here
        log.warning("%s", error)
    _end(host, waiting)
    log.warning("%s", restored)
    timer.disarm(waiting.token)
    return restored


def _end(host: Host, waiting: Trial) -> None:
    """A controller that peers left for it may be used again."""
    trial.end(host.state)
    for name in waiting.instances:
        with suppress(WarrenError):  # the word ends by itself, too
            absence.end_update(name, host.state)


def confirm(host: Host, token: str) -> None:
    """The new documents are good: from now on they are what the machine goes back to. Can be repeated."""
    with host.locked():
        waiting = _waiting(host, token)
        if waiting is None:
            _check_confirmed(host, token)
            return
        if waiting.applier is not None:
            raise MachineError(f"{', '.join(waiting.instances)}: this is still being applied, or was cut short")
        _end(host, waiting)
        log.info("%s: confirmed", ", ".join(waiting.instances))
        try:
            trial.note_confirmed(token)
            trial.forget_restored(host.state)
            for name in waiting.instances:
                state.drop_confirmed(name, host.state)
                if document := host.read_document(name):
                    this_machine.settle_key(host, document, waiting.machine)
        except WarrenError as error:  # what is left lying there is in nobody's way
            log.warning("%s", error)
    timer.disarm(token)


def _check_confirmed(host: Host, token: str) -> None:
    if trial.was_confirmed(token):
        return
    restored = trial.read_restored(host.state)
    if restored is not None and restored.token == token:
        raise MachineError(f"too late: {restored}", mend="find out why, then: warren machines update")
    raise MachineError(
        "nothing waits to be confirmed by this token", mend="a later update took its place, or bring it again"
    )


def _waiting(host: Host, token: str) -> Trial | None:
    waiting = trial.read(host.state)
    return waiting if waiting and waiting.token == token else None
