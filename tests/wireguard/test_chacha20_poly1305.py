"""The vectors of RFC 8439, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warren.wireguard.chacha20_poly1305 import TAG_BYTES, block, chacha20, opened, poly1305, seal

SUNSCREEN = (
    b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, "
    b"sunscreen would be it."
)
KEY = bytes(range(0x80, 0xA0))
NONCE = bytes.fromhex("070000004041424344454647")
ASSOCIATED = bytes.fromhex("50515253c0c1c2c3c4c5c6c7")
SEALED = bytes.fromhex(
    "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d6"
    "3dbea45e8ca9671282fafb69da92728b1a71de0a9e060b2905d6a5b67ecd3b36"
    "92ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc"
    "3ff4def08e4b7a9de576d26586cec64b6116"
    "1ae10b594f09e26a7e902ecbd0600691"
)


def test_a_block_of_section_2_3_2() -> None:
    assert block(bytes(range(32)), 1, bytes.fromhex("000000090000004a00000000")).hex() == (
        "10f1e7e4d13b5915500fdd1fa32071c4c7d1f4c733c068030422aa9ac3d46c4e"
        "d2826446079faa0914c2d705d98b02a2b5129cd1de164eb9cbd083e8a2503c4e"
    )


def test_a_text_of_section_2_4_2() -> None:
    found = chacha20(bytes(range(32)), 1, bytes.fromhex("000000000000004a00000000"), SUNSCREEN)
    assert found.hex().startswith("6e2e359a2568f98041ba0728dd0d6981e97e7aec1d4360c20a27afccfd9fae0b")
    assert found.hex().endswith("5af90bbf74a35be6b40b8eedf2785e42874d")


def test_a_tag_of_section_2_5_2() -> None:
    key = bytes.fromhex("85d6be7857556d337f4452fe42d506a80103808afb0db2fd4abff6af4149f51b")
    assert poly1305(key, b"Cryptographic Forum Research Group").hex() == "a8061dc1305136c6c22b8baf0c0127a9"


@pytest.mark.parametrize(
    ("key", "message", "tag"),
    [
        ("02".ljust(64, "0"), "ff" * 16, "03".ljust(32, "0")),  # 7: the accumulator is over the prime
        ("02".ljust(32, "0") + "ff" * 16, "02".ljust(32, "0"), "03".ljust(32, "0")),  # 8: the sum is over 2^128
        ("01".ljust(64, "0"), "ff" * 16 + "f0" + "ff" * 15 + "11".ljust(32, "0"), "05".ljust(32, "0")),  # 9
    ],
)
def test_tags_of_appendix_a_3_at_the_edges(key: str, message: str, tag: str) -> None:
    assert poly1305(bytes.fromhex(key), bytes.fromhex(message)).hex() == tag


def test_a_sealed_text_of_section_2_8_2() -> None:
    assert seal(KEY, NONCE, SUNSCREEN, ASSOCIATED) == SEALED
    assert opened(KEY, NONCE, SEALED, ASSOCIATED) == SUNSCREEN


@given(st.integers(0, 8 * len(SEALED) - 1))
@settings(max_examples=40)
def test_no_bit_can_be_another(bit: int) -> None:
    changed = bytearray(SEALED)
    changed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(ValueError, match="not what was sealed"):
        opened(KEY, NONCE, bytes(changed), ASSOCIATED)


@pytest.mark.parametrize("sealed", [b"", SEALED[:TAG_BYTES], SEALED[:-1], SEALED + b"\0"])
def test_what_is_cut_or_longer_is_refused(sealed: bytes) -> None:
    with pytest.raises(ValueError, match="not what was sealed"):
        opened(KEY, NONCE, sealed, ASSOCIATED)


def test_another_context_is_refused() -> None:
    with pytest.raises(ValueError, match="not what was sealed"):
        opened(KEY, NONCE, SEALED, ASSOCIATED + b"\0")
