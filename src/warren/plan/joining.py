"""What a controller answers to one who was invited: pure, from the document, what was handed in, and the time.

The source address says which invitation it is, for WireGuard lets nobody but the holder of the one-time key send from
it. Everything that comes in the line is what somebody says, and is compared, never used as a name of anything.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from ipaddress import IPv6Address
from typing import TypeAlias

from warren.names import MachineName
from warren.network.document import ControllerEntry, Document, Entry, keys_of
from warren.network.invitations import USED, Invitation, guest_address, guests
from warren.plan.asking import Join
from warren.wireguard.keys import PublicKey

MOST_KEYS = 8  # handed in for one invitation: one is usual, two are a theft, more are noise
MOST_HAND_INS = 1000
MOST_REFUSALS = 20  # of one invitation


@dataclass(frozen=True, slots=True)
class HandIn:
    """A public key that somebody brought by an invitation. `came_from`: where the outer packets came from."""

    invitation: PublicKey
    machine: MachineName
    public_key: PublicKey
    came_from: str
    unix_s: float


@dataclass(frozen=True, slots=True)
class Refusal:
    """Somebody was told no: why, what was asked last, how often."""

    invitation: PublicKey
    machine: MachineName
    reason: str
    asked: str
    came_from: str
    unix_s: float
    times: int = 1


@dataclass(frozen=True, slots=True)
class Guestbook:
    """What a controller keeps of those who came by invitations to one instance."""

    hand_ins: tuple[HandIn, ...] = ()
    refusals: tuple[Refusal, ...] = ()


@dataclass(frozen=True, slots=True)
class HandOut:
    """The document is theirs."""


@dataclass(frozen=True, slots=True)
class Wait:
    """The key is here; the operator decides."""


@dataclass(frozen=True, slots=True)
class No:
    reason: str


Verdict: TypeAlias = HandOut | Wait | No


def is_guest(source: IPv6Address, me: ControllerEntry) -> bool:
    return source in guests(me.subnet)


def invitation_of(document: Document, me: ControllerEntry, source: IPv6Address) -> Invitation | None:
    return next((each for each in document.invitations if guest_address(me.subnet, each.public_key) == source), None)


def judged(
    document: Document,
    invitation: Invitation,
    asked: Join,
    revoked: Collection[PublicKey],
    book: Guestbook,
    now_unix_s: float,
) -> Verdict:
    """What becomes of it."""
    entry = document.peers.get(invitation.machine)
    if asked.machine != invitation.machine:
        return No("this invitation is for another machine")
    if entry is None:
        return No("the mesh has no such machine any more")
    if asked.public_key in revoked or asked.public_key in document.revoked:
        return No("this key was revoked for good: make another one")
    if entry.public_key == asked.public_key:
        return HandOut()
    if reason := _closed(invitation, entry.public_key):
        return No(reason)
    known = [each for each in book.hand_ins if each.invitation == invitation.public_key]
    if any(each.public_key == asked.public_key for each in known):
        return Wait()
    if now_unix_s >= invitation.expires_unix_s:
        return No(f"this invitation expired at {datetime.fromtimestamp(invitation.expires_unix_s, UTC):%H:%M:%S} UTC")
    if asked.public_key in _keys(document):
        return No("this key is another machine's: a copied disk?")
    if len(known) >= MOST_KEYS or len(book.hand_ins) >= MOST_HAND_INS:
        return No("too many keys were handed in")
    return Wait()


def _closed(invitation: Invitation, key: PublicKey | None) -> str:
    if invitation.closed == USED or key is not None:
        return "this invitation was used already, by another key"
    return f"this invitation was {invitation.closed}" if invitation.closed else ""


def _keys(document: Document) -> set[PublicKey]:
    entries: list[Entry] = [*document.controllers.values(), *document.peers.values()]
    return {key for entry in entries for key in keys_of(entry)} | {each.public_key for each in document.invitations}


def with_hand_in(book: Guestbook, new: HandIn) -> Guestbook:
    """The same key again is the same machine, which asks whether it may come in by now."""
    if any((each.invitation, each.public_key) == (new.invitation, new.public_key) for each in book.hand_ins):
        return book
    return replace(book, hand_ins=(*book.hand_ins, new))


def with_refusal(book: Guestbook, new: Refusal) -> Guestbook:
    """Of what is refused again, the last time and how often."""
    same = next((each for each in book.refusals if _is_alike(each, new)), None)
    if same is not None:
        counted = replace(new, times=same.times + 1)
        return replace(book, refusals=tuple(counted if each is same else each for each in book.refusals))
    if sum(each.invitation == new.invitation for each in book.refusals) >= MOST_REFUSALS:
        return book
    return replace(book, refusals=(*book.refusals, new))


def _is_alike(one: Refusal, other: Refusal) -> bool:
    return (one.invitation, one.reason, one.came_from) == (other.invitation, other.reason, other.came_from)


def pruned(book: Guestbook, invitations: Iterable[Invitation]) -> Guestbook:
    """Without those whose invitation is known no longer."""
    known = {each.public_key for each in invitations}
    return Guestbook(
        tuple(each for each in book.hand_ins if each.invitation in known),
        tuple(each for each in book.refusals if each.invitation in known),
    )
