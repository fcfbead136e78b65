"""Observed x Desired -> Steps: the one diff that serves preview, apply, verification and drift.

Additions come before removals, and nothing is reachable before its firewall and its unreachable route are there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from ipaddress import IPv6Interface

from warren.names import InstanceName, InterfaceName
from warren.plan import firewall, forwarding, other_firewalls, rotation
from warren.plan.desired import Desired, Observed
from warren.plan.moves import by_naming
from warren.plan.plan import speaks_first
from warren.plan.steps import (
    AddAddress,
    AddRoute,
    AddUnreachable,
    AwaitHandshake,
    ClearHosts,
    CreateLink,
    DeleteLink,
    DropTable,
    LoadTable,
    PeerChange,
    RemoveAddress,
    RemoveRoute,
    RemoveUnreachable,
    RestoreSysctls,
    SetLinkUp,
    SetListenPort,
    SetMtu,
    SetPeers,
    SetPrivateKey,
    Step,
    WriteHosts,
)
from warren.wireguard.device import (
    HANDSHAKE_INITIATION_BYTES,
    REJECT_AFTER_TIME_S,
    ObservedDevice,
    ObservedPeer,
    Peer,
)
from warren.wireguard.endpoint import Endpoint, SocketAddress
from warren.wireguard.keys import PublicKey
from warren.wireguard.preshared import NO_PRESHARED_KEY, NOBODYS, Fingerprint

Resolved = Mapping[Endpoint, tuple[SocketAddress, ...]]
"""What endpoints stand for now; one that is missing was not looked up, an empty one has no address."""

_EMPTY_DEVICE = ObservedDevice(None, 0, {})


def diff(
    observed: Observed,
    desired: Desired,
    resolved: Resolved | None = None,
    moved: frozenset[PublicKey] = frozenset(),
) -> tuple[Step, ...]:
    """What turns `observed` into `desired`, in the order to do it; empty when there is nothing to do.

    `moved`: peers that are reached elsewhere from now on, though they may have been heard a moment ago.
    """
    peers = rotation.peers_now(desired, observed.device or _EMPTY_DEVICE, observed.unix_s)
    return tuple(_steps(_without_handshakes(observed, moved), replace(desired, peers=peers), resolved or {}))


def removal(observed: Observed, instance: InstanceName, interface: InterfaceName) -> tuple[Step, ...]:
    """What takes the instance off the machine."""
    steps: list[Step] = []
    if observed.hosts is not None:
        steps.append(ClearHosts(instance))
    port = observed.device.listen_port if observed.device else None
    steps += other_firewalls.takes_back(instance, interface, port, observed.other_firewalls)
    if observed.link is not None:
        steps.append(DeleteLink(interface))
    if observed.sysctls_before:
        steps.append(RestoreSysctls(instance))
    if observed.firewall is not None:
        steps.append(DropTable(instance))
    steps.extend(RemoveUnreachable(network) for network in sorted(observed.unreachable))
    return tuple(steps)


def _without_handshakes(observed: Observed, moved: frozenset[PublicKey]) -> Observed:
    """As if those peers had been silent for long: what was heard of them was heard where they are no more."""
    if observed.device is None or not moved:
        return observed
    peers = {
        key: peer._replace(handshake_unix_s=0.0) if key in moved else peer
        for key, peer in observed.device.peers.items()
    }
    return replace(observed, device=replace(observed.device, peers=peers))


def endpoints_to_look_up(
    observed: Observed, desired: Desired, moved: frozenset[PublicKey] = frozenset()
) -> set[Endpoint]:
    """The endpoints whose addresses matter now: of peers that are new, that have none, or that are silent for long."""
    held = (_without_handshakes(observed, moved).device or _EMPTY_DEVICE).peers
    return {
        peer.endpoint
        for key, peer in desired.peers.items()
        if peer.endpoint is not None
        and (key not in held or held[key].endpoint is None or _is_stale(held[key], observed.unix_s))
    }


def only_where_to_call(steps: Iterable[Step]) -> bool:
    """Whether nothing but peers' endpoints differs, as beside an agent that calls silent ones here and there."""
    return all(
        isinstance(step, SetPeers)
        and not step.removed
        and all(change == PeerChange(change.public_key, endpoint=change.endpoint) for change in step.changes)
        for step in steps
    )


