"""One command's work on the fleet, in the operator's folder: vars made, documents signed, machines visited.

What a run writes into the vars is one git commit, made when it ends, however it ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from warren.errors import UsageError, VarsError
from warren.fleet import heard
from warren.fleet.delivery import Delivery
from warren.fleet.heard import Pair
from warren.fleet.host_keys import ask_host_keys
from warren.fleet.invite import withdrawn_open
from warren.fleet.keys import ask_for_keys
from warren.fleet.machine_side import SignedDocument
from warren.fleet.outdated import Behind, behind, has_expired, is_shut_out
from warren.fleet.plans import Digest, own_values, wanted
from warren.fleet.preshare import Shared, share
from warren.fleet.preshared import (
    Exchanges,
    InMesh,
    behind_pairs,
    chosen_pairs,
    exchanges_of,
    next_phase,
    number_of_pairs,
    preshared_lines,
    staged,
    texts_of,
    without,
    without_key,
)
from warren.fleet.record import Record, plans_of
from warren.fleet.rollout import Limits
from warren.fleet.rotations import Rotation, next_moves, rotations_of
from warren.fleet.sign import SigningKey, sign
from warren.fleet.ssh import Target, Unreachable, target_of
from warren.fleet.update import Errand, Outcome, State, Update, Watcher, errands, in_order
from warren.inventory.model import Inventory
from warren.inventory.wording import Nearest, quoted
from warren.names import InstanceName, MachineName
from warren.network.document import Document, encode, keys_text
from warren.network.stored import KEY_FILES, REVOKED_FILE
from warren.vars.generate import Failure, Selection, carry_out, work
from warren.vars.generators import SharedVariable, Variable, instance_of, overtaken, paths_of, shortened
from warren.vars.sealed import SealedFile
from warren.vars.sealing import Identities
from warren.vars.vault_check import shown_recipient
from warren.wireguard.keys import PublicKey
from warren.workspace.folder import Folder, open_folder
from warren.workspace.git import commit, message_for

_EVERYBODY = "all machines"


@dataclass(frozen=True, slots=True)
class Result:
    """What came of an update. `out_of_date`: afterwards, of all machines."""

    outcomes: tuple[Outcome, ...]
    up_to_date: tuple[MachineName, ...]
    without_key: tuple[MachineName, ...]
    out_of_date: Behind
    rotations: tuple[Rotation, ...] = ()  # keys that are still on their way
    preshared: tuple[str, ...] = ()  # what there is to say of preshared keys

    @property
    def is_well(self) -> bool:
        return all(outcome.is_well for outcome in self.outcomes)


class Run:
    """`say` is told what is stored, line by line. `identities`: what opens the vault."""

    def __init__(self, folder: Folder, say: Callable[[str], None], identities: Identities | None = None) -> None:
        self.folder = folder
        self.identities = identities or Identities()
        self.delivery = Delivery(self.identities, say)
        self.record = Record(folder.store)
        self._say = say
        self._written: list[Variable | SharedVariable | SealedFile] = []

    @contextmanager
    def locked(self, verb: str, *, commits: bool) -> Iterator[None]:
        """Nobody else changes the vars meanwhile; what this run wrote is committed at its end. `verb`: what it does."""
        with self.folder.store.lock(lambda: self._say("another warren is at work in this folder; waiting for it")):
            if "_reading" in vars(self.folder):  # who was in before may have changed what was read
                self._reopen()
            try:
                yield
            finally:  # after an interruption too: what is stored is committed
                self._take_written()
                if commits and self._written:
                    self._commit(verb)

    @property
    def written(self) -> list[Variable]:
        """What was stored or deleted so far, of machines."""
        return [each for each in self._written if isinstance(each, Variable)]

    def make_vars(self, targets: Mapping[MachineName, Target], parallel: int) -> dict[MachineName, Outcome]:
        """Store what is missing; keys are made by these machines. Returns those that did not make theirs."""
        inventory = self.folder.inventory
        todo = work(inventory, self.folder.texts, Selection(), self.folder.hashes)
        requests = tuple(request for request in todo.keys if request.variable.machine in targets)
        made_here = {request.variable.machine for request in todo.vault} - self.folder.vault.host_keys.keys()
        self.learn_host_keys({name: targets[name] for name in made_here & targets.keys()}, parallel)
        asked = asyncio.run(ask_for_keys(requests, targets, parallel))
        failures = carry_out(replace(todo, keys=requests), self.folder.store, [asked], self._stored, self.folder.vault)
        self._reopen()
        lost = {name for name, answer in asked.answers.items() if isinstance(answer, Unreachable)}
        return {failure.variable.machine: _not_made(failure, lost) for failure in failures}

    def learn_host_keys(self, targets: Mapping[MachineName, Target], parallel: int) -> bool:
        """Have machines of the vault tell their ssh host keys; whether any is another than the one that was known."""
        targets = {name: each for name, each in targets.items() if name in self.folder.inventory.vault_machines}
        if not targets:
            return False
        told, problems = asyncio.run(ask_host_keys(targets, parallel))
        for name, problem in sorted(problems.items()):
            self._say(f"{name}: what is kept for it is encrypted to the operators alone: {problem}")
        learned = self.folder.vault.learn(told)
        for variable in learned:
            self._say(f"{variable} is stored")
        return bool(learned)

    def reseal(self) -> tuple[VarsError, ...]:
        """Encrypt anew what others than the recipients of now can open; what could not be opened."""
        resealed = self.folder.vault.reseal(self.folder.texts, self.identities)
        for place, lost in resealed.lost.items():
            self._say(f"{place} is encrypted anew")
            for recipient in sorted(lost):
                name = shown_recipient(recipient, self.folder.vault, place.machine)
                self._say(f"  to {name} no more, who may have kept what he read: rotate the key")
        self._written += self.folder.vault.taken_written()
        return resealed.problems

    def set_up_anew(self, machines: Collection[MachineName]) -> None:
        """They have nothing yet: the next update brings them their documents, and has preshared keys made anew."""
        if not machines:
            return
        acknowledged, exchanges = self.record.acknowledged(), exchanges_of(self.folder.stored)
        variables = [variable for machine in machines for variable in plans_of(acknowledged, machine)]
        self.folder.store.delete(variables)
        self._written += variables
        for machine in machines:
            changed = without(exchanges, machine)
            self._store_exchanges(changed)
            exchanges |= changed

    @property
    def has_written(self) -> bool:
        """Whether there is anything to commit."""
        self._take_written()
        return bool(self._written)

    def _take_written(self) -> None:
        if "vault" in vars(self.folder):  # it was worked with
            self._written += self.folder.vault.taken_written()

    def _reopen(self) -> None:
        self._take_written()
        self.folder = open_folder(self.folder.inventory_file)

    def allow(self, key: SigningKey) -> str:
        """The signers that machines accept, this key among them."""
        self._written += self.record.allow(key.allowed_signer)
        return self.record.allowed_signers()

    def update(
        self,
        targets: Mapping[MachineName, Target],
        key: SigningKey,
        limits: Limits,
        watcher: Watcher,
        *,
        dry_run: bool,
        force: bool = False,
    ) -> Result:
        """Bring these machines what they do not follow yet, and bring rotations of keys as far as they come.

        `force`: let machines switch to their new keys without waiting for those who do not know them.
        """
        alone = heard.fetching(self.folder, targets)
        visited = {name: target for name, target in targets.items() if name not in alone}
        if self._behind(alone):
            visited |= heard.servers(self.folder, alone)
        failed = {} if dry_run else self.make_vars(visited, limits.parallel)
        for outcome in failed.values():
            watcher.ended(outcome)
        unshared = [] if dry_run else self.make_preshared(visited, limits.parallel)
        update = Update(self.record, watcher, dry_run=dry_run, deliver=self.delivery.bring)
        fetched: dict[MachineName, Outcome] = {}
        while True:
            update.outcomes |= {name: each for name, each in failed.items() if name not in update.outcomes}
            without_key = [*self._visit(update, visited, key, limits), *sorted(self._without_key(alone))]
            if not dry_run:
                fetched |= self._hear(alone, watcher)
            if dry_run or update.was_stopped:
                break
            if not self._rotate(targets, force=force) and not self._exchange(targets):
                break
        wants = wanted(self.folder.documents)
        members = {machine for machine, _ in wants}
        for name in sorted({*fetched, *self._behind(alone)}):
            update.outcomes[name] = fetched.get(name, Outcome(name, State.FETCHING))
            watcher.ended(update.outcomes[name])
        return Result(
            tuple(update.outcomes.values()),
            tuple(sorted((targets.keys() & members) - update.outcomes.keys() - set(without_key))),
            tuple(name for name in without_key if name not in failed and not self._is_shut_out(name)),
            behind(self.folder, wants, self.record.acknowledged()),
            tuple(self.rotations()),
            (*unshared, *preshared_lines(self.folder)),
        )

    def _behind(self, alone: Collection[MachineName]) -> list[MachineName]:
        """Of the machines that fetch documents by themselves, those that have a newer one to fetch."""
        stale = behind(self.folder, wanted(self.folder.documents), self.record.acknowledged())
        return sorted(name for name in alone if name in stale and name not in self._without_key(alone))

    def _without_key(self, machines: Collection[MachineName]) -> set[MachineName]:
        """Those that have to make theirs, and be invited, before they can be told anything."""
        entries = [(name, document.entry(name)) for document in self.folder.documents.values() for name in machines]
        return {name for name, entry in entries if entry is not None and entry.public_key is None}

    def _hear(self, alone: Collection[MachineName], watcher: Watcher) -> dict[MachineName, Outcome]:
        """Wait for machines that fetch what controllers were brought; what came of those that did, which is noted."""
        done: dict[MachineName, Outcome] = {}
        documents = self.folder.documents
        serials = heard.wanted_serials(self.folder, self.record, alone)

        def followed(pairs: Collection[Pair]) -> None:
            plans = wanted(documents)
            for machine, instance in pairs:
                values = {instance: own_values(documents[instance], machine)}
                self._written += self.record.acknowledge(machine, {instance: plans[machine, instance]}, values)
                done[machine] = Outcome(machine, State.DONE)

        if serials:
            for machine in sorted({machine for machine, _ in serials}):
                watcher.begins(machine, "fetching")
            found = asyncio.run(heard.await_serials(heard.servers(self.folder, alone), serials, followed))
            for (machine, instance), serial in serials.items():
                if (last := found.get((machine, instance))) and last.has_failed(serial):
                    problem = f"{machine}: {instance}: it fetched document {serial}, could not follow it, and went back"
                    done[machine] = Outcome(machine, State.FAILED, problem=f"{problem} (on it: warren status)")
        return done

    def keep(self, texts: Mapping[Variable, str]) -> None:
        """Store these values."""
        self.folder.store.write(texts)
        self._written += texts
        self.folder = open_folder(self.folder.inventory_file)

    def note(self, machine: MachineName, plans: Mapping[InstanceName, Digest]) -> None:
        """That a machine confirmed this."""
        self._written += self.record.acknowledge(machine, plans)

    def _is_shut_out(self, machine: MachineName) -> bool:
        return any(is_shut_out(self.folder, machine, name) for name in self.folder.inventory.instances)

    def rotations(self) -> list[Rotation]:
        """Keys that are on their way, as far as is known here."""
        return rotations_of(self.folder)

    def _visit(
        self, update: Update, targets: Mapping[MachineName, Target], key: SigningKey, limits: Limits
    ) -> list[MachineName]:
        """All that are out of date and did not fail in this run; returns those that have no key yet."""
        documents = self.folder.documents
        todo, without_key = errands(targets, documents, wanted(documents), self.record.acknowledged())
        todo = {
            name: errand
            for name, errand in todo.items()
            if update.may_visit(name) and not has_expired(self.folder, name)
        }
        signed = self._sign(documents, todo, key, update.dry_run)
        if not update.dry_run:
            self.delivery.prepare(self.folder, todo)
        try:
            asyncio.run(update.run(todo, signed, in_order(todo, documents), limits))
        finally:
            self._written += update.taken_written()
        return without_key

    def _rotate(self, targets: Collection[MachineName], *, force: bool) -> bool:
        """Begin the next phase of rotations, as far as what was confirmed allows; whether there was any."""
        moves = next_moves(self.rotations(), targets, force=force)
        for move in moves:
            self._say(move.line)
            self.folder.store.write(move.texts)
            gone = [variable for variable in move.gone if variable in self.folder.texts]
            self.folder.store.delete(gone)
            self._written += [*move.texts, *gone]
        self._reopen()
        if moves:
            self.folder.vault.settle(self.folder.texts)
        return bool(moves)

    def make_preshared(
        self, targets: Mapping[MachineName, Target], parallel: int, wanted: Iterable[InMesh] | None = None
    ) -> list[str]:
        """Have machines make the preshared keys of these pairs, and bring them to the other ends; what went wrong.

        Without `wanted`: those that are missing. Pairs with an end that is no target are left alone.
        """
        documents, before = self.folder.documents, exchanges_of(self.folder.stored)
        if wanted is None:
            wanted = without_key(self.folder.inventory, documents, before)
        todo = [each for each in wanted if targets.keys() >= set(each.pair)]
        todo = [each for each in todo if not any(is_shut_out(self.folder, end, each.instance) for end in each.pair)]
        if not todo:
            return []
        shared = asyncio.run(self._share(todo, targets, parallel))
        follows = self.record.acknowledged()
        fresh = {each for each in shared.made if not all((end, each.instance) in follows for end in each.pair)}
        self._store_exchanges(staged(before, shared.made, fresh))
        if shared.made:
            self._say(f"preshared keys: both ends of {number_of_pairs(len(shared.made))} hold one to come")
        return [shared.problems[machine] for machine in sorted(shared.problems)]

    async def _share(self, todo: Collection[InMesh], targets: Mapping[MachineName, Target], parallel: int) -> Shared:
        """A maker seals with its own key, so that one which comes out of the vault has to be there."""
        ends = {end for each in todo for end in each.pair}
        from_vault = [name for name in self.folder.inventory.vault_machines if name in ends]
        self.delivery.prepare(self.folder, from_vault)
        await self.delivery.bring_ahead([targets[name] for name in from_vault], parallel)
        return await share(todo, self.folder.documents, targets, parallel)

    def replace_preshared(
        self,
        targets: Mapping[MachineName, Target],
        instances: Collection[InstanceName],
        machines: Collection[str],
        parallel: int,
        *,
        regenerate: bool,
        at_once: bool,
    ) -> list[str]:
        """Have the next preshared keys made for the pairs of these machines, or of all where none is named.

        `at_once`: forget what they have now, for machines that have lost theirs.
        """
        if at_once:
            found = exchanges_of(self.folder.stored)
            for name in machines:
                changed = without(found, MachineName(name), instances)
                self._store_exchanges(changed)
                found |= changed
        chosen = chosen_pairs(self.folder, instances, machines, regenerate=regenerate)
        return self.make_preshared(targets, parallel, chosen)

    def _exchange(self, targets: Collection[MachineName]) -> bool:
        """Begin the next phase of preshared keys, as far as what was confirmed allows; whether there was any."""
        found = exchanges_of(self.folder.stored)
        if not found:
            return False
        waits = any(each.former is not None for others in found.values() for each in others.values())
        behind = behind_pairs(self.folder) if waits else set()  # which takes seconds for ten thousand machines
        phase = next_phase(self.folder.inventory, found, behind, targets)
        for line in phase.lines:
            self._say(line)
        self._store_exchanges(phase.changed)
        return bool(phase.changed)

    def _store_exchanges(self, changed: Exchanges) -> None:
        texts, gone = texts_of(changed)
        self.folder.store.write(texts)
        self.folder.store.delete(gone)
        self._written += [*texts, *gone]
        self._reopen()

    def forget_keys(self, machine: MachineName) -> bool:
        """Drop the machine's public keys and what it confirmed; its addresses stay taken. Whether there was any."""
        keys = [each for each in self.folder.texts if each.machine == machine and each.file in KEY_FILES]
        variables = [*keys, *plans_of(self.record.acknowledged(), machine)]
        self.folder.store.delete(variables)
        self._written += variables
        with suppress(ValueError):  # a broken text is for `check` to name, and keeps no key from going
            self._store_exchanges(without(exchanges_of(self.folder.stored), machine))
        self.folder.vault.remove(self.folder.vault.of(machine))
        self._reopen()
        return bool(variables)

    def withdraw_invitations(self, machine: MachineName) -> list[InstanceName]:
        """Those that are open: by one of them, whoever has the line could come again. The instances."""
        texts = withdrawn_open(self.folder.texts, machine)
        self.keep(texts)
        return sorted(found for each in texts if (found := instance_of(each.generator)))

    def revoke(self, machine: MachineName) -> list[InstanceName]:
        """Put every key of the machine on the list of its instance, and take it out of the vars; the instances."""
        texts = self.folder.texts
        by_generator: dict[str, set[PublicKey]] = {}
        for variable in texts:
            if variable.machine == machine and variable.file in KEY_FILES:
                by_generator.setdefault(variable.generator, set()).update(self._whole_keys(variable))
        lists: dict[Variable, str] = {}
        for generator, revoked in by_generator.items():
            variable = Variable(machine, generator, REVOKED_FILE)
            lists[variable] = keys_text(revoked | _keys_in(texts.get(variable, "")))
        self.folder.store.write(lists)
        self._written += lists
        self.forget_keys(machine)
        return sorted(found for generator in by_generator if (found := instance_of(generator)))

    def _whole_keys(self, variable: Variable) -> set[PublicKey]:
        """VarsError where the text has none."""
        text = self.folder.texts[variable]
        if found := _keys_in(text):
            return found
        raise VarsError(
            f"no key is in this ({len(text)} characters), and nothing is revoked",
            where=variable.path,
            mend=f"put back the key that the machine had: git log -p -- {variable.path}",
        )

    def _sign(
        self, documents: Mapping[InstanceName, Document], todo: Mapping[MachineName, Errand], key: SigningKey,
        dry_run: bool,
    ) -> dict[InstanceName, SignedDocument]:  # fmt: skip
        """The documents that somebody is to be brought. Their serials are noted before anybody sees them."""
        needed = sorted({instance for errand in todo.values() for instance in errand.plans})
        published = [self.record.with_serial(documents[instance]) for instance in needed]
        signed = {}
        for document in published:
            content = encode(document)
            signed[document.instance] = SignedDocument(content.decode("ascii"), sign(key, content))
        if not dry_run:
            self._written += self.record.publish(published)
        return signed

    def _stored(self, variable: Variable, text: str) -> None:
        self._written += (variable, *overtaken(variable, self.folder.texts))
        self._say(f"{variable} {shortened(variable, text)}")

    def _commit(self, verb: str) -> None:
        machines = [each for each in self._written if not isinstance(each, SharedVariable)]
        pairs = [(each.generator, str(each.machine)) for each in machines]
        message = message_for(verb, pairs or [(each.generator, _EVERYBODY) for each in self._written])
        done = commit(self.folder.path, paths_of(self._written), message)
        if done.id:
            self._say(f"git commit {done.id}: {message}")
        if done.note:
            self._say(done.note)


