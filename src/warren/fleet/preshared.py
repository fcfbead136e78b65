"""How far each pair's preshared key has come, and how it goes on. Pure: the phase stands in the vars.

next     staged: both ends hold it. Nothing has changed for anybody
former   in force: documents name it, and the former one (or none) is accepted beside it
neither  done: both ends have confirmed that, and the former one is gone
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeAlias

from warren.errors import UsageError
from warren.fleet.outdated import is_shut_out
from warren.fleet.plans import wanted
from warren.fleet.record import Record
from warren.inventory.model import Instance, Inventory
from warren.inventory.wording import listed
from warren.names import InstanceName, MachineName
from warren.network.document import Document
from warren.network.preshared import Exchange, Pair, exchanges_text, is_pair, pairs, parse_exchanges
from warren.network.stored import PRESHARED_FILE, Stored, preshared_generator
from warren.vars.generators import Variable
from warren.wireguard.preshared import NO_PRESHARED_KEY, Fingerprint
from warren.workspace.folder import Folder

Documents: TypeAlias = Mapping[InstanceName, Document]
OfMaker: TypeAlias = Mapping[MachineName, Exchange]


class InMesh(NamedTuple):
    """A pair, in an instance."""

    instance: InstanceName
    pair: Pair


Exchanges: TypeAlias = Mapping[tuple[InstanceName, MachineName], OfMaker]
"""By instance and maker: what the vars hold."""


@dataclass(frozen=True, slots=True)
class Phase:
    """What can be done now, as the whole text of each maker concerned, and how many pairs that is."""

    changed: Exchanges = field(default_factory=dict)
    switched: int = 0
    forgotten: int = 0

    @property
    def lines(self) -> Iterator[str]:
        """For people."""
        if self.switched:
            yield f"preshared keys: the next one comes into use in {number_of_pairs(self.switched)}"
        if self.forgotten:
            yield f"preshared keys: the former one is forgotten in {number_of_pairs(self.forgotten)}"


def number_of_pairs(count: int) -> str:
    return "1 pair" if count == 1 else f"{count:,} pairs"


def exchanges_of(stored: Mapping[InstanceName, Stored]) -> dict[tuple[InstanceName, MachineName], OfMaker]:
    """What the vars hold, which was read before: a broken text is an error by then."""
    return {
        (instance, maker): parse_exchanges(text)
        for instance, each in stored.items()
        for maker, text in each.preshared.items()
    }


def variable(instance: InstanceName, maker: MachineName) -> Variable:
    return Variable(maker, preshared_generator(instance), PRESHARED_FILE)


def texts_of(changed: Exchanges) -> tuple[dict[Variable, str], list[Variable]]:
    """What is to be stored, and what is to be deleted."""
    texts = {variable(*key): exchanges_text(others) for key, others in changed.items()}
    return {each: text for each, text in texts.items() if text}, [each for each, text in texts.items() if not text]


def possible_pairs(inventory: Inventory, documents: Documents) -> Iterator[InMesh]:
    """Pairs that can have one, of instances that want some: Warren runs on both ends, and both have a public key."""
    for name, instance in inventory.instances.items():
        if not instance.psk:
            continue
        document = documents[name]
        fit = {
            each for each in instance.members
            if inventory.machines[each].managed and (entry := document.entry(each)) and entry.public_key
        }  # fmt: skip
        for pair in pairs(instance.controllers, instance.peers):
            if pair.maker in fit and pair.other in fit:
                yield InMesh(name, pair)


def without_key(inventory: Inventory, documents: Documents, found: Exchanges) -> list[InMesh]:
    """Pairs that should have a preshared key, and none is on its way."""
    return [each for each in possible_pairs(inventory, documents) if _of(found, each).is_nothing]


def staged(found: Exchanges, made: Mapping[InMesh, Fingerprint], fresh: Collection[InMesh]) -> Exchanges:
    """With keys that both ends hold now. `fresh`: pairs of which an end follows no document yet, which have no session
    to keep: they begin with it."""
    changed: dict[tuple[InstanceName, MachineName], dict[MachineName, Exchange]] = {}
    for each, name in made.items():
        key = (each.instance, each.pair.maker)
        others = changed.setdefault(key, dict(found.get(key, {})))
        before = others.get(each.pair.other, Exchange())
        others[each.pair.other] = Exchange(name) if each in fresh else replace(before, next=name)
    return changed


def without(found: Exchanges, machine: MachineName, instances: Collection[InstanceName] | None = None) -> Exchanges:
    """Nothing of what the machine is an end of; those texts that change by that. `instances`: of these alone."""
    changed = {}
    for (instance, maker), others in found.items():
        if instances is not None and instance not in instances:
            continue
        left = {} if maker == machine else {other: each for other, each in others.items() if other != machine}
        if left != others:
            changed[instance, maker] = left
    return changed


def next_phase(
    inventory: Inventory,
    found: Exchanges,
    behind: Collection[tuple[MachineName, InstanceName]],
    targets: Collection[MachineName],
) -> Phase:
    """What can be done now between machines that may be visited. `behind`: who did not confirm the document of now."""
    changed: dict[tuple[InstanceName, MachineName], OfMaker] = {}
    switched = forgotten = 0
    for (name, maker), others in found.items():
        instance = inventory.instances.get(name)
        after: dict[MachineName, Exchange] = {}
        for other, each in others.items():
            if instance is None or not _can_have_one(inventory, instance, maker, other):
                continue
            is_settled = (maker, name) not in behind and (other, name) not in behind
            may = maker in targets and other in targets
            after[other] = _advanced(each, wanted=instance.psk, is_settled=is_settled) if may else each
            switched += after[other].first != each.first
            forgotten += each.former is not None and after[other].former is None
        if after != others:
            changed[name, maker] = after
    return Phase(changed, switched, forgotten)


def _can_have_one(inventory: Inventory, instance: Instance, maker: MachineName, other: MachineName) -> bool:
    if not is_pair(maker, other, instance.controllers, instance.peers):
        return False
    return inventory.machines[maker].managed and inventory.machines[other].managed


def lines_of_waiting(found: Exchanges, behind: Collection[tuple[MachineName, InstanceName]]) -> list[str]:
    """For people: what is on its way, and who is waited for; a line for each instance."""
    pending: dict[InstanceName, int] = {}
    waits_for: dict[InstanceName, set[MachineName]] = {}
    for (instance, maker), others in found.items():
        for other, each in others.items():
            if each.next is None and each.former is None:
                continue
            pending[instance] = pending.get(instance, 0) + 1
            if each.former is not None:
                ends = {end for end in (maker, other) if (end, instance) in behind}
                waits_for.setdefault(instance, set()).update(ends)
    return [
        f"{instance}: the preshared keys of {number_of_pairs(count)} are being exchanged"
        f"{_waits(waits_for.get(instance))} (warren machines update)"
        for instance, count in sorted(pending.items())
    ]


def _waits(machines: Collection[MachineName] | None) -> str:
    return f", and wait for {listed(sorted(machines))}" if machines else ""


def lines_of_unmanaged(inventory: Inventory) -> list[str]:
    """For people: machines that have no preshared keys, though their instance has."""
    lines = []
    for name, instance in inventory.instances.items():
        foreign = [each for each in instance.members if not inventory.machines[each].managed]
        if instance.psk and foreign:
            has = "is" if len(foreign) == 1 else "are"
            lines.append(f"{name}: {listed(sorted(foreign))} {has} not managed: no preshared keys with the others")
    return lines


def preshared_lines(folder: Folder) -> list[str]:
    """Preshared keys of the operator's folder that are on their way, as far as is known there."""
    found = exchanges_of(folder.stored)
    every = [each for others in found.values() for each in others.values()]
    is_pending = any(each.next is not None or each.former is not None for each in every)
    waiting = lines_of_waiting(found, behind_pairs(folder)) if is_pending else []
    return [*_lines_of_missing(folder, found), *waiting]


