"""What is wrong with stored values, all of it and not the first; and whether one that is brought can be stored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from warren.errors import InventoryError, Problem, UsageError, VarsError
from warren.inventory.model import Inventory
from warren.inventory.wording import Nearest, quoted
from warren.names import InstanceName, MachineName
from warren.network.addresses import parse_suffix, upper_half
from warren.network.resolve import resolve
from warren.network.stored import PREFIX_FILE, PUBLIC_KEY_FILE, REVOKED_FILE, SUFFIX_FILE, Stored
from warren.vars import host_keys
from warren.vars.generators import (
    Generator,
    Kind,
    Variable,
    by_hand,
    canonical,
    generators,
    is_stale,
    leftovers,
    possible_files,
    stored_by_instance,
)
from warren.vars.sealed import vault_variables
from warren.vars.store import Reading


class Stale(NamedTuple):
    """A value that was made for what the inventory said once, or one in the place of which there is such a value."""

    variable: Variable
    reason: str
    mend: str


@dataclass(frozen=True, slots=True)
class Findings:
    """What `warren vars check` says. Leftovers are no error: they keep the addresses of those who left taken."""

    problems: tuple[Problem, ...]  # unreadable, broken, taken
    missing: tuple[Variable, ...]
    leftovers: tuple[Variable, ...]
    stale: tuple[Stale, ...] = ()


@dataclass(frozen=True, slots=True)
class Scope:
    """What somebody wants to hear of. No generators, no machines: of all."""

    generators: frozenset[str] = frozenset()
    machines: frozenset[str] = frozenset()

    def has(self, variable: Variable) -> bool:
        return (not self.generators or variable.generator in self.generators) and (
            not self.machines or variable.machine in self.machines
        )

    def has_problem(self, problem: Problem) -> bool:
        """What is wrong with more than one machine's values concerns everybody."""
        place = problem.file.partition(f"{_PLACE}/")[2].split("/")
        return len(place) < 3 or self.has(Variable(MachineName(place[0]), place[1], place[2]))

    def of(self, findings: Findings) -> Findings:
        return Findings(
            tuple(filter(self.has_problem, findings.problems)),
            tuple(filter(self.has, findings.missing)),
            tuple(filter(self.has, findings.leftovers)),
            tuple(each for each in findings.stale if self.has(each.variable)),
        )

    def has_strangers(self, stored: Iterable[Variable]) -> bool:
        """Whether there are names of which nothing is stored."""
        stored = list(stored)
        machines, made = {variable.machine for variable in stored}, {variable.generator for variable in stored}
        return not (self.machines <= machines and self.generators <= made)

    def refuse_unknown(self, inventory: Inventory, stored: Iterable[Variable]) -> None:
        """UsageError for names that nothing has: neither the inventory nor what is stored."""
        stored = list(stored)
        machines = {*inventory.machines, *(variable.machine for variable in stored)}
        made = {*generators(inventory), *(variable.generator for variable in stored)}
        for kind, wanted, known in (("machine", self.machines, machines), ("generator", self.generators, made)):
            for name in sorted(wanted - known):
                mend = Nearest().hint(name, sorted(known), f"{kind.capitalize()}s")
                raise UsageError(f"there is no {kind} {quoted(name)}", mend=mend)


_PLACE = "vars/per-machine"


def examine(inventory: Inventory, reading: Reading) -> Findings:
    """Hold what is stored against the inventory."""
    stored = stored_by_instance(reading.texts)
    unreadable = {problem.file for problem in reading.problems}
    stale = tuple(
        found
        for generator in generators(inventory).values()
        for variable in generator.variables
        if variable.path not in unreadable and (found := _stale(generator, variable, reading))
    )
    elsewhere = {found.variable for found in stale}
    return Findings(
        (*reading.problems, *stored_problems(inventory, stored)),
        tuple(
            variable
            for generator in generators(inventory).values()
            for variable in generator.variables
            if variable not in reading.texts
            and variable.path not in unreadable
            and variable not in elsewhere
            and not is_revoked(reading.texts, variable)
        ),
        leftovers(inventory, reading.texts),
        stale,
    )


