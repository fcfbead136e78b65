"""Follow a machine that switches to its other key (`plan.rotation`), within moments and not at the next reconcile.

Only while a document has second keys there is anything to listen to. Then each message of a handshake makes the agent
look at the device, which hears of the new key a round trip before the session by it carries packets.
"""

from __future__ import annotations

import logging
import selectors
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType

from warren.errors import KernelError, WarrenError
from warren.host import state, wireguard
from warren.host.handshakes import Handshakes
from warren.host.machine import Host
from warren.names import InstanceName, InterfaceName, MachineName
from warren.network.document import Entry, keys_of
from warren.plan import rotation
from warren.plan.steps import SetPeers
from warren.wireguard.device import REKEY_TIMEOUT_S, ObservedDevice
from warren.wireguard.keys import PublicKey

log = logging.getLogger("warren")

LISTEN_S = 0.3  # after a message of a handshake: those that follow, and the work on them at both ends
SHORTEST_PAUSE_S = 0.002
SLOW_PAUSE_S = 2.0  # should a message not be heard, such as one that came out of another tunnel
LOAD = 4  # between two looks it pauses for so many times what a look costs

_SECOND_KEY = b'"second_key"'


@dataclass(slots=True)
class _Rotating:
    """One instance of which somebody's key is rotated. What was seen last serves to notice that a key is heard."""

    interface: InterfaceName
    pairs: Mapping[PublicKey, PublicKey]
    names: Mapping[PublicKey, MachineName]
    received_bytes: dict[PublicKey, int] = field(default_factory=dict)
    heard_until_s: dict[PublicKey, float] = field(default_factory=dict)

    def heard(self, device: ObservedDevice, now_s: float) -> frozenset[PublicKey]:
        """Keys without AllowedIPs by which something came in. It holds until the handshake must be complete."""
        both = (*self.pairs.items(), *((second, first) for first, second in self.pairs.items()))
        for key, other in both:
            if (peer := device.peers.get(key)) is None:
                continue
            if not peer.allowed_ips and peer.received_bytes > self.received_bytes.get(key, peer.received_bytes):
                self.heard_until_s[key] = now_s + REKEY_TIMEOUT_S
                self.heard_until_s.pop(other, None)
            self.received_bytes[key] = peer.received_bytes
        return frozenset(key for key, until_s in self.heard_until_s.items() if now_s < until_s)


class KeyWatch:
    """Readable when there is something to look at; a context manager. `due_s`: when to look anyway (monotonic)."""

    def __init__(self, host: Host, me: MachineName) -> None:
        self._host = host
        self._me = me
        self._selector = selectors.EpollSelector()
        self._handshakes: Handshakes | None = None
        self._rotating: dict[InstanceName, _Rotating] = {}
        self._contents: dict[InstanceName, bytes] = {}
        self._listens_until_s = 0.0
        self.due_s = float("inf")

    def fileno(self) -> int:
        return self._selector.fileno()

    def refresh(self) -> None:
        """Read anew which keys are rotated."""
        try:
            found = {name: state.read_document_content(name, self._host.state) for name in self._host.instances()}
        except WarrenError:  # the reconcile says why
            return
        contents = {name: content for name, content in found.items() if content and _SECOND_KEY in content}
        if contents == self._contents:
            return
        self._contents, self._rotating = contents, {}
        for name in contents:
            self._begin(name)
        self._listen(bool(self._rotating))
        self.due_s = time.monotonic() if self._rotating else float("inf")

    def look(self) -> None:
        """Have the keys that speak hold what is their machines'."""
        began_s = time.monotonic()
        if self._handshakes is not None and self._handshakes.drain():
            self._listens_until_s = began_s + LISTEN_S
        for name, rotating in self._rotating.items():
            try:
                self._follow(name, rotating, began_s)
            except WarrenError as error:  # the interface is just being made or taken away; the reconcile tells more
                log.debug("%s: %s", name, error)
        now_s = time.monotonic()
        pause_s = max(SHORTEST_PAUSE_S, LOAD * (now_s - began_s))
        if now_s > self._listens_until_s:
            pause_s = max(SLOW_PAUSE_S, pause_s)
        self.due_s = now_s + pause_s if self._rotating else float("inf")

    def _begin(self, name: InstanceName) -> None:
        try:
            document = self._host.read_document(name)
        except WarrenError:  # the reconcile says why
            return
        me = document.entry(self._me) if document else None
        if document is None or me is None or not (pairs := rotation.second_keys(document, self._me)):
            return
        others: list[Entry] = [*document.controllers.values(), *document.peers.values()]
        names = {key: other.name for other in others for key in keys_of(other)}
        self._rotating[name] = _Rotating(me.interface, pairs, names)

    def _follow(self, name: InstanceName, rotating: _Rotating, now_s: float) -> None:
        device = wireguard.open_device(rotating.interface)
        if device is None:
            return
        held = device.read()
        changes = rotation.moves(held, rotating.pairs, time.time(), rotating.heard(held, now_s))
        if changes:
            self._host.perform(SetPeers(rotating.interface, changes), {})
        for change in changes:
            if change.allowed_ips:
                machine = rotating.names.get(change.public_key)
                log.info("%s: %s speaks by its key %s now", name, machine, change.public_key)

    def _listen(self, is_needed: bool) -> None:
        if is_needed and self._handshakes is None:
            try:
                self._handshakes = Handshakes()
            except KernelError as error:  # a kernel without packet sockets: a switch is noticed within SLOW_PAUSE_S
                log.warning("%s", error)
                return
            for each in self._handshakes.sockets:
                self._selector.register(each, selectors.EVENT_READ)
        elif not is_needed and self._handshakes is not None:
            for each in self._handshakes.sockets:
                self._selector.unregister(each)
            self._handshakes.close()
            self._handshakes = None

    def __enter__(self) -> KeyWatch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listen(False)
        self._selector.close()
