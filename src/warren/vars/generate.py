"""Make values: addresses here, from names; keys on their machines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from warren.errors import InventoryError, MachineError, Problem, UsageError, VarsError
from warren.inventory.model import Inventory
from warren.inventory.wording import Nearest, quoted
from warren.names import InstanceName, MachineName
from warren.network.addresses import prefix_text, suffix_text
from warren.network.allocate import allocate
from warren.network.stored import FORMER_KEY_FILE, NEXT_KEY_FILE, REVOKED_FILE
from warren.vars.check import is_revoked
from warren.vars.generators import (
    Generator,
    Hashes,
    Kind,
    Validation,
    Variable,
    by_hand,
    generators,
    is_stale,
    leftovers,
    overtaken,
    same_value,
    stored_by_instance,
    validations,
)
from warren.vars.reach import Reach
from warren.vars.sealed import has_vault_key, vault_variables
from warren.vars.store import Store
from warren.vars.vault import Vault
from warren.wireguard.keys import PublicKey


@dataclass(frozen=True, slots=True)
class Selection:
    """What a run is about. No generators, no machines: all of them.

    `follows`: which machines follow a published document of which instance. Their keys are not replaced but staged.
    """

    generators: frozenset[str] = frozenset()
    machines: frozenset[str] = frozenset()
    regenerate: bool = False
    follows: frozenset[tuple[MachineName, InstanceName]] = frozenset()


_Chosen: TypeAlias = Sequence[tuple[Generator, Variable]]


class KeyRequest(NamedTuple):
    """One key that a machine has to make. `stage`: the one after the key that it has."""

    variable: Variable
    instance: InstanceName
    replace: bool
    stage: bool = False


@dataclass(frozen=True, slots=True)
class Work:
    """What a run will do: values to store, keys to have made. `stored` is what the inventory's machines have now.

    `hashes`: of what the values are made of, stored beside them.
    """

    values: Mapping[Variable, str]
    keys: tuple[KeyRequest, ...]
    stored: Mapping[Variable, str]
    by_hand: tuple[Variable, ...] = ()  # keys of machines that are not managed: somebody else makes them
    hashes: Hashes = field(default_factory=dict)
    vault: tuple[KeyRequest, ...] = ()  # keys that are made here, and kept encrypted


class Failure(NamedTuple):
    """A machine whose key was not made, and why."""

    variable: Variable
    message: str


def work(
    inventory: Inventory, texts: Mapping[Variable, str], selection: Selection, stored_hashes: Hashes | None = None
) -> Work:
    """What is missing, or is to be made anew.

    Keys are made anew by `regenerate`. Addresses only where their generator is named: an address follows from the
    machine's name, so a new one would mostly be the old one, and where it is not, the old one was chosen on purpose.
    Raises UsageError for names that are unknown and for what cannot be made here, InventoryError for selected values
    that stay and cannot be used.
    """
    chosen = _select(inventory, selection)
    _refuse_by_hand(inventory, chosen, selection)
    problems = _broken_keys(texts, chosen, selection)
    try:
        values, hashes = _addresses(inventory, texts, chosen, selection, stored_hashes or {})
    except InventoryError as error:
        raise InventoryError((*error.problems, *problems)) from None
    if problems:
        raise InventoryError(problems)
    left = frozenset(leftovers(inventory, texts))
    in_vault = frozenset(vault_variables(inventory))
    keys = [
        _key_request(texts, generator, variable, selection)
        for generator, variable in chosen
        if generator.kind is Kind.KEYS
        and (selection.regenerate or (variable not in texts and not is_revoked(texts, variable)))
    ]
    elsewhere = [request for request in keys if request.variable not in in_vault]
    return Work(
        values,
        tuple(each for each in elsewhere if inventory.machines[each.variable.machine].managed),
        {variable: text for variable, text in texts.items() if variable not in left},
        tuple(each.variable for each in elsewhere if not inventory.machines[each.variable.machine].managed),
        hashes,
        tuple(request for request in keys if request.variable in in_vault),
    )


def _key_request(
    texts: Mapping[Variable, str], generator: Generator, variable: Variable, selection: Selection
) -> KeyRequest:
    follows = (variable.machine, generator.instance) in selection.follows
    if not (selection.regenerate and follows and variable in texts):
        return KeyRequest(variable, generator.instance, selection.regenerate)
    if not same_value(variable, texts[variable], texts[variable].strip()):
        raise VarsError(
            "this is no key, so that none can come after it",
            where=variable.path,
            mend=f"warren vars fix puts back what {variable.machine} confirmed last; or git log -- {variable.path}",
        )
    former = texts.get(variable._replace(file=FORMER_KEY_FILE), texts[variable])
    if not same_value(variable, former, texts[variable].strip()):
        raise UsageError(
            f"the key of machine {quoted(variable.machine)} is being rotated already, and others accept the former one",
            where=generator.name,
            mend="warren machines update brings that to its end",
        )
    return KeyRequest(variable._replace(file=NEXT_KEY_FILE), generator.instance, False, stage=True)


def _refuse_by_hand(inventory: Inventory, chosen: _Chosen, selection: Selection) -> None:
    """A new key was asked for where none can be made: who asked should not believe that there is one."""
    for generator, variable in chosen:
        machine = inventory.machines[variable.machine]
        asked = selection.regenerate and machine.name in selection.machines and generator.kind is Kind.KEYS
        if asked and not machine.managed and not has_vault_key(inventory, machine.name, generator.instance):
            raise UsageError(f"machine {quoted(machine.name)} is not managed", mend=by_hand(variable))


def _addresses(
    inventory: Inventory,
    texts: Mapping[Variable, str],
    chosen: _Chosen,
    selection: Selection,
    stored_hashes: Hashes,
) -> tuple[dict[Variable, str], dict[Validation, str]]:
    """The texts that are to be stored, and the hashes of their inputs."""
    wanted = [pair for pair in chosen if pair[0].kind is Kind.NETWORK]
    if not wanted:
        return {}, {}
    anew = {
        variable
        for generator, variable in wanted
        if variable not in texts or (selection.regenerate and generator.name in selection.generators)
    }
    kept = {variable: text for variable, text in texts.items() if variable not in anew}
    allocations = allocate(inventory, stored_by_instance(kept))
    values: dict[Variable, str] = {}
    hashes: dict[Validation, str] = {}
    for generator, variable in wanted:
        if variable in anew:
            allocation = allocations[generator.instance]
            subnet = allocation.subnets.get(variable.machine)
            text = prefix_text(subnet) if subnet else suffix_text(allocation.suffixes[variable.machine])
            is_new = not same_value(variable, texts.get(variable), text)
            if is_new or is_stale(generator, variable.machine, stored_hashes):
                values[variable] = text
                hashes |= validations(generator, variable.machine)
    return values, hashes


def _broken_keys(texts: Mapping[Variable, str], chosen: _Chosen, selection: Selection) -> tuple[Problem, ...]:
    """Keys that would stay as they are, and are none."""
    problems = []
    for generator, variable in chosen:
        if generator.kind is Kind.KEYS and variable in texts and not selection.regenerate:
            try:
                PublicKey.parse(texts[variable])
            except ValueError as error:
                mend = f"warren vars generate --service {generator.name} --regenerate --machine {variable.machine}"
                problems.append(Problem(variable.path, 0, 0, f"{error}: a WireGuard key is needed", mend))
    return tuple(problems)


def _select(inventory: Inventory, selection: Selection) -> _Chosen:
    every = generators(inventory)
    for name in sorted(selection.generators - every.keys()):
        raise UsageError(f"there is no generator {quoted(name)}", mend=Nearest().hint(name, every, "Generators"))
    for name in sorted(selection.machines - inventory.machines.keys()):
        raise UsageError(
            f"there is no machine {quoted(name)}", mend=Nearest().hint(name, inventory.machines, "Machines")
        )
    chosen = [
        (generator, variable)
        for generator in every.values()
        if not selection.generators or generator.name in selection.generators
        for variable in generator.variables
        if not selection.machines or variable.machine in selection.machines
    ]
    for name in sorted(selection.machines - {variable.machine for _, variable in chosen}):
        where = " and ".join(sorted(selection.generators)) or "any generator"
        raise UsageError(f'machine "{name}" has no values of {where}: it is not in the instance')
    return chosen


def carry_out(
    todo: Work,
    store: Store,
    reaches: Sequence[Reach],
    done: Callable[[Variable, str], None],
    vault: Vault | None = None,
) -> tuple[Failure, ...]:
    """Store the values, have the keys made; each is stored as it comes. Returns what could not be made.

    `done` is called for each value that was written. `vault`: where keys that are made here are kept.
    """
    # A hash without its value does no harm; a value without its hash is one that clan makes anew.
    store.write({**todo.hashes, **todo.values})
    for variable, text in todo.values.items():
        done(variable, text)
    owners = {(variable.generator, text.strip()): variable.machine for variable, text in todo.stored.items()}
    failures = _make_here(todo, vault, done) if vault else []
    for request in todo.keys:
        variable = request.variable
        try:
            text = _made_key(request, reaches).text
        except MachineError as error:
            failures.append(Failure(variable, str(error)))
            continue
        if text in todo.stored.get(variable._replace(file=REVOKED_FILE), "").split():
            failures.append(Failure(variable, f"the key that it has is revoked for good; {_anew(variable)}"))
            continue
        owner = owners.setdefault((variable.generator, text), variable.machine)
        if owner != variable.machine:
            failures.append(Failure(variable, _cloned(variable, owner)))
        elif not same_value(variable, todo.stored.get(variable), text):
            store.delete(overtaken(variable, todo.stored))  # its machine has them no longer
            store.write({variable: text})
            done(variable, text)
    return tuple(failures)


def _make_here(todo: Work, vault: Vault, done: Callable[[Variable, str], None]) -> list[Failure]:
    failures: list[Failure] = []
    if todo.vault:
        vault.settle(todo.stored)
    for request in todo.vault:
        variable = request.variable
        if request.stage and variable in todo.stored and vault.has(variable, todo.stored[variable]):
            continue  # it waits there already
        try:
            key = vault.make(variable, todo.stored)
        except VarsError as error:
            failures.append(Failure(variable, str(error)))
            continue
        done(variable, key.text)
        if not request.stage:
            _put_in_use(vault, variable, key, todo.stored)
    return failures


def _put_in_use(vault: Vault, variable: Variable, key: PublicKey, stored: Mapping[Variable, str]) -> None:
    """A key that replaces another one at once, and what was staged."""
    gone = overtaken(variable, stored)
    vault.store.delete(gone)
    vault.written += gone
    vault.settle({variable: key.text}, variable.machine)


def _made_key(request: KeyRequest, reaches: Sequence[Reach]) -> PublicKey:
    machine = request.variable.machine
    for reach in reaches:
        if reach.reaches(machine):
            if request.stage:
                return reach.stage_key(machine, request.instance)
            return reach.make_key(machine, request.instance, request.replace)
    if request.stage:
        raise MachineError("no way to it from here: run this where `warren machines update` is run")
    again = " --regenerate" if request.replace else ""
    raise MachineError(
        f"no way to it from here; on it run `warren vars keygen {request.instance}{again}`, here "
        f"`warren vars set {machine} {request.variable.generator}/{request.variable.file} KEY` with what it prints"
    )


def _cloned(variable: Variable, owner: MachineName) -> str:
    return f'it has the key of machine "{owner}" (a copied disk?); one key is for one machine: {_anew(variable)}'


def _anew(variable: Variable) -> str:
    return f"warren vars generate --service {variable.generator} --regenerate --machine {variable.machine}"
