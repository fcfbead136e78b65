"""Of a machine's two keys, while one replaces the other: which of them speaks, told by its handshakes alone.

Everybody holds both keys as WireGuard peers. The machine has one private key at a time, so the younger handshake is by
the key that it has now, and that one gets the AllowedIPs. Nobody has to say when the machine switches, nor whether it
went back. While neither key has a session, both call, for one of them will be answered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from warren.names import MachineName
from warren.network.document import Document, Entry
from warren.plan.desired import Desired
from warren.plan.steps import PeerChange
from warren.wireguard.device import REJECT_AFTER_TIME_S, ObservedDevice, Peer
from warren.wireguard.keys import PublicKey

CLOCK_SLACK_S = 1.0  # between the kernel's reading of the clock and ours
NOBODY: frozenset[PublicKey] = frozenset()


def second_keys(document: Document, me: MachineName) -> dict[PublicKey, PublicKey]:
    """First and second key of the other machines whose key is rotated."""
    entries: list[Entry] = [*document.controllers.values(), *document.peers.values()]
    return {
        entry.public_key: entry.second_key
        for entry in entries
        if entry.name != me and entry.public_key is not None and entry.second_key is not None
    }


def peers_now(desired: Desired, device: ObservedDevice, now_unix_s: float) -> Mapping[PublicKey, Peer]:
    """The peers that the device should have, for what its handshakes say."""
    if not desired.second_keys:
        return desired.peers
    peers = dict(desired.peers)
    for first, second in desired.second_keys.items():
        speaks, silent = _order(device, first, second, now_unix_s, NOBODY)
        latest_unix_s = max(_handshake_unix_s(device, key, now_unix_s) for key in (first, second))
        both_call = now_unix_s - latest_unix_s > REJECT_AFTER_TIME_S
        whole = desired.peers[first]
        peers[speaks] = replace(whole, public_key=speaks)
        peers[silent] = Peer(silent, frozenset(), whole.endpoint, whole.keepalive_s if both_call else 0)
    return peers


def moves(
    device: ObservedDevice, pairs: Mapping[PublicKey, PublicKey], now_unix_s: float, heard: frozenset[PublicKey]
) -> tuple[PeerChange, ...]:
    """What a switch from one key to the other asks for at once: what the silent one holds goes to the one that speaks.

    `heard`: keys of which a message came in just now, though their handshake is not complete yet.
    """
    changes: list[PeerChange] = []
    for first, second in pairs.items():
        if not heard & {first, second} and not any(
            _handshake_unix_s(device, key, now_unix_s) for key in (first, second)
        ):
            continue  # both sessions were just begun anew: whoever has it keeps it until one is heard
        speaks, silent = _order(device, first, second, now_unix_s, heard)
        gains, loses = device.peers.get(speaks), device.peers.get(silent)
        if gains is not None and loses is not None and loses.allowed_ips:
            allowed_ips = gains.allowed_ips | loses.allowed_ips
            changes.append(PeerChange(speaks, False, allowed_ips, None, loses.keepalive_s, loses.allowed_ips))
            changes.append(PeerChange(silent, keepalive_s=0))
    return tuple(changes)


def _order(
    device: ObservedDevice, first: PublicKey, second: PublicKey, now_unix_s: float, heard: frozenset[PublicKey]
) -> tuple[PublicKey, PublicKey]:
    """The key that speaks, and the other; the first one where neither was ever heard."""
    spoke = {key: (key in heard, _handshake_unix_s(device, key, now_unix_s)) for key in (first, second)}
    return (second, first) if spoke[second] > spoke[first] else (first, second)


def _handshake_unix_s(device: ObservedDevice, key: PublicKey, now_unix_s: float) -> float:
    """0: never, or by a clock that was ahead and was set back since, which says nothing about who was last."""
    held = device.peers.get(key)
    return held.handshake_unix_s if held and held.handshake_unix_s <= now_unix_s + CLOCK_SLACK_S else 0.0
