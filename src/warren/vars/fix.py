"""What of the stored values can be mended without a loss: no address and no key that somebody uses becomes another one.

Pure. What is not mended is left as it is, for `vars.check` to name with the command that a person decides on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from warren.errors import InventoryError, Problem
from warren.inventory.model import Inventory
from warren.names import InstanceName
from warren.network.addresses import base_network, controller_subnet, prefix_text
from warren.network.stored import PREFIX_FILE
from warren.vars.check import Scope, examine
from warren.vars.generate import Selection, Work, work
from warren.vars.generators import (
    Hashes,
    Validation,
    Variable,
    canonical,
    generators,
    instance_of,
    leftovers,
    same_value,
    validations,
)
from warren.vars.store import Reading

_CANDIDATES = 4  # of a name's addresses: further ones need that many machines with one hash


@dataclass(frozen=True, slots=True)
class Repair:
    """What is to be written in place of what is stored. `doubtful`: texts that may be half of others, and are left."""

    texts: Mapping[Variable, str]
    hashes: Hashes
    doubtful: tuple[Problem, ...] = ()

    def applied_to(self, reading: Reading) -> Reading:
        """What is stored afterwards."""
        return replace(reading, texts={**reading.texts, **self.texts}, hashes={**reading.hashes, **self.hashes})


def repair(inventory: Inventory, reading: Reading, scope: Scope, remembered: Mapping[Variable, str]) -> Repair:
    """`remembered`: values that machines confirmed; they stand in for texts that say nothing any more."""
    chosen = [
        variable
        for generator in generators(inventory).values()
        for variable in generator.variables
        if scope.has(variable) and variable in reading.texts
    ]
    doubtful: list[Problem] = []
    texts = dict(_whole_prefixes(reading.texts, chosen, doubtful))
    texts |= _restored(reading.texts, chosen, remembered)
    mended = Repair(texts, {})
    return Repair(texts, _right_hashes(inventory, mended.applied_to(reading), scope), tuple(doubtful))


def works(inventory: Inventory, reading: Reading, scope: Scope) -> list[Work]:
    """What makes the missing values: all of them, or where something is broken, those of the generators beside it."""
    every = generators(inventory)
    names = [name for name in every if name in scope.generators or not scope.generators]
    chosen = [name for name in names if not scope.machines or scope.machines & every[name].files.keys()]
    try:
        return [_work(inventory, reading, frozenset(chosen), scope.machines)] if chosen else []
    except InventoryError:
        found = []
        for name in chosen:
            try:
                found.append(_work(inventory, reading, frozenset({name}), scope.machines & every[name].files.keys()))
            except InventoryError:
                continue  # `examine` names what stops it
        return found


def unused(inventory: Inventory, reading: Reading, scope: Scope) -> tuple[list[Variable], list[Validation]]:
    """What is left over, and the hashes that stand beside no value without it."""
    gone = list(filter(scope.has, leftovers(inventory, reading.texts)))
    kept = {(each.machine, each.generator) for each in reading.texts.keys() - set(gone)}
    places = dict.fromkeys(Validation(each.machine, each.generator) for each in gone)
    return gone, [each for each in places if each in reading.hashes and tuple(each) not in kept]


def _work(inventory: Inventory, reading: Reading, names: frozenset[str], machines: frozenset[str]) -> Work:
    return work(inventory, reading.texts, Selection(names, frozenset(machines)), reading.hashes)


def _whole_prefixes(
    texts: Mapping[Variable, str], chosen: Iterable[Variable], doubtful: list[Problem]
) -> Iterator[tuple[Variable, str]]:
    """Texts that Nix expressions cannot glue to: with a `::` or a length, or without their trailing zero groups."""
    for variable in chosen:
        text = texts[variable]
        whole = _readable(variable, text)
        if variable.file != PREFIX_FILE or not whole or _is_whole(text):
            continue
        if "::" in text or "/" in text or whole in _own_prefixes(variable):
            yield variable, whole
        else:
            machine, generator, file = variable
            mend = f"if it means {whole}: warren vars set {machine} {generator}/{file} {whole}; else: git log -- "
            message = f"{text!r} has lost groups, and is not the prefix of this name: is it half of another one?"
            doubtful.append(Problem(variable.path, 0, 0, message, f"{mend}{variable.path}"))


def _is_whole(text: str) -> bool:
    return "::" not in text and "/" not in text and text.count(":") == 3


def _own_prefixes(variable: Variable) -> set[str]:
    """Those that the names alone give a controller."""
    instance = instance_of(variable.generator) or InstanceName("")
    bases = [base_network(instance, number) for number in range(_CANDIDATES)]
    numbers = range(_CANDIDATES)
    return {prefix_text(controller_subnet(base, variable.machine, number)) for base in bases for number in numbers}


def _restored(
    texts: Mapping[Variable, str], chosen: Iterable[Variable], remembered: Mapping[Variable, str]
) -> dict[Variable, str]:
    return {
        variable: value
        for variable in chosen
        if not _readable(variable, texts[variable]) and (value := _readable(variable, remembered.get(variable, "")))
    }


def _right_hashes(inventory: Inventory, reading: Reading, scope: Scope) -> dict[Validation, str]:
    """Of stale values that would be made just the same."""
    every = generators(inventory)
    found: dict[Validation, str] = {}
    for stale in examine(inventory, reading).stale:
        variable = stale.variable
        if not scope.has(variable) or variable not in reading.texts:
            continue
        selection = Selection(frozenset({variable.generator}), frozenset({variable.machine}), regenerate=True)
        try:
            values = work(inventory, reading.texts, selection, reading.hashes).values
        except InventoryError:
            continue  # something else is broken, so that nobody can say what would be made
        if same_value(variable, reading.texts[variable], values.get(variable, "")):
            found |= validations(every[variable.generator], variable.machine)
    return found


def _readable(variable: Variable, text: str) -> str:
    """The value as Warren writes it; "" where the text is none."""
    try:
        return canonical(variable.file, text)
    except ValueError:
        return ""
