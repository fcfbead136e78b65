"""Whom a machine still lets in, whatever its document says: nobody by a revoked key."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from warren.errors import DocumentRefused
from warren.network.document import ControllerEntry, Document, Entry, PeerEntry, keys_of
from warren.wireguard.keys import PublicKey

AnEntry = TypeVar("AnEntry", ControllerEntry, PeerEntry)


def admitted(document: Document, revoked: frozenset[PublicKey]) -> Document:
    """The document without the keys that do not count any more; their machines are in it, with none."""
    if not revoked:
        return document
    return replace(
        document,
        controllers={name: _without(entry, revoked) for name, entry in document.controllers.items()},
        peers={name: _without(entry, revoked) for name, entry in document.peers.items()},
    )


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
