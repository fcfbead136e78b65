"""The vectors of RFC 9180 and RFC 5869, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warren.wireguard.hpke import expand, extract, opened, seal
from warren.wireguard.keys import PrivateKey, PublicKey
from warren.wireguard.x25519 import public_key, shared_secret

# RFC 9180, appendix A.2.3: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20Poly1305, Auth; sequence number 0
INFO = b"Ode on a Grecian Urn"
TEXT, ASSOCIATED = b"Beauty is truth, truth beauty", b"Count-0"
EPHEMERAL = PrivateKey(bytes.fromhex("c94619e1af28971c8fa7957192b7e62a71ca2dcdde0a7cc4a8a9e741d600ab13"))
SENDER = PrivateKey(bytes.fromhex("2def0cb58ffcf83d1062dd085c8aceca7f4c0c3fd05912d847b61f3e54121f05"))
RECIPIENT = PrivateKey(bytes.fromhex("3ca22a6d1cda1bb9480949ec5329d3bf0b080ca4c45879c95eddb55c70b80b82"))
SEALED = bytes.fromhex(
    "f7674cc8cd7baa5872d1f33dbaffe3314239f6197ddf5ded1746760bfc847e0e"
    "ab1a13c9d4f01a87ec3440dbd756e2677bd2ecf9df0ce7ed73869b98e00c09be111cb9fdf077347aeb88e61bdf"
)

LOW_ORDER = (  # points of Curve25519 that make zero of every private key
    bytes(32),
    bytes([1]).ljust(32, b"\0"),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    bytes.fromhex("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"),
)


def test_the_vector_of_appendix_a_2_3() -> None:
    assert public_key(RECIPIENT).hex() == "1a478716d63cb2e16786ee93004486dc151e988b34b475043d3e0175bdb01c44"
    assert public_key(SENDER).hex() == "f0f4f9e96c54aeed3f323de8534fffd7e0577e4ce269896716bcb95643c8712b"
    assert seal(SENDER, public_key(RECIPIENT), EPHEMERAL, INFO, TEXT, ASSOCIATED) == SEALED
    assert opened(RECIPIENT, public_key(SENDER), SEALED, INFO, ASSOCIATED) == TEXT


def test_hkdf_as_in_rfc_5869_appendix_a_1() -> None:
    key = extract(bytes(range(13)), bytes([0x0B] * 22))
    assert key.hex() == "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5"
    assert expand(key, bytes(range(0xF0, 0xFA)), 42).hex() == (
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    )


def test_the_secret_of_rfc_7748_section_6_1() -> None:
    alice = PrivateKey(bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"))
    bob = PublicKey(bytes.fromhex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"))
    assert shared_secret(alice, bob).hex() == "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"


@pytest.mark.parametrize("point", LOW_ORDER)
def test_a_public_key_that_is_nobodys_is_refused(point: bytes) -> None:
    with pytest.raises(ValueError, match="shares a secret with everybody"):
        seal(SENDER, PublicKey(point), EPHEMERAL, INFO, TEXT, ASSOCIATED)
    with pytest.raises(ValueError, match="shares a secret with everybody"):
        opened(RECIPIENT, public_key(SENDER), point + SEALED[32:], INFO, ASSOCIATED)
    with pytest.raises(ValueError, match="shares a secret with everybody"):
        opened(RECIPIENT, PublicKey(point), SEALED, INFO, ASSOCIATED)


@given(st.integers(0, 8 * len(SEALED) - 1))
@settings(max_examples=30)
def test_no_bit_can_be_another(bit: int) -> None:
    changed = bytearray(SEALED)
    changed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(ValueError, match=r"not what was sealed|shares a secret"):
        opened(RECIPIENT, public_key(SENDER), bytes(changed), INFO, ASSOCIATED)


def test_who_sealed_it_and_for_whom_and_what_for_is_part_of_it() -> None:
    other = PrivateKey(bytes([7] * 32))
    for recipient, sender, info, associated in (
        (other, SENDER, INFO, ASSOCIATED),
        (RECIPIENT, other, INFO, ASSOCIATED),
        (RECIPIENT, SENDER, INFO + b"s", ASSOCIATED),
        (RECIPIENT, SENDER, INFO, b"Count-1"),
    ):
        with pytest.raises(ValueError, match="not what was sealed"):
            opened(recipient, public_key(sender), SEALED, info, associated)
    for sealed in (b"", SEALED[:47]):
        with pytest.raises(ValueError, match="too short"):
            opened(RECIPIENT, public_key(SENDER), sealed, INFO, ASSOCIATED)
