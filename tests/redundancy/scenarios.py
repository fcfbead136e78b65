"""Random trouble for a mesh, and the laws that hold through it. A run follows from its seed alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import permutations
from random import Random

from redundancy.simulator import Mesh, document
from redundancy.wire import KEEPALIVE_S, REJECT_S, REKEY_TIMEOUT_S, SILENCE_S, Link
from warren.names import MachineName
from warren.network import addresses
from warren.plan.events import Kind
from warren.plan.health import JITTER, TUNING, Health, hold_s
from warren.plan.reachability import carriers
from warren.plan.redundancy import Redundancy

HOUR_S = 3600.0
WAKES_PER_S = 150.0  # of one agent in use, with six controllers of which some are dead; one that spins has thousands


class LawBroken(AssertionError):
    """With the seed that shows it."""


def settled_s(mesh: Mesh, *, lossy: bool) -> float:
    """The bound: how long after the last trouble all is well, from the constants in `Tuning`.

    Noticed; called anew; held for as long as it came and went; a controller's word awaited; reports come round, with
    losses some more of them.
    """
    healths = [each for state in running(mesh) for each in state.healths.values()]
    held_s = max((_next_hold_s(each) for each in healths), default=TUNING.hold_s)
    reports_s = TUNING.report_s * (1 + JITTER) * (3 if lossy else 1)
    once_s = TUNING.noticed_s + TUNING.grace_s + TUNING.patient_renewal_s * (1 + JITTER) * 2
    # A peer whose clock was set back is refused, and heard again when the controller itself calls.
    called_s = KEEPALIVE_S + SILENCE_S + REKEY_TIMEOUT_S
    return once_s + (2 if lossy else 1) * held_s + TUNING.word_wait_s + TUNING.together_s + 2 * reports_s + called_s


def _next_hold_s(each: Health) -> float:
    return min(TUNING.longest_hold_s, 2 * hold_s(each))


def running(mesh: Mesh) -> Iterator[Redundancy]:
    return (each.state for each in mesh.machines.values() if each.state is not None and each.host.awake)


class Run:
    """One mesh and its trouble."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.log: list[str] = []
        self.clock_set_s = float("-inf")
        controllers, peers = self.random.choice((1, 2, 2, 2, 3, 3, 4, 6)), self.random.randint(2, 8)
        if controllers > 3:
            peers = min(peers, 4)
        self.has_agents = self.random.random() < 0.8
        # The wire's own chance, so that the trouble of a seed does not depend on how many packets there were.
        self.mesh = Mesh(document(controllers, peers, seed), Random(seed + 1), agents_on_controllers=self.has_agents)
        self.controllers = sorted(self.mesh.document.controllers)
        self.peers = sorted(self.mesh.document.peers)

    def go(self) -> None:
        mesh, random = self.mesh, self.random
        for name in self.peers:
            mesh.use(name, frozenset(each for each in self.controllers if random.random() < 0.15))
        self._run(random.uniform(1, 8))
        for _ in range(random.randint(1, 4)):
            for _ in range(random.randint(1, 3)):
                self._trouble()
                self._run(random.choice((0.0, random.uniform(0, 1), random.uniform(0, 12))))
            if random.random() < 0.6:
                self._settle()
                self._check_settled()
                self._check_steady()
        self._heal()
        self._settle()
        self._check_settled()
        self._check_fresh()

    # Trouble

    def _trouble(self) -> None:
        random, mesh = self.random, self.mesh
        controller, peer = random.choice(self.controllers), random.choice(self.peers)
        kinds: dict[str, Callable[[], None]] = {
            "kill": lambda: mesh.power_off(controller),
            "kill another": lambda: mesh.power_off(random.choice(self.controllers)),
            "revive": lambda: self._revive(controller),
            "reboot": lambda: self._reboot(peer),
            "cut": lambda: self._cut(peer, controller, True),
            "cut one way": lambda: self._cut(*random.choice(((peer, controller), (controller, peer))), both=False),
            "mend": lambda: self._cut(peer, controller, False),
            "loss": lambda: self._between(peer, controller, "loss", 0.12),
            "delay": lambda: self._between(peer, controller, "delay_s", 0.08),
            "restart its agent": lambda: self._restart_agent(peer),
            "restart the controller's agent": lambda: self._restart_agent(controller),
            "no forwarding": lambda: setattr(mesh.machines[controller], "forwards", False),
            "forwarding": lambda: setattr(mesh.machines[controller], "forwards", True),
            "sleep": lambda: self._sleep(peer),
            "set its clock": lambda: self._set_clock(peer),
            "drain": lambda: self._drain(controller, len(self._undrained()) > 1),
            "undrain": lambda: self._drain(controller, False),
            "use": lambda: mesh.use(peer, frozenset(each for each in self.controllers if random.random() < 0.5)),
        }
        kind = random.choice((*sorted(kinds), "cut", "cut", "cut one way", "kill"))
        self.log.append(f"{mesh.clock.now_s:.2f} {kind} ({controller}, {peer})")
        kinds[kind]()

    def _revive(self, name: MachineName) -> None:
        if not self.mesh.machines[name].host.on:
            self.mesh.power_on(name)

    def _reboot(self, name: MachineName) -> None:
        self.mesh.power_off(name)
        self.mesh.clock.at(self.mesh.clock.now_s + self.random.uniform(1, 5), self._revive, name)

    def _cut(self, one: MachineName, other: MachineName, cut: bool = True, *, both: bool = True) -> None:
        self.mesh.wire.links[one, other].cut = cut
        if both:
            self.mesh.wire.links[other, one].cut = cut

    def _between(self, one: MachineName, other: MachineName, what: str, most: float) -> None:
        for link in (self.mesh.wire.links[one, other], self.mesh.wire.links[other, one]):
            setattr(link, what, self.random.uniform(0, most))

    def _restart_agent(self, name: MachineName) -> None:
        self.mesh.stop_agent(name)
        self.mesh.clock.at(self.mesh.clock.now_s + self.random.uniform(0, 2), self.mesh.start_agent, name)

    def _sleep(self, name: MachineName) -> None:
        if self.mesh.machines[name].host.awake:
            self.mesh.sleep(name)
            self.mesh.clock.at(self.mesh.clock.now_s + self.random.choice((0.5, 5, 40, 200)), self.mesh.wake, name)

    def _set_clock(self, name: MachineName) -> None:
        self.clock_set_s = self.mesh.clock.now_s
        self.mesh.set_clock(name, self.random.choice((HOUR_S, -HOUR_S)))

    def _drain(self, name: MachineName, draining: bool) -> None:
        if self.has_agents:
            self.mesh.drain(name, draining)

    def _undrained(self) -> list[MachineName]:
        return [name for name in self.controllers if not self.mesh.machines[name].draining]

    def _heal(self) -> None:
        self.log.append(f"{self.mesh.clock.now_s:.2f} heal")
        for link in self.mesh.wire.links.values():
            link.cut, link.loss = False, 0.0
        for name in self.controllers:
            machine = self.mesh.machines[name]
            machine.forwards = True
            if not machine.host.on:
                machine.draining = False
                self.mesh.power_on(name)
            elif machine.draining:
                self.mesh.drain(name, False)

    def _run(self, for_s: float) -> None:
        self.mesh.clock.run_until(self.mesh.clock.now_s + for_s)

    def _settle(self) -> None:
        self._run(210.0 if any(not each.host.awake for each in self.mesh.machines.values()) else 6.0)
        # Who was not asked in time to take the entry anew refuses a clock that was set back, and nobody notices before
        # the session's end.
        self._run(max(0.0, self.clock_set_s + REJECT_S - self.mesh.clock.now_s))
        lossy = any(link.loss for link in self.mesh.wire.links.values())
        before = {name: machine.wakes for name, machine in self.mesh.machines.items()}
        for_s = settled_s(self.mesh, lossy=lossy)
        self._run(for_s)
        for name, machine in self.mesh.machines.items():
            self._law(
                machine.wakes - before[name] < WAKES_PER_S * for_s,
                f"{name} woke {machine.wakes - before[name]} times in {for_s:.0f} s",
            )

    # Laws

    def _law(self, holds: bool, text: str) -> None:
        if not holds:
            events = "\n".join(
                f"    {at_s:.3f} {name}: {event}"
                for at_s, name, event in sorted(
                    (at_s, name, str(event))
                    for name, machine in self.mesh.machines.items()
                    for at_s, event in machine.events
                )[-60:]
            )
            raise LawBroken(f"{self.mesh.clock.now_s:.2f} {text}\n  " + "\n  ".join(self.log) + "\n" + events)

    def _reaches(self, peer: MachineName, controller: MachineName) -> bool:
        """Whether the controller works for that peer, in truth."""
        mesh = self.mesh
        links: tuple[Link, ...] = (mesh.wire.links[peer, controller], mesh.wire.links[controller, peer])
        machine = mesh.machines[controller]
        return machine.host.on and machine.forwards and not any(link.cut for link in links)

    def truth(self, peer: MachineName) -> frozenset[MachineName]:
        """What the peer should use."""
        works = frozenset(name for name in self.controllers if self._reaches(peer, name))
        return works & frozenset(self._undrained()) or works

    def _check_settled(self) -> None:
        mesh = self.mesh
        names = [name for name in self.peers if mesh.machines[name].state is not None]
        for name in names:
            state, truth = mesh.machines[name].state, self.truth(name)
            assert state is not None
            self._law(
                state.reachability.usable == truth,
                f"{name} uses {sorted(state.reachability.usable)}, not {sorted(truth)}",
            )
            self._check_nothing_to_the_dead(name, truth)
        for one, other in permutations(names, 2):
            if self.truth(one) == self.truth(other):
                self._check_agreement(one, other)
            # Without agents on controllers nobody says who lost what, so only what both see alike is promised.
            if self.truth(one) & self.truth(other) and (self.has_agents or self.truth(one) == self.truth(other)):
                self._check_ways(one, other)

    def _check_nothing_to_the_dead(self, name: MachineName, truth: frozenset[MachineName]) -> None:
        """A controller that does not work has its own `::1`, and our own /96 for the probe, and else nothing."""
        for owner in self.controllers if truth else ():
            subnet = self.mesh.document.controllers[owner].subnet
            for other in self.peers:
                if other != name:
                    to = int(addresses.peer_address(subnet, self.mesh.document.peers[other].suffix))
                    holder = self.mesh.route(name, to)
                    self._law(holder in truth, f"{name} sends to {other} in the subnet of {owner} by {holder}")

    def _check_agreement(self, one: MachineName, other: MachineName) -> None:
        tables = []
        for name, about in ((one, other), (other, one)):
            suffix = self.mesh.document.peers[about].suffix
            tables.append(
                {
                    owner: self.mesh.route(name, int(addresses.peer_address(entry.subnet, suffix)))
                    for owner, entry in self.mesh.document.controllers.items()
                }
            )
        self._law(tables[0] == tables[1], f"{one} and {other} disagree: {tables[0]}, {tables[1]}")
        usual = carriers(self.mesh.document, self.truth(one))
        self._law(not self.truth(one) or tables[0] == usual, f"{one} and {other} have exceptions: {tables[0]}, {usual}")

    def _check_ways(self, one: MachineName, other: MachineName) -> None:
        entry = self.mesh.document.peers[other]
        for controller in self.mesh.document.controllers.values():
            to = addresses.peer_address(controller.subnet, entry.suffix)
            why = self.mesh.works(one, to, other)
            self._law(not why, f"{one} does not reach {other} in the subnet of {controller.name}: {why}")
        why = self.mesh.works(one, self.mesh.lookup(one, other), other)
        self._law(not why, f"{one} does not reach {other} by its name: {why}")

    def _check_steady(self) -> None:
        """No oscillation: nobody moves anything, or changes its mind, while nothing happens."""
        start_s = self.mesh.clock.now_s
        self._run(40.0)
        for name, machine in self.mesh.machines.items():
            moved = [reachability for at_s, reachability in machine.moved if at_s > start_s]
            self._law(not moved, f"{name} moved while nothing happened: {moved}")
            verdicts = [str(event) for at_s, event in machine.events if at_s > start_s and event.kind is Kind.VERDICT]
            self._law(not verdicts, f"{name} changed its mind while nothing happened: {verdicts}")

    def _check_fresh(self) -> None:
        for name in self.mesh.machines:
            self._law(self.mesh.fresh(name), f"{name} is not as a fresh plan says: {self.mesh.machines[name].state}")
