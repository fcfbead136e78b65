"""Keep connections when controllers come and go: drives `plan.redundancy` for every instance of this machine.

The deciding is there, and pure. Here sockets are read and written, WireGuard peers moved, and events kept. The whole
look of the agent goes on beside it, planned from the same reachability, so that neither undoes the other's work.
"""

from __future__ import annotations

import json
import logging
import selectors
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from warren.agent.held import HeldDocuments
from warren.agent.use import Use
from warren.errors import WarrenError
from warren.host import absence, files, wireguard
from warren.host.clock import now_s
from warren.host.machine import Host
from warren.host.probes import Probes
from warren.host.resolve import resolve
from warren.names import InstanceName, MachineName
from warren.network import addresses
from warren.network.document import ControllerEntry, Document, PeerEntry, keys_of
from warren.plan import admission, events, health, ledger, moves, reachability, redundancy, signals
from warren.plan.diff import Resolved
from warren.plan.events import Event
from warren.plan.exchange import Action, Answer, Inputs, Move, Renew, SayFollowed, Send, SendRound, Tell
from warren.plan.health import Probe
from warren.plan.plan import plan
from warren.plan.reachability import Reachability
from warren.plan.redundancy import Redundancy
from warren.plan.signals import Followed
from warren.plan.steps import SetPeers
from warren.wireguard.device import ObservedDevice
from warren.wireguard.endpoint import Endpoint, SocketAddress
from warren.wireguard.keys import PublicKey

log = logging.getLogger("warren")

EVENTS = Path("/run/warren/events")

_RESOLVE_AGAIN_S = 5.0
_CLOCK_SET_BACK_S = 1.0
_FOREVER = float("inf")


class Resolver:
    """Looks endpoints up in the background, one at a time each; whoever asks gets what is known by now."""

    def __init__(self) -> None:
        self._known: dict[Endpoint, tuple[SocketAddress, ...]] = {}
        self._asked_s: dict[Endpoint, float] = {}

    def addresses(self, endpoint: Endpoint) -> tuple[SocketAddress, ...]:
        if endpoint.address is not None:
            return (SocketAddress(endpoint.address, endpoint.port),)
        if now_s() - self._asked_s.get(endpoint, -_FOREVER) > _RESOLVE_AGAIN_S:
            self._asked_s[endpoint] = now_s()
            threading.Thread(target=self._look_up, args=(endpoint,), daemon=True).start()
        return self._known.get(endpoint, ())

    def _look_up(self, endpoint: Endpoint) -> None:
        if found := resolve([endpoint])[endpoint].addresses:
            self._known[endpoint] = found


@dataclass(slots=True)
class _Instance:
    """One instance."""

    document: Document
    me: ControllerEntry | PeerEntry
    probes: Probes
    redundancy: Redundancy
    events: tuple[Event, ...]
    use: Use
    renewals: dict[MachineName, int] = field(default_factory=dict)


