"""Whom a machine still lets in, whatever its document says: nobody by a revoked key, nobody whose time is over."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TypeVar

from warren.errors import DocumentRefused
from warren.names import MachineName
from warren.network.document import ControllerEntry, Document, Entry, PeerEntry, keys_of
from warren.wireguard.keys import PublicKey

DAY_S = 86400
WARN_BEFORE_S = 7 * DAY_S

AnEntry = TypeVar("AnEntry", ControllerEntry, PeerEntry)


def admitted(document: Document, revoked: frozenset[PublicKey], now_unix_s: float) -> Document:
    """The document without the keys that do not count any more; their machines are in it, with none."""
    expired = frozenset(key for entry in expired_peers(document, now_unix_s) for key in keys_of(entry))
    out = revoked | expired
    kept = tuple(each for each in document.invitations if each.is_kept(now_unix_s) and each.public_key not in revoked)
    if kept != document.invitations:
        document = replace(document, invitations=kept)
    if not out:
        return document
    return replace(
        document,
        controllers={name: _without(entry, out) for name, entry in document.controllers.items()},
        peers={name: _without(entry, out) for name, entry in document.peers.items()},
    )


def expired_peers(document: Document, now_unix_s: float) -> list[PeerEntry]:
    """Those whose time is over."""
    return [each for each in document.peers.values() if _has_expired(each, now_unix_s)]


def _has_expired(entry: PeerEntry, now_unix_s: float) -> bool:
    return entry.expires_unix_s is not None and entry.expires_unix_s <= now_unix_s


def check_own(document: Document, me: MachineName, now_unix_s: float) -> None:
    """Raise DocumentRefused if this machine's own time is over: others let it in no more."""
    entry = document.peers.get(me)
    if entry is not None and _has_expired(entry, now_unix_s):
        raise DocumentRefused(
            f"the time of this machine ended at {_text(entry)}",
            where=f"{document.instance} on {me}",
            mend=f"if it is to stay: set machines.{me}.expires to a later day, and update; else warren down",
        )


def expiry_lines(document: Document, now_unix_s: float) -> list[str]:
    """For people: who expires soon, and who did."""
    lines = []
    for entry in document.peers.values():
        left_s = None if entry.expires_unix_s is None else entry.expires_unix_s - now_unix_s
        if left_s is None or left_s > WARN_BEFORE_S:
            continue
        when = f"expired at {_text(entry)}" if left_s <= 0 else f"expires in {_left(left_s)}, at {_text(entry)}"
        lines.append(f"{entry.name} {when}, in {document.instance}")
    return lines


def _text(entry: PeerEntry) -> str:
    return f"{datetime.fromtimestamp(entry.expires_unix_s or 0, UTC):%Y-%m-%d %H:%M} UTC"


def _left(seconds: float) -> str:
    return f"{seconds / DAY_S:.0f} days" if seconds >= 2 * DAY_S else f"{seconds / 3600:.0f} hours"


def check(document: Document, revoked: frozenset[PublicKey], place: str) -> None:
    """Raise DocumentRefused if the document brings a key back that was revoked here."""
    entries: list[Entry] = [*document.controllers.values(), *document.peers.values()]
    for entry in entries:
        if back := revoked.intersection(keys_of(entry)):
            raise DocumentRefused(
                f'it has the key {min(back)} for machine "{entry.name}", which was revoked for good',
                where=place,
                mend=f"have {entry.name} make a new key: warren vars generate "
                f"--service wireguard-keys-{document.instance} --regenerate --machine {entry.name}",
            )


def _without(entry: AnEntry, revoked: frozenset[PublicKey]) -> AnEntry:
    left = [key for key in keys_of(entry) if key not in revoked]
    if len(left) == len(keys_of(entry)):
        return entry
    return replace(entry, public_key=left[0] if left else None, second_key=None)
