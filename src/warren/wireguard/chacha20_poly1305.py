"""ChaCha20-Poly1305, the AEAD of RFC 8439, for messages of a few bytes: what one machine seals for another.

Not constant-time, as little as x25519.py is, and for the same reason: each key here is used once.
"""

from __future__ import annotations

import struct
from hmac import compare_digest

KEY_BYTES, NONCE_BYTES, TAG_BYTES = 32, 12, 16

_CONSTANTS = (0x61707865, 0x3320646E, 0x79622D32, 0x6B206574)  # "expand 32-byte k", section 2.3
_ROUNDS = (
    (0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
    (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14),
)  # fmt: skip
_BLOCK_BYTES = 64
_PRIME = (1 << 130) - 5
_CLAMP = 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF


def seal(key: bytes, nonce: bytes, plaintext: bytes, associated: bytes) -> bytes:
    """The ciphertext with its tag behind it (section 2.8). A key and a nonce are used together once."""
    ciphertext = chacha20(key, 1, nonce, plaintext)
    return ciphertext + _tag(key, nonce, ciphertext, associated)


def opened(key: bytes, nonce: bytes, sealed: bytes, associated: bytes) -> bytes:
    """What was sealed; ValueError where anything of it is not as it was sealed."""
    ciphertext, tag = sealed[:-TAG_BYTES], sealed[-TAG_BYTES:]
    if not compare_digest(tag, _tag(key, nonce, ciphertext, associated)):
        raise ValueError("it is not what was sealed, or not with this key")
    return chacha20(key, 1, nonce, ciphertext)


def chacha20(key: bytes, counter: int, nonce: bytes, text: bytes) -> bytes:
    """The text under the key stream that begins with block `counter` (section 2.4)."""
    stream = b"".join(
        block(key, counter + number, nonce) for number in range((len(text) + _BLOCK_BYTES - 1) // _BLOCK_BYTES)
    )
    return bytes(a ^ b for a, b in zip(text, stream, strict=False))


def block(key: bytes, counter: int, nonce: bytes) -> bytes:
    """One block of the key stream (section 2.3)."""
    begin = (*_CONSTANTS, *struct.unpack("<8L", key), counter, *struct.unpack("<3L", nonce))
    state = list(begin)
    for _ in range(10):
        for places in _ROUNDS:
            _quarter_round(state, *places)
    return struct.pack("<16L", *((now + before) & 0xFFFFFFFF for now, before in zip(state, begin, strict=True)))


def _quarter_round(state: list[int], a: int, b: int, c: int, d: int) -> None:
    """Section 2.1."""
    for into, added, turned, bits in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
        state[into] = (state[into] + state[added]) & 0xFFFFFFFF
        mixed = state[turned] ^ state[into]
        state[turned] = (mixed << bits | mixed >> 32 - bits) & 0xFFFFFFFF


def poly1305(key: bytes, message: bytes) -> bytes:
    """The tag of a message under a key that is used once (section 2.5)."""
    r = int.from_bytes(key[:16], "little") & _CLAMP
    accumulator = 0
    for start in range(0, len(message), 16):
        part = message[start : start + 16] + b"\x01"
        accumulator = (accumulator + int.from_bytes(part, "little")) * r % _PRIME
    return (accumulator + int.from_bytes(key[16:], "little") & (1 << 128) - 1).to_bytes(TAG_BYTES, "little")


def _tag(key: bytes, nonce: bytes, ciphertext: bytes, associated: bytes) -> bytes:
    lengths = struct.pack("<QQ", len(associated), len(ciphertext))
    return poly1305(block(key, 0, nonce)[:32], _padded(associated) + _padded(ciphertext) + lengths)


def _padded(text: bytes) -> bytes:
    return text + bytes(-len(text) % 16)