class ControllerWatch:
    """Readable when there is something to do; a context manager. `due_s`: when to step anyway (CLOCK_BOOTTIME).

    `moved`: subnets or names have other carriers, and the whole look has to follow.
    """

    def __init__(self, host: Host, me: MachineName, held: HeldDocuments) -> None:
        self._host = host
        self._me = me
        self._held = held
        self._selector = selectors.EpollSelector()
        self._instances: dict[InstanceName, _Instance] = {}
        self._resolver = Resolver()
        self._told: dict[InstanceName, str] = {}
        self._clock_s = _wall_clock_offset_s()
        self.due_s = _FOREVER
        self.moved = False

    def fileno(self) -> int:
        return self._selector.fileno()

    def is_about_to_move(self) -> bool:
        """A moment was announced at which all move: until then this process has to be free."""
        return any(each.redundancy.moves for each in self._instances.values())

    def documents(self) -> dict[InstanceName, Document]:
        """What this machine follows, of the instances that are watched."""
        return {name: each.document for name, each in self._instances.items()}

    def followed(self) -> dict[InstanceName, Mapping[MachineName, Followed]]:
        """Which documents other machines follow, as they said."""
        return {name: each.redundancy.followed for name, each in self._instances.items()}

    def say_followed(self, name: InstanceName) -> None:
        """Tell controllers at once which document is followed now, and not with the next report."""
        each, follows = self._instances.get(name), self._held.follows(name)
        if each is not None and follows is not None:
            for entry in each.document.controllers.values():
                each.probes.send_signal(entry.address, signals.encode_follows(follows))

    def reachability(self) -> dict[InstanceName, Reachability]:
        """What plans are to be made from."""
        return {name: each.redundancy.reachability for name, each in self._instances.items()}

    def refresh(self, documents: Mapping[InstanceName, Document]) -> None:
        """After a look: these are the documents now, and interfaces may be others than before."""
        for name in list(self._instances):
            each, document = self._instances[name], documents.get(name)
            same_role = document is not None and type(document.entry(self._me)) is type(each.me)
            if not same_role or not each.probes.is_current():
                self._close(name)
        for name, document in documents.items():
            try:
                self._adopt(name, admission.admitted(document, self._host.revoked(name), time.time()))
                self._told.pop(name, None)
            except WarrenError as error:  # the mesh goes on; it is told once
                if self._told.get(name) != str(error):
                    log.warning("%s: controllers are not watched, and nobody takes over: %s", name, error)
                self._told[name] = str(error)
        self.step()

    def step(self) -> None:
        """Do what is due, and what came in calls for."""
        set_back = self._clock_was_set_back()
        for name, each in self._instances.items():
            self._step(name, each, set_back)
        self.due_s = min((each.redundancy.due_s for each in self._instances.values()), default=_FOREVER)

    def tree(self) -> dict[InstanceName, dict[str, object]]:
        """What the status socket tells of it."""
        return {name: {**_tree(each), "serial": self._serial(name)} for name, each in self._instances.items()}

    def _serial(self, name: InstanceName) -> int | None:
        held = self._held.of(name)
        return held.document.serial if held else None

    def _adopt(self, name: InstanceName, document: Document) -> None:
        me = document.entry(self._me)
        if me is None:
            return
        is_draining = absence.is_asked(name, self._host.state)
        if (held := self._instances.get(name)) is None:
            device = _device(me)
            if device is not None:
                self._open(name, document, me, device, is_draining)
            return
        if held.document != document:
            held.document, held.me = document, me
            held.redundancy = redundancy.adopt(held.redundancy, document, now_s())
        if held.redundancy.ledger is not None and held.redundancy.ledger.draining != is_draining:
            self._step(name, held, False, drain=is_draining)

    def _open(
        self,
        name: InstanceName,
        document: Document,
        me: ControllerEntry | PeerEntry,
        device: ObservedDevice,
        is_draining: bool,
    ) -> None:
        probes = Probes(me.interface, signals.PORT)
        begun = redundancy.begin(document, self._me, device, now_s(), draining=is_draining)
        use = Use(me.interface, dict.fromkeys(document.controllers, now_s()))  # until it is known better
        self._instances[name] = _Instance(document, me, probes, begun, _read_events(name), use)
        for each in probes.sockets:
            self._selector.register(each, selectors.EVENT_READ)

    def _close(self, name: InstanceName) -> None:
        each = self._instances.pop(name)
        for sock in each.probes.sockets:
            self._selector.unregister(sock)
        each.probes.close()

    def _step(self, name: InstanceName, each: _Instance, set_back: bool, *, drain: bool | None = None) -> None:
        answers = tuple(_answers(each))
        inputs = Inputs(answers, tuple(each.probes.signals()), _in_use(each), set_back, drain)
        each.redundancy, actions = redundancy.step(each.redundancy, inputs, now_s(), time.time())
        for action in actions:
            try:
                self._act(name, each, action)
            except WarrenError as error:  # it comes again, or the whole look says what is wrong
                log.debug("%s: %s", name, error)
        if any(isinstance(action, Tell) for action in actions):
            _write_events(name, each.events)

    def _act(self, name: InstanceName, each: _Instance, action: Action) -> None:
        match action:
            case SendRound(controller, probes, number):
                _send_round(each, controller, probes, number)
            case Send(to, content):
                each.probes.send_signal(to, content)
            case SayFollowed(to):
                if (follows := self._held.follows(name)) is not None:
                    each.probes.send_signal(to, signals.encode_follows(follows))
            case Tell(event):
                log.info("%s: %s", name, event)
                each.events = events.kept(each.events, [event])
            case Move(reaches):
                self.moved = True
                desired = plan(each.document, self._me, reachability=reaches)
                if (device := _device(each.me)) is not None:
                    self._perform(moves.moves(device, desired, time.time()), {})
            case Renew(machine):
                self._renew(each, machine)

    def _renew(self, each: _Instance, machine: MachineName) -> None:
        entry, device = each.document.entry(machine), _device(each.me)
        if entry is None or device is None:
            return
        desired = plan(each.document, self._me, reachability=each.redundancy.reachability)
        number = each.renewals[machine] = each.renewals.get(machine, -1) + 1
        step = moves.renewal(device, desired, frozenset(keys_of(entry)))
        resolved = {}
        for change in step.changes:
            if change.endpoint is not None:
                resolved[change.endpoint] = self._candidates(change.endpoint, device, change.public_key, number)
        self._perform(step, resolved)

    def _candidates(
        self, endpoint: Endpoint, device: ObservedDevice, key: PublicKey, number: int
    ) -> tuple[SocketAddress, ...]:
        """Where to call: at each of its addresses in turn; where nothing is known of them, where it was heard last."""
        found = self._resolver.addresses(endpoint)
        if found:
            return (found[number % len(found)],)
        held = device.peers.get(key)
        return (held.endpoint,) if held and held.endpoint else ()

    def _perform(self, step: SetPeers, resolved: Resolved) -> None:
        if step.changes or step.removed:
            self._host.perform(step, resolved)

    def _clock_was_set_back(self) -> bool:
        offset_s = _wall_clock_offset_s()
        was_set_back = self._clock_s - offset_s > _CLOCK_SET_BACK_S
        self._clock_s = offset_s
        return was_set_back

    def __enter__(self) -> ControllerWatch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in list(self._instances):
            self._close(name)
        self._selector.close()