def _steps(observed: Observed, desired: Desired, resolved: Resolved) -> Iterator[Step]:
    interface = desired.interface
    link, device, present = observed.link, observed.device, observed.addresses
    if link is not None and device is None:  # a userspace implementation died: its interface answers nobody
        yield DeleteLink(interface)
    if link is None or device is None:
        yield CreateLink(interface)
        link, device, present = None, _EMPTY_DEVICE, frozenset()
    if desired.base not in observed.unreachable:
        yield AddUnreachable(desired.base)
    if observed.firewall != firewall.expected(desired.instance, desired.firewall):
        yield LoadTable(desired.instance, desired.firewall)
    yield from other_firewalls.asks(desired.instance, interface, desired.listen_port, observed.other_firewalls)
    yield from forwarding.steps(desired, observed)
    if desired.public_key is not None and device.public_key != desired.public_key:
        yield SetPrivateKey(desired.instance, interface, desired.public_key)
    if desired.listen_port not in (None, device.listen_port):
        yield SetListenPort(interface, desired.listen_port)
    if link is None or link.mtu_bytes != desired.mtu_bytes:
        yield SetMtu(interface, desired.mtu_bytes)
    lost = _without_route(observed, desired, present)
    yield from (RemoveAddress(interface, address) for address in sorted(lost))
    yield from (AddAddress(interface, address) for address in sorted(desired.addresses - present | lost))
    peers, waiting = _peers(device, desired, observed.unix_s, resolved)
    if peers.changes or peers.removed:
        yield peers
    if link is None or not link.is_up:
        yield SetLinkUp(interface)
    routes = frozenset() if link is None else observed.own_routes
    yield from (AddRoute(interface, network) for network in sorted(desired.routes - routes))
    if waiting:
        yield AwaitHandshake(interface, tuple(change.public_key for change in waiting))
        yield SetPeers(interface, waiting)
    yield from (RemoveRoute(interface, network) for network in sorted(routes - desired.routes))
    yield from (RemoveAddress(interface, address) for address in sorted(present - desired.addresses))
    yield from (RemoveUnreachable(network) for network in sorted(observed.unreachable - {desired.base}))
    if observed.hosts != tuple(map(str, desired.hosts)):
        yield WriteHosts(desired.instance, desired.hosts)


def _without_route(observed: Observed, desired: Desired, present: frozenset[IPv6Interface]) -> frozenset[IPv6Interface]:
    """Addresses whose network's route is gone. The kernel makes it with the address, so the address is made anew."""
    is_up = observed.link is not None and observed.link.is_up  # before that, there are no routes
    return frozenset(a for a in present & desired.addresses if is_up and a.network not in observed.routes)


def _peers(
    device: ObservedDevice, desired: Desired, now_unix_s: float, resolved: Resolved
) -> tuple[SetPeers, tuple[PeerChange, ...]]:
    """The changes to make at once, and the keepalives that start once the other side had the first word."""
    changes: list[PeerChange] = []
    waiting: list[PeerChange] = []
    # A session goes on whatever becomes of the preshared key. Where there is none, a new peer calls at once.
    renewed = {
        key
        for key, peer in device.peers.items()
        if key in desired.peers and not _has_preshared(peer, _preshared(desired, key)) and _is_stale(peer, now_unix_s)
    }
    held = {key: peer for key, peer in device.peers.items() if key not in renewed} if renewed else device.peers
    for key, peer in desired.peers.items():
        if key in held:
            if change := _change(held[key], peer, _preshared(desired, key), now_unix_s, resolved):
                changes.append(change)
            continue
        waits = peer.keepalive_s > 0 and not speaks_first(desired, key)
        keepalive_s = 0 if waits else peer.keepalive_s
        preshared = _preshared(desired, key) or None
        changes.append(PeerChange(key, True, peer.allowed_ips, peer.endpoint, keepalive_s, preshared=preshared))
        if waits:
            waiting.append(PeerChange(key, keepalive_s=peer.keepalive_s))
    removed = [key for key in device.peers if key not in desired.peers]
    changes = by_naming(changes, held)
    changes += _greetings(device, desired)
    return SetPeers(desired.interface, tuple(changes), tuple(sorted([*renewed, *removed]))), tuple(waiting)


