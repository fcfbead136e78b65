"""How preshared keys go on, phase by phase; and that both ends of a pair can speak at every point, whoever is cut
short, away, or goes back."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from meshes import inventory, mesh
from strategies import public_key
from warren.fleet.plans import plan_digests, wanted
from warren.fleet.preshared import (
    Exchanges,
    InMesh,
    exchanges_of,
    lines_of_unmanaged,
    lines_of_waiting,
    next_phase,
    possible_pairs,
    staged,
    texts_of,
    without,
    without_key,
)
from warren.host.preshared import _Line, _settled  # the rule, without a disk
from warren.inventory.model import Inventory
from warren.names import InstanceName, MachineName
from warren.network.document import Document
from warren.network.preshared import Exchange, Pair, exchanges_text
from warren.network.resolve import resolve
from warren.network.stored import Stored
from warren.plan import preshared
from warren.wireguard.preshared import NO_PRESHARED_KEY, Fingerprint, fingerprint

VPN = InstanceName("vpn")
SERVER1, SERVER2, LAPTOP1, LAPTOP2 = map(MachineName, ("server1", "server2", "laptop1", "laptop2"))
OLD, NEW = fingerprint(b"old"), fingerprint(b"new")


def fleet(psk: bool = True) -> Inventory:
    return inventory(replace(mesh("server1 server2", "laptop1 laptop2"), psk=psk))


def stored(found: Exchanges, machines: tuple[MachineName, ...] = (SERVER1, SERVER2, LAPTOP1, LAPTOP2)) -> Stored:
    texts = {maker: exchanges_text(others) for (_, maker), others in found.items()}
    return Stored(public_keys={name: public_key(name).text for name in machines}, preshared=texts)


def resolved(found: Exchanges, psk: bool = True) -> Document:
    return resolve(fleet(psk), {VPN: stored(found)})[VPN]


def of(exchange: Exchange, maker: MachineName = LAPTOP1, other: MachineName = SERVER1) -> Exchanges:
    return {(VPN, maker): {other: exchange}}


EVERYBODY = frozenset((SERVER1, SERVER2, LAPTOP1, LAPTOP2))
MESH_PAIRS = {InMesh(VPN, Pair(LAPTOP1, each)) for each in (SERVER1, SERVER2)} | {
    InMesh(VPN, Pair(LAPTOP2, SERVER1)),
    InMesh(VPN, Pair(LAPTOP2, SERVER2)),
    InMesh(VPN, Pair(SERVER1, SERVER2)),
}


def test_pairs_that_can_have_one() -> None:
    assert set(possible_pairs(fleet(), {VPN: resolved({})})) == MESH_PAIRS
    assert set(possible_pairs(fleet(psk=False), {VPN: resolved({})})) == set()
    keyless = resolve(fleet(), {VPN: stored({}, (SERVER1, LAPTOP1))})
    assert set(possible_pairs(fleet(), keyless)) == {InMesh(VPN, Pair(LAPTOP1, SERVER1))}
    machines = fleet().machines
    foreign = replace(fleet(), machines={**machines, LAPTOP1: replace(machines[LAPTOP1], managed=False)})
    documents = {VPN: resolved({})}
    assert set(possible_pairs(foreign, documents)) == {each for each in MESH_PAIRS if LAPTOP1 not in each.pair}
    assert lines_of_unmanaged(foreign) == ["vpn: laptop1 is not managed: no preshared keys with the others"]
    assert lines_of_unmanaged(fleet()) == []


def test_only_pairs_without_one_are_missing_one() -> None:
    for exchange in (Exchange(OLD), Exchange(next=NEW), Exchange(former=OLD)):
        left = without_key(fleet(), {VPN: resolved({})}, of(exchange))
        assert set(left) == MESH_PAIRS - {InMesh(VPN, Pair(LAPTOP1, SERVER1))}


def test_the_phases() -> None:
    found = staged(of(Exchange(OLD)), {InMesh(VPN, Pair(LAPTOP1, SERVER1)): NEW}, ())
    assert found == of(Exchange(OLD, next=NEW))
    assert resolved(found).preshared == {LAPTOP1: {SERVER1: (OLD,)}}
    phase = next_phase(fleet(), found, {(LAPTOP1, VPN), (SERVER1, VPN)}, EVERYBODY)
    assert (phase.changed, phase.switched, phase.forgotten) == (of(Exchange(NEW, former=OLD)), 1, 0)
    assert resolved(phase.changed).preshared == {LAPTOP1: {SERVER1: (NEW, OLD)}}
    for end in (LAPTOP1, SERVER1):
        assert not next_phase(fleet(), phase.changed, {(end, VPN)}, EVERYBODY).changed
    waiting = lines_of_waiting(phase.changed, {(SERVER1, VPN), (LAPTOP2, VPN)})
    assert waiting == [
        "vpn: the preshared keys of 1 pair are being exchanged, and wait for server1 (warren machines update)"
    ]
    phase = next_phase(fleet(), phase.changed, {(LAPTOP2, VPN)}, EVERYBODY)
    assert (phase.changed, phase.switched, phase.forgotten) == (of(Exchange(NEW)), 0, 1)
    assert not next_phase(fleet(), phase.changed, (), EVERYBODY).changed


def test_switched_off() -> None:
    phase = next_phase(fleet(psk=False), of(Exchange(OLD, next=NEW)), (), EVERYBODY)
    assert phase.changed == of(Exchange(NO_PRESHARED_KEY, former=OLD))
    assert resolved(phase.changed).preshared == {LAPTOP1: {SERVER1: (NO_PRESHARED_KEY, OLD)}}
    phase = next_phase(fleet(psk=False), phase.changed, (), EVERYBODY)
    assert texts_of(phase.changed)[0] == {}
    assert [each.machine for each in texts_of(phase.changed)[1]] == [LAPTOP1]


def test_a_newcomer_begins_with_one() -> None:
    pair = InMesh(VPN, Pair(LAPTOP1, SERVER1))
    assert staged({}, {pair: NEW}, [pair]) == of(Exchange(NEW))


def test_nothing_goes_on_with_a_machine_that_is_not_visited() -> None:
    found = of(Exchange(OLD, next=NEW))
    for targets in (EVERYBODY - {LAPTOP1}, EVERYBODY - {SERVER1}):
        assert not next_phase(fleet(), found, (), targets).changed


def test_what_is_no_pair_any_more_is_gone() -> None:
    stranger = MachineName("laptop9")
    for maker, other in ((stranger, SERVER1), (LAPTOP1, stranger), (SERVER1, LAPTOP1), (LAPTOP1, LAPTOP2)):
        found = of(Exchange(OLD), maker, other)
        assert resolved(found).preshared == {}
        assert next_phase(fleet(), found, (), EVERYBODY).changed == {(VPN, maker): {}}
    both = {(VPN, LAPTOP1): {SERVER1: Exchange(OLD), SERVER2: Exchange(OLD)}, (VPN, SERVER1): {SERVER2: Exchange(NEW)}}
    assert without(both, SERVER1) == {(VPN, LAPTOP1): {SERVER2: Exchange(OLD)}, (VPN, SERVER1): {}}


def test_a_phase_concerns_its_two_ends_alone() -> None:
    before = plan_digests(resolved(of(Exchange(OLD))))
    for exchange in (Exchange(NEW, former=OLD), Exchange(NEW), Exchange(former=OLD)):
        after = plan_digests(resolved(of(exchange)))
        assert {name for name in before if before[name] != after[name]} == {LAPTOP1, SERVER1}
    assert plan_digests(resolved({})) == plan_digests(resolved(of(Exchange(next=NEW))))


@dataclass
class End:
    """One end of the pair: what it keeps, which document it follows for good, and which one on trial."""

    me: MachineName
    other: MachineName
    lines: list[_Line] = field(default_factory=list)
    confirmed: Document | None = None
    trial: Document | None = None

    @property
    def document(self) -> Document:
        found = self.trial or self.confirmed
        assert found is not None
        return found

    @property
    def held(self) -> preshared.Held:
        return {self.other: [line.fingerprint for line in self.lines if line.state != "gone"]}

    def may_set(self) -> tuple[Fingerprint, ...]:
        named = dict(preshared.of_machine(self.document, self.me)).get(self.other, (NO_PRESHARED_KEY,))
        return preshared.candidates(self.document, self.me, self.other, named, self.held)

    def settle(self, document: Document) -> None:
        self.confirmed, self.trial = document, None
        self.lines = _settled(self.lines, EVERYBODY, dict(preshared.of_machine(document, self.me)))


class World:
    """One pair, its operator, and everything that can happen in between."""

    def __init__(self) -> None:
        self.maker, self.taker = End(LAPTOP1, SERVER1), End(SERVER1, LAPTOP1)
        self.found: Exchanges = {}
        self.psk = False
        self.number = 0
        self.confirmed: dict[tuple[MachineName, InstanceName], str] = {}
        for end in (self.maker, self.taker):
            self.bring(end, "all")

    def now(self) -> Document:
        return resolved(self.found, self.psk)

    def behind(self) -> set[tuple[MachineName, InstanceName]]:
        return {pair for pair, digest in wanted({VPN: self.now()}).items() if self.confirmed.get(pair) != digest}

    def share(self, until: str) -> None:
        """Have the next key made; cut short at some point."""
        exchange = self.found.get((VPN, LAPTOP1), {}).get(SERVER1, Exchange())
        if not self.psk or exchange.former is not None:
            return
        newest = self.maker.lines[-1] if self.maker.lines else None
        if newest is None or newest.state != "staged":
            self.number += 1
            name = fingerprint(f"{self.number}".encode())
            newest = _Line(SERVER1, self.number, "staged", name, "key")
            self.maker.lines.append(newest)
        if until == "made":
            return
        line = newest._replace(other=LAPTOP1)
        if line not in self.taker.lines:
            assert all(each.number < line.number for each in self.taker.lines)  # it would be refused
            self.taker.lines.append(line)
        if until == "taken":
            return
        self.found = {**self.found, **staged(self.found, {InMesh(VPN, Pair(LAPTOP1, SERVER1)): line.fingerprint}, ())}

    def advance(self) -> None:
        self.found = {**self.found, **next_phase(fleet(self.psk), self.found, self.behind(), EVERYBODY).changed}

    def bring(self, end: End, until: str) -> None:
        """Bring the document of now; cut short at some point, or gone back from."""
        document = self.now()
        named = dict(preshared.of_machine(document, end.me)).get(end.other, (NO_PRESHARED_KEY,))
        assert not named[0] or named[0] in end.held[end.other], "it would be refused"
        end.trial = document
        if until == "tried":
            return
        if until == "gone back":
            end.trial = None
            return
        end.settle(document)
        if until == "confirmed":  # and the operator does not hear of it
            return
        self.confirmed[end.me, VPN] = wanted({VPN: document})[end.me, VPN]

    def check(self) -> None:
        """Whatever the taker has set, the maker can set as well, and each holds what it may set."""
        assert self.taker.may_set()[0] in self.maker.may_set()
        for end in (self.maker, self.taker):
            assert all(not each or each in end.held[end.other] for each in end.may_set())
        named = (self.maker.document.preshared or {}).get(LAPTOP1, {}).get(SERVER1, (NO_PRESHARED_KEY,))
        assert NO_PRESHARED_KEY in named or NO_PRESHARED_KEY not in self.maker.may_set()


_ACTS = st.one_of(
    st.tuples(st.just("share"), st.sampled_from(("made", "taken", "all", "all"))),
    st.tuples(st.just("advance"), st.just("")),
    st.tuples(st.just("maker"), st.sampled_from(("tried", "gone back", "confirmed", "all", "all", "all"))),
    st.tuples(st.just("taker"), st.sampled_from(("tried", "gone back", "confirmed", "all", "all", "all"))),
    st.tuples(st.just("psk"), st.just("")),
)


@given(st.lists(_ACTS, max_size=40))
@settings(max_examples=100)
def test_both_ends_can_speak_whatever_happens_in_whatever_order(acts: list[tuple[str, str]]) -> None:
    world = World()
    for act, until in acts:
        match act:
            case "share":
                world.share(until)
            case "advance":
                world.advance()
            case "maker":
                world.bring(world.maker, until)
            case "taker":
                world.bring(world.taker, until)
            case "psk":
                world.psk = not world.psk
        world.check()
    for _ in range(6):  # left alone, it comes to its end
        world.bring(world.maker, "all")
        world.bring(world.taker, "all")
        world.check()
        world.advance()
    world.share("all")
    for _ in range(4):
        world.advance()
        world.bring(world.maker, "all")
        world.bring(world.taker, "all")
        world.check()
    # What was made and never taken waits for the next time; of all others one is left, if they have any.
    used = [each.fingerprint for each in world.maker.lines if each.state == "used"]
    assert len(used) == (1 if world.psk else 0)
    exchange = world.found.get((VPN, LAPTOP1), {}).get(SERVER1, Exchange())
    assert exchange == (Exchange(*used) if used else Exchange())
    assert exchanges_of({VPN: stored(world.found)}).get((VPN, LAPTOP1), {}).get(SERVER1, Exchange()) == exchange
