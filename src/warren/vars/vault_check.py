"""What is wrong in the vault, told without opening anything: from public values and records alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

from warren.errors import Problem, VarsError
from warren.inventory.model import Inventory
from warren.inventory.recipients import canonical_recipient
from warren.names import MachineName
from warren.vars.generators import Variable
from warren.vars.sealed import PRIVATE_KEY_FILE, RECORD, Sealed, SealedFile, anew, vault_variables
from warren.vars.vault import Vault

_Found: TypeAlias = tuple[str, str, str]  # file, what is wrong, how to mend it
_Owner: TypeAlias = tuple[MachineName, str]  # machine and generator


def vault_problems(inventory: Inventory, texts: Mapping[Variable, str], vault: Vault) -> tuple[Problem, ...]:
    """Where secrets are missing, are of no key that counts, or can be opened by others than the inventory says."""
    if not inventory.vault_machines:
        return ()
    try:
        found = vault.read()
    except VarsError as error:
        return (Problem(error.where, 0, 0, error.what, error.mend),)
    by_owner: dict[_Owner, list[Sealed]] = {}
    for place, sealed in found.items():
        by_owner.setdefault((place.machine, place.generator), []).append(sealed)
    counting: dict[_Owner, list[str]] = {}
    problems: list[_Found] = []
    for variable in vault_variables(inventory):
        owner, text = (variable.machine, variable.generator), texts.get(variable)
        if text is not None:
            counting.setdefault(owner, []).append(text)
            problems += _missing(variable, text, by_owner.get(owner, ()))
    for place, sealed in found.items():
        problems += _wrong(vault, place, sealed, counting.get((place.machine, place.generator), ()))
    return tuple(Problem(path, 0, 0, message, mend) for path, message, mend in problems)


def _missing(variable: Variable, text: str, own: Sequence[Sealed]) -> Iterator[_Found]:
    if not any(each.record is None or each.record.key == text for each in own):
        message = f"the private half of {variable.file} {text[:8]}… is not in the vault"
        yield SealedFile(variable.machine, variable.generator, PRIVATE_KEY_FILE).path, message, anew(variable)


def _wrong(vault: Vault, place: SealedFile, sealed: Sealed, counting: Sequence[str]) -> Iterator[_Found]:
    """`counting`: the public keys of which this could be the private half."""
    record = sealed.record
    if record is None:
        yield place._replace(leaf=RECORD).path, "this says nothing of the secret beside it", "warren vars reseal"
    elif record.key not in counting:
        message = f"left over: nothing uses the key {record.key[:8]}…"
        yield place.path, message, f"git rm -r {place.path.rpartition('/')[0]}"
    else:
        wanted, can = set(vault.recipients(place.machine)), set(record.recipients)
        parts = [
            *(f"cannot be opened by {shown_recipient(one, vault, place.machine)} yet" for one in sorted(wanted - can)),
            *(f"can still be opened by {shown_recipient(one, vault, place.machine)}" for one in sorted(can - wanted)),
            *((f"is kept as {place.leaf}, and shall be as {vault.leaf}",) if place.leaf != vault.leaf else ()),
        ]
        if parts:
            yield place.path, "; ".join(parts), "warren vars reseal"


def shown_recipient(recipient: str, vault: Vault, machine: MachineName) -> str:
    """For people."""
    if canonical_recipient(vault.host_keys.get(machine, "")) == recipient:
        return f"{machine} itself (its ssh host key)"
    kind, _, key = recipient.rpartition(" ")
    return f"{kind} …{key[-12:]}" if kind else f"{recipient[:16]}…"
