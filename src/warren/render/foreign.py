"""A machine's plan as files for machines that Warren does not run on: what all formats have in common.

Each format takes the same `Desired` that a managed machine acts on, and gives texts. Nothing follows the mesh there:
when it changes, the files are made anew.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from shlex import quote

from warren.errors import UsageError
from warren.names import MachineName
from warren.plan import firewall
from warren.plan.desired import Desired
from warren.plan.forwarding import ALL_FORWARDING, key, needs_whole_machine
from warren.render.commands import route_text, unreachable_text
from warren.render.desired import allowed_ips_texts
from warren.render.nftables import nft_script
from warren.wireguard.device import Peer

# What wg-quick takes (its parse_options); the others take it as well, without quotes or escapes.
_PLAIN_INTERFACE = re.compile(r"[a-zA-Z0-9_=+.-]{1,15}")


@dataclass(frozen=True, slots=True)
class File:
    """One file for the machine. `path` is where it goes there; `is_secret`: for root alone, since it may hold a key."""

    path: str
    text: str
    is_secret: bool = False

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]


def check_interface(desired: Desired) -> None:
    """Raise UsageError where other programs would not take the interface's name, or take it for something else; and
    where they would have to be told preshared keys, which only the machine itself knows."""
    if others := sorted({desired.peer_names[key] for key, choices in desired.preshared.items() if choices[0]}):
        raise UsageError(
            f"{desired.machine} has preshared keys with {', '.join(others)} in instance {desired.instance}, which "
            "nobody but Warren on these machines knows",
            mend=f"if Warren is not to run on it: machines.{desired.machine}.managed = false; warren machines update",
        )
    if not _PLAIN_INTERFACE.fullmatch(desired.interface):
        raise UsageError(
            f'"{desired.interface}" cannot be written down as the name of an interface: wg-quick and others take '
            "letters, digits and _=+.- only",
            mend=f"set the interface of {desired.machine} in instance {desired.instance} (settings.interface)",
        )


def origin(desired: Desired, kind: str) -> str:
    """Where a file comes from, for who finds it later."""
    return (
        f"instance {desired.instance} on {desired.machine}, "
        f"written by: warren render {desired.machine} --instance {desired.instance} --format {kind}"
    )


def peers_by_name(desired: Desired) -> list[tuple[MachineName, Peer]]:
    """Of a machine whose key is rotated, the key that it should have: nobody is there who could follow the other."""
    second = set(desired.second_keys.values())
    return sorted((desired.peer_names[key], peer) for key, peer in desired.peers.items() if key not in second)


def peer_settings(peer: Peer) -> Iterable[tuple[str, str]]:
    """Keys and values of a peer's section, as wg(8) and systemd.netdev(5) both call them."""
    yield "PublicKey", peer.public_key.text
    yield "AllowedIPs", ", ".join(allowed_ips_texts(peer.allowed_ips))
    if peer.endpoint is not None:
        yield "Endpoint", str(peer.endpoint)
    if peer.keepalive_s:
        yield "PersistentKeepalive", str(peer.keepalive_s)


def section(title: str, settings: Iterable[tuple[str, str]], comment: str = "") -> str:
    """One section of an ini file."""
    head = f"[{title}]\n" + (f"# {comment}\n" if comment else "")
    return head + "".join(f"{name} = {value}\n" for name, value in settings)


def commented(lines: Iterable[str]) -> str:
    return "".join(f"# {line}\n" for line in lines)


def add_routes(desired: Desired) -> tuple[str, ...]:
    """A command for each network behind another machine; the interface takes them along when it goes."""
    return tuple(f"ip -6 route replace {route_text(network, desired.interface)}" for network in sorted(desired.routes))


def add_unreachable(desired: Desired) -> str:
    """What of the base no address covers goes nowhere: behind every other route, as a managed machine has it."""
    return f"ip -6 route replace {unreachable_text(desired.base)}"


def delete_unreachable(desired: Desired) -> str:
    return f"ip -6 route delete {unreachable_text(desired.base)}"


def load_firewall(desired: Desired) -> str:
    """One command, one transaction."""
    commands = nft_script(desired.instance, desired.firewall).splitlines()
    return f"nft {quote('; '.join(commands))}"


def drop_firewall(desired: Desired) -> str:
    return f"nft delete table {firewall.FAMILY} {firewall.table_name(desired.instance)}"


def forwarding_sysctls(desired: Desired) -> Sequence[str]:
    """Keys to set to 1 on a controller: the mesh interface's own (Linux 6.17), the whole machine's before that.

    With networks behind it, the whole machine's in any case.
    """
    if needs_whole_machine(desired):
        return (ALL_FORWARDING,)
    return (key(desired.interface, "force_forwarding"), ALL_FORWARDING) if desired.forwards else ()
