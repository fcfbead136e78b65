"""What a peer knows of the other peers, as controllers tell it: who cannot use which controller."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from warren.names import MachineName
from warren.plan.health import Tuning
from warren.plan.signals import Word

_NOBODY: frozenset[MachineName] = frozenset()
_NO_SOURCE = MachineName("")  # read from the device
_ON_ITS_WAY_S = 0.25  # what was said before a move, and came in after it


@dataclass(frozen=True, slots=True)
class View:
    """Of one other peer. `as_of_s`: when it said so, by our clock. `until_s`: forgotten then, unless said again."""

    lost: frozenset[MachineName]
    steady: frozenset[MachineName]
    as_of_s: float
    told_by: MachineName
    until_s: float


@dataclass(frozen=True, slots=True)
class Views:
    """`returned_s`: when all began to use a controller again, as it had announced."""

    of: Mapping[MachineName, View] = field(default_factory=dict)
    returned_s: Mapping[MachineName, float] = field(default_factory=dict)


def as_found(lost: Mapping[MachineName, frozenset[MachineName]], now_s: float, tuning: Tuning) -> Views:
    """From the device, after a restart: soon the first word says how it is now."""
    until_s = now_s + tuning.report_s
    return Views({name: View(each, _NOBODY, float("-inf"), _NO_SOURCE, until_s) for name, each in lost.items()})


def heard(views: Views, source: MachineName, word: Word, me: MachineName, now_s: float, tuning: Tuning) -> Views:
    """A controller told something. Of two that tell of one peer, the one with the younger report is right."""
    held = dict(views.of)
    for said in word.said:
        known = held.get(said.peer)
        as_of_s = now_s - said.age_s
        if said.peer == me or (known is not None and known.told_by != source and known.as_of_s > as_of_s):
            continue
        # Who found a controller steady before all returned to it has returned too, and just not said so yet.
        since = frozenset(
            each for each in said.steady if as_of_s < views.returned_s.get(each, float("-inf")) + _ON_ITS_WAY_S
        )
        until_s = now_s + tuning.forget_s
        held[said.peer] = View(said.lost - since, said.steady - since, as_of_s, source, until_s)
    if word.is_whole:
        named = {said.peer for said in word.said}
        held = {name: view for name, view in held.items() if name in named or view.told_by not in (source, _NO_SOURCE)}
    return replace(views, of=held)


def returned(views: Views, controller: MachineName, now_s: float) -> Views:
    """All who found the controller steady use it from now on: so it was announced."""
    gone = frozenset((controller,))
    held = {
        name: replace(view, lost=view.lost - gone, steady=view.steady - gone, as_of_s=now_s)
        if controller in view.steady
        else view
        for name, view in views.of.items()
    }
    return Views(held, {**views.returned_s, controller: now_s})


def without_the_old(views: Views, now_s: float) -> Views:
    if all(view.until_s > now_s for view in views.of.values()):
        return views
    return replace(views, of={name: view for name, view in views.of.items() if view.until_s > now_s})
