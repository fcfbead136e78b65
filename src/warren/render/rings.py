"""Where a topology picture puts its nodes: controllers on the inner ring, each peer outside, around its own controller.

Closed form: no iteration, the same mesh is the same picture. Pixels, from the middle, y downwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import cos, pi, sin

GAP = 28.0  # between neighbors, and more than that between the rings
RINGS_GAP = 64.0


@dataclass(frozen=True, slots=True)
class Size:
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Ring:
    """An ellipse around the middle."""

    horizontal: float
    vertical: float

    def place(self, angle: float) -> Place:
        return Place(self.horizontal * cos(angle), self.vertical * sin(angle), angle)


@dataclass(frozen=True, slots=True)
class Place:
    x: float
    y: float
    angle: float  # radians, clockwise from the right


@dataclass(frozen=True, slots=True)
class Rings:
    """`nodes` holds each controller's own, in the order of the controllers."""

    inner: Ring
    outer: Ring
    controllers: tuple[Place, ...]
    nodes: tuple[tuple[Place, ...], ...]


def rings(counts: Sequence[int], controller: Size, node: Size, flatness: float) -> Rings:
    """Places for as many controllers as there are `counts`, each with so many nodes around it.

    `flatness`: the outer ring's height by its width; wide boxes fit on a flat ring.
    """
    sectors = _sectors(counts)
    middles = _middles(sectors)
    inner = _inner_ring(middles, controller)
    outer = _outer_ring(counts, sectors, inner, controller, node, flatness)
    return Rings(
        inner,
        outer,
        tuple(inner.place(middle) for middle in middles),
        tuple(
            tuple(outer.place(middle + sector * ((i + 0.5) / count - 0.5)) for i in range(count))
            for count, sector, middle in zip(counts, sectors, middles, strict=True)
        ),
    )


def _sectors(counts: Sequence[int]) -> list[float]:
    """Each controller's angle: half of the circle in equal parts, half of it by how many nodes it has."""
    total = sum(counts)
    if not total:
        return [2 * pi / len(counts)] * len(counts)
    return [pi / len(counts) + pi * count / total for count in counts]


def _middles(sectors: Sequence[float]) -> list[float]:
    """The middle of each sector, clockwise; the first is on the left, or on top where there are more than two."""
    middles = [pi if len(sectors) <= 2 else -pi / 2]
    for one, other in pairwise(sectors):
        middles.append(middles[-1] + (one + other) / 2)
    return middles


def _inner_ring(middles: Sequence[float], controller: Size) -> Ring:
    if len(middles) == 1:
        return Ring(0, 0)
    narrowest = min(other - one for one, other in pairwise([*middles, middles[0] + 2 * pi]))
    # The chord between the nearest two holds a card and a gap; a single link wants room to be seen.
    radius = (controller.width + 2 * GAP) / (2 * sin(narrowest / 2))
    return Ring(radius, 0 if len(middles) == 2 else radius)  # two stand side by side


def _outer_ring(
    counts: Sequence[int], sectors: Sequence[float], inner: Ring, controller: Size, node: Size, flatness: float
) -> Ring:
    crowded = max(count * node.width / sector for count, sector in zip(counts, sectors, strict=True))
    clear = inner.horizontal + controller.width / 2 + RINGS_GAP + node.width / 2
    above = inner.vertical + controller.height / 2 + RINGS_GAP + node.height / 2
    horizontal = max(crowded, clear)
    return Ring(horizontal, max(horizontal * flatness, above))
