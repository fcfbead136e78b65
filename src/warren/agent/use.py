"""Which controllers somebody uses: those over which more goes than what this machine sends to watch them.

WireGuard counts it for each of them. At rest the interface's own counters say that there is nothing to ask it.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from warren.errors import KernelError
from warren.host import wireguard
from warren.host.traffic import Traffic, traffic
from warren.names import InterfaceName, MachineName
from warren.network.document import ControllerEntry, keys_of

CHECK_S = 1.0
LASTS_S = 5.0  # after the last packet that was not ours
# What a round of probes and what comes with it may add to a peer's counters in both directions, and what else is small
# enough to be keepalives, reports and handshakes.
_ROUND_BYTES, _QUIET_BYTES = 500, 1500
# The same as the interface counts it: a probe of 56 bytes and its answer, and of each packet the most that WireGuard
# adds: 32, and 15 that fill it up.
_ADDED_BYTES = 48
_LEAST_ROUND_BYTES = 2 * (56 + 32)


@dataclass(slots=True)
class Use:
    """Of one interface's controllers. Times are those of `host.clock.now_s`."""

    interface: InterfaceName
    used_s: dict[MachineName, float]  # when each was seen to be used last
    checked_s: float = 0.0
    _traffic: Traffic | None = None  # by then
    _rounds: int = 0  # of probes, since then
    _counts: dict[MachineName, int] = field(default_factory=dict)  # of bytes, when WireGuard was asked last
    _rounds_of: dict[MachineName, int] = field(default_factory=dict)  # since that

    def sent_round(self, controller: MachineName) -> None:
        """Note that probes went to it, which are nobody's use."""
        self._rounds += 1
        self._rounds_of[controller] = self._rounds_of.get(controller, 0) + 1

    def look(self, controllers: Mapping[MachineName, ControllerEntry], at_s: float) -> frozenset[MachineName] | None:
        """Those in use; None: it is not time to look again."""
        passed_s = at_s - self.checked_s
        if passed_s < CHECK_S:
            return None
        self.checked_s = at_s
        quiet_bytes = _QUIET_BYTES * max(1.0, passed_s)
        if self._may_be_used(quiet_bytes) or self._in_use(at_s):
            with suppress(KernelError):  # it is just being made or taken away
                self._ask(controllers, quiet_bytes, at_s)
        return self._in_use(at_s)

    def _in_use(self, at_s: float) -> frozenset[MachineName]:
        return frozenset(name for name, used_s in self.used_s.items() if at_s - used_s < LASTS_S)

    def _may_be_used(self, quiet_bytes: float) -> bool:
        """Whether so much went over the interface, seen as if it all were one controller's."""
        before, self._traffic = self._traffic, traffic(self.interface)
        rounds, self._rounds = self._rounds, 0
        if before is None or self._traffic is None:
            return True
        most_bytes = self._traffic.bytes - before.bytes + _ADDED_BYTES * (self._traffic.packets - before.packets)
        return most_bytes > quiet_bytes + _LEAST_ROUND_BYTES * rounds

    def _ask(self, controllers: Mapping[MachineName, ControllerEntry], quiet_bytes: float, at_s: float) -> None:
        """Note which were used since WireGuard was asked last.

        After a long rest a little use may pass for what the rest was filled with; not at the next look.
        """
        device = wireguard.open_device(self.interface)
        if device is None:
            return
        observed = device.read().peers
        for name, entry in controllers.items():
            peers = [observed[key] for key in keys_of(entry) if key in observed]
            count = sum(peer.received_bytes + peer.sent_bytes for peer in peers)
            more = count - self._counts.get(name, count)
            if more > quiet_bytes + _ROUND_BYTES * self._rounds_of.pop(name, 0):
                self.used_s[name] = at_s
            self._counts[name] = count
