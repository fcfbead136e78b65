"""An nftables table in nft's own language: what `plan.firewall` writes as JSON, for people to read and paste."""

from __future__ import annotations

import json
from typing import Any

from warren.names import InstanceName
from warren.plan import firewall
from warren.plan.desired import Firewall


def nft_script(instance: InstanceName, table: Firewall) -> str:
    """Input for `nft -f -` that does the same as `firewall.transaction`, one command a line."""
    commands = json.loads(firewall.transaction(instance, table))["nftables"]
    return "".join(f"{_command(command)}\n" for command in commands)


def _command(command: dict[str, Any]) -> str:
    ((verb, each),) = command.items()
    ((kind, fields),) = each.items()
    if kind == "table":
        return f"{verb} table {fields['family']} {fields['name']}"
    table = f"{fields['family']} {fields['table']}"
    if kind == "chain":
        hook = f"type {fields['type']} hook {fields['hook']} priority {fields['prio']}; policy {fields['policy']};"
        return f"{verb} chain {table} {fields['name']} {{ {hook} }}"
    return f"{verb} rule {table} {fields['chain']} {' '.join(map(_expression, fields['expr']))}"


def _value(right: object) -> str:
    if isinstance(right, dict):
        return f"{right['prefix']['addr']}/{right['prefix']['len']}"
    return str(right)


def _expression(expression: dict[str, Any]) -> str:
    ((kind, fields),) = expression.items()
    if kind != "match":
        return str(kind)  # a verdict
    ((left_kind, left),) = fields["left"].items()
    if left_kind == "payload":
        return f"{left['protocol']} {left['field']} {_value(fields['right'])}"
    return f'{left["key"]} "{fields["right"]}"'
