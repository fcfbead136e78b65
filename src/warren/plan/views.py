"""What a peer knows of the other peers, as controllers tell it: who cannot use which controller."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from warren.names import MachineName
from warren.plan.health import Tuning
from warren.plan.signals import Word

_NOBODY: frozenset[MachineName] = frozenset()
_NO_SOURCE = MachineName("")  # read from the device


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
    of: Mapping[MachineName, View] = field(default_factory=dict)


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
        held[said.peer] = View(said.lost, said.steady, as_of_s, source, now_s + tuning.forget_s)
    if word.is_whole:
        named = {said.peer for said in word.said}
        held = {name: view for name, view in held.items() if name in named or view.told_by not in (source, _NO_SOURCE)}
    return Views(held)


def returned(views: Views, controller: MachineName, now_s: float) -> Views:
    """All who found the controller steady use it from now on: so it was announced."""
    gone = frozenset((controller,))
    return Views(
        {
            name: replace(view, lost=view.lost - gone, steady=view.steady - gone, as_of_s=now_s)
            if controller in view.steady
            else view
            for name, view in views.of.items()
        }
    )


def without_the_old(views: Views, now_s: float) -> Views:
    if all(view.until_s > now_s for view in views.of.values()):
        return views
    return Views({name: view for name, view in views.of.items() if view.until_s > now_s})