def _stale(generator: Generator, variable: Variable, reading: Reading) -> Stale | None:
    """Made of other inputs; or not made yet, while there is the value of the role that the machine had before."""
    machine = variable.machine
    anew = f"warren vars generate --service {generator.name} --machine {machine}"
    if variable in reading.texts:
        if not is_stale(generator, machine, reading.hashes):
            return None
        inputs = " and ".join(f"{name} {quoted(value)}" for name, value in sorted(generator.inputs[machine].items()))
        reason = f"it was not made for {inputs}: was the folder copied or renamed?"
        return Stale(variable, reason, f"{_keep(variable, reading.texts[variable])}{anew} --regenerate")
    if generator.kind is not Kind.NETWORK:
        return None
    for file in possible_files(generator.name):
        if variable._replace(file=file) in reading.texts:
            return Stale(variable, f"the role of machine {quoted(machine)} changed: there is its {file} as yet", anew)
    return None


def _keep(variable: Variable, text: str) -> str:
    machine, generator, file = variable
    try:
        value = canonical(file, text)
    except ValueError:
        return ""
    return f"to keep it: warren vars set {machine} {generator}/{file} {value}; for another one: "


def is_revoked(texts: Mapping[Variable, str], key: Variable) -> bool:
    """Whether a key is missing on purpose: one that the machine had was revoked, and a new one is to be asked for."""
    return key.file == PUBLIC_KEY_FILE and key not in texts and key._replace(file=REVOKED_FILE) in texts


def missing_by_hand(inventory: Inventory, reading: Reading) -> tuple[Problem, ...]:
    """The missing keys that nothing makes: of machines on which Warren does not run, and not of the vault."""
    in_vault = frozenset(vault_variables(inventory))
    return tuple(
        Problem(
            variable.path, 0, 0, f"machine {quoted(variable.machine)} is not managed and has no key", by_hand(variable)
        )
        for variable in examine(inventory, reading).missing
        if variable.file == PUBLIC_KEY_FILE
        and not inventory.machines[variable.machine].managed
        and variable not in in_vault
    )


def stored_problems(inventory: Inventory, stored: Mapping[InstanceName, Stored]) -> tuple[Problem, ...]:
    """Every stored text that cannot be used."""
    try:
        resolve(inventory, stored)
    except InventoryError as error:
        return error.problems
    return ()


def accepted(inventory: Inventory, texts: Mapping[Variable, str], variable: Variable, text: str) -> str:
    """A value that somebody brings, as it will be stored.

    UsageError where nothing in the inventory makes such a value, VarsError where the text cannot be used.
    """
    if variable.generator == host_keys.GENERATOR and variable.machine in inventory.machines:
        return host_keys.accepted_host_key(variable, text)
    generator = _generator(inventory, variable)
    try:
        value = canonical(variable.file, text.strip())
    except ValueError as error:
        mend = f"run `warren vars keygen {generator.instance}` on the machine; it prints the key"
        raise VarsError(
            str(error), where=variable.path, mend=mend if generator.kind is Kind.KEYS else _FORMS[variable.file]
        ) from None
    claim = _claim(variable.file, value)
    for other in generator.variables:
        if other != variable and other.file == variable.file and _claim(other.file, texts.get(other, "")) == claim:
            raise VarsError(f'taken: machine "{other.machine}" has {texts[other]!r}', where=variable.path)
    before = stored_problems(inventory, stored_by_instance(texts))
    for problem in stored_problems(inventory, stored_by_instance({**texts, variable: value})):
        if problem not in before:
            raise VarsError(problem.message, where=problem.file)
    return value


def _generator(inventory: Inventory, variable: Variable) -> Generator:
    known = generators(inventory)
    if variable.generator not in known:
        raise UsageError(
            f"there is no generator {quoted(variable.generator)}",
            mend=Nearest().hint(variable.generator, known, "Generators"),
        )
    generator = known[variable.generator]
    if variable.machine not in generator.files:
        raise UsageError(
            f"machine {quoted(variable.machine)} is not in instance {quoted(generator.instance)}",
            mend=Nearest().hint(variable.machine, generator.files, "Machines"),
        )
    file = generator.files[variable.machine]
    if variable.file != file:
        raise UsageError(
            f"{variable.generator} makes no {quoted(variable.file)} for machine {quoted(variable.machine)}",
            mend=f"it makes {variable.generator}/{file}",
        )
    return generator


_FORMS = {
    PREFIX_FILE: "a prefix is four groups, such as fd28:387a:3b:f700",
    SUFFIX_FILE: "a suffix is four groups, such as bcd6:8f7f:3d6c:97",
}


def _claim(file: str, text: str) -> object:
    """What of a value nobody else may have."""
    try:
        return upper_half(parse_suffix(text)) if file == SUFFIX_FILE else canonical(file, text)
    except ValueError:
        return None
