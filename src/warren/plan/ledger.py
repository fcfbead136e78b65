"""A controller's bookkeeping: what peers reported to it, and what it has to tell to whom.

Each peer is told only what makes a difference to it: what others lost and it still uses. So when a controller is dead
for all, nobody has to be told anything once all have noticed.

A controller speaks of moves to and from itself alone: when it drains, and when peers that lost it have found it steady.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from warren.names import MachineName
from warren.plan.health import TUNING, Tuning
from warren.plan.signals import Report, Said, Word

MOST_NEWS = 32  # in one go; when more peers lose a controller at once, it is dead, and all notice by themselves
MOST_SAID = 128  # in one answer: four datagrams
NEWS_PAUSE_S = 0.02  # reports come in groups
NEWS_TIMES = 2
MOVE_TIMES = 3
RENEWAL_PAUSE_S = 5.0
PAUSE_BETWEEN_MOVES_S = 2.0  # reports of the last one have come in by then


@dataclass(frozen=True, slots=True)
class Heard:
    """The last report of one peer."""

    report: Report
    at_s: float
    renewed_s: float = float("-inf")


@dataclass(frozen=True, slots=True)
class Move:
    """All peers leave this controller, or use it again, at one moment."""

    draining: bool
    at_s: float
    times_left: int = MOVE_TIMES
    tell_s: float = 0.0  # when to say so again


@dataclass(frozen=True, slots=True)
class News:
    """A peer whose report changed; `touched` are the controllers that it lost before or now."""

    peer: MachineName
    touched: frozenset[MachineName]
    times_left: int
    due_s: float


@dataclass(frozen=True, slots=True)
class Saying:
    """One word to several peers."""

    to: tuple[MachineName, ...]
    word: Word


@dataclass(frozen=True, slots=True)
class Ledger:
    """`draining`: this controller asks to be left; kept over restarts by whoever keeps it.

    `losing`: of those heard, the ones that lost something; few, in a mesh of ten thousand. `all_since_s`: none of those
    heard is older.
    """

    me: MachineName
    draining: bool = False
    heard: Mapping[MachineName, Heard] = field(default_factory=dict)
    losing: Mapping[MachineName, Heard] = field(default_factory=dict)
    all_since_s: float = float("inf")
    news: tuple[News, ...] = ()
    move: Move | None = None
    moved_s: float = float("-inf")
    steady_since_s: float | None = None  # the first of those that lost this controller found it steady


def reported(ledger: Ledger, peer: MachineName, report: Report, now_s: float) -> Ledger:
    """A report came in. Whoever is to be told hears of it with the next `sayings`; the peer itself by `answer`."""
    before = ledger.heard.get(peer)
    changed = (before.report.lost, before.report.steady) != (report.lost, report.steady) if before else report.lost
    news = ledger.news
    if changed:
        touched = report.lost | (before.report.lost if before else frozenset())
        news = (*(each for each in news if each.peer != peer), News(peer, touched, NEWS_TIMES, now_s + NEWS_PAUSE_S))
    heard = Heard(report, now_s, before.renewed_s if before else float("-inf"))
    return replace(_with_heard(ledger, peer, heard), all_since_s=min(ledger.all_since_s, now_s), news=news)


def _with_heard(ledger: Ledger, peer: MachineName, heard: Heard) -> Ledger:
    losing = ledger.losing
    if heard.report.lost:
        losing = {**losing, peer: heard}
    elif peer in losing:
        losing = {name: each for name, each in losing.items() if name != peer}
    return replace(ledger, heard={**ledger.heard, peer: heard}, losing=losing)


def wants_renewal(ledger: Ledger, peer: MachineName, now_s: float) -> bool:
    """Whether the peer's entry has to be taken anew: it asked, and not only just now."""
    heard = ledger.heard[peer]
    return heard.report.renew and now_s - heard.renewed_s > RENEWAL_PAUSE_S


def renewed(ledger: Ledger, peer: MachineName, now_s: float) -> Ledger:
    return _with_heard(ledger, peer, replace(ledger.heard[peer], renewed_s=now_s))


def answer(ledger: Ledger, peer: MachineName, now_s: float) -> Word:
    """To a report: all that this peer has to know."""
    listener = ledger.heard[peer].report
    matters: dict[Report, bool] = {}  # most that lost something lost the same
    said = []
    for name, each in ledger.losing.items():
        if each.report not in matters:
            matters[each.report] = _matters(each.report, listener)
        if matters[each.report] and name != peer:
            said.append(Said(name, each.report.lost, each.report.steady, now_s - each.at_s))
    return replace(_word(ledger, now_s), said=tuple(said[:MOST_SAID]), is_whole=len(said) <= MOST_SAID)


def drain(ledger: Ledger, draining: bool, now_s: float, tuning: Tuning = TUNING) -> Ledger:
    """Ask all to leave, or to come back; nothing changes where that is so already."""
    if ledger.draining == draining:
        return ledger
    return replace(ledger, draining=draining, move=Move(draining, now_s + tuning.move_lead_s, tell_s=now_s))


