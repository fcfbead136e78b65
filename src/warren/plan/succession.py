"""Whether a machine may follow one document after another: what a good signature alone does not say."""

from __future__ import annotations

from warren.errors import DocumentRefused
from warren.names import MachineName
from warren.network.document import ControllerEntry, Document, Entry, encode, keys_of
from warren.wireguard.endpoint import Endpoint
from warren.wireguard.keys import PublicKey


def check(new: Document, held: Document | None, me: MachineName) -> None:
    """Raise DocumentRefused if `me` must not follow `new`. `held`: what it follows now; None: nothing."""
    place = f"{new.instance} on {me}"
    if held is not None:
        _check_newer(new, held, place)
    mine, before = new.entry(me), held.entry(me) if held else None
    if mine is not None:  # else no plan can be made of it, which says so
        _check_not_cut_off(new, held, mine, place)
    if mine is not None and before is not None and mine.interface != before.interface:
        raise DocumentRefused(
            f'the interface is to change from "{before.interface}" to "{mine.interface}": '
            "that is no change of one interface, and the mesh would be down in between",
            where=place,
            mend=f"on {me}: warren down {new.instance}; then update it",
        )


def moved(new: Document, held: Document | None, me: MachineName, *, is_watched: bool) -> frozenset[PublicKey]:
    """The controllers that are reached elsewhere than before, by their keys.

    As a peer sees it: controllers are updated first. Between two of them the other one may still be where it was.
    `is_watched`: an agent calls controllers anew as soon as they are silent. Then one that only changes its port is
    kept where it answers: until it is updated itself, nothing listens on the new one.
    """
    if held is None or me in new.controllers:
        return frozenset()
    before = {key: entry.endpoint for entry in held.controllers.values() for key in keys_of(entry)}
    return frozenset(
        key
        for entry in new.controllers.values()
        for key in keys_of(entry)
        if key in before and _is_elsewhere(entry.endpoint, before[key], is_watched=is_watched)
    )


def _is_elsewhere(new: Endpoint, before: Endpoint, *, is_watched: bool) -> bool:
    return new.host != before.host if is_watched else new != before


def _check_newer(new: Document, held: Document, place: str) -> None:
    if new.serial < held.serial:
        raise DocumentRefused(
            f"its serial is {new.serial}, but this machine follows {held.serial} already: an old document comes again",
            where=place,
            mend="bring the newest: git pull, then warren machines update",
        )
    if new.serial == held.serial and encode(new) != encode(held):
        raise DocumentRefused(
            f"this machine follows another document of the same serial, {held.serial}",
            where=place,
            mend="somebody else published one: git pull, then warren machines update",
        )


def _check_not_cut_off(new: Document, held: Document | None, me: Entry, place: str) -> None:
    """A way to somebody must be left, as far as a document can tell."""
    if not isinstance(me, ControllerEntry):
        if not any(each.public_key for each in new.controllers.values()):
            raise DocumentRefused(
                "no controller in it has a public key: the machine would reach nobody",
                where=place,
                mend=f"make them: warren vars generate --service wireguard-keys-{new.instance}",
            )
        return
    # A controller may well be alone, such as after its last peer was removed. Losing all keys at once is a mishap.
    others = [each for each in _entries(new) if each.name != me.name]
    lost = [each.name for each in others if held and (before := held.entry(each.name)) and before.public_key]
    if lost and not any(each.public_key for each in others):
        raise DocumentRefused(
            f"nobody in it has a public key any more, {', '.join(sorted(lost)[:3])} had one: nobody would be reached",
            where=place,
            mend="bring the vars back that were lost: git log -- vars",
        )


def _entries(document: Document) -> list[Entry]:
    return [*document.controllers.values(), *document.peers.values()]
