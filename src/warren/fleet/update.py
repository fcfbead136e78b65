"""Bring machines the documents that they do not follow yet, and have each of them say what became of it.

Nothing is remembered between runs but what machines confirmed (`record`): a run that was stopped is continued by the
next one, which visits only those that are still out of date.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Protocol, TypeAlias

from warren.errors import MachineError
from warren.fleet import machine_side
from warren.fleet.machine_side import CONFIRM_WITHIN_S, SignedDocument, Verdict
from warren.fleet.plans import Digest, Digests, OwnValues, out_of_date, own_values, to_forget
from warren.fleet.record import Record, noted_variables
from warren.fleet.rollout import Limits, roll_out
from warren.fleet.ssh import Target, Unreachable
from warren.names import InstanceName, MachineName
from warren.network.document import Document
from warren.network.stored import KEY_FILES, keys_generator
from warren.plan.absence import is_one_of_several
from warren.vars.generators import Variable
from warren.vars.sealed import SealedFile, sealed_files

_LAST_CONFIRM_S = CONFIRM_WITHIN_S * 0.8  # later it might cross with the machine's going back
_CONFIRM_AGAIN_S = 1.0


class State(Enum):
    """What became of one machine."""

    DONE = "updated"
    WAITING = "to be done"  # of a dry run
    FETCHING = "fetches it by itself"  # when it is on, and hears a controller
    NOT_REACHED = "not reached"
    FAILED = "failed"
    NOT_BEGUN = "not begun"  # after failures of others


@dataclass(frozen=True, slots=True)
class Errand:
    """What one machine is brought. `plans`: what it confirms by that, and `values`: which of its own values with it.

    `may_be_left`: a controller among several.
    """

    target: Target
    plans: Mapping[InstanceName, Digest]
    forget: tuple[InstanceName, ...] = ()
    may_be_left: bool = False
    values: Mapping[InstanceName, OwnValues] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one machine: the commands that it carried out, and what went wrong."""

    machine: MachineName
    state: State
    steps: Mapping[InstanceName, tuple[str, ...]] = field(default_factory=dict)
    problem: str = ""
    notes: tuple[str, ...] = ()  # what the operator has to do there by hand

    @property
    def is_well(self) -> bool:
        return self.state in (State.DONE, State.WAITING, State.FETCHING)

    def then(self, later: Outcome) -> Outcome:
        """Both together, after a second visit."""
        names = [*self.steps, *(name for name in later.steps if name not in self.steps)]
        steps = {name: (*self.steps.get(name, ()), *later.steps.get(name, ())) for name in names}
        notes = (*self.notes, *(note for note in later.notes if note not in self.notes))
        return replace(later, steps=steps, notes=notes)


class Watcher(Protocol):
    """Somebody who watches."""

    def begins(self, machine: MachineName, what: str) -> None: ...

    def ended(self, outcome: Outcome) -> None: ...


def errands(
    targets: Mapping[MachineName, Target], documents: Mapping[InstanceName, Document], wants: Digests, known: Digests
) -> tuple[dict[MachineName, Errand], list[MachineName]]:
    """What each of these machines is to be brought; and those that have no key yet, which nothing can be brought."""
    stale, left = out_of_date(wants, known), to_forget(targets, wants, known)
    found: dict[MachineName, Errand] = {}
    without_key = []
    for name in sorted((stale.keys() | left.keys()) & targets.keys()):
        with_key = [instance for instance in stale.get(name, ()) if _has_key(documents[instance], name)]
        if len(with_key) < len(stale.get(name, ())):
            without_key.append(name)
        if with_key or name in left:
            plans = {instance: wants[name, instance] for instance in with_key}
            may_be_left = any(is_one_of_several(documents[instance], name) for instance in with_key)
            values = {instance: own_values(documents[instance], name) for instance in with_key}
            found[name] = Errand(targets[name], plans, left.get(name, ()), may_be_left, values)
    return found, without_key


def in_order(machines: Collection[MachineName], documents: Mapping[InstanceName, Document]) -> list[MachineName]:
    """Controllers first, for a peer refuses a change after which none answers it; among equals, by name."""
    controllers = {name for document in documents.values() for name in document.controllers}
    return sorted(machines, key=lambda name: (name not in controllers, name))


def _has_key(document: Document, machine: MachineName) -> bool:
    entry = document.entry(machine)
    return entry is not None and entry.public_key is not None


Deliver: TypeAlias = Callable[[Target], Awaitable[None]]
"""Bring a machine the keys that it needs before its documents."""