def is_left(ledger: Ledger, now_s: float, tuning: Tuning = TUNING) -> bool:
    """Whether every peer that still reports has said that it uses this controller no more."""
    fresh = [each for each in ledger.heard.values() if now_s - each.at_s < 1.5 * tuning.report_s]
    return all(ledger.me in each.report.lost for each in fresh)


def sayings(ledger: Ledger, now_s: float, tuning: Tuning = TUNING, *, peers: int) -> tuple[Ledger, tuple[Saying, ...]]:
    """What is to be told now, and the ledger once it is. `peers`: how many could speak to this controller."""
    ledger = _with_return(_without_the_silent(ledger, now_s, tuning), now_s, tuning, peers)
    said: list[Saying] = []
    if ledger.move is not None and now_s >= ledger.move.tell_s and ledger.move.times_left and ledger.heard:
        said.append(Saying(tuple(ledger.heard), _word(ledger, now_s)))
    due = [each for each in ledger.news if each.due_s <= now_s]
    if due:
        said.extend(_told(ledger, due[:MOST_NEWS], now_s))
    return _once_told(ledger, due, now_s, tuning), tuple(said)


def due_s(ledger: Ledger, tuning: Tuning = TUNING) -> float:
    """When to ask for `sayings` again, at the latest."""
    due = [each.due_s for each in ledger.news]
    if ledger.move is not None:
        due.append(ledger.move.tell_s if ledger.move.times_left else ledger.move.at_s)
    elif ledger.steady_since_s is not None:
        due.append(max(ledger.steady_since_s + tuning.together_s, ledger.moved_s + PAUSE_BETWEEN_MOVES_S))
    return min(due, default=float("inf"))


def _word(ledger: Ledger, now_s: float) -> Word:
    if ledger.move is not None:
        return Word(ledger.move.draining, max(0.0, ledger.move.at_s - now_s))
    return Word(ledger.draining)


def _matters(report: Report, listener: Report) -> bool:
    """Whether the listener uses what the other one lost, or will use it when both could and the other one cannot."""
    not_soon = report.lost - report.steady
    return not (report.lost <= listener.lost and not_soon <= listener.lost - listener.steady)


def _told(ledger: Ledger, due: Iterable[News], now_s: float) -> Iterator[Saying]:
    """The news to those for whom it matters; alike for all who lost the same."""
    alike: dict[tuple[frozenset[MachineName], frozenset[MachineName]], list[MachineName]] = {}
    for name, each in ledger.heard.items():
        alike.setdefault((each.report.lost, each.report.steady), []).append(name)
    due = [each for each in due if each.peer in ledger.heard]
    for (lost, steady), names in alike.items():
        listener = Report(lost, steady)
        said = [
            Said(each.peer, heard.report.lost, heard.report.steady, now_s - heard.at_s)
            for each in due
            if _matters(replace((heard := ledger.heard[each.peer]).report, lost=each.touched), listener)
        ]
        if said:
            yield Saying(tuple(names), replace(_word(ledger, now_s), said=tuple(said)))


def _once_told(ledger: Ledger, due: list[News], now_s: float, tuning: Tuning) -> Ledger:
    again = [
        replace(each, times_left=each.times_left - 1, due_s=now_s + tuning.repeat_s)
        for each in due
        if each.times_left > 1
    ]
    news = (*(each for each in ledger.news if each not in due), *again)
    move, moved_s = ledger.move, ledger.moved_s
    if move is not None and now_s >= move.at_s:
        move, moved_s = None, now_s
    elif move is not None and now_s >= move.tell_s and move.times_left:
        move = replace(move, times_left=move.times_left - 1, tell_s=now_s + tuning.repeat_s)
    return replace(ledger, news=news, move=move, moved_s=moved_s)


def _with_return(ledger: Ledger, now_s: float, tuning: Tuning, peers: int) -> Ledger:
    """Call those back that lost this controller: when all have found it steady, or enough time has passed.

    All, and not all who were heard: after a restart one peer is heard first, and would come back alone.
    """
    if ledger.move is not None or ledger.draining:
        return replace(ledger, steady_since_s=None) if ledger.steady_since_s is not None else ledger
    waiting = [each.report for each in ledger.losing.values() if ledger.me in each.report.lost]
    steady = sum(ledger.me in each.steady for each in waiting)
    if not steady:
        return replace(ledger, steady_since_s=None) if ledger.steady_since_s is not None else ledger
    since_s = now_s if ledger.steady_since_s is None else ledger.steady_since_s
    ready = steady == peers or now_s - since_s >= tuning.together_s
    if ready and now_s - ledger.moved_s >= PAUSE_BETWEEN_MOVES_S:
        return replace(ledger, steady_since_s=None, move=Move(False, now_s + tuning.move_lead_s, tell_s=now_s))
    return replace(ledger, steady_since_s=since_s)


def _without_the_silent(ledger: Ledger, now_s: float, tuning: Tuning) -> Ledger:
    if now_s - ledger.all_since_s <= tuning.forget_s:
        return ledger
    heard = {name: each for name, each in ledger.heard.items() if now_s - each.at_s <= tuning.forget_s}
    losing = {name: each for name, each in ledger.losing.items() if name in heard}
    since_s = min((each.at_s for each in heard.values()), default=float("inf"))
    return replace(ledger, heard=heard, losing=losing, all_since_s=since_s)
