"""What steps do to a machine, as a function of values: the model that the laws of the diff are checked on."""

from dataclasses import replace
from typing import Any

from warren.plan import firewall
from warren.plan.desired import Observed, ObservedLink
from warren.plan.steps import (
    AddAddress,
    AddRoute,
    AddUnreachable,
    AskFirewall,
    AwaitHandshake,
    ClearHosts,
    CreateLink,
    DeleteLink,
    DropTable,
    LoadTable,
    RemoveAddress,
    RemoveRoute,
    RemoveUnreachable,
    RestoreSysctls,
    SetLinkUp,
    SetListenPort,
    SetMtu,
    SetPeers,
    SetPrivateKey,
    SetSysctl,
    Step,
    WriteHosts,
)
from warren.wireguard.device import ObservedDevice, ObservedPeer
from warren.wireguard.endpoint import SocketAddress

_NOTHING: dict[str, Any] = dict.fromkeys(("addresses", "routes", "own_routes"), frozenset())  # a link takes it along
FRESH_LINK = ObservedLink("wireguard", 1420, is_up=False)


def after(seen: Observed, steps: tuple[Step, ...], where: dict[str, SocketAddress]) -> Observed:
    """`seen` once the steps are done; `where`: what endpoints stand for, by their text."""
    for step in steps:
        seen = _one(seen, step, where)
    return seen


def _one(seen: Observed, step: Step, where: dict[str, SocketAddress]) -> Observed:  # noqa: C901 (one case per step)
    device, link = seen.device, seen.link
    match step:
        case CreateLink():
            assert link is None
            return replace(seen, link=FRESH_LINK, device=ObservedDevice(None, 0, {}), **_NOTHING)
        case DeleteLink():
            assert link is not None
            return replace(seen, link=None, device=None, **_NOTHING)
        case SetMtu():
            assert link is not None
            return replace(seen, link=replace(link, mtu_bytes=step.mtu_bytes))
        case SetLinkUp():
            assert link is not None
            routes = frozenset(address.network for address in seen.addresses)
            return replace(seen, link=replace(link, is_up=True), routes=seen.routes | routes)
        case AddAddress():
            assert step.address not in seen.addresses
            routes = frozenset({step.address.network}) if link and link.is_up else frozenset()
            return replace(seen, addresses=seen.addresses | {step.address}, routes=seen.routes | routes)
        case RemoveAddress():
            assert step.address in seen.addresses
            left = seen.addresses - {step.address}
            gone = {step.address.network} - {address.network for address in left}
            return replace(seen, addresses=left, routes=seen.routes - gone)
        case AddRoute():
            assert link is not None
            assert step.network not in seen.own_routes
            return replace(seen, routes=seen.routes | {step.network}, own_routes=seen.own_routes | {step.network})
        case RemoveRoute():
            assert step.network in seen.own_routes
            return replace(seen, routes=seen.routes - {step.network}, own_routes=seen.own_routes - {step.network})
        case AddUnreachable():
            return replace(seen, unreachable=seen.unreachable | {step.network})
        case RemoveUnreachable():
            return replace(seen, unreachable=seen.unreachable - {step.network})
        case SetPrivateKey():
            assert device is not None
            return replace(seen, device=replace(device, public_key=step.public_key))
        case SetListenPort():
            assert device is not None
            return replace(seen, device=replace(device, listen_port=step.port))
        case SetPeers():
            assert device is not None
            return replace(seen, device=_with_peers(device, step, where))
        case AwaitHandshake():
            return seen
        case SetSysctl():
            before = {step.key: seen.sysctls.get(step.key, "0")} if step.remember else {}
            return replace(
                seen,
                sysctls={**seen.sysctls, step.key: step.value},
                sysctls_before={**before, **seen.sysctls_before},
            )
        case RestoreSysctls():
            return replace(seen, sysctls={**seen.sysctls, **seen.sysctls_before}, sysctls_before={})
        case LoadTable():
            return replace(seen, firewall=firewall.expected(step.instance, step.firewall))
        case AskFirewall():
            return seen
        case DropTable():
            return replace(seen, firewall=None)
        case WriteHosts():
            return replace(seen, hosts=tuple(map(str, step.lines)))
        case ClearHosts():
            return replace(seen, hosts=None)


def _with_peers(device: ObservedDevice, step: SetPeers, where: dict[str, SocketAddress]) -> ObservedDevice:
    """As WireGuard does it: an entry of AllowedIPs that is given to one peer is taken from any other."""
    peers = {key: peer for key, peer in device.peers.items() if key not in step.removed}
    for change in step.changes:
        assert change.is_new == (change.public_key not in peers)
        peer = peers.get(change.public_key, ObservedPeer(change.public_key, frozenset()))
        said = change.allowed_ips if change.gained_ips is None else change.gained_ips
        if said is not None:
            peers = {key: other._replace(allowed_ips=other.allowed_ips - said) for key, other in peers.items()}
            peer = peer._replace(allowed_ips=said if change.gained_ips is None else peer.allowed_ips | said)
        if change.endpoint is not None:
            peer = peer._replace(endpoint=where[str(change.endpoint)])
        if change.preshared is not None:
            peer = peer._replace(preshared=change.preshared)
        if change.keepalive_s is not None:
            peer = peer._replace(keepalive_s=change.keepalive_s)
        peers[change.public_key] = peer
    return replace(device, peers=peers)
