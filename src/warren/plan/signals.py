"""What agents say to each other inside the tunnel: which controllers a peer cannot use, and when to move together.

A *report* goes from a peer to every controller that it reaches, a *word* from a controller to a peer. Each is one UDP
datagram of JSON to port 51819 of the other's mesh address, of 1,200 bytes at most. Who sent it is known from its source
address, which WireGuard vouches for, so a signal does not say. Peers are named by the upper half of their suffix,
controllers by the number of their subnet: names could be 63 characters long, and the two ends may follow documents of
which one is newer. Whoever the reader does not know is left out.

Besides, a peer that fetches its documents says with each report which one it *follows*, and the controller answers with
its own. That is a datagram of its own, which an agent that does not know it refuses without loss of the others.

All of it is help, none of it is needed: without an agent on a controller, nothing is said there, and health alone
decides.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from warren.errors import SignalRefused
from warren.names import MachineName
from warren.network import addresses
from warren.network.document import Document

PORT = 51819
LONGEST_BYTES = 1_200  # fits into every tunnel: IPv6 allows no MTU below 1280 (RFC 8200, section 5)
MOST_CONTROLLERS = 64  # in one list
LONGEST_LEAD_S = 10.0
LONGEST_AGE_S = 600.0
LARGEST_SERIAL = 2**53  # what any reader of JSON has as a whole number

_VERSION = 1
_NOBODY: frozenset[MachineName] = frozenset()


@dataclass(frozen=True, slots=True)
class Report:
    """From a peer. `lost`: controllers that carry nothing for it. `steady`: those of them that it could use again.

    `renew`: the peer's clock was set back, so its handshakes are refused (their timestamps must grow); the controller
    is asked to take the peer's entry anew, and to call.
    """

    lost: frozenset[MachineName] = _NOBODY
    steady: frozenset[MachineName] = _NOBODY
    renew: bool = False


NOTHING_LOST = Report()


@dataclass(frozen=True, slots=True)
class Said:
    """What a peer reported, as a controller tells others. `age_s`: how long ago the report came in."""

    peer: MachineName
    lost: frozenset[MachineName]
    steady: frozenset[MachineName] = _NOBODY
    age_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Word:
    """From a controller. `draining`: it asks to be left; `move_in_s`: at that moment, all at once. None: it holds now.

    `said`: of other peers, as far as the one who hears it uses what they lost. `is_whole`: nothing else is to be known
    from this controller, so what it said before and does not repeat is over.
    """

    draining: bool = False
    move_in_s: float | None = None
    said: tuple[Said, ...] = ()
    is_whole: bool = False


@dataclass(frozen=True, slots=True)
class Follows:
    """Which document the sender follows for good. `failed`: the newer one that it tried, and could not follow."""

    serial: int
    failed: int | None = None


@dataclass(frozen=True, slots=True)
class Followed:
    """What another machine said of itself at that time."""

    follows: Follows
    at_s: float


@dataclass(frozen=True, slots=True)
class Directory:
    """How machines are called in signals: made once for each document."""

    numbers: Mapping[MachineName, str]
    controllers: Mapping[str, MachineName]
    peers: Mapping[str, MachineName]

    @classmethod
    def of(cls, document: Document) -> Directory:
        controllers = {
            entry.subnet.network_address.packed[5:7].hex(): name for name, entry in document.controllers.items()
        }
        peers = {f"{addresses.upper_half(entry.suffix):08x}": name for name, entry in document.peers.items()}
        return cls({name: number for number, name in (controllers | peers).items()}, controllers, peers)

    def write_controllers(self, names: Iterable[MachineName]) -> list[str]:
        return [self.numbers[name] for name in sorted(names) if name in self.numbers][:MOST_CONTROLLERS]

    def read_controllers(self, value: object) -> frozenset[MachineName]:
        texts = [_text(each, 4) for each in _list(value, MOST_CONTROLLERS)]
        return frozenset(self.controllers[text] for text in texts if text in self.controllers)

    def write_said(self, said: Said) -> list[object]:
        lost, steady = self.write_controllers(said.lost), self.write_controllers(said.steady)
        return [self.numbers[said.peer], max(0, round(1000 * said.age_s)), lost, steady]

    def read_said(self, value: object) -> Said | None:
        number, age_ms, lost, steady = _list(value, 4, fewest=4)
        peer = self.peers.get(_text(number, 8))
        said_lost, said_steady = self.read_controllers(lost), self.read_controllers(steady)
        age_s = _seconds(age_ms, LONGEST_AGE_S)
        return Said(peer, said_lost, said_steady & said_lost, age_s) if peer else None


def encode_follows(follows: Follows) -> bytes:
    tree = {"warren": _VERSION, "follows": follows.serial}
    return _bytes(tree if follows.failed is None else tree | {"failed": follows.failed})


def decode_follows(content: bytes) -> Follows | None:
    """None: this says something else. SignalRefused where it is no signal at all."""
    fields = _Fields(content)
    serial: int | None = fields.take("follows", _serial, None)
    if serial is None:
        return None
    follows = Follows(serial, fields.take("failed", _serial, None))
    fields.finish()
    return follows


def encode_report(report: Report, directory: Directory) -> bytes:
    tree: dict[str, object] = {
        "warren": _VERSION,
        "lost": directory.write_controllers(report.lost),
        "steady": directory.write_controllers(report.steady),
    }
    return _bytes(tree | {"renew": True} if report.renew else tree)


def decode_report(content: bytes, directory: Directory) -> Report:
    """SignalRefused where it is none."""
    fields = _Fields(content)
    report = Report(
        fields.take("lost", directory.read_controllers),
        fields.take("steady", directory.read_controllers),
        fields.flag("renew"),
    )
    fields.finish()
    return replace(report, steady=report.steady & report.lost)


def encode_word(word: Word, directory: Directory) -> bytes:
    """ValueError where it is too long for a datagram: `in_datagrams` makes several of it."""
    tree: dict[str, object] = {"warren": _VERSION, "said": list(map(directory.write_said, word.said))}
    if word.draining:
        tree["draining"] = True
    if word.move_in_s is not None:
        tree["move_ms"] = round(1000 * word.move_in_s)
    if word.is_whole:
        tree["whole"] = True
    content = _bytes(tree)
    if len(content) > LONGEST_BYTES:
        raise ValueError(f"{len(content)} bytes, {LONGEST_BYTES} fit into a datagram")
    return content


def decode_word(content: bytes, directory: Directory) -> Word:
    """SignalRefused where it is none."""
    fields = _Fields(content)
    word = Word(
        draining=fields.flag("draining"),
        move_in_s=fields.take("move_ms", lambda value: _seconds(value, LONGEST_LEAD_S), None),
        said=tuple(
            each for each in fields.take("said", lambda value: map(directory.read_said, _list(value, 128))) if each
        ),
        is_whole=fields.flag("whole"),
    )
    fields.finish()
    return word


def in_datagrams(word: Word, directory: Directory) -> Iterator[Word]:
    """The same in as many words as it takes; of several, none is whole."""
    said: list[Said] = []
    room = LONGEST_BYTES - 80  # what stands around the list, at its longest
    size = 0
    for each in word.said:
        cost = len(_bytes(directory.write_said(each))) + 1
        if size + cost > room:
            yield replace(word, said=tuple(said), is_whole=False)
            said, size = [], 0
        said.append(each)
        size += cost
    is_only = len(said) == len(word.said)
    yield replace(word, said=tuple(said), is_whole=word.is_whole and is_only)


class _Fields:
    """A JSON object whose members are taken one by one; whatever is wrong with it is SignalRefused."""

    def __init__(self, content: bytes) -> None:
        if len(content) > LONGEST_BYTES:
            raise SignalRefused(f"{len(content)} bytes long")
        try:
            tree = json.loads(content)
        except (ValueError, RecursionError):
            raise SignalRefused("not JSON") from None
        if not isinstance(tree, dict):
            raise SignalRefused("not an object")
        self._left = tree
        version = self._left.pop("warren", None)
        if type(version) is not int or version != _VERSION:  # True is 1 to Python
            raise SignalRefused("of another version, or no signal of Warren's")

    def take(self, key: str, read: Callable[[Any], Any], default: Any = ...) -> Any:
        if key not in self._left:
            if default is ...:
                raise SignalRefused(f"without {key!r}")
            return default
        try:
            found = read(self._left.pop(key))
            return tuple(found) if isinstance(found, Iterator) else found
        except ValueError as error:
            raise SignalRefused(f"{key!r}: {error}") from None

    def flag(self, key: str) -> bool:
        return bool(self.take(key, _true, False))

    def finish(self) -> None:
        if self._left:
            raise SignalRefused(f"{', '.join(map(repr, sorted(self._left)))[:80]} is not known here")


def _list(value: object, most: int, fewest: int = 0) -> list[object]:
    if not isinstance(value, list) or not fewest <= len(value) <= most:
        raise ValueError(f"not a list of {fewest} to {most}")
    return value


def _text(value: object, length: int) -> str:
    if not isinstance(value, str) or len(value) != length:
        raise ValueError(f"not a text of {length} characters")
    return value


def _true(value: object) -> bool:
    if value is not True:
        raise ValueError("not true")
    return True


def _serial(value: object) -> int:
    if type(value) is not int or not 0 <= value <= LARGEST_SERIAL:
        raise ValueError(f"not a number of 0 to {LARGEST_SERIAL}")
    return value


def _seconds(value: object, most_s: float) -> float:
    if type(value) is not int or not 0 <= value <= 1000 * most_s:
        raise ValueError(f"not a time of 0 to {most_s:.0f} seconds, in milliseconds")
    return value / 1000


def _bytes(tree: object) -> bytes:
    return json.dumps(tree, separators=(",", ":")).encode("ascii")
