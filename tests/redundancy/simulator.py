"""A whole mesh in virtual time: real health, signals, plans and diffs of every machine, over a modelled WireGuard.

Everything follows from the seed. What an agent does with the actions is done here as an agent does it: the moves at
once, and the ordinary reconcile a moment later.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache
from ipaddress import IPv6Address
from random import Random

from meshes import inventory, mesh
from plan.simulation import after
from redundancy.wire import Clock, Host, Wire
from strategies import public_key
from warren.names import InstanceName, MachineName
from warren.network import addresses
from warren.network.document import ControllerEntry, Document, Entry
from warren.network.resolve import resolve
from warren.network.stored import Stored
from warren.plan import moves, redundancy
from warren.plan.desired import NOTHING, Desired, Observed
from warren.plan.diff import diff
from warren.plan.events import Event
from warren.plan.exchange import Answer, Inputs, Move, Renew, Send, SendRound, Tell
from warren.plan.health import TUNING, Probe
from warren.plan.plan import host_lines, plan
from warren.plan.reachability import Reachability
from warren.plan.redundancy import Redundancy
from warren.plan.steps import SetPeers, WriteHosts
from warren.wireguard.device import ObservedDevice
from warren.wireguard.endpoint import SocketAddress

RECONCILE_S = 0.05  # after a move, the ordinary way follows
VPN = InstanceName("vpn")
ECHO, REPLY, THROUGH, SIGNAL = "echo", "reply", "through", "signal"


@dataclass(frozen=True, slots=True)
class Packet:
    kind: str
    source: int
    to: int
    number: int = 0
    content: bytes = b""


@dataclass(slots=True)
class Machine:
    """`state` None: its agent does not run. `draining` is kept over restarts, as the agent keeps it."""

    host: Host
    entry: Entry
    observed: Observed
    own: frozenset[int]  # addresses
    turning: dict[int, MachineName]
    in_use: frozenset[MachineName] = frozenset()
    state: Redundancy | None = None
    forwards: bool = True
    draining: bool = False
    has_agent: bool = True
    wakes: int = 0
    moved: list[tuple[float, Reachability]] = field(default_factory=list)
    events: list[tuple[float, Event]] = field(default_factory=list)
    routes: dict[int, MachineName | None] = field(default_factory=dict)

    @property
    def device(self) -> ObservedDevice:
        assert self.observed.device is not None
        return self.observed.device


class Mesh:
    """`document`'s machines, all up and agents running."""

    def __init__(self, document: Document, random: Random, *, agents_on_controllers: bool = True) -> None:
        self.document = document
        self.random = random
        self.clock = Clock()
        self.wire = Wire(self.clock, random, self._deliver)
        self.machines: dict[MachineName, Machine] = {}
        self.echo_addresses = {name: int(entry.address) for name, entry in document.controllers.items()}
        self.controllers_at = {address: name for name, address in self.echo_addresses.items()}
        everybody: list[Entry] = [*document.controllers.values(), *document.peers.values()]
        self.key_names = {entry.public_key: entry.name for entry in everybody if entry.public_key is not None}
        for name in [*document.controllers, *document.peers]:
            self._add(name)
        for controller in document.controllers:
            for other in self.machines:
                if other in document.peers or other > controller:
                    self.wire.connect(self.machines[controller].host, self.machines[other].host)
        for name, machine in self.machines.items():
            machine.has_agent = agents_on_controllers or name in document.peers
            self.start_agent(name)

    def _add(self, name: MachineName) -> None:
        entry = self.document.entry(name)
        assert entry is not None
        if isinstance(entry, ControllerEntry):
            own, turning = {int(entry.address)}, {}
        else:
            subnets = {each.name: each.subnet for each in self.document.controllers.values()}
            own = {int(addresses.peer_address(subnet, entry.suffix)) for subnet in subnets.values()}
            turning = {int(addresses.turning_address(subnet, entry.suffix)): each for each, subnet in subnets.items()}
        host = Host(name, isinstance(entry, ControllerEntry))
        self.machines[name] = Machine(host, entry, NOTHING, frozenset(own), turning)
        self._reconcile(name, None)

    # What is done to machines

    def start_agent(self, name: MachineName) -> None:
        machine = self.machines[name]
        if not machine.has_agent or not machine.host.on or machine.state is not None:
            return
        machine.state = redundancy.begin(
            self.document, name, machine.device, self.clock.now_s, draining=machine.draining
        )
        self._reconcile(name, machine.state.reachability)
        self._step(name, Inputs(in_use=machine.in_use))

    def stop_agent(self, name: MachineName) -> None:
        self.machines[name].state = None

    def power_off(self, name: MachineName) -> None:
        self.machines[name].host.on = False
        self.stop_agent(name)

    def power_on(self, name: MachineName) -> None:
        """It comes back without sessions, as the document says, and its agent starts a moment later."""
        machine = self.machines[name]
        machine.host.on = True
        for other in machine.host.tunnels:
            self.wire.reset(machine.host, self.wire.hosts[other], forget_where=True)
        machine.observed = NOTHING
        self._reconcile(name, None)
        self.clock.at(self.clock.now_s + 0.2, self.start_agent, name)

    def sleep(self, name: MachineName) -> None:
        self.machines[name].host.awake = False

    def wake(self, name: MachineName) -> None:
        self.machines[name].host.awake = True
        self._step(name, Inputs())

    def set_clock(self, name: MachineName, by_s: float) -> None:
        self.machines[name].host.clock_off_s += by_s
        if by_s < 0:
            self._step(name, Inputs(clock_set_back=True))

    def drain(self, name: MachineName, draining: bool) -> None:
        self.machines[name].draining = draining
        self._step(name, Inputs(drain=draining))

    def use(self, name: MachineName, in_use: frozenset[MachineName]) -> None:
        self.machines[name].in_use = in_use
        self._step(name, Inputs(in_use=in_use))

    # What agents do

    def _step(self, name: MachineName, inputs: Inputs) -> None:
        machine = self.machines[name]
        if machine.state is None or not machine.host.awake:
            return
        machine.state, actions = redundancy.step(machine.state, inputs, self.clock.now_s, self.clock.now_s)
        assert machine.state.due_s > self.clock.now_s, f"{name} would step again at once"
        for action in actions:
            match action:
                case SendRound(controller, probes, number):
                    for probe in probes:
                        self._send(name, self._probe(machine, controller, probe, number))
                case Send(to, content):
                    self._send(name, Packet(SIGNAL, self._source(machine, int(to)), int(to), content=content))
                case Renew(other):
                    self._renew(name, other)
                case Move(reachability):
                    self._move(name, reachability)
                case Tell(event):
                    machine.events.append((self.clock.now_s, event))
        machine.wakes += 1
        self.clock.at(machine.state.due_s, self._wake, name, machine.wakes)

    def _wake(self, name: MachineName, number: int) -> None:
        if self.machines[name].wakes == number:
            self._step(name, Inputs())

    def _move(self, name: MachineName, reachability: Reachability) -> None:
        machine = self.machines[name]
        machine.moved.append((self.clock.now_s, reachability))
        desired = self._desired(name, reachability)
        self._perform(machine, (moves.moves(machine.device, desired, self.clock.now_s),))
        self.clock.at(self.clock.now_s + RECONCILE_S, self._reconcile_now, name)

    def _reconcile_now(self, name: MachineName) -> None:
        if (state := self.machines[name].state) is not None:
            self._reconcile(name, state.reachability)

    def _renew(self, name: MachineName, other: MachineName) -> None:
        machine = self.machines[name]
        key = self.machines[other].entry.public_key
        assert key is not None
        desired = self._desired(name, machine.state.reachability if machine.state else None)
        self._perform(machine, (moves.renewal(machine.device, desired, frozenset({key})),))
        self.wire.reset(machine.host, self.wire.hosts[other], forget_where=False)
        self.wire.call(machine.host, self.wire.hosts[other])  # as WireGuard does when a keepalive is switched on

    def _desired(self, name: MachineName, reachability: Reachability | None) -> Desired:
        return plan(self.document, name, reachability=reachability)

    def _reconcile(self, name: MachineName, reachability: Reachability | None) -> None:
        machine = self.machines[name]
        desired = self._desired(name, reachability)
        steps = diff(replace(machine.observed, unix_s=self.clock.now_s), desired)
        self._perform(machine, steps if machine.observed.device is None else _of_takeover(steps))
        assert not _of_takeover(diff(machine.observed, desired)), f"{name}: the diff does not converge"

    def _perform(self, machine: Machine, steps: tuple[object, ...]) -> None:
        machine.observed = after(machine.observed, steps, _WHERE)  # type: ignore[arg-type] # steps are steps
        machine.routes = {}

    # Packets

    def _probe(self, machine: Machine, controller: MachineName, probe: Probe, number: int) -> Packet:
        if probe is Probe.ECHO:
            to = self.echo_addresses[controller]
            return Packet(ECHO, self._source(machine, to), to, number)
        to = next(address for address, name in machine.turning.items() if name == controller)
        return Packet(THROUGH, to ^ 0xFFFFFFFF, to, number)

    def _source(self, machine: Machine, to: int) -> int:
        """As Linux chooses: the address with most leading bits in common (RFC 6724, rule 8)."""
        return min(machine.own, key=lambda own: (own ^ to).bit_length())

    def route(self, name: MachineName, address: int) -> MachineName | None:
        """Cryptokey routing: the longest match."""
        machine = self.machines[name]
        if address not in machine.routes:
            best: tuple[int, MachineName] | None = None
            for key, peer in machine.device.peers.items():
                for allowed in peer.allowed_ips:
                    shift = 128 - allowed.prefix_length
                    if int.from_bytes(allowed.packed, "big") >> shift == address >> shift:
                        best = max(best or (-1, name), (allowed.prefix_length, self.key_names[key]))
            machine.routes[address] = best[1] if best else None
        return machine.routes[address]

    def _send(self, name: MachineName, packet: Packet) -> None:
        to = self.route(name, packet.to)
        if to is not None:
            self.wire.send(self.machines[name].host, self.wire.hosts[to], packet)

    def _deliver(self, host: Host, source: Host, packet: Packet) -> None:
        name = MachineName(host.name)
        machine = self.machines[name]
        if self.route(name, packet.source) != source.name:
            return
        if packet.to in machine.own:
            self._received(name, machine, packet)
        elif packet.kind == THROUGH and packet.to in machine.turning:
            answer = Answer(machine.turning[packet.to], Probe.THROUGH, packet.number, self.clock.now_s)
            self._step(name, Inputs((answer,)))
        elif host.is_controller and machine.forwards:
            self._send(name, packet)

    def _received(self, name: MachineName, machine: Machine, packet: Packet) -> None:
        if packet.kind == ECHO:
            self._send(name, Packet(REPLY, packet.to, packet.source, packet.number))
        elif packet.kind == REPLY:
            controller = self.controllers_at[packet.source]
            self._step(name, Inputs((Answer(controller, Probe.ECHO, packet.number, self.clock.now_s),)))
        elif packet.kind == SIGNAL:
            self._step(name, Inputs(datagrams=((IPv6Address(packet.source), packet.content),)))

    # What is asked of it

    def works(self, start: MachineName, to: IPv6Address, end: MachineName) -> str:
        """Empty where a packet from `start` would arrive at `end` now and an answer would come back; else why not."""
        source = self._source(self.machines[start], int(to))
        return self._way(start, source, int(to), end) or self._way(end, int(to), source, start)

    def _way(self, start: MachineName, source: int, to: int, end: MachineName) -> str:
        here = start
        for _ in range(3):
            following = self.route(here, to)
            if following is None:
                return f"{here} has no way to {IPv6Address(to)}"
            link = self.wire.links[here, following]
            next_host = self.machines[following].host
            if link.cut or not next_host.on:
                return f"{here} sends to {following}, which it does not reach"
            if self.wire.is_stale(self.machines[here].host, next_host):
                return f"{here} sends to {following} in a session that is none"
            if self.route(following, source) != here:
                return f"{following} does not accept {IPv6Address(source)} from {here}"
            if to in self.machines[following].own:
                return "" if following == end else f"it ends at {following}"
            if not next_host.is_controller or not self.machines[following].forwards:
                return f"{following} does not forward"
            here = following
        return "it goes round and round"

    def lookup(self, name: MachineName, other: MachineName) -> IPv6Address:
        """What `name`'s hosts file says of `other` now."""
        lines = self.machines[name].observed.hosts or ()
        return next(
            IPv6Address(line.split()[0]) for line in lines if line.split()[1] == f"{other}.{self.document.domain}"
        )

    def fresh(self, name: MachineName) -> bool:
        """Whether the machine is as a plan says that knows nothing of trouble."""
        desired = self._desired(name, None)
        held = self.machines[name].device.peers
        hosts = tuple(map(str, host_lines(self.document)))
        return {key: peer.allowed_ips for key, peer in held.items()} == {
            key: peer.allowed_ips for key, peer in desired.peers.items()
        } and self.machines[name].observed.hosts == hosts


