"""Preshared keys: named without being told, sealed for one end."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

import pytest

from warren.wireguard.keys import PresharedKey, PrivateKey, PublicKey
from warren.wireguard.preshared import (
    FINGERPRINT_CHARACTERS,
    NO_PRESHARED_KEY,
    SEALED_BYTES,
    Label,
    fingerprint,
    parse_fingerprint,
)
from warren.wireguard.x25519 import public_key

MAKER, OTHER, EPHEMERAL = (PrivateKey(bytes([number] * 32)) for number in (1, 2, 3))
LABEL = Label("vpn", "laptop1", public_key(MAKER), "server1", public_key(OTHER), 7)
KEY = PresharedKey(bytes(range(32)))


def test_a_fingerprint_names_a_key_and_no_key_has_none() -> None:
    name = fingerprint(KEY.reveal())
    assert len(name) == FINGERPRINT_CHARACTERS
    assert parse_fingerprint(name) == name
    assert fingerprint(bytes(32)) == NO_PRESHARED_KEY
    assert name not in sha256(KEY.reveal()).hexdigest()  # of a domain of its own
    for text in ("", name[:-1], name.upper(), f"{name}0", "g" * FINGERPRINT_CHARACTERS):
        with pytest.raises(ValueError, match="is no fingerprint"):
            parse_fingerprint(text)


def test_it_opens_with_its_label_and_no_other() -> None:
    sealed = LABEL.sealed(KEY, MAKER, EPHEMERAL)
    assert len(sealed) == SEALED_BYTES
    assert LABEL.opened(sealed, OTHER) == KEY
    stranger = PublicKey(public_key(EPHEMERAL))
    for label in (
        replace(LABEL, instance="vpn2"),
        replace(LABEL, maker="laptop2"),
        replace(LABEL, maker_key=stranger),
        replace(LABEL, other="server2"),
        replace(LABEL, other_key=stranger),
        replace(LABEL, number=8),
    ):
        with pytest.raises(ValueError, match="not what was sealed"):
            label.opened(sealed, OTHER)
    with pytest.raises(ValueError, match="not what was sealed"):
        LABEL.opened(sealed, EPHEMERAL)


def test_what_was_sealed_must_be_a_key() -> None:
    with pytest.raises(ValueError, match="it is no key"):
        LABEL.opened(LABEL.sealed(PresharedKey(bytes(32)), MAKER, EPHEMERAL), OTHER)
