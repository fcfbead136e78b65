"""The machine's other firewalls: what they would still drop of a controller's mesh, and what to ask of them.

An `accept` in our own table ends that table's say alone: the packet goes on to every other base chain of its hook, and
one that drops it decides. firewalld and ufw are asked in their own commands; they alone know how to keep what they were
asked for. Of a chain of nobody's that drops by default, the operator is told what to add to it.

A peer is left alone: answers come in as what its firewall knows to be asked for, and what else may come in by the mesh
is for its owner to say. On a controller, what agents say to each other and ask of it is let in by the mesh, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from warren.names import InstanceName, InterfaceName
from warren.plan import asking, signals

_ANY = ("0.0.0.0/0", "::/0")
_WITHIN = re.compile(r"in_(.+)!out_(.+)")


@dataclass(frozen=True, slots=True)
class UfwRule:
    """One of the rules that its user gave it, as it keeps them: the fields behind `### tuple ###`."""

    action: str  # "allow", "route:allow", …
    protocol: str
    port: str  # "any", or numbers and ranges with commas
    destination: str
    source: str
    direction: str  # "in", "out", "in_eth0", "in_vpn!out_vpn", …
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Ufw:
    """ufw where it is enabled. Without `ipv6` it drops whatever is IPv6."""

    rules: tuple[UfwRule, ...]
    ipv6: bool


@dataclass(frozen=True, slots=True)
class Zone:
    """A zone of firewalld that packets come to now. `within`: the interfaces that it lets others of it forward to."""

    name: str
    udp_ports: frozenset[int]
    interfaces: frozenset[str]
    within: frozenset[str]
    accepts_all: bool = False
    tcp_ports: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Firewalld:
    """firewalld while it runs. `default`: the zone of what was given to none."""

    zones: tuple[Zone, ...]
    default: str


@dataclass(frozen=True, slots=True)
class DroppingChain:
    """A base chain that drops by default and is nobody's that can be asked; what its table has rules to accept."""

    family: str
    table: str
    name: str
    hook: str  # "input" or "forward"
    udp_ports: frozenset[int]
    within: frozenset[str]  # interfaces that it lets be forwarded from
    tcp_ports: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class OtherFirewalls:
    """All of them; the default is a machine without any."""

    ufw: Ufw | None = None
    firewalld: Firewalld | None = None
    chains: tuple[DroppingChain, ...] = ()


NO_OTHERS = OtherFirewalls()


@dataclass(frozen=True, slots=True)
class AskFirewall:
    """Have another firewall of the machine do something, by its own command; not if `unless` ends well."""

    words: tuple[str, ...]
    unless: tuple[str, ...] = ()


Asks: TypeAlias = Iterator[AskFirewall]


def asks(instance: InstanceName, interface: InterfaceName, port: int | None, others: OtherFirewalls) -> Asks:
    """What to ask of them so that a controller is reached and forwards; `port` None: a peer, which needs nothing."""
    if others.ufw is not None:
        yield from _of_ufw(instance, interface, port, others.ufw)
    if others.firewalld is not None and port is not None:
        yield from _of_firewalld(interface, port, others.firewalld)


def takes_back(instance: InstanceName, interface: InterfaceName, port: int | None, others: OtherFirewalls) -> Asks:
    """What to ask of them when the instance goes. `port`: where it listened, as far as the kernel still says so."""
    if others.ufw is not None:
        yield from _stale(others.ufw, instance, ())
    for zone in others.firewalld.zones if others.firewalld is not None else ():
        in_zone = f"--zone={zone.name}"
        # What is in its permanent configuration is its user's, and would come back anyway.
        has_mesh = interface in zone.interfaces
        for each in sorted(zone.udp_ports & {port, signals.PORT if has_mesh else port}):
            yield _firewalld(in_zone, f"--remove-port={each}/udp", unless=f"--query-port={each}/udp")
        if has_mesh and asking.PORT in zone.tcp_ports:
            what = f"-port={asking.PORT}/tcp"
            yield _firewalld(in_zone, f"--remove{what}", unless=f"--query{what}")
        if has_mesh:
            yield _firewalld(in_zone, f"--remove-interface={interface}", unless=f"--query-interface={interface}")


