"""How far the rotation of each key has come, and how it goes on. Pure: the phase stands in the vars.

    nextkey beside publickey     staged: everybody learns the new key, and goes on with the old one
    formerkey beside publickey   switched: the machine gets the document in which the new key is its own
    publickey alone              done: everybody forgets the old one

A machine may switch when all who speak to it have confirmed that they know its new key. Two machines that speak to each
other do not switch at once, for each would call the other by a key that it has no longer.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

from warren.fleet.outdated import is_shut_out
from warren.fleet.plans import Digests, wanted
from warren.fleet.record import Record
from warren.inventory.model import Inventory
from warren.inventory.wording import listed
from warren.names import InstanceName, MachineName
from warren.network.document import Document, Entry
from warren.network.stored import (
    FORMER_KEY_FILE,
    NEXT_KEY_FILE,
    NOTHING_STORED,
    PUBLIC_KEY_FILE,
    Stored,
    keys_generator,
)
from warren.vars.generators import Variable
from warren.workspace.folder import Folder


@dataclass(frozen=True, slots=True)
class Rotation:
    """One machine's key on its way. `waits_for`: those who have to confirm before it goes on."""

    machine: MachineName
    instance: InstanceName
    is_controller: bool
    key: str  # the one that it will have, or has
    former: str
    has_switched: bool
    waits_for: tuple[MachineName, ...] = ()

    @property
    def line(self) -> str:
        """For people: what it waits for, and what to do."""
        return f"{self.machine}: {self.short_line}"

    @property
    def short_line(self) -> str:
        """The same for who knows which machine."""
        what = "former key" if self.has_switched else "new key"
        waits = f" waits for {listed(self.waits_for)}" if self.waits_for else ""
        return f"{what} in {self.instance}{waits} (warren machines update)"

    @property
    def tree(self) -> dict[str, object]:
        """For programs."""
        phase = "switched" if self.has_switched else "staged"
        return {
            "machine": self.machine,
            "instance": self.instance,
            "phase": phase,
            "waits_for": list(self.waits_for),
        }


def rotations_of(folder: Folder) -> list[Rotation]:
    """Those of the operator's folder, as far as is known there."""
    acknowledged = Record(folder.store).acknowledged()
    documents = folder.documents
    if not any(entry.second_key for each in documents.values() for entry in _entries(each)):
        return []
    not_asked = partial(is_shut_out, folder)
    return rotations(folder.inventory, documents, folder.stored, wanted(documents), acknowledged, not_asked)


@dataclass(frozen=True, slots=True)
class Move:
    """The next phase of a rotation, as what is to be stored and then deleted, in this order and in any part of it."""

    rotation: Rotation
    texts: Mapping[Variable, str]
    gone: tuple[Variable, ...]

    @property
    def line(self) -> str:
        """For people."""
        what = "its former key is forgotten" if self.rotation.has_switched else "switches to its new key"
        return f"{self.rotation.machine}: {self.rotation.instance}: {what}"


def rotations(
    inventory: Inventory,
    documents: Mapping[InstanceName, Document],
    stored: Mapping[InstanceName, Stored],
    wants: Digests,
    acknowledged: Digests,
    not_asked: Callable[[MachineName, InstanceName], bool] | None = None,
) -> list[Rotation]:
    """Every key that is being rotated, peers' before controllers'. `not_asked`: those who are shut out anyway."""
    behind = {pair for pair, digest in wants.items() if acknowledged.get(pair) != digest}
    if not_asked is not None:
        behind = {pair for pair in behind if not not_asked(*pair)}
    found = []
    for instance, document in documents.items():
        texts = stored.get(instance, NOTHING_STORED)
        for name in (*document.peers, *document.controllers):
            entry = document.entry(name)
            if entry is None or entry.public_key is None or entry.second_key is None:
                continue
            has_switched = entry.second_key.text == texts.former_keys.get(name)
            keys = (entry.public_key.text, entry.second_key.text)
            key, former = keys if has_switched else (keys[1], keys[0])
            concerned = {name} if has_switched else _hold(document, name)
            waits_for = tuple(
                sorted(each for each in concerned if (each, instance) in behind or not inventory.machines[each].managed)
            )
            is_controller = name in document.controllers
            found.append(Rotation(name, instance, is_controller, key, former, has_switched, waits_for))
    return found


def next_moves(found: Iterable[Rotation], targets: Collection[MachineName], *, force: bool) -> list[Move]:
    """What can be done now, of the machines that may be visited: a switch of all peers, which do not speak to each
    other, or of one controller; when no more of that is left, whatever is through. `force`: wait for nobody."""
    free = [each for each in found if each.machine in targets and (force or not each.waits_for)]
    staged = [each for each in free if not each.has_switched]
    if staged:
        peers = [each for each in staged if not each.is_controller]
        return [_switch(each) for each in peers or staged[:1]]
    return [_forget(each) for each in free if each.has_switched and not each.waits_for]


def _entries(document: Document) -> list[Entry]:
    return [*document.controllers.values(), *document.peers.values()]


def _hold(document: Document, name: MachineName) -> set[MachineName]:
    """Who has the machine as a WireGuard peer, and the machine itself."""
    others = document.controllers.values() if name in document.peers else _entries(document)
    return {name, *(each.name for each in others if each.public_key is not None)}


def _switch(rotation: Rotation) -> Move:
    former, first, staged = (_variable(rotation, file) for file in (FORMER_KEY_FILE, PUBLIC_KEY_FILE, NEXT_KEY_FILE))
    return Move(rotation, {former: rotation.former, first: rotation.key}, (staged,))


def _forget(rotation: Rotation) -> Move:
    # A run that was killed in the middle of the switch may have left the other one, too.
    return Move(rotation, {}, (_variable(rotation, FORMER_KEY_FILE), _variable(rotation, NEXT_KEY_FILE)))


def _variable(rotation: Rotation, file: str) -> Variable:
    return Variable(rotation.machine, keys_generator(rotation.instance), file)
