"""Make this machine what one document says: observe, plan, diff, perform, observe again."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from ipaddress import IPv6Network

from warren.errors import NotConverged
from warren.host.machine import Host
from warren.names import InstanceName, InterfaceName, MachineName
from warren.network.document import Document, Entry
from warren.plan import preflight
from warren.plan.desired import Desired, Observed
from warren.plan.diff import Resolved, diff, endpoints_to_look_up, removal
from warren.plan.plan import plan
from warren.plan.steps import Step
from warren.render.commands import log_lines

log = logging.getLogger("warren")


@dataclass(frozen=True, slots=True)
class Pending:
    """What has to be done for one instance; without steps, all is well."""

    desired: Desired
    observed: Observed
    others: frozenset[IPv6Network]  # the bases of the machine's other instances, whose routes are none of this one's
    steps: tuple[Step, ...]
    resolved: Resolved


def prepare(host: Host, document: Document, me: MachineName, others: frozenset[IPv6Network]) -> Pending:
    """What would have to be done. Nothing is touched; whatever makes it impossible is raised here."""
    desired = plan(document, me)
    observed = host.observe(desired.instance, desired.interface, others)
    preflight.check(desired, observed, host.public_key(desired.instance), _port_holder(host, desired, observed))
    resolved = host.resolve(endpoints_to_look_up(observed, desired))
    desired = _with_mtu(host, desired, observed, resolved, document.entry(me))
    return Pending(desired, observed, others, diff(observed, desired, resolved), resolved)


def perform(host: Host, pending: Pending) -> None:
    """Do it; NotConverged if the machine differs after everything was done."""
    desired = pending.desired
    for step in pending.steps:
        host.perform(step, pending.resolved)
        for line in log_lines(step, desired.peer_names):
            log.info("%s", line)
    if pending.steps:
        observed = host.observe(desired.instance, desired.interface, pending.others)
        left_over = diff(observed, desired, pending.resolved)
        if left_over:
            raise NotConverged(
                f"still to do after everything was done: {', '.join(type(step).__name__ for step in left_over)}",
                where=f"{desired.instance} on {desired.machine}",
                mend="does something else here change the same things? `warren apply --check` shows what differs",
            )


def remove(host: Host, instance: InstanceName, interface: InterfaceName, others: frozenset[IPv6Network]) -> None:
    """Take the instance off this machine."""
    for step in removal(host.observe(instance, interface, others), instance, interface):
        host.perform(step, {})
        for line in log_lines(step, {}):
            log.info("%s", line)


def _port_holder(host: Host, desired: Desired, observed: Observed) -> str | None:
    own_port = observed.device.listen_port if observed.device else 0
    if desired.listen_port is None or desired.listen_port == own_port:
        return None
    return host.port_holder(desired.listen_port)


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