class Update:
    """One command's visits, in one round or several. `outcomes`: all rounds together."""

    def __init__(self, record: Record, watcher: Watcher, *, dry_run: bool, deliver: Deliver | None = None) -> None:
        self.dry_run = dry_run
        self._deliver = deliver
        self.outcomes: dict[MachineName, Outcome] = {}
        self._record = record
        self._watcher = watcher
        self._errands: Mapping[MachineName, Errand] = {}
        self._signed: Mapping[InstanceName, SignedDocument] = {}
        self._written: list[Variable | SealedFile] = []
        self._well = State.WAITING if dry_run else State.DONE
        self._one_left = asyncio.Lock()  # controllers that peers have to leave go one after the other

    async def run(
        self,
        errands: Mapping[MachineName, Errand],
        signed: Mapping[InstanceName, SignedDocument],
        order: list[MachineName],
        limits: Limits,
    ) -> None:
        """One round."""
        self._errands, self._signed = errands, signed
        for machine in await roll_out(order, limits, self._visit):
            self._end(Outcome(machine, State.NOT_BEGUN))

    def may_visit(self, machine: MachineName) -> bool:
        """Whom a round before did not reach, or failed at, a later one leaves alone."""
        return machine not in self.outcomes or self.outcomes[machine].is_well

    @property
    def was_stopped(self) -> bool:
        """After failures, as the limits say."""
        return any(outcome.state is State.NOT_BEGUN for outcome in self.outcomes.values())

    def taken_written(self) -> list[Variable | SealedFile]:
        """What was stored in the vars since this was asked last."""
        written, self._written = self._written, []
        return written

    async def _visit(self, machine: MachineName) -> bool:
        errand = self._errands[machine]
        try:
            outcome = await self._bring(errand)
        except Unreachable as error:
            outcome = Outcome(machine, State.NOT_REACHED, problem=str(error))
        except MachineError as error:
            outcome = Outcome(machine, State.FAILED, problem=str(error))
        self._end(outcome)
        return outcome.is_well

    def _end(self, outcome: Outcome) -> None:
        before = self.outcomes.get(outcome.machine)
        self.outcomes[outcome.machine] = before.then(outcome) if before else outcome
        self._watcher.ended(outcome)

    async def _bring(self, errand: Errand) -> Outcome:
        machine = errand.target.machine
        steps: dict[InstanceName, tuple[str, ...]] = {}
        for instance in errand.forget:
            steps[instance] = (f"warren down {instance}",)
            if not self.dry_run:
                self._watcher.begins(machine, f"leaving {instance}")
                await machine_side.forget(errand.target, instance)
                self._forgotten(machine, instance)
        if errand.plans and not self.dry_run and self._deliver is not None:
            await self._deliver(errand.target)
        if errand.plans and not self.dry_run and errand.may_be_left and await self._would_interrupt(errand):
            async with self._one_left:
                return await self._bring_documents(errand, steps)
        if errand.plans:
            return await self._bring_documents(errand, steps)
        return Outcome(machine, self._well, steps)

    async def _bring_documents(self, errand: Errand, steps: Mapping[InstanceName, tuple[str, ...]]) -> Outcome:
        machine = errand.target.machine
        verdict = await self._receive(errand, self.dry_run)
        steps = {**steps, **{instance: each.steps for instance, each in verdict.instances.items()}}
        notes = tuple(f"{name}: {note}" for name, each in verdict.instances.items() for note in each.notes)
        errors = {instance: each.error for instance, each in verdict.instances.items() if each.error}
        if errors:
            # Not confirmed: what it did change, it takes back by itself.
            problem = "\n".join(f"{machine}: {instance}: {text}" for instance, text in sorted(errors.items()))
            return Outcome(machine, State.FAILED, steps, problem)
        if not self.dry_run:
            await self._confirm(errand.target, verdict)
            self._written += self._record.acknowledge(machine, errand.plans, errand.values)
        return Outcome(machine, self._well, steps, notes=notes)

    async def _would_interrupt(self, errand: Errand) -> bool:
        """Whether peers have to leave this controller for it. Asked first, so that one that is dead holds up nobody."""
        verdict = await self._receive(errand, dry_run=True)
        return any(each.interrupts for each in verdict.instances.values())

    async def _receive(self, errand: Errand, dry_run: bool) -> Verdict:
        self._watcher.begins(errand.target.machine, "asking" if dry_run else "applying")
        documents = {instance: self._signed[instance] for instance in errand.plans}
        return await machine_side.receive(errand.target, documents, dry_run)

    async def _confirm(self, target: Target, verdict: Verdict) -> None:
        """Over a new connection, tried again for as long as the machine waits for it."""
        if not verdict.token:
            return
        self._watcher.begins(target.machine, "confirming")
        deadline = time.monotonic() + _LAST_CONFIRM_S
        while True:
            try:
                await machine_side.confirm(target, verdict.token)
                break
            except Unreachable as error:
                if time.monotonic() + _CONFIRM_AGAIN_S > deadline:
                    raise MachineError(
                        f"after the change it is not reached any more ({error.what}); "
                        f"it goes back by itself to what it was, {CONFIRM_WITHIN_S} s after the change",
                        where=target.machine,
                        mend="see what the change did to the way there: warren machines update --dry-run",
                    ) from None
            await asyncio.sleep(_CONFIRM_AGAIN_S)

    def _forgotten(self, machine: MachineName, instance: InstanceName) -> None:
        """With its key, which the machine has no longer."""
        keys = [Variable(machine, keys_generator(instance), file) for file in KEY_FILES]
        variables = [*noted_variables(machine, instance), *keys]
        sealed = sealed_files(machine, keys_generator(instance))
        self._record.store.delete([*variables, *sealed])
        self._written += [*variables, *sealed]
