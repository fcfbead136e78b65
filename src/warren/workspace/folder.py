"""The operator's folder as one thing: the inventory, the vars beside it, and the documents that they make."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from warren.errors import InventoryError, Problem
from warren.inventory.model import Inventory
from warren.names import InstanceName
from warren.network.document import Document
from warren.network.resolve import resolve
from warren.network.stored import PUBLIC_KEY_FILE, Stored
from warren.vars.check import Findings, examine, missing_by_hand
from warren.vars.generators import Hashes, Variable, stored_by_instance
from warren.vars.host_keys import read_host_keys
from warren.vars.moved import moved_keys
from warren.vars.store import Reading, Store
from warren.vars.vault import Vault
from warren.vars.vault_check import vault_problems
from warren.workspace.source import load_inventory, shown_name


class Folder:
    """Each part is read when it is first asked for, once. Errors name the files as they are reached from here."""

    def __init__(self, inventory_file: Path) -> None:
        self.inventory_file = inventory_file
        # What is no file (`-f <(nix eval …)`) has no folder of its own.
        self.path = inventory_file.parent if inventory_file.is_file() else Path()
        self.store = Store(self.path)

    @cached_property
    def inventory(self) -> Inventory:
        """InventoryError with everything that is wrong in the file."""
        return load_inventory(self.inventory_file)

    @cached_property
    def texts(self) -> Mapping[Variable, str]:
        """Every stored value; InventoryError with every file that cannot be read."""
        self._refuse(self._reading.problems)
        return self._reading.texts

    @property
    def reading(self) -> Reading:
        """All that is stored, and what cannot be read."""
        return self._reading

    @property
    def readable(self) -> Mapping[Variable, str]:
        """Every stored value that can be read; of others `findings` speaks."""
        return self._reading.texts

    @property
    def hashes(self) -> Hashes:
        """What the values were made of, where that is stored."""
        return self._reading.hashes

    @cached_property
    def stored(self) -> Mapping[InstanceName, Stored]:
        return stored_by_instance(self.texts)

    @cached_property
    def documents(self) -> Mapping[InstanceName, Document]:
        """Every instance's document; InventoryError with every stored value that cannot be read or used."""
        inventory = self.inventory
        try:
            documents = resolve(inventory, stored_by_instance(self._reading.texts))
        except InventoryError as error:
            raise InventoryError(self._placed((*self._reading.problems, *error.problems))) from None
        self._refuse(self._reading.problems)
        return documents

    @cached_property
    def findings(self) -> Findings:
        """What is missing, stale, wrong or left over in the vars."""
        return self.findings_of(self._reading)

    def findings_of(self, reading: Reading) -> Findings:
        """The same if that were stored."""
        inventory = self.inventory
        findings = examine(inventory, reading)
        moved = tuple(moved_keys(inventory, reading.texts, self.vault))
        elsewhere = tuple(each.variable.path.removesuffix(f"{PUBLIC_KEY_FILE}/value") for each in moved)
        secrets = vault_problems(inventory, reading.texts, self.vault)
        problems = (*findings.problems, *(each for each in secrets if not each.file.startswith(elsewhere)))
        return replace(findings, problems=self._placed(problems), stale=(*findings.stale, *moved))

    @cached_property
    def vault(self) -> Vault:
        """Private keys that are kept here, encrypted; VarsError with a machine's host key that is none."""
        return Vault(self.store, self.inventory, read_host_keys(self.store, self.inventory))

    @cached_property
    def missing_by_hand(self) -> tuple[Problem, ...]:
        """Keys that no command will make: of machines that are not managed. Without one of these, no vars are read."""
        if all(machine.managed for machine in self.inventory.machines.values()):
            return ()
        return self._placed(missing_by_hand(self.inventory, self._reading))

    def shown(self, variable: Variable) -> str:
        """What messages call the value's file."""
        return shown_name(self.path / variable.path)

    @cached_property
    def _reading(self) -> Reading:
        return self.store.read()

    def _refuse(self, problems: Iterable[Problem]) -> None:
        if placed := self._placed(problems):
            raise InventoryError(placed)

    def _placed(self, problems: Iterable[Problem]) -> tuple[Problem, ...]:
        return tuple(replace(problem, file=shown_name(self.path / problem.file)) for problem in problems)


def open_folder(inventory_file: Path) -> Folder:
    """The folder of this inventory; nothing is read yet."""
    return Folder(inventory_file)
