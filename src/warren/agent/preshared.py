"""Preshared keys on this machine: what the operator's side asks of it, and following the other ends of its pairs.

Following (`plan.preshared`): only while a key is exchanged there is more than one to try. Then the agent looks now and
then whether a handshake is overdue, and if so sets the next key. Where there is no session any more, the peer is made
anew with it, so that WireGuard calls at once.
"""

from __future__ import annotations

import binascii
import json
import logging
import time
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from warren.agent.preshared_commands import PresharedCommands
from warren.errors import UsageError, WarrenError
from warren.host import preshared as keeper
from warren.host import wireguard
from warren.host.machine import Host
from warren.host.preshared import Own, Sealed
from warren.names import InstanceName, InterfaceName, MachineName, is_host_name
from warren.network.document import Document, keys_of
from warren.network.preshared import NONE, Choices
from warren.plan import preshared
from warren.plan.steps import PeerChange, SetPeers
from warren.wireguard.device import REJECT_AFTER_TIME_S, ObservedPeer
from warren.wireguard.endpoint import Endpoint
from warren.wireguard.keys import PublicKey
from warren.wireguard.preshared import Fingerprint, parse_fingerprint

log = logging.getLogger("warren")

LOOK_S = 1.0
TURN_S = 6.0  # WireGuard calls every 5 s and a little: at least once by each key
FIRST_TURN_S, LONGEST_TURN_S = 2.0, 8.0  # without a session each turn calls by itself; longer with each round in vain
KEEPALIVE_S = 25


# For the operator's side


def make(host: Host, own: Own, request: Mapping[str, Any]) -> dict[str, object]:
    """Answer `machine preshared-make`."""
    others = {_machine(name): _public_key(text) for name, text in _table(request, "others").items()}
    sealed = keeper.make(own, others, host.state)
    return {
        "sealed": {
            each.other: {
                "number": each.number,
                "fingerprint": each.fingerprint,
                "sealed": b64encode(each.sealed).decode("ascii"),
            }
            for each in sealed
        }
    }


def take(host: Host, own: Own, request: Mapping[str, Any]) -> dict[str, object]:
    """Answer `machine preshared-take`."""
    brought = [_sealed(own, _machine(name), tree) for name, tree in _table(request, "sealed").items()]
    held, refused = keeper.take(own, brought, host.state)
    for text in refused.values():
        log.warning("%s: %s", own.instance, text)
    return {"held": held, "refused": refused}


def parse(text: bytes, instance: InstanceName, me: MachineName) -> tuple[Own, dict[str, Any]]:
    """Who this machine is there, and the request; UsageError says what is wrong with it."""
    try:
        tree = json.loads(text)
    except ValueError:
        tree = None
    if not isinstance(tree, dict):
        raise UsageError("this is no request: a JSON object is needed on stdin")
    return Own(instance, me, _public_key(tree.get("public_key"))), tree


def _sealed(own: Own, maker: MachineName, tree: object) -> Sealed:
    if not isinstance(tree, dict) or type(tree.get("number")) is not int:
        raise UsageError(f"what {maker} sealed is not an object with a number")
    try:
        sealed, name = b64decode(tree["sealed"], validate=True), parse_fingerprint(tree["fingerprint"])
    except (KeyError, TypeError, ValueError, binascii.Error):
        raise UsageError(f"what {maker} sealed cannot be read") from None
    return Sealed(maker, _public_key(tree.get("public_key")), own.machine, tree["number"], name, sealed)


