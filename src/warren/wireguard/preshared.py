"""Preshared keys: how one is named where all may read it, and how it is sealed by its maker for the other end."""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import sha256
from typing import NewType

from warren.wireguard import hpke
from warren.wireguard.keys import KEY_BYTES, PresharedKey, PrivateKey, PublicKey

Fingerprint = NewType("Fingerprint", str)
"""A name of a preshared key, of which nothing about the key can be told: FINGERPRINT_CHARACTERS hexadecimal ones."""

NO_PRESHARED_KEY = Fingerprint("")
NOBODYS = Fingerprint("random")  # stands for any key at all: where there is none yet, one that nobody else has
FINGERPRINT_CHARACTERS = 16
SEALED_BYTES = KEY_BYTES + hpke.SEALED_MORE_BYTES

_FINGERPRINT = re.compile(f"[0-9a-f]{{{FINGERPRINT_CHARACTERS}}}")
_FINGERPRINT_DOMAIN = b"warren preshared key fingerprint\0"
_SEAL_DOMAIN = "warren preshared key, sealed"


def fingerprint(raw: bytes) -> Fingerprint:
    """Of the key's bytes; 32 zeros stand for no key, as they do for WireGuard."""
    if not any(raw):
        return NO_PRESHARED_KEY
    return Fingerprint(sha256(_FINGERPRINT_DOMAIN + raw).hexdigest()[:FINGERPRINT_CHARACTERS])


def parse_fingerprint(text: str) -> Fingerprint:
    """ValueError where it is none."""
    if not _FINGERPRINT.fullmatch(text):
        raise ValueError(f"{text!r} is no fingerprint: {FINGERPRINT_CHARACTERS} hexadecimal characters")
    return Fingerprint(text)


@dataclass(frozen=True, slots=True)
class Label:
    """What a sealed preshared key is for; it opens with the very same label alone.

    `number` grows with each key of the pair, so that none that came before is taken for one that comes.
    """

    instance: str
    maker: str
    maker_key: PublicKey
    other: str
    other_key: PublicKey
    number: int

    @property
    def _bytes(self) -> bytes:
        # None of these can hold a line break: no two labels are the same bytes.
        fields = (_SEAL_DOMAIN, self.instance, self.maker, self.maker_key.text, self.other, self.other_key.text)
        return "\n".join([*fields, str(self.number)]).encode()

    def sealed(self, key: PresharedKey, maker: PrivateKey, ephemeral: PrivateKey) -> bytes:
        """The key, for the other end alone. `ephemeral`: random, and used this once."""
        return hpke.seal(maker, self.other_key, ephemeral, self._bytes, key.reveal(), b"")

    def opened(self, sealed: bytes, other: PrivateKey) -> PresharedKey:
        """The key; ValueError unless the maker sealed it for this."""
        raw = hpke.opened(other, self.maker_key, sealed, self._bytes, b"")
        if not any(raw):
            raise ValueError("it is no key")
        return PresharedKey(raw)