def notes(interface: InterfaceName, port: int | None, others: OtherFirewalls) -> tuple[str, ...]:
    """What the operator has to do by hand: one line each, the command at its end."""
    return tuple(_notes(interface, port, others)) if port is not None else ()


def _notes(interface: InterfaceName, port: int, others: OtherFirewalls) -> Iterator[str]:
    if others.ufw is not None and not others.ufw.ipv6:
        yield "ufw drops all IPv6, the mesh's too: set IPV6=yes in /etc/default/ufw, then: ufw reload"
    for zone in others.firewalld.zones if others.firewalld is not None else ():
        if interface in zone.interfaces - zone.within and not zone.accepts_all:
            what = f"firewalld's zone {zone.name} does not forward within itself, so peers do not reach each other"
            yield f"{what}: firewall-cmd --zone={zone.name} --add-forward"
    for chain in others.chains:
        where = f"chain {chain.name} of table {chain.family} {chain.table} drops by default"
        if chain.hook == "input" and port not in chain.udp_ports:
            yield f"{where}, and lets UDP port {port} in nowhere: {_insert_port(chain, port)}"
        if chain.hook == "input" and chain.family != "ip" and signals.PORT not in chain.udp_ports:
            yield f"{where}, and lets agents' words in nowhere: {_insert_port(chain, signals.PORT, interface)}"
        if chain.hook == "input" and chain.family != "ip" and asking.PORT not in chain.tcp_ports:
            what = "lets nobody fetch a document or join"
            yield f"{where}, and {what}: {_insert_port(chain, asking.PORT, interface, 'tcp')}"
        if chain.hook == "forward" and interface not in chain.within:
            yield f"{where}, and forwards nothing within {interface}: {_insert_within(chain, interface)}"


def _of_ufw(instance: InstanceName, interface: InterfaceName, port: int | None, ufw: Ufw) -> Asks:
    comment = ("comment", _comment(instance))
    wanted: list[tuple[str, ...]] = []
    if port is not None:
        wanted.append(("allow", f"{port}/udp"))
        families = _ANY if ufw.ipv6 else _ANY[:1]
        if not all(any(_lets_in(rule, port, family) for rule in ufw.rules) for family in families):
            yield AskFirewall(("ufw", *wanted[-1], *comment))
        if ufw.ipv6:
            # Of either protocol: it is for datagrams, and for connections.
            wanted.append(("allow", "in", "on", interface, "to", "any", "port", str(signals.PORT)))
            if not all(_is_let_in(ufw, signals.PORT, f"in_{interface}", protocol) for protocol in ("udp", "tcp")):
                yield AskFirewall(("ufw", *wanted[-1], *comment))
        wanted.append(("route", "allow", "in", "on", interface, "out", "on", interface))
        if ufw.ipv6 and not any(_lets_through(rule, interface) for rule in ufw.rules):
            yield AskFirewall(("ufw", *wanted[-1], *comment))
    yield from _stale(ufw, instance, wanted)


def _stale(ufw: Ufw, instance: InstanceName, wanted: Iterable[tuple[str, ...]]) -> Asks:
    """The rules that have our mark and are wanted no longer, each once for both families."""
    ours = dict.fromkeys(_command(rule) for rule in ufw.rules if rule.comment == _comment(instance))
    for words in ours:
        if words and words not in wanted:
            before = words[:1] if words[0] == "route" else ()
            yield AskFirewall(("ufw", *before, "delete", *words[len(before) :]))


def _command(rule: UfwRule) -> tuple[str, ...]:
    """What was asked for; empty for a rule that is none of those that we make."""
    if rule.action == "allow" and rule.protocol == "udp" and rule.direction == "in":
        return ("allow", f"{rule.port}/udp")
    if rule.action == "allow" and rule.protocol == "udp" and rule.direction.startswith("in_"):
        interface = rule.direction.removeprefix("in_")
        return ("allow", "in", "on", interface, "to", "any", "port", rule.port, "proto", "udp")
    if rule.action == "allow" and rule.protocol == "any" and rule.direction.startswith("in_"):
        return ("allow", "in", "on", rule.direction.removeprefix("in_"), "to", "any", "port", rule.port)
    if rule.action == "route:allow" and (ends := _WITHIN.fullmatch(rule.direction)):
        return ("route", "allow", "in", "on", ends[1], "out", "on", ends[2])
    return ()


