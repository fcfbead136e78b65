"""Curve25519 keys as WireGuard writes them: 32 bytes, base64 in text."""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode

KEY_BYTES = 32


class PublicKey(bytes):
    """A machine's public key. Shown by its first eight characters, written out with `.text`."""

    __slots__ = ()

    def __new__(cls, raw: bytes) -> PublicKey:
        if len(raw) != KEY_BYTES:
            raise ValueError(f"a WireGuard key has {KEY_BYTES} bytes, this one has {len(raw)}")
        return super().__new__(cls, raw)

    @classmethod
    def parse(cls, text: str) -> PublicKey:
        """Read base64 text; ValueError says what is wrong with it."""
        return cls(_decode(text))

    @property
    def text(self) -> str:
        """Base64, 44 characters."""
        return b64encode(self).decode("ascii")

    def __str__(self) -> str:
        return f"{self.text[:8]}…"

    def __repr__(self) -> str:
        return f"PublicKey({self.text[:8]}…)"


class Secret:
    """32 secret bytes. They come out by `reveal` alone: never in text, repr, pickles or tracebacks."""

    __slots__ = ("_raw",)

    def __init__(self, raw: bytes) -> None:
        if len(raw) != KEY_BYTES:
            raise ValueError(f"a WireGuard key has {KEY_BYTES} bytes, this one has {len(raw)}")
        self._raw = raw

    def reveal(self) -> bytes:
        """The bytes, for the kernel and for the key file; nothing else should ask."""
        return self._raw

    def reveal_text(self) -> str:
        """The bytes as base64, for the key file and for `wg`."""
        return b64encode(self._raw).decode("ascii")

    def __str__(self) -> str:
        return "(hidden)"

    def __repr__(self) -> str:
        return f"{type(self).__name__}(hidden)"

    def __reduce__(self) -> str:
        raise TypeError("a secret is not pickled")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._raw == other._raw

    def __hash__(self) -> int:
        return hash(self._raw)


class PresharedKey(Secret):
    """A symmetric key shared by two machines."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> PresharedKey:
        """Read base64 text; ValueError says what is wrong with it."""
        return cls(_decode(text))


class PrivateKey(Secret):
    """A machine's private key, clamped: the kernel clamps what it is given, and another key would read back."""

    __slots__ = ()

    def __init__(self, raw: bytes) -> None:
        super().__init__(clamp(raw))

    @classmethod
    def parse(cls, text: str) -> PrivateKey:
        """Read base64 text; ValueError says what is wrong with it."""
        return cls(_decode(text))


def clamp(raw: bytes) -> bytes:
    """The scalar that Curve25519 works with (RFC 7748, section 5)."""
    if len(raw) != KEY_BYTES:
        raise ValueError(f"a WireGuard key has {KEY_BYTES} bytes, this one has {len(raw)}")
    return bytes([raw[0] & 248]) + raw[1:31] + bytes([raw[31] & 127 | 64])


def _decode(text: str) -> bytes:
    # The text itself stays out of the message: it may be a private key in the wrong place.
    stripped = text.strip()
    try:
        raw = b64decode(stripped, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"not base64 ({len(stripped)} characters)") from None
    if len(raw) != KEY_BYTES or b64encode(raw).decode("ascii") != stripped:
        raise ValueError(f"not the base64 of {KEY_BYTES} bytes ({len(stripped)} characters)")
    return raw
