"""The machine's other firewalls, as the kernel and their files have them now, and what is asked of them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from warren.errors import KernelError
from warren.host import files, nftables
from warren.plan.firewall import TABLE_PREFIX
from warren.plan.other_firewalls import DroppingChain, Firewalld, OtherFirewalls, Ufw, UfwRule, Zone
from warren.plan.steps import AskFirewall

UFW = Path("/etc/ufw")
UFW_DEFAULTS = Path("/etc/default/ufw")
TIMEOUT_S = 60.0  # firewall-cmd is a Python program that waits for another one

_FIREWALLD = "firewalld"  # its table, of family inet
_UFW_CHAINS = ("ufw-user-input", "ufw6-user-input")
_HOOKS = ("input", "forward")
_PARTS = ("_pre", "_log", "_deny", "_allow", "_post")  # of a zone's chain
_IN, _FORWARD = "filter_IN_", "filter_FWD_"


def observe() -> OtherFirewalls:
    """Those that are at work. Two short looks at the machine; more only where there are some."""
    chains = [each["chain"] for each in nftables.objects("list", "chains") if "chain" in each]
    tables = {(each["family"], each["table"]) for each in chains}
    ufws = {(each["family"], each["table"]) for each in chains if each["name"] in _UFW_CHAINS}
    dropping = [
        each
        for each in chains
        if each.get("policy") == "drop"
        and each.get("hook") in _HOOKS
        and (each["family"], each["hook"]) != ("ip", "forward")  # the mesh is IPv6
        and (each["family"], each["table"]) not in ufws
        and each["table"] != _FIREWALLD
        and not each["table"].startswith(TABLE_PREFIX)
    ]
    return OtherFirewalls(
        ufw=_ufw() if ufws else None,
        firewalld=_firewalld() if ("inet", _FIREWALLD) in tables else None,
        chains=tuple(map(_dropping, dropping)),
    )


def perform(ask: AskFirewall) -> None:
    """Ask, unless the question says that there is no need; KernelError has the firewall's own words."""
    if ask.unless and _run(ask.unless).returncode == 0:
        return
    done = _run(ask.words)
    if done.returncode:
        words = (done.stderr.strip() or done.stdout.strip()) or f"exit code {done.returncode}"
        raise KernelError(words, command=" ".join(ask.words), mend="see what that firewall says of itself")


def _run(words: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    environment = nftables.program_environment()
    try:
        return subprocess.run(
            words, stdin=subprocess.DEVNULL, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S,
            check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise KernelError(f"cannot be run: {error}", command=" ".join(words)) from None


def _ufw() -> Ufw:
    rules = [rule for name in ("user.rules", "user6.rules") for rule in _ufw_rules(UFW / name)]
    defaults = (files.read(UFW_DEFAULTS) or b"").decode(errors="replace").lower()
    return Ufw(tuple(rules), ipv6="\nipv6=no" not in f"\n{defaults}")


def _ufw_rules(path: Path) -> Iterator[UfwRule]:
    for line in (files.read(path) or b"").decode(errors="replace").splitlines():
        match line.removeprefix("### tuple ### ").split() if line.startswith("### tuple ### ") else ():
            case [action, protocol, port, destination, _, source, *_, direction, comment] if comment.startswith(
                "comment="
            ):
                text = bytes.fromhex(comment.removeprefix("comment=")).decode(errors="replace")
                yield UfwRule(action, protocol, port, destination, source, direction, text)
            case [action, protocol, port, destination, _, source, *_, direction]:
                yield UfwRule(action, protocol, port, destination, source, direction)


def _firewalld() -> Firewalld:
    rules: dict[str, list[list[dict[str, Any]]]] = {}
    for each in nftables.objects("list", "table", "inet", _FIREWALLD):
        if "chain" in each:
            rules.setdefault(each["chain"]["name"], [])
        if "rule" in each:
            rules.setdefault(each["rule"]["chain"], []).append(each["rule"]["expr"])
    names = [
        chain.removeprefix(_IN)
        for chain in rules
        if chain.startswith(_IN) and not chain.startswith(f"{_IN}policy_") and not chain.endswith(_PARTS)
    ]
    led = list(_led(rules.get("filter_INPUT_ZONES", ())))
    return Firewalld(
        zones=tuple(
            _zone(name, rules, frozenset(interface for interface, zone in led if zone == name)) for name in names
        ),
        default=next((zone for interface, zone in led if not interface), ""),
    )


def _led(rules: Iterable[list[dict[str, Any]]]) -> Iterator[tuple[str, str]]:
    """Interface ("": any) and the zone that its packets are led to."""
    for rule in rules:
        target = next((each[verb]["target"] for each in rule for verb in ("goto", "jump") if verb in each), "")
        matches = [each["match"] for each in rule if "match" in each]
        interfaces = [match["right"] for match in matches if match["left"] == {"meta": {"key": "iifname"}}]
        if target.startswith(_IN) and len(matches) == len(interfaces):
            yield (str(interfaces[0]) if interfaces else "", target.removeprefix(_IN))


def _zone(name: str, rules: Mapping[str, list[list[dict[str, Any]]]], interfaces: frozenset[str]) -> Zone:
    return Zone(
        name,
        frozenset(_accepted_ports(rules.get(f"{_IN}{name}_allow", ()), "udp")),
        interfaces,
        frozenset(_accepted_interfaces(rules.get(f"{_FORWARD}{name}_allow", ()), "oifname")),
        accepts_all=[{"accept": None}] in rules[f"{_IN}{name}"],
        tcp_ports=frozenset(_accepted_ports(rules.get(f"{_IN}{name}_allow", ()), "tcp")),
    )


def _dropping(chain: Mapping[str, Any]) -> DroppingChain:
    family, table = chain["family"], chain["table"]
    rules = [each["rule"]["expr"] for each in nftables.objects("list", "table", family, table) if "rule" in each]
    return DroppingChain(
        family,
        table,
        chain["name"],
        chain["hook"],
        frozenset(_accepted_ports(rules, "udp")),
        frozenset(_accepted_interfaces(rules, "iifname")),
        frozenset(_accepted_ports(rules, "tcp")),
    )


def _accepted_ports(rules: Iterable[list[dict[str, Any]]], protocol: str) -> Iterator[int]:
    for rule in rules:
        for each in rule if {"accept": None} in rule else ():
            match each:
                case {
                    "match": {"op": "==", "left": {"payload": {"protocol": found, "field": "dport"}}, "right": right}
                } if found == protocol:
                    yield from _numbers(right)


def _numbers(right: object) -> Iterator[int]:
    match right:
        case int():
            yield right
        case {"range": [int() as first, int() as last]}:
            yield from range(first, last + 1)
        case {"set": list() as members}:
            for member in members:
                yield from _numbers(member)


def _accepted_interfaces(rules: Iterable[list[dict[str, Any]]], key: str) -> Iterator[str]:
    for rule in rules:
        for each in rule if {"accept": None} in rule else ():
            match each:
                case {"match": {"op": "==", "left": {"meta": {"key": found}}, "right": str() as name}} if found == key:
                    yield name
