"""What both kinds of WireGuard device, the kernel's and a userspace implementation's, can do."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from warren.names import InterfaceName
from warren.wireguard.device import AllowedIP, ObservedDevice
from warren.wireguard.endpoint import SocketAddress
from warren.wireguard.keys import KEY_BYTES, PresharedKey, PrivateKey, PublicKey

NO_KEY = PresharedKey(bytes(KEY_BYTES))  # what WireGuard takes for no preshared key
KEY_IN_COMMAND = "<(cat private.key)"  # how a person would hand it over without showing it


@dataclass(frozen=True, slots=True)
class PeerChange:
    """`plan.steps.PeerChange` with the endpoint's name resolved; what is None stays as it is.

    A change of a peer that is not new never creates it: where it vanished meanwhile, nothing happens.
    `allowed_ips` replaces what the peer had; with `gained_ips`, these are added to it instead. `preshared_key` (NO_KEY:
    none) holds from the next handshake on.
    """

    public_key: PublicKey
    is_new: bool = False
    allowed_ips: frozenset[AllowedIP] | None = None
    endpoint: SocketAddress | None = None
    keepalive_s: int | None = None  # 0: off
    gained_ips: frozenset[AllowedIP] | None = None
    preshared_key: PresharedKey | None = None


class Device(Protocol):
    """One WireGuard interface. Every call speaks to it anew and keeps nothing."""

    def read(self) -> ObservedDevice: ...

    def set_private_key(self, key: PrivateKey) -> None: ...

    def set_listen_port(self, port: int) -> None:
        """KernelError with code EADDRINUSE where the port is taken, at the latest when the link goes up."""

    def set_peers(self, changes: Sequence[PeerChange], removed: Sequence[PublicKey] = ()) -> None:
        """Remove, then change, leaving all other peers alone. A peer in both starts anew, without its session."""


def peers_command(interface: InterfaceName, changes: Sequence[PeerChange], removed: Sequence[PublicKey]) -> str:
    """The command form of `set_peers`, for errors: one peer by its key, more by their number."""
    if len(changes) + len(removed) == 1:
        key = changes[0].public_key if changes else removed[0]
        return f"wg set {interface} peer {key}"
    return f"wg set {interface} ({len(changes)} peers changed, {len(removed)} removed)"


@contextmanager
def paused_collector() -> Iterator[None]:
    """Without Python's cycle collector, which would walk the tens of thousands of values that are being built again
    and again: a read of 10,000 peers takes twice as long with it. None of them is in a cycle."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
