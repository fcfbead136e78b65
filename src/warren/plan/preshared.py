"""Which preshared key a machine sets for which WireGuard peer.

A key holds from the next handshake on, and a handshake fails where both ends have different ones; the session before
it goes on for a minute after the first attempt. So there need be no moment at which both change. Of a pair, the end
that did not make the key sets what its document says. The maker, which holds every key that the other can have set,
follows: where no handshake comes about by one key it tries the next, long before the session ends.

None at all is tried only where a document says so: in force, or as the former one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from warren.names import MachineName
from warren.network.document import Document
from warren.network.preshared import NONE, Choices, is_maker
from warren.plan.desired import Desired
from warren.wireguard.device import REKEY_AFTER_TIME_S, REKEY_TIMEOUT_S, ObservedDevice, ObservedPeer
from warren.wireguard.keys import PublicKey
from warren.wireguard.preshared import NO_PRESHARED_KEY, NOBODYS, Fingerprint

Held = Mapping[MachineName, Sequence[Fingerprint]]
"""The keys that a machine holds for its pairs, by the other end, oldest first."""

NOTHING_HELD: Held = {}

# WireGuard begins a handshake after REKEY_AFTER_TIME, and once more when REKEY_TIMEOUT has passed without an answer.
OVERDUE_S = REKEY_AFTER_TIME_S + REKEY_TIMEOUT_S + 1.0


def of_machine(document: Document, me: MachineName) -> Iterator[tuple[MachineName, Choices]]:
    """Of every pair that `me` is an end of, and of which the document says something: the other end, its choices."""
    yield from document.preshared.get(me, {}).items()
    if me in document.controllers:
        for maker, others in document.preshared.items():
            if me in others:
                yield maker, others[me]


def candidates(document: Document, me: MachineName, other: MachineName, named: Choices, held: Held) -> Choices:
    """What may be set for the other end, the one in force first."""
    if not is_maker(me, other, document.controllers):
        return named[:1]
    own = held.get(other, ())
    known = [each for each in named if each == NO_PRESHARED_KEY or each in own or each == named[0]]
    return (*known, *(each for each in reversed(own) if each not in named))


def settled(desired: Desired, document: Document, device: ObservedDevice, held: Held, *, is_watched: bool) -> Desired:
    """With one preshared key for each peer, the one to set now. Peers whose key this machine lost are left out, unless
    the device has it still: without it nobody is let in.

    `is_watched`: an agent tries one after the other (`agent.preshared`), and what it has set is right, for as long as
    this machine's own key stays: with another one it has to begin anew anyhow, and the document knows best by what.
    """
    if desired.preshared_command:
        asked = desired.peers.keys() - desired.invited
        return replace(desired, preshared={key: (_as_it_is(device, key),) for key in asked})
    if not desired.preshared and not held:
        return desired
    is_known = is_watched and device.public_key == desired.public_key
    now: dict[PublicKey, Choices] = {}
    lost: dict[PublicKey, MachineName] = {}
    for key in desired.peers:
        other, named = desired.peer_names[key], desired.preshared.get(key, NONE)
        if named == NONE and other not in held:
            continue
        has = device.peers[key].preshared if key in device.peers else None
        may_be = candidates(document, desired.machine, other, named, held)
        target = has if is_known and has in may_be else named[0]
        if target and target != has and target not in held.get(other, ()):
            lost[key] = other
        now[key] = (target or NO_PRESHARED_KEY,)
    if not lost:
        return replace(desired, preshared=now)
    return replace(
        desired,
        preshared=now,
        peers={key: peer for key, peer in desired.peers.items() if key not in lost},
        second_keys={
            first: second for first, second in desired.second_keys.items() if not {first, second} & lost.keys()
        },
        left_out=tuple(sorted(set(lost.values()))),
    )


def _as_it_is(device: ObservedDevice, key: PublicKey) -> Fingerprint:
    """Where a program says the keys, the agent alone sets them. Until it does, a new peer is let in by none."""
    return device.peers[key].preshared if key in device.peers else NOBODYS


def lost_line(desired: Desired) -> str:
    """For people: who is left out, and how that is mended."""
    others = ", ".join(desired.left_out)
    return (
        f"this machine does not hold its preshared keys with {others}, and does not speak to them "
        f"without: warren vars generate --service wireguard-psk-{desired.instance} --regenerate --at-once "
        f"--machine {desired.machine}, then warren machines update"
    )


def is_overdue(peer: ObservedPeer, now_unix_s: float) -> bool:
    """Whether a handshake by what is set should have come about by now, and did not."""
    return now_unix_s - peer.handshake_unix_s > OVERDUE_S


def after(tried: Fingerprint, may_be: Choices) -> Fingerprint:
    """The one to try next."""
    return may_be[(may_be.index(tried) + 1) % len(may_be)] if tried in may_be else may_be[0]