class _Where(dict[str, SocketAddress]):
    """What endpoints stand for does not matter here."""

    def __missing__(self, endpoint: str) -> SocketAddress:
        return SocketAddress(IPv6Address("2001:db8::1"), 51820)


_WHERE = _Where()


def _of_takeover(steps: tuple[object, ...]) -> tuple[object, ...]:
    """Peers and names: all else stays as it was made."""
    return tuple(
        replace(step, changes=tuple(replace(each, endpoint=None) for each in step.changes if _matters(each)))
        if isinstance(step, SetPeers)
        else step
        for step in steps
        if isinstance(step, WriteHosts)
        or (isinstance(step, SetPeers) and (step.removed or any(map(_matters, step.changes))))
    )


def _matters(change: object) -> bool:
    return getattr(change, "allowed_ips", None) is not None


@cache
def document(controllers: int, peers: int, designated: int) -> Document:
    """Names are the same in every run; `designated` deals out the peers' controllers."""
    names = [f"server{number}" for number in range(1, controllers + 1)]
    instance = mesh(" ".join(names), " ".join(f"laptop{number}" for number in range(1, peers + 1)))
    deal = Random(designated)
    dealt = {name: replace(peer, controller=MachineName(deal.choice(names))) for name, peer in instance.peers.items()}
    instance = replace(instance, peers=dealt)
    keys = Stored(public_keys={name: public_key(name).text for name in instance.members})
    return resolve(inventory(instance), {VPN: keys})[VPN]


__all__ = ["TUNING", "Machine", "Mesh", "document"]
