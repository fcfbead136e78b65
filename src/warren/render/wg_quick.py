"""A plan as wg-quick(8) reads it, and as WireGuard's apps do."""

from __future__ import annotations

from collections.abc import Iterator
from shlex import quote

from warren.plan.desired import Desired
from warren.render.foreign import (
    File,
    add_routes,
    add_unreachable,
    check_interface,
    commented,
    delete_unreachable,
    drop_firewall,
    forwarding_sysctls,
    load_firewall,
    origin,
    peer_settings,
    peers_by_name,
    section,
)
from warren.wireguard.keys import PrivateKey

FORMAT = "wg-quick"
FOLDER = "/etc/wireguard"


def wg_quick(desired: Desired, private_key: PrivateKey | None = None) -> tuple[File, ...]:
    """One file. Without a private key, the machine reads its own from a file when the interface comes up."""
    check_interface(desired)
    notes = [
        f"{FOLDER}/{desired.interface}.conf: {origin(desired, FORMAT)}",
        "Names: the same command with --format hosts prints a block for /etc/hosts",
    ]
    if private_key is None:
        notes.append(f"Key: umask 077; wg genkey > {_key_path(desired)}")
    peers = [section("Peer", peer_settings(peer), name) for name, peer in peers_by_name(desired)]
    text = commented(notes) + "\n".join([section("Interface", _interface(desired, private_key)), *peers])
    return (File(f"{FOLDER}/{desired.interface}.conf", text, is_secret=True),)


def app_text(desired: Desired, private_key: PrivateKey) -> str:
    """What WireGuard's apps take: WireGuard's own keys and no commands; apps refuse others."""
    interface = [("PrivateKey", private_key.reveal_text()), *_plain(desired)]
    peers = [section("Peer", peer_settings(peer)) for _, peer in peers_by_name(desired)]
    return "\n".join([section("Interface", interface), *peers])


def _key_path(desired: Desired) -> str:
    return f"{FOLDER}/{desired.interface}.key"


def _plain(desired: Desired) -> Iterator[tuple[str, str]]:
    yield "Address", ", ".join(map(str, sorted(desired.addresses)))
    yield "MTU", str(desired.mtu_bytes)
    if desired.listen_port is not None:
        yield "ListenPort", str(desired.listen_port)


def _interface(desired: Desired, private_key: PrivateKey | None) -> Iterator[tuple[str, str]]:
    if private_key is not None:
        yield "PrivateKey", private_key.reveal_text()
    yield from _plain(desired)
    yield "Table", "off"  # the addresses' own networks are routes enough
    if private_key is None:
        # Without a good key nothing is touched at all; after PostUp has failed, wg-quick would not call PreDown.
        yield "PreUp", f"wg pubkey < {_key_path(desired)} > /dev/null"
    yield "PostUp", add_unreachable(desired)
    yield from (("PostUp", command) for command in add_routes(desired))
    yield "PostUp", load_firewall(desired)
    if sysctls := forwarding_sysctls(desired):
        yield "PostUp", " || ".join(f"sysctl -w {quote(f'{name}=1')}" for name in sysctls)
    if private_key is None:
        # Linux before June 2023 (6.5, 6.1.39) sends no keepalive then until there is something to send.
        yield "PostUp", f"wg set %i private-key {_key_path(desired)}"
    yield "PreDown", drop_firewall(desired)
    yield "PreDown", delete_unreachable(desired)