def _greetings(device: ObservedDevice, desired: Desired) -> Iterator[PeerChange]:
    """With a new private key no session sends any more. So everybody is called, and learns of it, at once.

    WireGuard calls when a keepalive is switched on.
    """
    if desired.public_key is None or device.public_key in (None, desired.public_key):
        return
    for key, peer in desired.peers.items():
        if peer.keepalive_s and key in device.peers and (peer.endpoint or device.peers[key].endpoint):
            yield PeerChange(key, keepalive_s=0)
            yield PeerChange(key, keepalive_s=peer.keepalive_s)


def _preshared(desired: Desired, key: PublicKey) -> Fingerprint:
    return desired.preshared[key][0] if key in desired.preshared else NO_PRESHARED_KEY


def _has_preshared(held: ObservedPeer, wanted: Fingerprint) -> bool:
    return held.preshared == wanted or (wanted == NOBODYS and bool(held.preshared))


def _change(
    held: ObservedPeer, peer: Peer, wanted: Fingerprint, now_unix_s: float, resolved: Resolved
) -> PeerChange | None:
    allowed_ips = None if held.allowed_ips == peer.allowed_ips else peer.allowed_ips
    keepalive_s = None if held.keepalive_s == peer.keepalive_s else peer.keepalive_s
    endpoint = peer.endpoint if _needs_endpoint(held, peer, now_unix_s, resolved) else None
    preshared = None if _has_preshared(held, wanted) else wanted
    if allowed_ips is None and keepalive_s is None and endpoint is None and preshared is None:
        return None
    return PeerChange(peer.public_key, False, allowed_ips, endpoint, keepalive_s, preshared=preshared)


def others_first(observed: Observed, desired: Desired, resolved: Resolved) -> Resolved:
    """Of several addresses, those that a silent peer was not tried at come first: the other family may work."""
    held = (observed.device or _EMPTY_DEVICE).peers
    tried = {peer.endpoint: held[key].endpoint for key, peer in desired.peers.items() if peer.endpoint and key in held}
    return {
        endpoint: tuple(sorted(candidates, key=lambda candidate: candidate == tried.get(endpoint)))
        for endpoint, candidates in resolved.items()
    }


def _needs_endpoint(held: ObservedPeer, peer: Peer, now_unix_s: float, resolved: Resolved) -> bool:
    """A peer that answers is left alone, wherever it is: WireGuard follows a roaming peer by itself."""
    if peer.endpoint is None:
        return False
    candidates = resolved.get(peer.endpoint, ())
    if held.endpoint is None:
        return peer.endpoint not in resolved or bool(candidates)
    if not candidates or not _is_stale(held, now_unix_s):
        return False
    return held.endpoint not in candidates or (held.endpoint != candidates[0] and _was_tried(held))


def _was_tried(held: ObservedPeer) -> bool:
    """Whether WireGuard called at the endpoint for a while: three first messages, ten seconds and more."""
    return held.sent_bytes >= 3 * HANDSHAKE_INITIATION_BYTES


def _is_stale(held: ObservedPeer, now_unix_s: float) -> bool:
    return now_unix_s - held.handshake_unix_s > REJECT_AFTER_TIME_S
