"""Public keys from private ones: the vectors of RFC 7748, and `wg pubkey`."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warren.wireguard.keys import PrivateKey, clamp
from warren.wireguard.x25519 import public_key, scalar_multiplication


@pytest.mark.parametrize(
    ("private", "public"),
    [
        (
            "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
            "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a",
        ),
        (
            "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
            "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
        ),
    ],
    ids=["Alice", "Bob"],
)
def test_key_pairs_of_rfc_7748_section_6_1(private: str, public: str) -> None:
    assert public_key(PrivateKey(bytes.fromhex(private))).hex() == public


@pytest.mark.parametrize(
    ("times", "result"),
    [
        (1, "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079"),
        (1000, "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51"),
    ],
)
def test_iterations_of_rfc_7748_section_5_2(times: int, result: str) -> None:
    scalar = point = bytes([9]).ljust(32, b"\0")
    for _ in range(times):
        u = int.from_bytes(point, "little") & (1 << 255) - 1
        scalar, point = scalar_multiplication(clamp(scalar), u), scalar
    assert scalar.hex() == result


@given(st.binary(min_size=32, max_size=32))
@settings(max_examples=30)
def test_wg_says_the_same(raw: bytes) -> None:
    if not shutil.which("wg"):
        pytest.skip("there is no wg on this machine")
    private_key = PrivateKey(raw)
    pubkey = subprocess.run(["wg", "pubkey"], input=private_key.reveal_text(), capture_output=True, text=True)
    assert pubkey.stdout.strip() == public_key(private_key).text
