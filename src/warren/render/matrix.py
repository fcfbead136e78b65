"""Who reaches whom, as a table: rows speak, columns answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from warren.names import MachineName
from warren.render.columns import columns

TIMES_MACHINES = 10  # above, a row of times is wider than a screen: marks, and the failures in words


@dataclass(frozen=True, slots=True)
class Reach:
    """One ordered pair, measured. `hops`: machines in between; None: not known."""

    source: MachineName
    target: MachineName
    ok: bool
    rtt_ms: float | None = None
    hops: int | None = None


def matrix(pairs: Sequence[Reach]) -> str:
    """The pairs as a matrix, and how many of them answer."""
    measured = {(pair.source, pair.target): pair for pair in pairs}
    names = sorted({name for pair in pairs for name in (pair.source, pair.target)})
    working = sum(pair.ok for pair in pairs)
    table = _times(names, measured) if len(names) <= TIMES_MACHINES else _marks(names, measured)
    through = "; +1: through one machine more" if any(pair.hops for pair in pairs) else ""
    return f"{table}\n{working} of {len(pairs)} pairs answer{through}\n"


Measured = dict[tuple[MachineName, MachineName], Reach]


def _times(names: Sequence[MachineName], measured: Measured) -> str:
    """Round trips in milliseconds; behind each, the machines in between."""
    rows = [("ms", *names)]
    rows += [(source, *(_time(measured.get((source, target))) for target in names)) for source in names]
    return columns(rows)


def _time(pair: Reach | None) -> str:
    if pair is None:
        return "–"
    if not pair.ok:
        return "FAILS"
    time = "ok" if pair.rtt_ms is None else f"{pair.rtt_ms:.2f}"
    return f"{time} +{pair.hops}" if pair.hops else time


def _marks(names: Sequence[MachineName], measured: Measured) -> str:
    rows = [(source, "".join(_mark(measured.get((source, target))) for target in names)) for source in names]
    failures = [(pair.source, "→", pair.target, "FAILS") for pair in measured.values() if not pair.ok]
    return columns(rows) + (f"\n{columns(failures)}" if failures else "")


def _mark(pair: Reach | None) -> str:
    if pair is None:
        return "·"
    return "■" if pair.ok else "✗"
