"""The instance's own nftables table: as nft's JSON objects (libnftables-json(5)), and as text that can be compared.

The table accepts what the mesh needs and drops what would cross between the mesh and elsewhere, but for the networks
that the inventory says lie behind this machine. Whoever was invited may speak to one port, and is forwarded nowhere.
All else is left to whoever looks after this machine's firewall.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from ipaddress import IPv6Network
from typing import Any, TypeAlias

from warren.names import InstanceName, InterfaceName
from warren.plan.desired import Firewall

FAMILY = "inet"
TABLE_PREFIX = "warren-"

NftObject: TypeAlias = Mapping[str, Mapping[str, Any]]
"""One member, `table`, `chain`, `rule` …, and its fields."""


def table_name(instance: InstanceName) -> str:
    """The table's name: legal for every instance name, those that begin with a digit too."""
    return f"{TABLE_PREFIX}{instance}"


def transaction(instance: InstanceName, firewall: Firewall | None) -> str:
    """Input for `nft -j -f -` that replaces the table, or removes it (None), in one step, whatever was there before."""
    table: NftObject = {"table": {"family": FAMILY, "name": table_name(instance)}}
    # Added first, since a table that is missing cannot be deleted (nft's `destroy` needs Linux 6.3).
    commands: list[Mapping[str, NftObject]] = [{"add": table}, {"delete": table}]
    if firewall is not None:
        commands += [{"add": each} for each in _objects(instance, firewall)]
    return json.dumps({"nftables": commands})


def expected(instance: InstanceName, firewall: Firewall) -> str:
    """What `canonical` gives for a table that nobody touched."""
    return canonical(_objects(instance, firewall))


def canonical(objects: Iterable[NftObject]) -> str:
    """A line of JSON for each object of a table; equal text means equal tables.

    `objects` is our own list, or the one under "nftables" in what `nft -j list table` prints. Handles and the order of
    chains are the kernel's business and left out; the order of rules within a chain counts.
    """
    lines: list[tuple[str, str, str, str]] = []
    for each in objects:
        for kind, fields in each.items():
            text = json.dumps({kind: {key: value for key, value in fields.items() if key != "handle"}}, sort_keys=True)
            lines.append((kind, fields.get("chain", ""), "" if kind == "rule" else text, text))
    lines.sort(key=lambda line: line[:3])  # stable: rules of one chain stay in their order
    return "\n".join(text for kind, *_, text in lines if kind != "metainfo")


def _objects(instance: InstanceName, firewall: Firewall) -> list[NftObject]:
    table = table_name(instance)
    inside = [_matches("iifname", firewall.interface), _matches("oifname", firewall.interface)]
    invited = firewall.guests
    forward: list[list[object]] = []
    if invited is not None:
        forward += [[_to("saddr", invited.network), _DROP], [_to("daddr", invited.network), _DROP]]
    forward += [[*inside, _ACCEPT]] if firewall.forward else []
    for network in firewall.routes:
        forward += [[inside[0], _to("daddr", network), _ACCEPT], [inside[1], _to("saddr", network), _ACCEPT]]
    forward += [[match, _DROP] for match in inside]  # what comes from elsewhere into the mesh, and out of it
    opened = [] if firewall.listen_port is None else [[_to_port(firewall.listen_port), _ACCEPT]]
    if invited is not None:
        come = [inside[0], _to("saddr", invited.network)]
        to = [_to("daddr", IPv6Network(invited.address)), _to_port(invited.port, "tcp")]
        opened += [[*come, *to, _ACCEPT], [*come, _DROP]]
    return [
        {"table": {"family": FAMILY, "name": table}},
        *_chain(table, "input", opened),
        *_chain(table, "forward", forward),
    ]


def _chain(table: str, hook: str, rules: list[list[object]]) -> list[NftObject]:
    place = {"family": FAMILY, "table": table}
    chain = {**place, "name": hook, "type": "filter", "hook": hook, "prio": 0, "policy": "accept"}
    return [{"chain": chain}, *({"rule": {**place, "chain": hook, "expr": rule}} for rule in rules)]


_ACCEPT = {"accept": None}
_DROP = {"drop": None}


def _to_port(port: int, protocol: str = "udp") -> object:
    return {"match": {"op": "==", "left": {"payload": {"protocol": protocol, "field": "dport"}}, "right": port}}


def _to(field: str, network: IPv6Network) -> object:
    text = str(network.network_address)  # nft prints a single address without its length
    right: object = text if network.prefixlen == 128 else {"prefix": {"addr": text, "len": network.prefixlen}}
    return {"match": {"op": "==", "left": {"payload": {"protocol": "ip6", "field": field}}, "right": right}}


def _matches(key: str, interface: InterfaceName) -> object:
    # By name, so that the table can be loaded before there is such an interface. nft takes a star at the end for
    # "any that begins so", unless a backslash stands before it.
    name = f"{interface[:-1]}\\*" if interface.endswith("*") else interface
    return {"match": {"op": "==", "left": {"meta": {"key": key}}, "right": name}}