def _comment(instance: InstanceName) -> str:
    return f"warren {instance}"


def _is_let_in(ufw: Ufw, port: int, direction: str, protocol: str) -> bool:
    return any(_lets_in(rule, port, _ANY[1], direction, protocol) for rule in ufw.rules)


def _lets_in(rule: UfwRule, port: int, family: str, direction: str = "in", protocol: str = "udp") -> bool:
    everybody = (rule.destination, rule.source) == (family, family) and rule.direction in ("in", direction)
    return everybody and rule.action == "allow" and rule.protocol in (protocol, "any") and _has_port(rule.port, port)


def _lets_through(rule: UfwRule, interface: InterfaceName) -> bool:
    wanted = f"in_{interface}!out_{interface}"
    return (rule.action, rule.protocol, rule.port, rule.destination, rule.source, rule.direction) == (
        "route:allow",
        "any",
        "any",
        "::/0",
        "::/0",
        wanted,
    )


def _has_port(text: str, port: int) -> bool:
    for part in text.split(","):
        first, _, last = part.partition(":")
        if part == "any" or (first.isdigit() and int(first) <= port <= int(last or first)):
            return True
    return False


def _of_firewalld(interface: InterfaceName, port: int, firewalld: Firewalld) -> Asks:
    for zone in firewalld.zones:
        if port not in zone.udp_ports and not zone.accepts_all:
            yield _firewalld(f"--zone={zone.name}", f"--add-port={port}/udp")
    if not any(interface in zone.interfaces for zone in firewalld.zones):
        # It is in this zone's hands already, but forwards within a zone only between interfaces that were given to it.
        yield _firewalld(f"--zone={firewalld.default}", f"--add-interface={interface}")
    mine = next((zone.name for zone in firewalld.zones if interface in zone.interfaces), firewalld.default)
    for zone in firewalld.zones:
        if zone.name == mine and signals.PORT not in zone.udp_ports and not zone.accepts_all:
            yield _firewalld(f"--zone={mine}", f"--add-port={signals.PORT}/udp")
        if zone.name == mine and asking.PORT not in zone.tcp_ports and not zone.accepts_all:
            yield _firewalld(f"--zone={mine}", f"--add-port={asking.PORT}/tcp")


def _firewalld(zone: str, what: str, *, unless: str = "") -> AskFirewall:
    """What runs now, not what is kept: as all that Warren sets, it goes with a reboot and comes back after it."""
    query = ("firewall-cmd", "--quiet", "--permanent", zone, unless) if unless else ()
    return AskFirewall(("firewall-cmd", "--quiet", zone, what), query)


def _insert_port(chain: DroppingChain, port: int, interface: str = "", protocol: str = "udp") -> str:
    if program := _iptables(chain):
        by = f"-i {interface} " if interface else ""
        return f"{program} -I {chain.name} {by}-p {protocol} --dport {port} -j ACCEPT"
    by = f'iifname "{interface}" ' if interface else ""
    return f"nft insert rule {chain.family} {chain.table} {chain.name} {by}{protocol} dport {port} accept"


def _insert_within(chain: DroppingChain, interface: InterfaceName) -> str:
    if program := _iptables(chain):
        return f"{program} -I {chain.name} -i {interface} -o {interface} -j ACCEPT"
    rule = f'iifname "{interface}" oifname "{interface}" accept'
    return f"nft insert rule {chain.family} {chain.table} {chain.name} {rule}"


def _iptables(chain: DroppingChain) -> str:
    """The program whose chain it is; "": nft's own."""
    if chain.table != "filter" or not chain.name.isupper():
        return ""
    return {"ip": "iptables", "ip6": "ip6tables"}.get(chain.family, "")
