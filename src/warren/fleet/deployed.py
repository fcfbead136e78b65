"""Whether machines have the values that the vars have for them: as the record knows, or as they say when asked.

Not deployed: the machine was never brought a document with the value. Different: it has another key than that, as it
said, or as it confirmed last; which of the two is right, a person has to say. What nobody knows is not listed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from warren.errors import MachineError
from warren.fleet import machine_side
from warren.fleet.outdated import has_expired
from warren.fleet.plans import OwnValues
from warren.fleet.record import Record
from warren.fleet.ssh import Target
from warren.names import InstanceName, MachineName
from warren.network.stored import (
    FORMER_KEY_FILE,
    PREFIX_FILE,
    PUBLIC_KEY_FILE,
    SUFFIX_FILE,
    keys_generator,
    network_generator,
)
from warren.vars.check import is_revoked
from warren.vars.generators import Variable, canonical, generators, instance_of, key_variable, shortened
from warren.vars.sealed import vault_variables
from warren.wireguard.keys import PublicKey
from warren.workspace.folder import Folder

HeldKeys: TypeAlias = Mapping[InstanceName, Sequence[PublicKey]]
"""The keys that a machine has: of each instance the one that counts, and the next one; or none."""


class Different(NamedTuple):
    """A key that is another one on the machine. `there`: that one, "" for none; `was_asked`: it said so just now."""

    variable: Variable
    there: str
    was_asked: bool
    in_vault: bool = False

    @property
    def reason(self) -> str:
        has = shortened(self.variable, self.there) if self.there else "no key"
        return f"the machine has {has}" if self.was_asked else f"the machine had {has} when it was updated last"

    @property
    def mend(self) -> str:
        machine, generator, file = self.variable
        anew = f"warren vars generate --service {generator} --regenerate --at-once --machine {machine}"
        update = "then warren machines update"
        if self.in_vault:
            return f"warren vars upload {machine}, {update}"
        if not self.was_asked:
            return f"warren vars check --ask --machine {machine} says which one it has now; {update}"
        if not self.there:
            return f"{anew}, {update}"
        return f"if that is its own: warren vars set {machine} {generator}/{file} {self.there}; else: {anew}; {update}"


@dataclass(frozen=True, slots=True)
class Deployment:
    """What came of the comparison. `failed`: who was asked and did not answer, with the reason."""

    not_deployed: tuple[Variable, ...] = ()
    different: tuple[Different, ...] = ()
    failed: Mapping[MachineName, str] = field(default_factory=dict)


async def ask(
    targets: Iterable[Target], instances: Sequence[InstanceName], parallel: int
) -> dict[MachineName, HeldKeys | MachineError]:
    """Have these machines say which keys they have; nothing is made or changed there."""
    free = asyncio.Semaphore(parallel)

    async def one(target: Target) -> HeldKeys | MachineError:
        try:
            async with free:
                return await machine_side.held_keys(target, instances)
        except MachineError as error:
            return error

    targets = list(targets)
    answers = await asyncio.gather(*map(one, targets))
    return {target.machine: answer for target, answer in zip(targets, answers, strict=True)}


def comparable(folder: Folder) -> list[Variable]:
    """The values that machines should have: usable ones, of machines that Warren runs on and that others let in."""
    texts = folder.readable
    return [
        variable
        for generator in generators(folder.inventory).values()
        for variable in generator.variables
        if _is_usable(texts, variable)
        and folder.inventory.machines[variable.machine].managed
        and not has_expired(folder, variable.machine)
        and not is_revoked(texts, key_variable(variable.machine, generator.instance))
    ]


def remembered(folder: Folder) -> dict[Variable, str]:
    """The values that machines confirmed last, where the record knows them."""
    makers = {PUBLIC_KEY_FILE: keys_generator, PREFIX_FILE: network_generator, SUFFIX_FILE: network_generator}
    return {
        Variable(machine, makers[file](instance), file): text
        for (machine, instance), values in Record(folder.store).confirmed_values().items()
        for file, text in values.items()
        if file in makers
    }


def compare(
    folder: Folder, variables: Iterable[Variable], answers: Mapping[MachineName, HeldKeys | MachineError]
) -> Deployment:
    """These values with what machines answered, and with what the record knows of those that were not asked."""
    record = Record(folder.store)
    known = _Known(
        folder.readable,
        {name: answer for name, answer in answers.items() if not isinstance(answer, MachineError)},
        frozenset(record.acknowledged()),
        record.confirmed_values(),
        frozenset(filter(record.was_published, folder.inventory.instances)),
        frozenset(vault_variables(folder.inventory)),
    )
    found = {variable: known.judged(variable) for variable in variables}
    return Deployment(
        tuple(variable for variable, verdict in found.items() if verdict is False),
        tuple(verdict for verdict in found.values() if isinstance(verdict, Different)),
        {name: str(answer) for name, answer in sorted(answers.items()) if isinstance(answer, MachineError)},
    )


@dataclass(frozen=True, slots=True)
class _Known:
    texts: Mapping[Variable, str]
    held: Mapping[MachineName, HeldKeys]
    acknowledged: frozenset[tuple[MachineName, InstanceName]]
    confirmed: Mapping[tuple[MachineName, InstanceName], OwnValues]
    published: frozenset[InstanceName]
    in_vault: frozenset[Variable]

    def judged(self, variable: Variable) -> Different | bool:
        """Whether the value is deployed, as far as is known; or that there is another one."""
        instance = instance_of(variable.generator)
        assert instance is not None
        if variable.file != PUBLIC_KEY_FILE or variable.machine not in self.held:
            return self._as_noted(variable, instance)
        verdict = self._as_said(variable, self.held[variable.machine].get(instance, ()))
        # What it says counts more than what it confirmed: if it has the key, others have to hear of it.
        return self._as_noted(variable, instance) is True if verdict is True else verdict

    def _as_said(self, variable: Variable, held: Sequence[PublicKey]) -> Different | bool:
        text, keys = canonical(variable.file, self.texts[variable]), [key.text for key in held]
        if text not in keys:
            return Different(variable, keys[0] if keys else "", True, variable in self.in_vault)
        return text == keys[0]  # else it comes after the one that the machine goes by as yet

    def _as_noted(self, variable: Variable, instance: InstanceName) -> Different | bool:
        pair = (variable.machine, instance)
        if instance not in self.published:
            return True  # before the first time, nobody is late
        if pair not in self.confirmed:
            return pair in self.acknowledged
        there = _usable(variable.file, self.confirmed[pair].get(variable.file, ""))
        if there == canonical(variable.file, self.texts[variable]):
            return True
        is_rotated = there == self.texts.get(variable._replace(file=FORMER_KEY_FILE))
        if variable.file != PUBLIC_KEY_FILE or is_rotated or not there:
            return False
        return Different(variable, there, False, variable in self.in_vault)


def _is_usable(texts: Mapping[Variable, str], variable: Variable) -> bool:
    return variable in texts and bool(_usable(variable.file, texts[variable]))


def _usable(file: str, text: str) -> str:
    """The value as Warren writes it; "" where the text is none."""
    try:
        return canonical(file, text)
    except ValueError:
        return ""