def _wall_clock_offset_s() -> float:
    return time.time() - now_s()


def _device(me: ControllerEntry | PeerEntry) -> ObservedDevice | None:
    device = wireguard.open_device(me.interface)
    return device.read() if device is not None else None


def _send_round(each: _Instance, controller: MachineName, probes: Iterable[Probe], number: int) -> None:
    entry = each.document.controllers[controller]
    each.use.sent_round(controller)
    for probe in probes:
        if probe is Probe.ECHO:
            each.probes.send_echo(entry.address, number)
        elif isinstance(each.me, PeerEntry):
            own = addresses.peer_address(entry.subnet, each.me.suffix)
            each.probes.send_through(own, addresses.turning_address(entry.subnet, each.me.suffix), number)


def _answers(each: _Instance) -> Iterable[Answer]:
    """Replies to probes, as what is known of controllers."""
    controllers = each.document.controllers
    by_address = {entry.address: name for name, entry in controllers.items()}
    by_own = {}
    if isinstance(each.me, PeerEntry):
        by_own = {addresses.peer_address(entry.subnet, each.me.suffix): name for name, entry in controllers.items()}
    for reply in each.probes.replies():
        if reply.turned_at is None:
            name, probe = by_address.get(reply.source), Probe.ECHO
        else:
            name, probe = by_own.get(reply.turned_at), Probe.THROUGH
        if name is not None:
            yield Answer(name, probe, reply.number, reply.at_s)


def _in_use(each: _Instance) -> frozenset[MachineName] | None:
    """None: it was not looked at again. What a controller forwards is its peers' use, and it probes for them."""
    return None if isinstance(each.me, ControllerEntry) else each.use.look(each.document.controllers, now_s())


def _tree(each: _Instance) -> dict[str, object]:
    now = each.redundancy
    carriers = reachability.carriers(each.document, now.reachability.usable)
    return {
        "health": {name: _health_tree(found, now.now_s) for name, found in now.healths.items()},
        "carriers": {} if now.ledger is not None else carriers,
        "lost_by_others": {name: sorted(lost) for name, lost in now.reachability.lost.items()},
        "followed": {
            name: {
                "serial": found.follows.serial,
                "failed": found.follows.failed,
                "age_s": round(now_s() - found.at_s, 1),
            }
            for name, found in now.followed.items()
        },
        "draining": now.ledger.draining if now.ledger is not None else None,
        "left": ledger.is_left(now.ledger, now_s(), now.tuning) if now.ledger is not None else None,
        "events": [events.event_tree(event) for event in each.events],
    }


def _health_tree(found: health.Health, at_s: float) -> dict[str, object]:
    return {
        "verdict": found.verdict.value,
        "for_s": round(max(0.0, at_s - found.since_s), 1),
        "rtt_ms": round(1000 * found.rtt_s, 2),
    }


def _read_events(name: InstanceName) -> tuple[Event, ...]:
    """What an agent before this one kept."""
    with suppress(WarrenError, ValueError, LookupError, TypeError):
        content = files.read(EVENTS / f"{name}.json")
        return tuple(map(events.read_event, json.loads(content or b"[]")))
    return ()


def _write_events(name: InstanceName, found: tuple[Event, ...]) -> None:
    with suppress(WarrenError):  # nobody's work depends on it
        files.make_folder(EVENTS.parent, mode=0o755)
        files.make_folder(EVENTS, mode=0o700)
        files.replace(EVENTS / f"{name}.json", json.dumps([events.event_tree(event) for event in found]).encode())
