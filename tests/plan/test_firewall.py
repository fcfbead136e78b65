"""The nftables table as values; tests/host/test_nftables.py asks the kernel whether it agrees."""

import json
from itertools import product
from typing import Any

import pytest

from warren.names import InstanceName, InterfaceName
from warren.plan.desired import Firewall
from warren.plan.firewall import canonical, expected, table_name, transaction

VPN = InstanceName("vpn")
CONTROLLER = Firewall(InterfaceName("vpn"), 51820, True)
PEER = Firewall(InterfaceName("vpn"), None, False)


def commands(firewall: Firewall | None) -> list[dict[str, Any]]:
    tree = json.loads(transaction(VPN, firewall))
    assert isinstance(tree["nftables"], list)
    return tree["nftables"]


def added(firewall: Firewall) -> list[dict[str, Any]]:
    return [command["add"] for command in commands(firewall)[2:]]


def rules(firewall: Firewall, chain: str) -> list[str]:
    """Each rule in few words: what it matches, and its verdict."""
    words = {"iifname": "in", "oifname": "out", "dport": "udp"}
    texts = []
    for each in added(firewall):
        if each.get("rule", {}).get("chain") == chain:
            *matches, verdict = each["rule"]["expr"]
            parts = []
            for match in (part["match"] for part in matches):
                ((_, left),) = match["left"].items()
                parts.append(f"{words[left.get('key') or left['field']]} {match['right']}")
            texts.append(" ".join([*parts, *verdict]))
    return texts


def test_the_table_of_a_controller() -> None:
    assert rules(CONTROLLER, "input") == ["udp 51820 accept"]
    assert rules(CONTROLLER, "forward") == ["in vpn out vpn accept", "in vpn drop", "out vpn drop"]


def test_the_table_of_a_peer_lets_nothing_through() -> None:
    assert rules(PEER, "input") == []
    assert rules(PEER, "forward") == ["in vpn drop", "out vpn drop"]


def test_no_chain_of_ours_decides_about_others_packets() -> None:
    policies = [each["chain"]["policy"] for each in added(CONTROLLER) if "chain" in each]
    assert policies == ["accept", "accept"]


def test_a_table_is_replaced_whatever_was_there() -> None:
    table = {"table": {"family": "inet", "name": "warren-vpn"}}
    assert commands(CONTROLLER)[:3] == [{"add": table}, {"delete": table}, {"add": table}]
    assert commands(None) == [{"add": table}, {"delete": table}]


def test_tables_that_differ_have_text_that_differs() -> None:
    instances = [InstanceName(each) for each in ("vpn", "vpn2")]
    firewalls = [
        Firewall(InterfaceName(interface), port, forward)
        for interface, port, forward in product(("vpn", "wg0"), (None, 1, 65535), (True, False))
    ]
    texts = {expected(instance, firewall) for instance, firewall in product(instances, firewalls)}
    assert len(texts) == len(instances) * len(firewalls)


def test_handles_metainfo_and_the_order_of_chains_do_not_matter() -> None:
    listed: list[dict[str, Any]] = [{kind: dict(fields) for kind, fields in each.items()} for each in added(CONTROLLER)]
    for handle, each in enumerate(listed):
        next(iter(each.values()))["handle"] = handle
    rules_of = {name: [e for e in listed if e.get("rule", {}).get("chain") == name] for name in ("input", "forward")}
    others = [each for each in listed if "rule" not in each]
    shuffled = [{"metainfo": {"version": "9"}}, *rules_of["forward"], *reversed(others), *rules_of["input"]]
    assert canonical(shuffled) == expected(VPN, CONTROLLER)


def test_the_order_of_rules_matters() -> None:
    listed = added(CONTROLLER)
    swapped = [*listed[:-3], listed[-1], listed[-2], listed[-3]]
    assert canonical(swapped) != expected(VPN, CONTROLLER)


@pytest.mark.parametrize(("name", "written"), [("vpn", "vpn"), ("a*", "a\\*"), ("a*b", "a*b"), ("vpn.5", "vpn.5")])
def test_a_star_at_the_end_of_a_name_is_no_wildcard(name: str, written: str) -> None:
    assert rules(Firewall(InterfaceName(name), None, False), "forward")[0] == f"in {written} drop"


def test_every_instance_name_gives_a_table_name_that_begins_with_a_letter() -> None:
    assert [table_name(InstanceName(each)) for each in ("vpn", "9", "_a-b")] == [
        "warren-vpn",
        "warren-9",
        "warren-_a-b",
    ]
