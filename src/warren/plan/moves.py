"""Moves by naming: AllowedIPs that are given to one WireGuard peer leave any other in the same moment.

So a subnet changes its carrier, or a machine its key, and at no time has nobody what somebody had.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from warren.plan import rotation
from warren.plan.desired import Desired
from warren.plan.steps import PeerChange, SetPeers
from warren.wireguard.device import AllowedIP, ObservedDevice, ObservedPeer
from warren.wireguard.endpoint import Endpoint
from warren.wireguard.keys import PublicKey


def moves(device: ObservedDevice, desired: Desired, now_unix_s: float) -> SetPeers:
    """What has to be said to the device at once so that every packet goes where `desired` wants it, and no more.

    Nothing but gains, the longest prefixes first: so every address goes from its old holder to the new one, and is with
    no other in between. What is left over says nothing else than what stands around it; the next diff takes it away.
    """
    peers = rotation.peers_now(desired, device, now_unix_s)
    wanted = {allowed: key for key, peer in peers.items() for allowed in peer.allowed_ips}
    holders = {allowed: key for key, peer in device.peers.items() for allowed in peer.allowed_ips}
    gains = [(allowed, key) for allowed, key in wanted.items() if key in device.peers and holders.get(allowed) != key]
    for allowed, key in holders.items():
        around = _holder_around(allowed, wanted) if allowed not in wanted and key in peers else None
        if around is not None and around != key and around in device.peers:
            gains.append((allowed, around))
    return SetPeers(desired.interface, tuple(_longest_first(device, gains)))


def _longest_first(device: ObservedDevice, gains: list[tuple[AllowedIP, PublicKey]]) -> Iterator[PeerChange]:
    gained: dict[tuple[int, PublicKey], set[AllowedIP]] = {}
    for allowed, key in gains:
        gained.setdefault((-allowed.prefix_length, key), set()).add(allowed)
    held = {key: device.peers[key].allowed_ips for _, key in gained}
    for (_, key), found in sorted(gained.items(), key=lambda each: each[0]):
        held[key] |= found
        yield PeerChange(key, allowed_ips=held[key], gained_ips=frozenset(found))


def _holder_around(allowed: AllowedIP, wanted: Mapping[AllowedIP, PublicKey]) -> PublicKey | None:
    """Who holds the nearest network around it."""
    number = int.from_bytes(allowed.packed, "big")
    bits = 8 * len(allowed.packed)
    for length in range(allowed.prefix_length - 1, -1, -1):
        packed = (number >> bits - length << bits - length).to_bytes(len(allowed.packed), "big")
        if (holder := wanted.get(AllowedIP(packed, length))) is not None:
            return holder
    return None


def renewal(device: ObservedDevice, desired: Desired, keys: frozenset[PublicKey]) -> SetPeers:
    """Start sessions with these peers anew: each is removed and added in one change, as the device has it.

    The endpoint is the document's, to be looked up afresh; else where the peer was heard last. Those that the device
    does not have are left to the next diff.
    """
    changes = []
    for key in sorted(keys & device.peers.keys() & desired.peers.keys()):
        peer, held = desired.peers[key], device.peers[key]
        heard_at = Endpoint(str(held.endpoint.address), held.endpoint.port) if held.endpoint else None
        endpoint, preshared = peer.endpoint or heard_at, held.preshared or None
        changes.append(PeerChange(key, True, held.allowed_ips, endpoint, peer.keepalive_s, preshared=preshared))
    return SetPeers(desired.interface, tuple(changes), tuple(change.public_key for change in changes))


def by_naming(changes: list[PeerChange], held: Mapping[PublicKey, ObservedPeer]) -> list[PeerChange]:
    """The same, so that there is no moment in which nobody has what somebody had: who gains comes before who loses.

    What one peer gains its holder loses by that alone; only what nobody gains has to be taken from a peer, which is
    told all of its AllowedIPs anew.
    """
    wanted = {change.public_key: change.allowed_ips for change in changes if change.allowed_ips is not None}
    gained = {key: allowed_ips - _allowed_ips(held, key) for key, allowed_ips in wanted.items()}
    lost = {key: _allowed_ips(held, key) - allowed_ips for key, allowed_ips in wanted.items()}
    moving = frozenset().union(*gained.values()) & frozenset().union(*lost.values())
    gaining: list[PeerChange] = []
    others: list[PeerChange] = []
    for change in changes:
        key = change.public_key
        if change.is_new:
            gaining.append(change)
        elif key not in wanted:
            others.append(change)
        elif lost[key] <= moving and gained[key]:
            gaining.append(replace(change, gained_ips=gained[key]))
        elif lost[key] <= moving:
            others.append(replace(change, allowed_ips=None))
        else:
            if gained[key] & moving:
                gaining.append(PeerChange(key, allowed_ips=change.allowed_ips, gained_ips=gained[key]))
            others.append(change)
    return [*gaining, *(change for change in others if change != PeerChange(change.public_key))]


def _allowed_ips(held: Mapping[PublicKey, ObservedPeer], key: PublicKey) -> frozenset[AllowedIP]:
    return held[key].allowed_ips if key in held else frozenset()
