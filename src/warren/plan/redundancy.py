"""Redundancy of one instance on one machine, as a pure machine: answers, signals and time in; probes and moves out.

The agent and the simulation run the same code. How to drive it:

    state = begin(document, me, device, now_s)       the device as it is: what was moved before stays moved
    state, actions = step(state, inputs, now_s, unix_s)
    ... perform the actions, and come again at state.due_s, or earlier when there is an answer or a datagram

* Call `step` with all that came in since; read the sockets empty before it, or silence is seen where answers wait.
* `now_s` goes on while the machine sleeps (CLOCK_BOOTTIME). `unix_s` is for the events alone.
* Whenever a plan is made, `plan(document, me, reachability=state.reachability)`; on `Move` at once, with `moves.moves`,
  and then in the ordinary way, for the hosts file and the leftovers.
* A new document: `adopt`. A controller's `draining` is kept by the caller, and given to `begin`.

Peers probe, report, and move. Controllers hold every peer's /96 in every subnet themselves, so they have nothing to
move: they probe each other for the sessions between them, keep the ledger, and tell peers what the others lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv6Address
from typing import Any
from zlib import crc32

from warren.errors import SignalRefused
from warren.names import MachineName
from warren.network import addresses
from warren.network.document import ControllerEntry, Document, Entry, PeerEntry
from warren.plan import health, ledger, signals, views
from warren.plan.events import Event, Kind
from warren.plan.exchange import Action, Answer, Inputs, Move, Renew, SayFollowed, Send, SendRound, Tell
from warren.plan.health import JITTER, TUNING, Health, Probe, Tuning, Verdict
from warren.plan.ledger import Ledger
from warren.plan.reachability import NOBODY, Reachability, everything, found
from warren.plan.signals import NOTHING_LOST, Directory, Followed, Follows, Report, Word
from warren.plan.views import Views
from warren.wireguard.device import ObservedDevice

SHORTEST_PAUSE_S = 0.001


@dataclass(frozen=True, slots=True)
class Redundancy:
    """All that is known. `reachability` is what plans are made from, `due_s` when to step again at the latest."""

    document: Document
    me: Entry
    directory: Directory
    tuning: Tuning
    healths: Mapping[MachineName, Health]
    used: frozenset[MachineName]  # by health alone; of those, the ones that drain are left out
    reachability: Reachability
    ledger: Ledger | None  # of a controller
    now_s: float
    due_s: float
    returning: Mapping[MachineName, float] = field(default_factory=dict)  # up, not used yet, since when
    draining: Mapping[MachineName, float] = field(default_factory=dict)  # controllers that ask to be left; last said
    moves: Mapping[MachineName, tuple[float, bool]] = field(
        default_factory=dict
    )  # announced: when, and draining or not
    views: Views = field(default_factory=Views)
    in_use: frozenset[MachineName] = NOBODY
    numbers: Mapping[MachineName, int] = field(default_factory=dict)  # of the last round
    reported: Report = NOTHING_LOST
    reported_to: frozenset[MachineName] = NOBODY
    report_due_s: float = 0.0
    repeat_due_s: float = float("inf")
    renew_asked_until_s: float = float("-inf")
    refused: int = 0  # datagrams that were no signals of those who may send them
    followed: Mapping[MachineName, Followed] = field(default_factory=dict)  # by controllers here, on one by peers


def begin(
    document: Document,
    me: MachineName,
    device: ObservedDevice | None,
    now_s: float,
    *,
    draining: bool = False,
    tuning: Tuning = TUNING,
) -> Redundancy:
    """As the device was left: who carried goes on to carry until something else is known."""
    entry = document.entry(me)
    assert entry is not None, f"the document does not know {me}"
    reaches = found(document, me, device)
    is_controller = isinstance(entry, ControllerEntry)
    others = [name for name in document.controllers if name != me]
    tuning = replace(tuning, peers=len(document.peers))
    return Redundancy(
        document=document,
        me=entry,
        directory=Directory.of(document),
        tuning=tuning,
        healths={
            name: health.begin(
                Probe.ECHO if is_controller else Probe.THROUGH,
                now_s,
                Verdict.UP if name in reaches.usable else Verdict.SILENT,
                tuning,
            )
            for name in others
        },
        used=reaches.usable,
        reachability=reaches,
        ledger=Ledger(me, draining) if is_controller else None,
        now_s=now_s,
        due_s=now_s,
        views=views.as_found(reaches.lost, now_s, tuning),
        report_due_s=now_s,
    )


def adopt(state: Redundancy, document: Document, now_s: float) -> Redundancy:
    """Go on with another document of the same instance, and this machine in the same role."""
    fresh = begin(document, state.me.name, None, now_s, tuning=state.tuning)
    kept = {name: state.healths.get(name, each) for name, each in fresh.healths.items()}
    added = kept.keys() - state.healths.keys()
    changed = replace(
        state,
        document=document,
        me=fresh.me,
        directory=fresh.directory,
        tuning=fresh.tuning,
        healths=kept,
        used=(state.used & frozenset(document.controllers)) | added,
        reachability=fresh.reachability if isinstance(fresh.me, ControllerEntry) else state.reachability,
        report_due_s=now_s,
        due_s=min(state.due_s, now_s),
        followed={name: each for name, each in state.followed.items() if document.entry(name) is not None},
    )
    return replace(changed, reachability=_reachability(changed))


def step(state: Redundancy, inputs: Inputs, now_s: float, unix_s: float = 0.0) -> tuple[Redundancy, tuple[Action, ...]]:
    """What follows from what came in, and from the time alone."""
    now_s = max(now_s, state.now_s)
    before = state
    actions: list[Action] = []
    told = _Teller(actions, unix_s)
    slept_s = now_s - state.due_s
    state = replace(state, now_s=now_s, in_use=state.in_use if inputs.in_use is None else inputs.in_use)
    if slept_s > state.tuning.stall_s:
        state = _woken(state, slept_s, told)
    if inputs.clock_set_back:
        told(Kind.WAKE, state.me.name, "had its clock set back", "")
        state = replace(state, renew_asked_until_s=now_s + 2 * state.tuning.repeat_s, report_due_s=now_s)
    state = _with_answers(state, inputs.answers)
    state = _with_datagrams(state, inputs.datagrams, actions, told)
    if inputs.drain is not None and state.ledger is not None:
        state = _with_drain(state, inputs.drain, told)
    state = _with(
        state, healths={name: health.judged(each, now_s, state.tuning) for name, each in state.healths.items()}
    )
    _tell_verdicts(before, state, told)
    if state.ledger is None:
        state = _with_moves(state, told)
        state = _moved(state, before, actions, told)
        state = _with_reports(state, actions)
    else:
        state = _with_sayings(state, actions)
    state = _with_renewals(state, actions, told)
    state = _with_rounds(state, actions)
    return replace(state, due_s=_due_s(state)), tuple(actions)


class _Teller:
    """Collects events among the actions."""

    def __init__(self, actions: list[Action], unix_s: float) -> None:
        self._actions = actions
        self._unix_s = unix_s

    def __call__(self, kind: Kind, machine: MachineName, text: str, cause: str) -> None:
        self._actions.append(Tell(Event(kind, machine, text, cause, self._unix_s)))


# What comes in


def _woken(state: Redundancy, slept_s: float, told: _Teller) -> Redundancy:
    told(Kind.WAKE, state.me.name, f"did nothing for {slept_s:.1f} s", "it slept, or was kept from running")
    return replace(
        state,
        healths={name: health.woken(each, state.now_s, state.tuning) for name, each in state.healths.items()},
        report_due_s=state.now_s,
    )


def _with_answers(state: Redundancy, answers: tuple[Answer, ...]) -> Redundancy:
    if not answers:
        return state
    healths = dict(state.healths)
    eager = state.ledger is None and not state.used
    for each in answers:
        if (held := healths.get(each.controller)) is not None:
            at_s = min(max(each.at_s, held.last_answer_s), state.now_s)
            healths[each.controller] = health.answered(held, each.probe, each.number, at_s, state.tuning, eager=eager)
    return replace(state, healths=healths)


def _with_datagrams(
    state: Redundancy, datagrams: tuple[tuple[IPv6Address, bytes], ...], actions: list[Action], told: _Teller
) -> Redundancy:
    for source, content in datagrams:
        try:
            if (follows := signals.decode_follows(content)) is not None:
                state = _heard_followed(state, source, follows, actions)
            elif state.ledger is None:
                state = _heard_word(state, _controller_at(state, source), content, told)
            else:
                state = _heard_report(state, state.ledger, _peer_at(state, source), content, actions, told)
        except SignalRefused:
            state = replace(state, refused=state.refused + 1)
    return state


def _controller_at(state: Redundancy, source: IPv6Address) -> MachineName:
    packed = source.packed
    name = state.directory.controllers.get(packed[5:7].hex())
    if name is None or state.document.controllers[name].address != source:
        raise SignalRefused(f"from {source}, which is no controller's address")
    return name


def _peer_at(state: Redundancy, source: IPv6Address) -> MachineName:
    """WireGuard lets a peer send from any address of its /96 in any subnet."""
    packed = source.packed
    owner = state.directory.controllers.get(packed[5:7].hex())
    name = state.directory.peers.get(packed[8:12].hex())
    if owner is None or name is None or source not in state.document.controllers[owner].subnet or packed[7]:
        raise SignalRefused(f"from {source}, which is no peer's address")
    return name


def _heard_word(state: Redundancy, source: MachineName, content: bytes, told: _Teller) -> Redundancy:
    word = signals.decode_word(content, state.directory)
    state = replace(state, views=views.heard(state.views, source, word, state.me.name, state.now_s, state.tuning))
    if word.move_in_s is not None:
        at_s = state.now_s + word.move_in_s
        known = state.moves.get(source)
        if known is not None and known[1] == word.draining:
            at_s = min(at_s, known[0])  # whichever word was faster is nearer to the truth
        return replace(state, moves={**state.moves, source: (at_s, word.draining)})
    return _told_to_drain(state, source, word, told)


def _told_to_drain(state: Redundancy, source: MachineName, word: Word, told: _Teller) -> Redundancy:
    """What holds now; whoever missed the announcement learns it so."""
    if source in state.moves:
        return state
    if word.draining:
        if source not in state.draining:
            told(Kind.DRAIN, source, "asks to be left", "")
        return replace(state, draining={**state.draining, source: state.now_s})
    if source in state.draining:
        told(Kind.DRAIN, source, "may be used again", "")
        return replace(state, draining=_without(state.draining, source))
    return state


def _heard_followed(state: Redundancy, source: IPv6Address, follows: Follows, actions: list[Action]) -> Redundancy:
    """Whoever serves documents is told by those who want them, and answers."""
    name = _controller_at(state, source) if state.ledger is None else _peer_at(state, source)
    if state.ledger is not None:
        actions.append(SayFollowed(source))
    return replace(state, followed={**state.followed, name: Followed(follows, state.now_s)})


def _heard_report(
    state: Redundancy, held: Ledger, peer: MachineName, content: bytes, actions: list[Action], told: _Teller
) -> Redundancy:
    held = ledger.reported(held, peer, signals.decode_report(content, state.directory), state.now_s)
    if ledger.wants_renewal(held, peer, state.now_s):
        held = ledger.renewed(held, peer, state.now_s)
        actions.append(Renew(peer))
        told(Kind.RENEWAL, peer, "gets a new session", "its clock was set back")
    actions.extend(_sends(state, (peer,), ledger.answer(held, peer, state.now_s)))
    return replace(state, ledger=held)


def _with_drain(state: Redundancy, draining: bool, told: _Teller) -> Redundancy:
    assert state.ledger is not None
    if draining != state.ledger.draining:
        told(Kind.DRAIN, state.me.name, "asks to be left" if draining else "may be used again", "as asked there")
    return replace(state, ledger=ledger.drain(state.ledger, draining, state.now_s, state.tuning))


# What follows


def _tell_verdicts(before: Redundancy, state: Redundancy, told: _Teller) -> None:
    for name, each in state.healths.items():
        was = before.healths[name].verdict
        if each.verdict is was:
            continue
        if each.is_up:
            told(Kind.VERDICT, name, "is up", "its answers have been steady for long enough")
        else:
            cause = {
                Verdict.SILENT: "no probe was answered",
                Verdict.NOT_FORWARDING: "it answers, and what it should pass on does not come back",
            }[each.verdict]
            told(Kind.VERDICT, name, _phrase(each.verdict), cause)


def _phrase(verdict: Verdict) -> str:
    return "does not forward" if verdict is Verdict.NOT_FORWARDING else f"is {verdict.value}"


def _with_moves(state: Redundancy, told: _Teller) -> Redundancy:
    """Whom we use: by health, by what was announced, and by patience."""
    now_s, tuning = state.now_s, state.tuning
    up = frozenset(name for name, each in state.healths.items() if each.is_up)
    used, draining, held = state.used & up, state.draining, state.views
    due = {name: was_draining for name, (at_s, was_draining) in state.moves.items() if at_s <= now_s}
    for name, is_draining in due.items():
        if is_draining:
            draining = {**draining, name: now_s}
            told(Kind.DRAIN, name, "asks to be left", "")
            continue
        if name in draining:
            told(Kind.DRAIN, name, "may be used again", "")
        draining = _without(draining, name)
        used |= {name} & up
        held = views.returned(held, name, now_s)
    draining = {
        name: said_s
        for name, said_s in draining.items()
        if name in state.healths and not (name in up and now_s - said_s > tuning.forget_drain_s)
    }
    returning = {name: state.returning.get(name, now_s) for name in up - used}
    used |= {name for name, since_s in returning.items() if not used or now_s - since_s >= tuning.word_wait_s}
    return _with(
        state,
        used=used,
        draining=draining,
        views=views.without_the_old(held, now_s),
        returning={name: since_s for name, since_s in returning.items() if name not in used},
        moves={name: move for name, move in state.moves.items() if name not in due},
    )


def _reachability(state: Redundancy) -> Reachability:
    if state.ledger is not None:
        return everything(state.document)
    usable = state.used - frozenset(state.draining) or state.used
    lost = {
        name: lost for name, each in state.views.of.items() if (lost := each.lost & usable) and name != state.me.name
    }
    return Reachability(usable, lost)


def _moved(state: Redundancy, before: Redundancy, actions: list[Action], told: _Teller) -> Redundancy:
    reaches = _reachability(state)
    if reaches == state.reachability:
        return state
    actions.append(Move(reaches))
    was = before.reachability
    for name in sorted(was.usable - reaches.usable):
        told(Kind.MOVE, name, "carries nothing any more", _why_left(state, name))
    for name in sorted(reaches.usable - was.usable):
        told(Kind.MOVE, name, "carries again", "")
    for name in sorted(was.lost.keys() | reaches.lost.keys()):
        lost, lost_before = reaches.lost.get(name, NOBODY), was.lost.get(name, NOBODY)
        for controller in sorted(lost - lost_before):
            told(Kind.EXCEPTION, name, f"is reached without {controller}", "it says that it cannot use it")
        for controller in sorted(lost_before - lost & reaches.usable):
            told(Kind.EXCEPTION, name, f"is reached by {controller} again", "")
    return replace(state, reachability=reaches)


def _why_left(state: Redundancy, name: MachineName) -> str:
    each = state.healths[name]
    return "it asks to be left" if each.is_up else f"it {_phrase(each.verdict)}"


# What goes out


def _with_reports(state: Redundancy, actions: list[Action]) -> Redundancy:
    now_s, tuning = state.now_s, state.tuning
    lost = frozenset(state.healths) - state.reachability.usable
    steady = frozenset(name for name in lost if state.healths[name].is_up)
    report = Report(lost, steady, renew=now_s < state.renew_asked_until_s)
    reached = frozenset(
        name for name, each in state.healths.items() if each.is_up or now_s - each.last_answer_s <= tuning.gap_s
    )
    is_new = report != state.reported
    to = reached if is_new or now_s >= min(state.report_due_s, state.repeat_due_s) else reached - state.reported_to
    if to:
        content = signals.encode_report(report, state.directory)
        actions.extend(Send(state.document.controllers[name].address, content) for name in sorted(to))
        if isinstance(state.me, PeerEntry) and state.me.pulls:
            actions.extend(SayFollowed(state.document.controllers[name].address) for name in sorted(to))
    if is_new or now_s >= state.report_due_s:
        pause_s = tuning.report_s * (1 + JITTER * _spread(state, state.me.name, int(now_s * 1000)))
        state = replace(state, report_due_s=now_s + pause_s)
    if is_new:
        return replace(state, reported=report, reported_to=reached, repeat_due_s=now_s + tuning.repeat_s)
    repeat_due_s = state.repeat_due_s if now_s < state.repeat_due_s else float("inf")
    return _with(state, reported_to=reached, repeat_due_s=repeat_due_s)


def _with_sayings(state: Redundancy, actions: list[Action]) -> Redundancy:
    assert state.ledger is not None
    held, said = ledger.sayings(state.ledger, state.now_s, state.tuning, peers=len(state.document.peers))
    for each in said:
        actions.extend(_sends(state, each.to, each.word))
    return _with(state, ledger=held)


def _sends(state: Redundancy, to: tuple[MachineName, ...], word: Word) -> Iterator[Send]:
    assert isinstance(state.me, ControllerEntry)
    contents = [signals.encode_word(each, state.directory) for each in signals.in_datagrams(word, state.directory)]
    for name in to:
        if (entry := state.document.peers.get(name)) is not None:
            address = addresses.peer_address(state.me.subnet, entry.suffix)
            yield from (Send(address, content) for content in contents)


def _with_renewals(state: Redundancy, actions: list[Action], told: _Teller) -> Redundancy:
    healths = dict(state.healths)
    for name, each in state.healths.items():
        if not health.wants_renewal(each, state.now_s, state.tuning):
            continue
        healths[name] = health.renewed(each, state.now_s, _spread(state, name, each.renewals), state.tuning)
        if not _speaks_first(state, name):
            continue
        if not each.renewals:
            told(
                Kind.RENEWAL, name, "is called anew until it answers", "it may have lost the session that we still have"
            )
        actions.append(Renew(name))
    return _with(state, healths=healths)


def _speaks_first(state: Redundancy, controller: MachineName) -> bool:
    """Of two controllers only one calls: first messages that cross cost both 5 s (`plan.speaks_first`)."""
    mine, other = state.me.public_key, state.document.controllers[controller].public_key
    return state.ledger is None or mine is None or other is None or mine < other


def _with_rounds(state: Redundancy, actions: list[Action]) -> Redundancy:
    healths, numbers = dict(state.healths), dict(state.numbers)
    for name, each in state.healths.items():
        if _next_round_s(state, name, each) <= state.now_s:
            number = numbers[name] = (numbers.get(name, 0) + 1) % 0x10000
            actions.append(SendRound(name, health.kinds(each), number))
            healths[name] = health.sent(each, number, state.now_s)
    return _with(state, healths=healths, numbers=numbers)


def _next_round_s(state: Redundancy, name: MachineName, each: Health) -> float:
    tuning = state.tuning
    if name in state.in_use:
        pace_s = max(tuning.in_use_s, len(state.in_use) / tuning.probes_per_s_in_use)
    else:
        pace_s = max(tuning.at_rest_s, len(state.healths) / tuning.probes_per_s)
    return health.next_round_s(each, pace_s, _spread(state, name, state.numbers.get(name, 0)), state.now_s, tuning)


def _due_s(state: Redundancy) -> float:
    due = (
        [state.report_due_s, state.repeat_due_s] if state.ledger is None else [ledger.due_s(state.ledger, state.tuning)]
    )
    due += [at_s for at_s, _ in state.moves.values()]
    due += [since_s + state.tuning.word_wait_s for since_s in state.returning.values()]
    for name, each in state.healths.items():
        due.append(_next_round_s(state, name, each))
        due.append(health.next_judgement_s(each, state.now_s, state.tuning))
    # A time that rounding left in the past would have the agent spin.
    return max(min(due, default=float("inf")), state.now_s + SHORTEST_PAUSE_S)


def _spread(state: Redundancy, name: MachineName, number: int) -> float:
    """-1..1, different for all and for each time, and the same in every run: so machines do not act in step."""
    return crc32(f"{state.me.name}/{name}/{number}".encode()) / 0x7FFFFFFF - 1


def _with(state: Redundancy, **changes: Any) -> Redundancy:
    """`replace` of what differs. Most steps change little, and the copy is most of what they cost."""
    differing = {name: value for name, value in changes.items() if getattr(state, name) != value}
    return replace(state, **differing) if differing else state


def _without(mapping: Mapping[MachineName, float], name: MachineName) -> dict[MachineName, float]:
    return {each: value for each, value in mapping.items() if each != name}
