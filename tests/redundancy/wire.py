"""WireGuard and the underlay in virtual time: sessions that are lost, timestamps that must grow, links that lose.

As little of WireGuard as takeover depends on: a session that one side forgot swallows what the other sends; the first
message of a handshake is refused unless its timestamp is younger than the last one's; a peer removed and added starts
anew; silence for 15 s makes the sender call; every 25 s there is something to send; a session ends after 180 s, and
who began it calls again after 120.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

REKEY_TIMEOUT_S, SILENCE_S, KEEPALIVE_S, REKEY_S, REJECT_S = 5.0, 15.0, 25.0, 120.0, 180.0


class Clock:
    """Events in virtual time, the same order in every run."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._due: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0

    def at(self, when_s: float, act: Callable[..., None], *details: Any) -> None:
        self._count += 1
        heapq.heappush(self._due, (max(when_s, self.now_s), self._count, act, details))

    def run_until(self, end_s: float) -> None:
        while self._due and self._due[0][0] <= end_s:
            self.now_s, _, act, details = heapq.heappop(self._due)
            act(*details)
        self.now_s = end_s


@dataclass(slots=True)
class Link:
    """One direction of the underlay between two machines."""

    cut: bool = False
    loss: float = 0.0
    delay_s: float = 0.001


@dataclass(slots=True)
class Tunnel:
    """What one side holds of a WireGuard peer."""

    may_call: bool  # it knows where the other is
    send_id: int | None = None
    accepts: tuple[int, ...] = ()
    next_id: int | None = None  # answered, not confirmed yet
    born_s: float = 0.0
    began: bool = False
    called_s: float = -REKEY_TIMEOUT_S
    unanswered_s: float | None = None  # since when we have sent and heard nothing
    latest_timestamp_s: float = float("-inf")
    generation: int = 0
    queue: list[Any] = field(default_factory=list)


@dataclass(slots=True)
class Host:
    """The part of a machine that has no agent. `clock_off_s`: what its wall clock is ahead."""

    name: str
    is_controller: bool
    on: bool = True
    awake: bool = True
    clock_off_s: float = 0.0
    tunnels: dict[str, Tunnel] = field(default_factory=dict)


class Wire:
    """All links and tunnels. `deliver(to, source, packet)` is called with what comes out of a tunnel."""

    def __init__(self, clock: Clock, random: Random, deliver: Callable[[Host, Host, Any], None]) -> None:
        self.clock = clock
        self.links: dict[tuple[str, str], Link] = {}
        self.hosts: dict[str, Host] = {}
        self._random = random
        self._deliver = deliver
        self._ids = 0
        self._generations = 0

    def connect(self, one: Host, other: Host) -> None:
        for a, b in ((one, other), (other, one)):
            self.hosts[a.name] = a
            self.links[a.name, b.name] = Link()
            a.tunnels[b.name] = Tunnel(may_call=b.is_controller)
            self.clock.at(KEEPALIVE_S * self._random.random(), self._keep_alive, a, b)

    def _keep_alive(self, a: Host, b: Host) -> None:
        self.send(a, b, None)
        self.clock.at(self.clock.now_s + KEEPALIVE_S, self._keep_alive, a, b)

    def reset(self, a: Host, b: Host, *, forget_where: bool) -> None:
        """The entry for b is removed and added on a."""
        held = a.tunnels[b.name]
        self._generations += 1
        may_call = b.is_controller or (held.may_call and not forget_where)
        a.tunnels[b.name] = Tunnel(may_call, generation=self._generations)

    def is_stale(self, a: Host, b: Host) -> bool:
        """Whether a sends into a session that b does not have."""
        tunnel = a.tunnels[b.name]
        young = self.clock.now_s - tunnel.born_s <= REJECT_S
        return tunnel.send_id is not None and young and tunnel.send_id not in b.tunnels[a.name].accepts

    def send(self, a: Host, b: Host, packet: Any) -> None:
        if not (a.on and a.awake):
            return
        tunnel, now_s = a.tunnels[b.name], self.clock.now_s
        age_s = now_s - tunnel.born_s
        if tunnel.send_id is None or age_s > REJECT_S:
            tunnel.queue = [*tunnel.queue[-15:], packet]
            self.call(a, b)
            return
        silent_s = now_s - tunnel.unanswered_s if tunnel.unanswered_s is not None else 0.0
        if silent_s > SILENCE_S or (tunnel.began and age_s > REKEY_S):
            self.call(a, b)
        if tunnel.unanswered_s is None:
            tunnel.unanswered_s = now_s
        self._cross(a, b, self._receive, b, a, tunnel.send_id, packet)

    def call(self, a: Host, b: Host) -> None:
        """The first message of a handshake, at most one in 5 s."""
        tunnel, now_s = a.tunnels[b.name], self.clock.now_s
        if not tunnel.may_call or now_s - tunnel.called_s < REKEY_TIMEOUT_S or not a.on:
            return
        tunnel.called_s = now_s
        self._cross(a, b, self._called, b, a, now_s + a.clock_off_s, tunnel.generation)

    def _cross(self, a: Host, b: Host, act: Callable[..., None], *details: Any) -> None:
        link = self.links[a.name, b.name]
        if link.cut or self._random.random() < link.loss:
            return
        self.clock.at(self.clock.now_s + link.delay_s * (1 + 0.1 * self._random.random()), act, *details)

    def _called(self, b: Host, a: Host, timestamp_s: float, generation: int) -> None:
        tunnel = b.tunnels[a.name]
        if not (b.on and b.awake) or timestamp_s <= tunnel.latest_timestamp_s:
            return
        tunnel.latest_timestamp_s = timestamp_s
        tunnel.may_call = True
        self._ids += 1
        tunnel.next_id = self._ids
        tunnel.accepts = (*tunnel.accepts[-2:], self._ids)
        self._cross(b, a, self._answered, a, b, self._ids, generation)

    def _answered(self, a: Host, b: Host, number: int, generation: int) -> None:
        tunnel = a.tunnels[b.name]
        if not (a.on and a.awake) or tunnel.generation != generation:
            return
        tunnel.send_id, tunnel.born_s, tunnel.began = number, self.clock.now_s, True
        tunnel.accepts = (*tunnel.accepts[-2:], number)
        tunnel.unanswered_s = None
        waiting, tunnel.queue = tunnel.queue or [None], []
        for packet in waiting:
            self.send(a, b, packet)

    def _receive(self, b: Host, a: Host, number: int, packet: Any) -> None:
        tunnel = b.tunnels[a.name]
        if not (b.on and b.awake) or number not in tunnel.accepts:
            return
        if tunnel.next_id == number:
            tunnel.send_id, tunnel.born_s, tunnel.began, tunnel.next_id = number, self.clock.now_s, False, None
            waiting, tunnel.queue = tunnel.queue, []
            for each in waiting:
                self.send(b, a, each)
        tunnel.unanswered_s = None
        if packet is not None:
            self._deliver(b, a, packet)
