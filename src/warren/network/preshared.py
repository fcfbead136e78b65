"""Which preshared key each pair of WireGuard peers has, by fingerprints: the pairs, and what the vars keep of them.

Of a pair, one end is the *maker*: the mesh peer; of two controllers, the one whose name sorts first. It makes the key,
and while one key replaces another it follows the other end, which goes by its document alone.

The vars hold one text for each maker, a line for each of its pairs:

    server1 6b1f0c2d9e8a7f31
    server2 6b1f0c2d9e8a7f31 next 00d1e2f3a4b5c6d7      both ends hold the next one already
    server3 00d1e2f3a4b5c6d7 former -                   in force; the former one, here none, is still accepted
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple, TypeAlias

from warren.names import MachineName, is_host_name
from warren.wireguard.preshared import NO_PRESHARED_KEY, Fingerprint, parse_fingerprint

Choices: TypeAlias = tuple[Fingerprint, ...]
"""The one in force; behind it, while one replaces the other, the former one. NO_PRESHARED_KEY may be either."""

NONE: Choices = (NO_PRESHARED_KEY,)
_NO_KEY = "-"


class Pair(NamedTuple):
    """Two machines that are WireGuard peers of each other."""

    maker: MachineName
    other: MachineName


@dataclass(frozen=True, slots=True)
class Exchange:
    """How far a pair is. `next`: held by both ends, and in no document yet. `former`: accepted beside `first`."""

    first: Fingerprint = NO_PRESHARED_KEY
    next: Fingerprint | None = None
    former: Fingerprint | None = None

    @property
    def choices(self) -> Choices:
        return (self.first,) if self.former is None else (self.first, self.former)

    @property
    def is_nothing(self) -> bool:
        return self == Exchange()


def pairs(controllers: Iterable[MachineName], peers: Iterable[MachineName]) -> Iterator[Pair]:
    """Of a mesh."""
    controllers = sorted(controllers)
    for one, other in combinations(controllers, 2):
        yield Pair(one, other)
    for peer in peers:
        for controller in controllers:
            yield Pair(peer, controller)


def is_pair(
    maker: MachineName, other: MachineName, controllers: Collection[MachineName], peers: Collection[MachineName]
) -> bool:
    """Whether the mesh has this pair, and this is its maker."""
    return other in controllers and (maker in peers or (maker in controllers and maker < other))


def is_maker(me: MachineName, other: MachineName, controllers: Collection[MachineName]) -> bool:
    """Of a pair."""
    return me not in controllers or (other in controllers and me < other)


def parse_exchanges(text: str) -> dict[MachineName, Exchange]:
    """A maker's text; ValueError says what is wrong with it."""
    found: dict[MachineName, Exchange] = {}
    for line in text.splitlines():
        other, *words = line.split()
        if not is_host_name(other) or other in found or len(words) not in (1, 3, 5):
            raise ValueError(f"{line!r} is no machine and its fingerprints")
        more = dict(zip(words[1::2], map(_parsed, words[2::2]), strict=True))
        if len(more) != len(words) // 2 or not more.keys() <= {"next", "former"}:
            raise ValueError(f"{line!r} is no machine and its fingerprints")
        found[MachineName(other)] = Exchange(_parsed(words[0]), more.get("next"), more.get("former"))
    return found


def exchanges_text(found: Mapping[MachineName, Exchange]) -> str:
    """What `parse_exchanges` reads; pairs of which there is nothing to say are left out."""
    return "\n".join(_line(other, each) for other, each in sorted(found.items()) if not each.is_nothing)


def _line(other: MachineName, exchange: Exchange) -> str:
    words = [other, exchange.first or _NO_KEY]
    for name, value in (("next", exchange.next), ("former", exchange.former)):
        if value is not None:
            words += [name, value or _NO_KEY]
    return " ".join(words)


def _parsed(text: str) -> Fingerprint:
    return NO_PRESHARED_KEY if text == _NO_KEY else parse_fingerprint(text)
