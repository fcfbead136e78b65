"""Steps as the commands that would do them: one line per change for logs, or whole, to be pasted into a root shell.

Private keys never appear: `wg` is given the file that holds the machine's own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv6Network
from shlex import join, quote

from warren.names import InstanceName, MachineName
from warren.plan import firewall, hosts, steps
from warren.plan.desired import Firewall
from warren.plan.forwarding import ALL_FORWARDING
from warren.render.desired import allowed_ips_texts
from warren.render.nftables import nft_script
from warren.render.show import number_of
from warren.wireguard.keys import PublicKey

Names = Mapping[PublicKey, MachineName]

_HERE_END = "END"
PRESHARED_FILES = "/var/lib/warren/*/preshared.keys"


@dataclass(frozen=True, slots=True)
class _Keys:
    """How keys are written: whole or by their first characters; `unknown` ones stand for keys not made yet."""

    names: Names
    whole: bool = False
    unknown: frozenset[PublicKey] = frozenset()

    def text(self, key: PublicKey) -> str:
        if key in self.unknown:
            return "(not made yet)"
        return key.text if self.whole else str(key)

    def name(self, key: PublicKey) -> str:
        return self.names.get(key) or self.text(key)

    def beside(self, key: PublicKey) -> str:
        return f"  # {self.names[key]}" if key in self.names else ""

    def unless_unknown(self, keys: Collection[PublicKey], command: str) -> str:
        """The command, or a comment where none of the keys that it is about is known."""
        return f"# {command}" if keys and self.unknown.issuperset(keys) else command


def log_lines(step: steps.Step, names: Names) -> tuple[str, ...]:
    """One line for each change that the step makes; keys by their first characters, the machine beside."""
    match step:
        case steps.LoadTable(instance):
            return (f"nft -f -  # table {_table(instance)}, whole",)
        case steps.WriteHosts(instance, lines):
            return (f"# {hosts.FILE}: {number_of(len(lines), 'name')} of {instance}",)
        case steps.ClearHosts(instance):
            return (f"# {hosts.FILE}: no names of {instance}",)
        case _:
            return tuple(_commands(step, _Keys(names)))


def script(plan: Iterable[steps.Step], names: Names, unknown: frozenset[PublicKey] = frozenset()) -> str:
    """Commands to paste that do all of `plan`, keys whole; what needs an `unknown` key is a comment."""
    keys = _Keys(names, whole=True, unknown=unknown)
    return "".join(f"{command}\n" for step in plan for command in _pasteable(step, keys))


def _pasteable(step: steps.Step, keys: _Keys) -> Iterable[str]:
    match step:
        case steps.CreateLink(interface):
            return (f"{_ip_command(step)} || wireguard-go {quote(interface)}",)
        case steps.SetSysctl(_, name, "1") if name.endswith(".force_forwarding"):
            return (f"{_sysctl(name, '1')} || {_sysctl(ALL_FORWARDING, '1')}  # the latter before Linux 6.17",)
        case steps.LoadTable(instance, table):
            return (_load_table(instance, table),)
        case steps.WriteHosts(instance, lines):
            block = hosts.with_block(b"", instance, lines).decode()
            return (_clear_hosts(instance), _here(f"cat >> {hosts.FILE}", block))
        case steps.ClearHosts(instance):
            return (_clear_hosts(instance),)
        case _:
            return _commands(step, keys)


def _load_table(instance: InstanceName, table: Firewall) -> str:
    if '"' in table.interface:  # nft's own language has no way to write it
        return _here("nft -j -f -", firewall.transaction(instance, table))
    return _here("nft -f -", nft_script(instance, table))


def _clear_hosts(instance: InstanceName) -> str:
    return f"sed -i '/^# BEGIN warren {instance} /,/^# END warren {instance}$/d' {hosts.FILE}"


def _here(command: str, text: str) -> str:
    return f"{command} <<'{_HERE_END}'\n{text.removesuffix(chr(10))}\n{_HERE_END}"


def _commands(step: steps.Step, keys: _Keys) -> Iterator[str]:
    """The commands that have one line each."""
    match step:
        case steps.SetPrivateKey(instance, interface, public_key):
            path = f"/var/lib/warren/{instance}/private.key"
            yield f"wg set {quote(interface)} private-key {path}  # whose public key is {keys.text(public_key)}"
        case steps.SetListenPort(interface, port):
            yield f"wg set {quote(interface)} listen-port {port}"
        case steps.SetPeers():
            yield from _peer_commands(step, keys)
        case steps.AwaitHandshake(_, public_keys):
            machines = ", ".join(map(keys.name, public_keys))
            command = f"sleep 1  # {machines} may speak first: two first messages that cross cost 5 s"
            yield keys.unless_unknown(public_keys, command)
        case steps.SetSysctl(_, name, value):
            yield _sysctl(name, value)
        case steps.RestoreSysctls(instance):
            yield f"# sysctl: what was changed for {instance} goes back to what it was"
        case steps.AskFirewall(words, unless):
            yield f"{join(unless)} || {join(words)}" if unless else join(words)
        case steps.DropTable(instance):
            yield f"nft delete table {_table(instance)}"
        case _:
            yield _ip_command(step)


def _ip_command(step: steps.Step) -> str:
    match step:
        case steps.CreateLink(interface):
            return f"ip link add dev {quote(interface)} type wireguard"
        case steps.DeleteLink(interface):
            return f"ip link delete dev {quote(interface)}"
        case steps.SetMtu(interface, mtu_bytes):
            return f"ip link set dev {quote(interface)} mtu {mtu_bytes}"
        case steps.SetLinkUp(interface):
            return f"ip link set dev {quote(interface)} up"
        case steps.AddAddress(interface, address):
            return f"ip -6 address add {address} dev {quote(interface)} nodad"
        case steps.RemoveAddress(interface, address):
            return f"ip -6 address delete {address} dev {quote(interface)}"
        case steps.AddRoute(interface, network):
            return f"ip -6 route add {route_text(network, interface)}"
        case steps.RemoveRoute(interface, network):
            return f"ip -6 route delete {route_text(network, interface)}"
        case steps.AddUnreachable(network):
            return f"ip -6 route add {unreachable_text(network)}"
        case steps.RemoveUnreachable(network):
            return f"ip -6 route delete {unreachable_text(network)}"
        case _:
            raise AssertionError(f"no command for {step}")


def _sysctl(name: str, value: str) -> str:
    return f"sysctl -w {quote(f'{name}={value}')}"


def route_text(network: IPv6Network, interface: str) -> str:
    """As `host.rtnetlink` makes it."""
    return f"{network} dev {quote(interface)} metric {steps.ROUTE_METRIC} proto {steps.ROUTE_PROTOCOL}"


def unreachable_text(network: IPv6Network) -> str:
    """As `host.rtnetlink` makes it: behind every other route, and known as ours by its protocol."""
    return f"unreachable {network} metric {steps.UNREACHABLE_METRIC} proto {steps.ROUTE_PROTOCOL}"


def _peer_commands(step: steps.SetPeers, keys: _Keys) -> Iterator[str]:
    wg_set = f"wg set {quote(step.interface)} peer"
    # Removals first: a peer that is removed and new at once starts afresh.
    for key in step.removed:
        yield f"{wg_set} {keys.text(key)} remove{keys.beside(key)}"
    for change in step.changes:
        key = change.public_key
        command = f"{wg_set} {keys.text(key)}{_peer_settings(change, keys)}{keys.beside(key)}"
        if change.preshared and keys.whole:  # the machine's own file has it
            command = f"awk '$4 == \"{change.preshared}\" {{print $5}}' {PRESHARED_FILES} | {command}"
        yield keys.unless_unknown([key], command)


def _peer_settings(change: steps.PeerChange, keys: _Keys) -> str:
    words = ""
    if change.preshared is not None:
        name = "/dev/stdin" if keys.whole else f"{change.preshared}…"
        words += f" preshared-key {name if change.preshared else '/dev/null'}"
    if change.endpoint is not None:
        words += f" endpoint {quote(str(change.endpoint))}"
    if change.keepalive_s is not None:
        words += f" persistent-keepalive {change.keepalive_s or 'off'}"
    if change.allowed_ips is not None:
        words += f" allowed-ips {','.join(allowed_ips_texts(change.allowed_ips)) or quote('')}"
    return words


def _table(instance: InstanceName) -> str:
    return f"{firewall.FAMILY} {firewall.table_name(instance)}"
