"""What goes into `redundancy.step`, and what comes out of it for the agent to do."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import TypeAlias

from warren.names import MachineName
from warren.plan.events import Event
from warren.plan.health import Probe
from warren.plan.reachability import Reachability


@dataclass(frozen=True, slots=True)
class Answer:
    """A probe came back. `at_s`: when it was read."""

    controller: MachineName
    probe: Probe
    number: int
    at_s: float


@dataclass(frozen=True, slots=True)
class Inputs:
    """What came in since the last step.

    `datagrams`: (source, content) of what arrived at `signals.PORT` by the mesh interface. `in_use`: the controllers
    over which more went than our own probes, lately; None: as before. `clock_set_back`: CLOCK_REALTIME was.
    `drain`: what an operator asks of this controller.
    """

    answers: tuple[Answer, ...] = ()
    datagrams: tuple[tuple[IPv6Address, bytes], ...] = ()
    in_use: frozenset[MachineName] | None = None
    clock_set_back: bool = False
    drain: bool | None = None


@dataclass(frozen=True, slots=True)
class SendRound:
    """Send these probes to the controller: an echo to its `::1`, and one from our address in its subnet to our turning
    address there, hop limit 2. `number` comes back in the answer; it fits into 16 bits."""

    controller: MachineName
    probes: tuple[Probe, ...]
    number: int


@dataclass(frozen=True, slots=True)
class Send:
    """One datagram to `signals.PORT` of that address of the mesh."""

    to: IPv6Address
    content: bytes


@dataclass(frozen=True, slots=True)
class SayFollowed:
    """Tell that address which document is followed here for good (`signals.encode_follows`), if there is one."""

    to: IPv6Address


@dataclass(frozen=True, slots=True)
class Renew:
    """Start the WireGuard session with that machine anew: `moves.renewal`. A failure is no matter; it comes again."""

    machine: MachineName


@dataclass(frozen=True, slots=True)
class Move:
    """Subnets, peers or names have other carriers from now on."""

    reachability: Reachability


@dataclass(frozen=True, slots=True)
class Tell:
    event: Event


Action: TypeAlias = SendRound | Send | SayFollowed | Renew | Move | Tell
