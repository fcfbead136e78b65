"""A lab that is running: its machines started, broken, healed; the whole taken down. Changes hold the lab's lock."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

from warren.errors import LabError
from warren.lab import machines, mesh, relay, ssh
from warren.lab.faults import HEALTHY, Faults, detour, drop_rules, relay_device, without_detour
from warren.lab.machines import Grounds
from warren.lab.place import Place, call, spawn
from warren.lab.probe import Answer, measure
from warren.lab.programs import ip_batch, load_rules
from warren.lab.state import LabFolder, LabState, MachineState, all_labs
from warren.lab.underlay import Site, Underlay
from warren.names import MachineName


@dataclass(slots=True)
class Lab:
    """A running lab and its folder; `state` is as written there."""

    folder: LabFolder
    state: LabState

    @property
    def grounds(self) -> Grounds:
        return Grounds(self.state.name, Place(f"lab {self.state.name}", self.state.holder), self.folder.files)

    def places(self) -> dict[MachineName, Place]:
        """The machines that are alive."""
        found = {name: self.state.place(name) for name in self.state.machines}
        return {name: place for name, place in found.items() if place}

    def measure(self, timeout_s: float) -> list[Answer]:
        """Who reaches whom now."""
        return measure(self.places(), mesh.pairs(self.folder.read_documents().values()), timeout_s)

    def remember(self, state: LabState) -> None:
        self.folder.write(state)
        self.state = state

    def boot(self, names: Collection[MachineName]) -> None:
        """Start machines that are dead or new, without faults and without services."""
        underlay = Underlay(self.state.sites, self.state.endpoint_names)
        inits = machines.boot(self.grounds, underlay, sorted(names))
        started = [MachineState(self.state.machines[name].site, init.place.process) for name, init in inits.items()]
        self._remember_machines(*started)
        for init in inits.values():
            init.keep()

    def start_agents(self, names: Collection[MachineName]) -> None:
        places = self.places()
        for name in sorted(names):
            mesh.start_agent(self.state.name, name, places[name])

    def start_ssh(self, names: Collection[MachineName]) -> None:
        """Start sshd, if this lab has it."""
        places = self.places()
        for name in sorted(names if self.state.has_ssh else ()):
            ssh.start_server(self.state.name, name, places[name])

    def kill(self, name: str) -> None:
        """Everything on the machine dies at once; with its link go the faults of the link."""
        machine = self.state.machine(name)
        self._delay(machine.site, 0)
        machines.halt(self.grounds, machine.site, self.state.place(name))
        self._remember_machines(MachineState(machine.site))

    def set_faults(self, name: str, faults: Faults) -> None:
        machine = self.state.machine(name)
        if faults != HEALTHY and not self.state.place(name):
            raise LabError(f"{name} is dead", mend=f"warren lab fault heal {name}")
        if faults.delay_ms != machine.faults.delay_ms:
            self._delay(machine.site, faults.delay_ms)
        self._remember_machines(replace(machine, faults=faults))

    def cut(self, name: str) -> None:
        self.set_faults(name, replace(self.state.machine(name).faults, cut=True))

    def lose(self, name: str, percent: float) -> None:
        self.set_faults(name, replace(self.state.machine(name).faults, loss_percent=percent))

    def delay(self, name: str, milliseconds: float) -> None:
        self.set_faults(name, replace(self.state.machine(name).faults, delay_ms=milliseconds))

    def heal(self, name: str) -> None:
        """Take all faults away, and start the machine again if it is dead."""
        self.set_faults(name, HEALTHY)
        if not self.state.place(name):
            self.boot([MachineName(name)])
            self.start_agents([MachineName(name)])
            self.start_ssh([MachineName(name)])

    def move(self, name: str, site: Site) -> None:
        """Attach the machine elsewhere: it is dead until it boots again, and keeps its disk."""
        self.kill(name)
        self._remember_machines(MachineState(site))

    def remove(self, name: str) -> None:
        """The machine leaves the lab, and its disk goes."""
        self.kill(name)
        machines.erase(self.grounds, MachineName(name))
        self.remember(self.state.without_machine(MachineName(name)))

    def end(self) -> None:
        """All of the lab dies at once; nothing of it stays."""
        self.state.holder.kill()
        self.folder.remove()

    def _remember_machines(self, *changed: MachineState) -> None:
        """Note it, after the internet drops what it has to."""
        state = self.state.with_machines(changed)
        rules = drop_rules((machine.site, machine.faults) for machine in state.machines.values())
        call(self.grounds.cables, load_rules, rules)
        self.remember(state)

    def _delay(self, site: Site, delay_ms: float) -> None:
        device = relay_device(site)
        call(self.grounds.cables, _remove_detour, site)
        if delay_ms:
            command = [sys.executable, "-I", "-S", relay.__file__, str(delay_ms / 1000)]
            stdin = partial(relay.open_device, device)
            spawn(self.grounds.internet, command, dict(os.environ), stdin=stdin)
            call(self.grounds.cables, _make_detour, site)


def _make_detour(site: Site) -> None:
    for version in (4, 6):
        ip_batch(detour(site, version), f"-{version}")


def _remove_detour(site: Site) -> None:
    for version in (4, 6):
        ip_batch(without_detour(site), f"-{version}")
    machines.delete_links([relay_device(site)])


def find_lab(name: str) -> Lab:
    """The lab of this name; LabError if it is not running."""
    folder = LabFolder(name)
    state = folder.read()
    if state is None:
        others = ", ".join(each.name for each in running_labs())
        mend = f"running: {others}; choose one with --name" if others else "warren lab up"
        raise LabError(f'lab "{name}" is not running', mend=mend)
    return Lab(folder, state)


def running_labs() -> list[LabState]:
    return [state for name in all_labs() if (state := LabFolder(name).read())]


@contextmanager
def changing(name: str) -> Iterator[Lab]:
    """The lab, with others kept from changing it meanwhile."""
    find_lab(name)  # a lock makes a folder
    with LabFolder(name).locked():
        yield find_lab(name)


def take_down(name: str) -> bool:
    """End the lab and clear what is left of it; whether there was anything."""
    folder = LabFolder(name)
    if not folder.path.exists():
        return False
    with folder.locked():
        state = folder.read()
        if state:
            Lab(folder, state).end()
        folder.remove()
    return True