def _keys_in(text: str) -> set[PublicKey]:
    """All that the text has; a merge may have left more of them, between its marks."""
    found = set()
    for word in text.split():
        with suppress(ValueError):
            found.add(PublicKey.parse(word))
    return found


def _not_made(failure: Failure, lost: Collection[MachineName]) -> Outcome:
    machine = failure.variable.machine
    return Outcome(machine, State.NOT_REACHED if machine in lost else State.FAILED, problem=failure.message)


def select(inventory: Inventory, names: Iterable[str], tags: Iterable[str]) -> dict[MachineName, Target]:
    """The machines that are named or have one of the tags; all of them where nothing is said.

    Machines that Warren does not run on are passed over, and refused where they are named.
    """
    names, tags = list(names), set(tags)
    machines = inventory.machines
    known_tags = {"all"}.union(*(machine.tags for machine in machines.values()))
    for name in names:
        if name not in machines:
            raise UsageError(f"there is no machine {quoted(name)}", mend=Nearest().hint(name, machines, "Machines"))
        if not machines[MachineName(name)].managed:
            raise UsageError(
                f"machine {quoted(name)} is not managed: Warren does not run on it",
                mend=f"warren render {name} writes what it needs",
            )
    for tag in sorted(tags - known_tags):
        raise UsageError(f"no machine has the tag {quoted(tag)}", mend=Nearest().hint(tag, known_tags, "Tags"))
    return {
        name: target_of(machine)
        for name, machine in machines.items()
        if machine.managed and (name in names or tags & machine.tags or "all" in tags or not (names or tags))
    }
