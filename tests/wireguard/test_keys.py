"""Keys: read strictly, shown briefly, secrets never."""

import copy
import pickle
import traceback
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warren.wireguard.keys import PresharedKey, PrivateKey, PublicKey, Secret, clamp

MARKER = bytes(range(32, 64))
MARKER_TEXT = b64encode(MARKER).decode()
raw_keys = st.binary(min_size=32, max_size=32)


@given(raw_keys)
def test_text_reads_back(raw: bytes) -> None:
    assert PublicKey.parse(PublicKey(raw).text) == raw
    assert PrivateKey.parse(PrivateKey(raw).reveal_text()).reveal() == clamp(raw)
    assert PresharedKey.parse(PresharedKey(raw).reveal_text()).reveal() == raw


@given(raw_keys)
def test_private_keys_are_clamped_once_and_for_all(raw: bytes) -> None:
    clamped = clamp(raw)
    assert clamp(clamped) == clamped
    assert clamped[0] % 8 == 0
    assert 64 <= clamped[31] < 128
    assert clamped[1:31] == raw[1:31]


@pytest.mark.parametrize(
    "text",
    ["", "A", "A" * 44, "A" * 42 + "==", "A" * 43, "=" * 44, "é" * 44, MARKER_TEXT[:-2] + "9=", MARKER_TEXT * 2],
)
def test_half_a_key_is_refused_without_being_shown(text: str) -> None:
    for kind in (PublicKey, PrivateKey, PresharedKey):
        with pytest.raises(ValueError, match=r"base64") as error:
            kind.parse(text)
        assert not text or text not in str(error.value)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_other_sizes_are_refused(size: int) -> None:
    for kind in (PublicKey, PrivateKey, PresharedKey):
        with pytest.raises(ValueError, match=f"this one has {size}"):
            kind(bytes(size))


@pytest.mark.parametrize("secret", [PrivateKey(MARKER), PresharedKey(MARKER)])
def test_a_secret_hides_itself(secret: Secret) -> None:
    shown = [repr(secret), str(secret), f"{secret}", f"{secret!r:>60}", repr([secret]), repr({"key": secret})]
    try:
        raise RuntimeError(secret)
    except RuntimeError as error:
        shown += traceback.format_exception(error)
    for text in shown:
        assert "hidden" in text or "Traceback" in text or "File" in text
        assert secret.reveal_text() not in text
        assert repr(secret.reveal())[2:20] not in text
        assert secret.reveal().hex() not in text
    for serialize in (pickle.dumps, copy.copy):
        with pytest.raises(TypeError, match="not pickled"):
            serialize(secret)


def test_public_keys_are_shown_by_their_first_eight_characters() -> None:
    key = PublicKey(MARKER)
    assert str(key) == f"{MARKER_TEXT[:8]}…"
    assert key.text == MARKER_TEXT
    assert MARKER_TEXT not in repr(key)
