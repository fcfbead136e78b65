"""Make this machine what one document says: observe, plan, diff, perform, observe again."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from ipaddress import IPv6Network

from warren.agent import status_socket
from warren.errors import KernelError, MachineError, NotConverged
from warren.host import rtnetlink, wireguard, wireguard_userspace
from warren.host.machine import Host
from warren.names import InstanceName, InterfaceName, MachineName
from warren.network.document import Document, Entry
from warren.plan import admission, other_firewalls, preflight, preshared, succession
from warren.plan.desired import Desired, Observed
from warren.plan.diff import Resolved, diff, endpoints_to_look_up, only_where_to_call, others_first, removal
from warren.plan.plan import own_entry, plan
from warren.plan.reachability import Reachability, found
from warren.plan.steps import DeleteLink, Step
from warren.render.commands import log_lines
from warren.wireguard.device import ObservedDevice
from warren.wireguard.keys import PublicKey

log = logging.getLogger("warren")

RELEASE_S = 1.0  # for the userspace process of a link that was taken away just now to let go of socket and port
NO_DEVICE = ObservedDevice(None, 0, {})
_POLL_S = 0.02
_TRIES = 3


@dataclass(frozen=True, slots=True)
class Pending:
    """What has to be done for one instance; without steps, all is well."""

    desired: Desired
    observed: Observed
    others: frozenset[IPv6Network]  # the bases of the machine's other instances, whose routes are none of this one's
    steps: tuple[Step, ...]
    resolved: Resolved
    document: Document
    reaches: Reachability | None  # what the agent knows; None: somebody else is at work


def prepare(
    host: Host,
    document: Document,
    me: MachineName,
    others: frozenset[IPv6Network],
    before: Document | None = None,
    reaches: Reachability | None = None,
) -> Pending:
    """What would have to be done. Nothing is touched; whatever makes it impossible is raised here.

    `before`: the document that was followed until now, where this is another one. `reaches`: what the agent knows of
    controllers; None: somebody else asks.
    """
    now_unix_s = time.time()
    admission.check_own(document, me, now_unix_s)
    expiring = tuple(admission.expiry_lines(document, now_unix_s))
    document = admission.admitted(document, host.revoked(document.instance), now_unix_s)
    observed = host.observe(document.instance, own_entry(document, me).interface, others)
    desired = replace(plan(document, me, reachability=reaches or _as_moved(document, me, observed)), expiring=expiring)
    desired = _with_preshared(host, document, desired, observed, is_watched=_is_watched(reaches))
    own_keys = host.public_keys(desired.instance)
    if observed.link is None:
        _await_release(desired.interface)
    former = _interfaces_with(own_keys) if observed.link is None else {}
    preflight.check(desired, observed, own_keys, _port_holder(host, desired, observed, former))
    moved = succession.moved(document, before, me, is_watched=_is_watched(reaches))
    resolved = others_first(observed, desired, host.resolve(endpoints_to_look_up(observed, desired, moved)))
    desired = _with_mtu(host, desired, observed, resolved, document.entry(me))
    steps = (*map(DeleteLink, former), *diff(observed, desired, resolved, moved))
    return Pending(desired, observed, others, steps, resolved, document, reaches)


def _is_watched(reaches: Reachability | None) -> bool:
    """Whether an agent runs: this one, or one beside us."""
    return reaches is not None or status_socket.is_served()


def _with_preshared(
    host: Host, document: Document, desired: Desired, observed: Observed, *, is_watched: bool
) -> Desired:
    """With the preshared key of each peer that is to be set now, of those that this machine holds."""
    device = observed.device or NO_DEVICE
    return preshared.settled(desired, document, device, host.preshared(desired.instance), is_watched=is_watched)


def _as_moved(document: Document, me: MachineName, observed: Observed) -> Reachability | None:
    """As the agent left it, as long as there is one: it alone knows who works, and moves things back in time."""
    return found(document, me, observed.device) if status_socket.is_served() else None


def perform(host: Host, pending: Pending) -> tuple[str, ...]:
    """Do it; NotConverged if the machine differs after everything was done. Returns what is left for the operator."""
    desired, observed, steps = pending.desired, pending.observed, pending.steps
    for _ in range(_TRIES):
        if not steps:
            return notes(desired, observed)
        for step in steps:
            host.perform(step, pending.resolved)
            for line in log_lines(step, desired.peer_names):
                log.info("%s", line)
        observed = host.observe(desired.instance, desired.interface, pending.others)
        left_over = diff(observed, desired, pending.resolved)
        if not left_over or (only_where_to_call(left_over) and _agent_is_beside(pending)):
            return notes(desired, observed)
        # The agent may have moved subnets meanwhile, beside whoever this is. Then, and only then, what is left differs;
        # but for a preshared key that it tried, by the document before, just after another one was set here.
        desired = _as_it_is_now(host, pending, observed)
        steps = diff(observed, desired, pending.resolved)
        if steps == left_over and not _agent_is_beside(pending):
            break
    raise NotConverged(
        f"still to do after everything was done: {', '.join(type(step).__name__ for step in steps)}",
        where=f"{desired.instance} on {desired.machine}",
        mend="does something else here change the same things? `warren apply --check` shows what differs",
    )


def _agent_is_beside(pending: Pending) -> bool:
    return pending.reaches is None and status_socket.is_served()


def _as_it_is_now(host: Host, pending: Pending, observed: Observed) -> Desired:
    """What the machine should be by now: beside us, the agent may have moved subnets meanwhile."""
    if pending.reaches is not None:
        return pending.desired
    me = pending.desired.machine
    reaches = _as_moved(pending.document, me, observed)
    desired = replace(plan(pending.document, me, reachability=reaches), mtu_bytes=pending.desired.mtu_bytes)
    return _with_preshared(host, pending.document, desired, observed, is_watched=_is_watched(pending.reaches))


def notes(desired: Desired, observed: Observed) -> tuple[str, ...]:
    lost = (preshared.lost_line(desired),) if desired.left_out else ()
    return (*lost, *other_firewalls.notes(desired.interface, desired.listen_port, observed.other_firewalls))


def remove(host: Host, instance: InstanceName, expected: InterfaceName, others: frozenset[IPv6Network]) -> None:
    """Take the instance off this machine; `expected` is its interface where none has its key."""
    interface, *more = _interfaces_with(_readable_keys(host, instance)) or (expected,)
    for step in (*removal(host.observe(instance, interface, others), instance, interface), *map(DeleteLink, more)):
        host.perform(step, {})
        for line in log_lines(step, {}):
            log.info("%s", line)


def _interfaces_with(own_keys: Collection[PublicKey]) -> dict[InterfaceName, int]:
    """The interfaces that have a key of the instance, whatever they are called by now, and their listen ports."""
    found = {}
    for name, link in rtnetlink.links().items() if own_keys else ():
        with suppress(KernelError):  # it is gone meanwhile, or somebody's that does not answer
            device = wireguard.open_device(name) if link.kind in preflight.OUR_LINK_KINDS else None
            held = device.read() if device else None
            if held is not None and held.public_key in own_keys:
                found[name] = held.listen_port
    return found


def _readable_keys(host: Host, instance: InstanceName) -> tuple[PublicKey, ...]:
    try:
        return host.public_keys(instance)
    except MachineError:
        return ()


def _await_release(interface: InterfaceName) -> None:
    deadline = time.monotonic() + RELEASE_S
    while time.monotonic() < deadline and (connection := wireguard_userspace.connect(interface)):
        connection.close()
        time.sleep(_POLL_S)


def _port_holder(host: Host, desired: Desired, observed: Observed, former: Mapping[InterfaceName, int]) -> str | None:
    own_port = observed.device.listen_port if observed.device else 0
    if desired.listen_port is None or desired.listen_port in (own_port, *former.values()):
        return None
    deadline = time.monotonic() + RELEASE_S
    while (holder := host.port_holder(desired.listen_port)) and observed.link is None and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    return holder


def _with_mtu(host: Host, desired: Desired, observed: Observed, resolved: Resolved, me: Entry | None) -> Desired:
    """The MTU from the way to the endpoints, unless the document says one."""
    if me is not None and me.mtu_bytes is not None:
        return desired
    endpoints = {addresses[0].address for addresses in resolved.values() if addresses}
    held = observed.device.peers if observed.device else {}
    for key, peer in desired.peers.items():
        if peer.endpoint is not None and key in held and (known := held[key].endpoint) is not None:
            endpoints.add(known.address)
    return replace(desired, mtu_bytes=host.path_mtu(endpoints))
