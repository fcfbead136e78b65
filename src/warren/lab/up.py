"""Bring a lab up, or make one that is running what its file says now."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from warren.errors import LabError
from warren.host import files, hosts_file
from warren.inventory.model import Inventory
from warren.lab import machines, mesh, preshared, ssh
from warren.lab.faults import HEALTHY
from warren.lab.lab import Lab
from warren.lab.limits import check_computer, make_room
from warren.lab.place import abandon_children, results, start
from warren.lab.probe import Answer, measure
from warren.lab.state import LabFolder, LabState, MachineState
from warren.lab.underlay import check_behind_nat, default_behind_nat, design, hosts_head, with_hosts_head
from warren.names import InstanceName, MachineName
from warren.network.document import Document
from warren.network.resolve import resolve
from warren.network.stored import KEY_FILES, PRESHARED_FILE, PUBLIC_KEY_FILE, keys_generator
from warren.vars.generate import Selection, work
from warren.vars.generators import Variable, stored_by_instance

WAIT_S = 30.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a lab should be. `stored` are the operator's vars: their addresses count, their keys are not the lab's."""

    name: str
    source: str
    inventory: Inventory
    stored: Mapping[Variable, str]
    behind_nat: frozenset[MachineName] | None = None  # None: not said
    with_ssh: bool = False
    wait_s: float = WAIT_S


@dataclass(frozen=True, slots=True)
class Report:
    """What came of it. `parts` are seconds, in the order of time."""

    lab: Lab
    answers: list[Answer]
    parts: Mapping[str, float]


class Progress(Protocol):
    """Somebody who watches."""

    def begins(self, part: str) -> None: ...

    def answered(self, pairs: int, of: int) -> None: ...


def bring_up(wanted: Wanted, progress: Progress) -> Report:
    """A lab that is new dies with this process until it is whole; one that was running stays whatever happens."""
    check_computer()
    check_behind_nat(wanted.inventory, wanted.behind_nat or ())
    folder = LabFolder(wanted.name)
    with folder.locked():
        state = folder.read()
        make_room(len(wanted.inventory.machines.keys() - (state.machines.keys() if state else ())))
        if state and state.source != wanted.source:
            raise LabError(
                f'lab "{wanted.name}" is running, made from {state.source}',
                mend="choose another name with --name, or take it down first: warren lab down",
            )
        if state:
            return _Builder(wanted, progress, Lab(folder, state)).build()
        return _bring_up_new(wanted, progress, folder)


def _bring_up_new(wanted: Wanted, progress: Progress, folder: LabFolder) -> Report:
    folder.clear()
    folder.files.mkdir()
    holder = machines.start_internet(wanted.name, folder.files)
    lab = Lab(folder, LabState(wanted.name, wanted.source, holder.place.process))
    try:
        holder.result()
        lab.remember(lab.state)
        report = _Builder(wanted, progress, lab).build()
        holder.keep()
    except BaseException:
        abandon_children()
        lab.end()
        raise
    return report


class _Builder:
    """One `up`, part by part."""

    def __init__(self, wanted: Wanted, progress: Progress, lab: Lab) -> None:
        self.wanted = wanted
        self.inventory = wanted.inventory
        self.progress = progress
        self.lab = lab
        self.parts: dict[str, float] = {}
        numbers = {name: machine.site.number for name, machine in lab.state.machines.items()}
        self.underlay = design(wanted.inventory, _behind_nat(wanted, lab.state), numbers)

    def build(self) -> Report:
        had_ssh = self.lab.state.has_ssh
        with self._part("machines"):
            booted = self._machines()
            self.lab.start_agents(booted)
        with self._part("keys"):
            documents = self._documents()
        with self._part("documents"):
            mesh.deliver(self.lab.places(), documents.values())
            self.lab.folder.write_documents(documents)
        if self.lab.state.has_ssh:
            with self._part("ssh"):
                ssh.prepare(self.lab.places(), documents.values())
                self.lab.start_ssh(booted if had_ssh else self.lab.state.machines)
        with self._part("mesh"):
            answers = self._wait(documents)
        return Report(self.lab, answers, self.parts)

    def _machines(self) -> list[MachineName]:
        """Make the machines those of the inventory, alive and without faults; returns which were started."""
        lab = self.lab
        for name, machine in lab.state.machines.items():
            site = self.underlay.sites.get(name)
            if site is None:
                lab.remove(name)
            elif site != machine.site:
                lab.move(name, site)
            elif machine.faults != HEALTHY:
                lab.set_faults(name, HEALTHY)
        new = [MachineState(site) for name, site in self.underlay.sites.items() if name not in lab.state.machines]
        lab.remember(
            replace(
                lab.state.with_machines(new),
                endpoint_names=dict(self.underlay.names),
                has_ssh=self.wanted.with_ssh or lab.state.has_ssh,
            )
        )
        running = lab.places()
        results([start(place, _keep_hosts, hosts_head(self.underlay, name)) for name, place in running.items()])
        dead = [name for name in lab.state.machines if name not in running]
        lab.boot(dead)
        machines.forward_ports(lab.grounds, self.underlay)
        return dead

    def _documents(self) -> dict[InstanceName, Document]:
        """Have keys made, and resolve; addresses that the lab once gave stay, unless the operator stored others."""
        keys = mesh.make_keys(self.lab.places(), mesh.instances_of(self.inventory))
        not_kept = (*KEY_FILES, PRESHARED_FILE)  # what the operator has is of other machines
        texts = {variable: text for variable, text in self._stored().items() if variable.file not in not_kept}
        texts |= work(self.inventory, texts, Selection()).values
        for machine, made in keys.items():
            for instance, text in made.items():
                texts[Variable(machine, keys_generator(instance), PUBLIC_KEY_FILE)] = text
        if any(instance.psk for instance in self.inventory.instances.values()):
            keyed = resolve(self.inventory, stored_by_instance(texts))
            texts |= preshared.share(self.lab.places(), self.inventory, keyed)
        self.lab.folder.write_vars(texts)
        stored = stored_by_instance(texts)
        before = self.lab.folder.read_documents()
        serial = max((document.serial for document in before.values()), default=0)
        documents = resolve(self.inventory, stored, serial)
        return documents if documents == before else resolve(self.inventory, stored, serial + 1)

    def _stored(self) -> dict[Variable, str]:
        return {**self.lab.folder.read_vars(), **self.wanted.stored}

    def _wait(self, documents: Mapping[InstanceName, Document]) -> list[Answer]:
        pairs = mesh.pairs(documents.values())
        counted = 0

        def count(answer: Answer) -> None:
            nonlocal counted
            counted += answer.ok
            self.progress.answered(counted, len(pairs))

        return measure(self.lab.places(), pairs, self.wanted.wait_s, count)

    @contextmanager
    def _part(self, name: str) -> Iterator[None]:
        self.progress.begins(name)
        before = time.monotonic()
        yield
        self.parts[name] = time.monotonic() - before


def _behind_nat(wanted: Wanted, state: LabState) -> frozenset[MachineName]:
    """What was asked for; else as it is in the running lab; else the default."""
    if wanted.behind_nat is not None:
        return wanted.behind_nat
    if state.machines:
        return frozenset(name for name, machine in state.machines.items() if machine.site.behind_nat)
    return default_behind_nat(wanted.inventory)


def _keep_hosts(head: str) -> None:
    """Renew the lab's part of the hosts file of a machine that is running, where an agent may write too."""
    with files.edit(Path(hosts_file.PATH)) as file:
        content = (file.content or b"").decode(errors="surrogateescape")
        file.replace(with_hosts_head(content, head).encode(errors="surrogateescape"))