def _table(request: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = request.get(key)
    if not isinstance(value, dict):
        raise UsageError(f"{key!r} must be an object")
    return value


def _machine(name: str) -> MachineName:
    if not is_host_name(name):
        raise UsageError(f"{name!r} is no machine's name")
    return MachineName(name)


def _public_key(text: object) -> PublicKey:
    try:
        return PublicKey.parse(str(text))
    except ValueError as error:
        raise UsageError(f"a public key is needed: {error}") from None


# Following


@dataclass(slots=True)
class _Turn:
    """Since when one key is tried, and how many were in vain."""

    since_s: float
    count: int = 0


@dataclass(frozen=True, slots=True)
class _OwnKey:
    """The key that an interface has, and when it got it, where that was seen. No session outlives the one before."""

    key: PublicKey | None
    since_unix_s: float = 0.0


@dataclass(frozen=True, slots=True)
class _Followed:
    """One instance in which there is more than one key to try: for which peers."""

    interface: InterfaceName
    may_be: Mapping[PublicKey, Choices]
    names: Mapping[PublicKey, MachineName]


class PresharedWatch:
    """Keys that are exchanged, and those that programs say."""

    def __init__(self, host: Host, me: MachineName) -> None:
        self._host = host
        self._me = me
        self._followed: dict[InstanceName, _Followed] = {}
        self._turns: dict[PublicKey, _Turn] = {}
        self._own: dict[InstanceName, _OwnKey] = {}
        self._due_s = float("inf")
        self._commands = PresharedCommands(host, me)

    @property
    def due_s(self) -> float:
        """When to look (monotonic)."""
        return min(self._due_s, self._commands.due_s)

    def refresh(self, documents: Mapping[InstanceName, Document]) -> None:
        """After a look of the agent: these are the documents now."""
        self._commands.refresh(documents)
        self._followed = {}
        for name, document in documents.items():
            try:
                held = self._host.preshared(name)
            except WarrenError:  # the reconcile says so
                continue
            if found := _followed(document, self._me, held):
                self._followed[name] = found
        known = {key for each in self._followed.values() for key in each.may_be}
        self._turns = {key: turn for key, turn in self._turns.items() if key in known}
        self._due_s = time.monotonic() if self._followed else float("inf")

    def look(self) -> None:
        """If it is time: try the next key where no handshake comes about by the one that is set."""
        self._commands.look()
        if time.monotonic() < self._due_s:
            return
        for name, each in self._followed.items():
            try:
                self._follow(name, each)
            except WarrenError as error:  # the interface is just being made or taken away; the reconcile tells more
                log.debug("%s: %s", name, error)
        self._due_s = time.monotonic() + LOOK_S

    def _follow(self, name: InstanceName, followed: _Followed) -> None:
        device = wireguard.open_device(followed.interface)
        if device is None:
            return
        observed, now_unix_s, now_s = device.read(), time.time(), time.monotonic()
        own = self._own.setdefault(name, _OwnKey(observed.public_key))
        if own.key != observed.public_key:
            own = self._own[name] = _OwnKey(observed.public_key, now_unix_s - LOOK_S)
        for key, may_be in followed.may_be.items():
            if (peer := observed.peers.get(key)) is None:
                continue
            if peer.handshake_unix_s < own.since_unix_s:
                peer = peer._replace(handshake_unix_s=0.0)
            if not preshared.is_overdue(peer, now_unix_s):
                self._turns.pop(key, None)
                continue
            turn = self._turns.setdefault(key, _Turn(now_s))
            if now_s - turn.since_s >= _patience_s(peer, now_unix_s, turn.count // len(may_be)):
                self._turns[key] = _Turn(now_s, turn.count + 1)
                self._turn(name, followed, peer, preshared.after(peer.preshared, may_be), now_unix_s)

    def _turn(
        self, name: InstanceName, followed: _Followed, peer: ObservedPeer, tried: Fingerprint, now_unix_s: float
    ) -> None:
        if _has_session(peer, now_unix_s) or peer.endpoint is None:
            step = SetPeers(followed.interface, (PeerChange(peer.public_key, preshared=tried),))
            self._host.perform(step, {})
        else:
            at = Endpoint(str(peer.endpoint.address), peer.endpoint.port)
            keepalive_s = peer.keepalive_s or KEEPALIVE_S
            change = PeerChange(peer.public_key, True, peer.allowed_ips, at, keepalive_s, preshared=tried or None)
            self._host.perform(SetPeers(followed.interface, (change,), (peer.public_key,)), {at: (peer.endpoint,)})
        what = f"preshared key {tried}" if tried else "no preshared key"
        log.info("%s: no handshake with %s: %s is tried", name, followed.names[peer.public_key], what)


def _followed(document: Document, me: MachineName, held: preshared.Held) -> _Followed | None:
    entry = document.entry(me)
    if entry is None or (not held and not document.preshared):
        return None
    choices = dict(preshared.of_machine(document, me))
    may_be: dict[PublicKey, Choices] = {}
    names: dict[PublicKey, MachineName] = {}
    for other in choices.keys() | held.keys():
        peer = document.entry(other)
        candidates = preshared.candidates(document, me, other, choices.get(other, NONE), held)
        if peer is not None and len(candidates) > 1:
            for key in keys_of(peer):
                may_be[key], names[key] = candidates, other
    return _Followed(entry.interface, may_be, names) if may_be else None


def _patience_s(peer: ObservedPeer, now_unix_s: float, rounds: int) -> float:
    """How long one key is tried."""
    if _has_session(peer, now_unix_s):
        return TURN_S
    return min(FIRST_TURN_S * 2.0**rounds, LONGEST_TURN_S)


def _has_session(peer: ObservedPeer, now_unix_s: float) -> bool:
    return now_unix_s - peer.handshake_unix_s < REJECT_AFTER_TIME_S
