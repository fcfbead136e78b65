"""Keys that are not where the inventory wants them by now: in the vault, or on their machine alone.

A key that was moved would be known in both places: it is made anew in the new one, and rotated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from warren.inventory.model import Inventory
from warren.vars.check import Stale
from warren.vars.generators import Variable, by_hand, key_variable
from warren.vars.vault import Vault


def moved_keys(inventory: Inventory, texts: Mapping[Variable, str], vault: Vault) -> Iterator[Stale]:
    """Those that are in use."""
    for instance in inventory.instances.values():
        for name, member in instance.members.items():
            variable = key_variable(name, instance.name)
            if variable in texts and (reason := _reason(variable, texts[variable], vault, member.has_vault_key)):
                managed = inventory.machines[name].managed or member.has_vault_key
                yield Stale(variable, reason, _rotate(variable) if managed else by_hand(variable))


def _reason(variable: Variable, text: str, vault: Vault, has_vault_key: bool) -> str:
    if has_vault_key:
        return "" if vault.keeps(variable) else "it was not made here, and the inventory says that the vault has it"
    if vault.keeps(variable) and vault.has(variable, text):
        return "the vault has its private half, and the inventory says that the machine alone does"
    return ""


def _rotate(variable: Variable) -> str:
    anew = f"warren vars generate --service {variable.generator} --regenerate --machine {variable.machine}"
    return f"{anew}, then warren machines update"
