"""The formulas, against the vectors of deployments that exist."""

import json
from ipaddress import IPv6Network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warren.names import InstanceName, MachineName
from warren.network import addresses

CASES = json.loads((Path(__file__).parent.parent / "vectors/addresses.json").read_text())


@pytest.mark.parametrize("case", CASES["vectors"], ids=lambda case: "-".join(map(str, list(case.values())[:3])))
def test_formulas_match_deployments_that_exist(case: dict[str, Any]) -> None:
    base = addresses.base_network(InstanceName(case["instance"]))
    subnet = addresses.controller_subnet(base, MachineName(case["controller"]))
    suffix = addresses.peer_suffix(MachineName(case["peer"]))
    assert str(base) == case["base"]
    assert str(subnet) == case["subnet"]
    assert addresses.suffix_text(suffix) == case["suffix"]
    assert str(addresses.peer_address(subnet, suffix)) == case["canonical"]
    assert str(addresses.controller_address(subnet)) == case["controller_address"]
    assert str(addresses.peer_range(subnet, suffix)) == case["peer_range_96"]
    assert addresses.parse_prefix(case["stored_prefix"]) == subnet
    if case["stored_prefix_sound"]:
        assert addresses.prefix_text(subnet) == case["stored_prefix"]


def test_the_vectors_hold_texts_that_lost_groups() -> None:
    unsound = {case["controller"] for case in CASES["vectors"] if not case["stored_prefix_sound"]}
    assert unsound == {"gw26", "server7142"}


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**16 - 1), st.integers(0, 2**64 - 1))
def test_texts_read_back(base: int, number: int, suffix: int) -> None:
    subnet = IPv6Network((0xFD << 120 | base << 88 | number << 72, 56))
    assert addresses.parse_prefix(addresses.prefix_text(subnet)) == subnet
    assert addresses.parse_prefix(str(subnet)) == subnet
    assert addresses.parse_suffix(addresses.suffix_text(suffix)) == suffix
    # What a clan repository does with a prefix: `prefix::1`, and `prefix:suffix`.
    assert str(subnet).split("::")[0].startswith("fd")
    joined = IPv6Network(f"{addresses.prefix_text(subnet)}:{addresses.suffix_text(suffix)}")
    assert joined.network_address == addresses.peer_address(subnet, suffix)


def test_prefixes_written_with_double_colon_are_read() -> None:
    expected = IPv6Network("fd28:387a:3b:f700::/56")
    assert addresses.parse_prefix("fd28:387a:3b:f700::") == expected
    assert addresses.parse_prefix("fd28:387a:3b:f700::/56") == expected


@pytest.mark.parametrize(
    "text",
    ["", "fd28", "fe80:1:2:300", "fd28:387a:3b:f7ff", "fd28:387a:3b:f700:1", "fd28:387a:3b:f700::/64", "fd28::zz",
     "fd28:387a:3b: f700", "fd28:12345:3b:f700", "fd28:+1:3b:f700", "::/56", "fd28:387a:3b:f700::1", "1::2::3"],
)  # fmt: skip
def test_bad_prefixes_are_refused(text: str) -> None:
    if text == "fd28":  # one group, the other three lost: the shortest text that is an address
        assert addresses.parse_prefix(text) == IPv6Network("fd28::/56")
        return
    with pytest.raises(ValueError, match=r".+"):
        addresses.parse_prefix(text)


@pytest.mark.parametrize("text", ["", "1:2:3", "1:2:3:4:5", "1:2:3:10000", "1:2:3:g", "1:2:3:-1", "::1", "1:2: 3:4"])
def test_bad_suffixes_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        addresses.parse_suffix(text)
