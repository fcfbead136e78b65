"""Sealed by one known key for another: Hybrid Public Key Encryption (RFC 9180), mode Auth, a message at a time.

The suite is DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20Poly1305. Who opens it knows who sealed it. Names of
functions and labels are the RFC's.
"""

from __future__ import annotations

import hmac
from hashlib import sha256

from warren.wireguard import chacha20_poly1305
from warren.wireguard.chacha20_poly1305 import NONCE_BYTES, TAG_BYTES
from warren.wireguard.keys import KEY_BYTES, PrivateKey, PublicKey
from warren.wireguard.x25519 import public_key, shared_secret

MODE_AUTH = 0x02
_KEM_ID, _KDF_ID, _AEAD_ID = 0x0020, 0x0001, 0x0003
_KEM_SUITE = b"KEM" + _KEM_ID.to_bytes(2, "big")
_HPKE_SUITE = b"HPKE" + b"".join(number.to_bytes(2, "big") for number in (_KEM_ID, _KDF_ID, _AEAD_ID))
_HASH_BYTES = 32

SEALED_MORE_BYTES = KEY_BYTES + TAG_BYTES  # than what is sealed


def seal(
    sender: PrivateKey, recipient: PublicKey, ephemeral: PrivateKey, info: bytes, plaintext: bytes, associated: bytes
) -> bytes:
    """The encapsulated key, and the ciphertext behind it (SealAuth, section 6.1). `ephemeral`: used this once.

    ValueError where the recipient's key is none that anybody can have.
    """
    dh = shared_secret(ephemeral, recipient) + shared_secret(sender, recipient)
    enc = public_key(ephemeral)
    key, nonce = _key_schedule(_extract_and_expand(dh, enc + recipient + public_key(sender)), info)
    return enc + chacha20_poly1305.seal(key, nonce, plaintext, associated)


def opened(recipient: PrivateKey, sender: PublicKey, sealed: bytes, info: bytes, associated: bytes) -> bytes:
    """What `sender` sealed for the recipient (OpenAuth); ValueError where it is not that, in every bit."""
    if len(sealed) < SEALED_MORE_BYTES:
        raise ValueError("it is too short to be sealed")
    enc = PublicKey(sealed[:KEY_BYTES])
    dh = shared_secret(recipient, enc) + shared_secret(recipient, sender)
    key, nonce = _key_schedule(_extract_and_expand(dh, enc + public_key(recipient) + sender), info)
    return chacha20_poly1305.opened(key, nonce, sealed[KEY_BYTES:], associated)


def extract(salt: bytes, input_key: bytes) -> bytes:
    """HKDF-Extract (RFC 5869, section 2.2)."""
    return hmac.digest(salt or bytes(_HASH_BYTES), input_key, sha256)


def expand(pseudorandom_key: bytes, info: bytes, length: int) -> bytes:
    """HKDF-Expand (RFC 5869, section 2.3)."""
    found, part = b"", b""
    while len(found) < length:
        part = hmac.digest(pseudorandom_key, part + info + bytes([len(found) // _HASH_BYTES + 1]), sha256)
        found += part
    return found[:length]


def _extract_and_expand(dh: bytes, kem_context: bytes) -> bytes:
    """Section 4.1."""
    eae_prk = _labeled_extract(_KEM_SUITE, b"", b"eae_prk", dh)
    return _labeled_expand(_KEM_SUITE, eae_prk, b"shared_secret", kem_context, _HASH_BYTES)


def _key_schedule(shared: bytes, info: bytes) -> tuple[bytes, bytes]:
    """Key and first nonce (section 5.1), without a preshared key of HPKE's own."""
    psk_id_hash = _labeled_extract(_HPKE_SUITE, b"", b"psk_id_hash", b"")
    info_hash = _labeled_extract(_HPKE_SUITE, b"", b"info_hash", info)
    context = bytes([MODE_AUTH]) + psk_id_hash + info_hash
    secret = _labeled_extract(_HPKE_SUITE, shared, b"secret", b"")
    key = _labeled_expand(_HPKE_SUITE, secret, b"key", context, chacha20_poly1305.KEY_BYTES)
    return key, _labeled_expand(_HPKE_SUITE, secret, b"base_nonce", context, NONCE_BYTES)


def _labeled_extract(suite: bytes, salt: bytes, label: bytes, input_key: bytes) -> bytes:
    return extract(salt, b"HPKE-v1" + suite + label + input_key)


def _labeled_expand(suite: bytes, key: bytes, label: bytes, info: bytes, length: int) -> bytes:
    return expand(key, length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info, length)
