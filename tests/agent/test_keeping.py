"""What `machine keep` reads: private keys, of which no error repeats anything."""

from __future__ import annotations

import json
import traceback
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warren.agent.keeping import parse
from warren.errors import UsageError
from warren.names import InstanceName
from warren.wireguard.keys import PrivateKey, clamp

MARKER = b64encode(clamp(bytes(range(100, 132)))).decode()
GOOD = {"keys": {"vpn": {"key": MARKER, "next": None}}}


def test_keys_are_read() -> None:
    (brought,) = parse(json.dumps(GOOD).encode()).values()
    assert (brought.key, brought.following) == (PrivateKey.parse(MARKER), None)


@pytest.mark.parametrize(
    "tree",
    [
        MARKER,
        [MARKER],
        {"keys": MARKER},
        {"keys": {"../x": {"key": MARKER, "next": None}}},
        {"keys": {"vpn": {"key": MARKER}}},
        {"keys": {"vpn": {"key": MARKER + "x", "next": None}}},
        {"keys": {"vpn": {"key": [MARKER], "next": None}}},
        {"keys": {MARKER: {}}},
    ],
)
def test_what_cannot_be_read_is_not_repeated(tree: object) -> None:
    with pytest.raises(UsageError) as error:
        parse(json.dumps(tree).encode())
    assert MARKER[:8] not in "".join(traceback.format_exception(error.value))


@given(st.data())
def test_whatever_comes_no_part_of_it_is_told(data: st.DataObject) -> None:
    text = json.dumps(GOOD)
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    damaged = text[:start] + data.draw(st.text(max_size=5)) + text[end:]
    try:
        told = repr(parse(damaged.encode()))
        assert set(parse(damaged.encode())) <= {InstanceName(name) for name in json.loads(damaged)["keys"]}
    except UsageError as error:
        told = "".join(traceback.format_exception(error)) + str(error)
    assert not any(MARKER[start : start + 8] in told for start in range(len(MARKER) - 8))
