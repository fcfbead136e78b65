"""Encode and decode; and a reason for everything that a machine must not follow."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshes import inventory, mesh
from strategies import documents
from warren.errors import DocumentRefused
from warren.names import InstanceName
from warren.network.document import Document, decode, encode
from warren.network.resolve import resolve


def example() -> dict[str, Any]:
    document = resolve(inventory(mesh("server1 server2", "laptop1")), {})[InstanceName("vpn")]
    tree = json.loads(encode(document))
    assert isinstance(tree, dict)
    return tree


@given(documents(keys=False))
def test_decode_reads_what_encode_wrote(document: Document) -> None:
    data = encode(document)
    assert decode(data) == document
    assert encode(decode(data)) == data  # canonical
    assert b"private" not in data


@given(documents(), st.data())
def test_no_bytes_but_a_document_are_followed(document: Document, data: st.DataObject) -> None:
    """Whatever comes, the answer is a document that holds together, or DocumentRefused."""
    good = encode(document)
    cut = data.draw(st.integers(0, len(good)))
    bad = good[:cut] + data.draw(st.binary(max_size=8)) + good[cut + data.draw(st.integers(0, 8)) :]
    try:
        decoded = decode(bad)
    except DocumentRefused:
        return
    assert decode(encode(decoded)) == decoded


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        (["version"], 2, "version 2, this Warren reads version 1"),
        (["version"], True, "'version' must be a whole number, this is true"),
        (["serial"], -1, "'serial': -1 is negative"),
        (["colour"], "red", "'colour' is not known here"),
        (["base"], "fd00::/48", "is not a /40"),
        (["base"], "2001:db8::/40", "is not a /40 in fd00::/8"),
        (["domain"], "a b", "not a domain"),
        (["machines"], [], "'machines' must be an object, this is []"),
        (["machines", "server1", "role"], "relay", "role 'relay' is not known here"),
        (["machines", "server1", "port"], 0, "'port': 0 is outside 1–65535"),
        (["machines", "server1", "mtu"], 1279, "'mtu': 1279 is outside 1280–65535"),
        (["machines", "server1", "subnet"], "fd00:1::/56", "is outside"),
        (["machines", "server1", "endpoint"], "", "'endpoint': '' is neither"),
        (["machines", "server1", "colour"], 1, "machine 'server1': 'colour' is not known here"),
        (["machines", "server1", "interface"], "a/b", "no interface name"),
        (["instance"], "all", "the instance's name 'all' is no interface name: reserved by Linux"),
        (["instance"], "a" * 16, "16 bytes long, Linux allows 15"),
        (["machines", "server1", "public_key"], "AAAA", "not the base64 of 32 bytes"),
        (["machines", "laptop1", "controller"], "server3", "controller 'server3' is not in the document"),
        (["machines", "laptop1", "suffix"], "0:0:0:1", "would cover the controllers' own ::1"),
        (["machines", "la ptop"], {"role": "peer"}, "machine 'la ptop': not a host name"),
        (["machines", "laptop2"], "peer", "an object is needed"),
        (["preshared_command"], "/bin/sh -c", "'/bin/sh -c' is not a host name"),
        (["preshared"], {"laptop1": 5}, "'preshared': 5 is no object"),
        (["preshared"], {"laptop1": {"server1": "0123456789abcdef"}}, "is not one fingerprint or two"),
        (["preshared"], {"laptop1": {"server1": []}}, "is not one fingerprint or two"),
        (["preshared"], {"laptop1": {"server1": [5]}}, "is not one fingerprint or two"),
        (["preshared"], {"laptop1": {"server1": [""]}}, "says nothing"),
        (["preshared"], {"laptop1": {"server1": ["0123456789abcdef"] * 2}}, "says nothing"),
        (["preshared"], {"laptop1": {"server1": ["0123"]}}, "'0123' is no fingerprint"),
        (
            ["preshared"],
            {"laptop1": {"server9": ["0123456789abcdef"]}},
            "'laptop1' makes no preshared key for 'server9'",
        ),
        (
            ["preshared"],
            {"server1": {"laptop1": ["0123456789abcdef"]}},
            "'server1' makes no preshared key for 'laptop1'",
        ),
        (
            ["preshared"],
            {"server2": {"server1": ["0123456789abcdef"]}},
            "'server2' makes no preshared key for 'server1'",
        ),
        (
            ["preshared"],
            {"laptop1": {"laptop1": ["0123456789abcdef"]}},
            "'laptop1' makes no preshared key for 'laptop1'",
        ),
    ],
)
def test_what_cannot_be_followed_is_refused(path: list[str], value: object, reason: str) -> None:
    tree = example()
    place = tree
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(DocumentRefused, match=r".*") as refusal:
        decode(json.dumps(tree).encode())
    assert reason in refusal.value.what


def test_what_overlaps_is_refused() -> None:
    changes: dict[str, Callable[[dict[str, Any]], object]] = {
        "subnet": lambda machines: machines["server2"].update(subnet=machines["server1"]["subnet"]),
        "/96": lambda machines: machines.update(copy=machines["laptop1"]),
        "name but for case": lambda machines: machines.update(Laptop1={**machines["laptop1"], "suffix": "1:1:1:1"}),
        "public key": lambda machines: [machines[m].update(public_key="A" * 43 + "=") for m in ("server1", "laptop1")],
    }
    for what, change in changes.items():
        tree = example()
        change(tree["machines"])
        with pytest.raises(DocumentRefused) as refusal:
            decode(json.dumps(tree).encode())
        assert f"have one {what}" in refusal.value.what


@pytest.mark.parametrize("missing", ["version", "instance", "serial", "base", "domain", "machines"])
def test_nothing_may_be_missing(missing: str) -> None:
    tree = example()
    del tree[missing]
    with pytest.raises(DocumentRefused) as refusal:
        decode(json.dumps(tree).encode())
    assert f"{missing!r} is missing" in refusal.value.what


@pytest.mark.parametrize("data", [b"", b"null", b"[]", b"\xff", b'{"version":NaN}', b'{"a":1,"a":2}', b"[" * 100_000])
def test_what_is_no_document_is_refused(data: bytes) -> None:
    with pytest.raises(DocumentRefused):
        decode(data)


def test_both_roles_of_the_inventory_are_in() -> None:
    tree = example()
    assert {name: machine["role"] for name, machine in tree["machines"].items()} == {
        "server1": "controller", "server2": "controller", "laptop1": "peer",
    }  # fmt: skip