def _lines_of_missing(folder: Folder, found: Exchanges) -> list[str]:
    """Of instances that were brought to machines at least once: before that, nobody is late."""
    missing: dict[InstanceName, int] = {}
    not_visited: dict[InstanceName, set[MachineName]] = {}
    pairs_without = without_key(folder.inventory, folder.documents, found)
    if not pairs_without:
        return []
    from warren.fleet import heard  # which takes long to import, and few commands get here

    fetching = heard.fetching(folder, folder.inventory.machines)
    for each in pairs_without:
        if any(is_shut_out(folder, end, each.instance) for end in each.pair):
            continue
        if ends := fetching.intersection(each.pair):
            not_visited.setdefault(each.instance, set()).update(ends)
        else:
            missing[each.instance] = missing.get(each.instance, 0) + 1
    record = Record(folder.store)
    return [
        f"{instance}: {number_of_pairs(count)} without a preshared key (warren machines update)"
        for instance, count in missing.items()
        if record.was_published(instance)
    ] + [
        f"{instance}: no preshared keys with {listed(sorted(ends))}: not visited over ssh (deploy.pull)"
        for instance, ends in not_visited.items()
        if record.was_published(instance)
    ]


def behind_pairs(folder: Folder) -> set[tuple[MachineName, InstanceName]]:
    """Machines that did not confirm the document of now, but for those that are shut out anyway."""
    known = Record(folder.store).acknowledged()
    behind = {pair for pair, digest in wanted(folder.documents).items() if known.get(pair) != digest}
    return {pair for pair in behind if not is_shut_out(folder, *pair)}


def chosen_pairs(
    folder: Folder, instances: Collection[InstanceName], machines: Collection[str], *, regenerate: bool
) -> list[InMesh]:
    """Pairs that are to have a next preshared key: of these machines, or all; `regenerate`: those too that have one.

    UsageError where the one before it is still being exchanged.
    """
    found = exchanges_of(folder.stored)
    missing = set(without_key(folder.inventory, folder.documents, found))
    chosen = [
        each
        for each in possible_pairs(folder.inventory, folder.documents)
        if each.instance in instances and (not machines or not set(each.pair).isdisjoint(machines))
        if regenerate or each in missing
    ]
    busy = sum(_of(found, each).former is not None for each in chosen)
    if busy:
        raise UsageError(
            f"the preshared keys of {number_of_pairs(busy)} are being exchanged already",
            mend="warren machines update brings that to its end",
        )
    return chosen


def _of(found: Exchanges, each: InMesh) -> Exchange:
    return found.get((each.instance, each.pair.maker), {}).get(each.pair.other, Exchange())


def _advanced(each: Exchange, *, wanted: bool, is_settled: bool) -> Exchange:
    if each.former is not None:
        return replace(each, former=None) if is_settled else each
    if wanted and each.next is not None:
        return Exchange(each.next, former=each.first)
    if not wanted and each.first:
        return Exchange(NO_PRESHARED_KEY, former=each.first)
    return each if wanted else Exchange()
