"""This machine in all of its instances: its documents, and what becomes of them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv6Network
from typing import TypeAlias

from warren.agent import reconcile
from warren.agent.reconcile import Pending
from warren.errors import WarrenError
from warren.host import rtnetlink, state
from warren.host.machine import Host
from warren.names import InstanceName, InterfaceName, MachineName
from warren.network.document import Document
from warren.plan import preflight
from warren.plan.steps import Step
from warren.render.status import InstanceStatus
from warren.wireguard.keys import PublicKey

Documents: TypeAlias = Mapping[InstanceName, Document]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one instance: the steps that were done (of a check: that wait), or why it could not be."""

    steps: tuple[Step, ...] = ()
    error: WarrenError | None = None
    names: Mapping[PublicKey, MachineName] = field(default_factory=dict)  # for people


def check(host: Host, me: MachineName, documents: Documents) -> dict[InstanceName, Verdict]:
    """What `apply` would do, for every instance. Nothing is touched."""
    return {
        name: Verdict(each.steps, None, each.desired.peer_names) if isinstance(each, Pending) else Verdict(error=each)
        for name, each in _prepare(host, me, documents).items()
    }


def apply(
    host: Host, me: MachineName, documents: Documents, new: Mapping[InstanceName, bytes] | None = None
) -> dict[InstanceName, Verdict]:
    """Make this machine what its documents say.

    All that can be known beforehand is checked before the first effect; after that, one instance's failure is no
    reason to neglect the others. `new`: the bytes of documents that the machine does not have yet; it keeps those that
    passed the checks. Of an instance that is new here and fails, nothing stays.
    """
    with host.locked():
        before = host.instances()
        # Without what was taken down while we waited: it would come back, and nobody would look after it.
        documents = {name: each for name, each in documents.items() if name in before or name in (new or {})}
        prepared = _prepare(host, me, documents)
        for name, content in (new or {}).items():
            if isinstance(prepared[name], Pending):
                host.write_document(name, content)
                state.write_machine_name(me, host.state)  # its key is this machine's: so it is the right name
        verdicts = {name: _perform(host, each) for name, each in prepared.items()}
        for name in (new or {}).keys() - before:
            pending = prepared[name]
            if isinstance(pending, Pending) and verdicts[name].error is not None:
                _take_back(host, pending)
        return verdicts


def status(host: Host, me: MachineName) -> tuple[list[InstanceStatus], dict[InstanceName, WarrenError]]:
    """How every instance of this machine is, and which ones `apply` would refuse."""
    documents, refused = read_documents(host)
    statuses = []
    for name, pending in _prepare(host, me, documents).items():
        if isinstance(pending, WarrenError):
            refused[name] = pending
        else:
            statuses.append(InstanceStatus(pending.desired, pending.observed, len(pending.steps)))
    return statuses, refused


def take_down(host: Host, instance: InstanceName) -> None:
    """Take the instance off this machine, its document included, so that no agent brings it back. The key stays."""
    with host.locked():
        documents, _ = read_documents(host)
        own = documents.get(instance)
        me = host.machine_name()
        entry = own.entry(me) if own and me else None
        interface = entry.interface if entry else InterfaceName(instance)
        reconcile.remove(host, instance, interface, _others(host, instance, documents))
        host.forget(instance)


def read_documents(host: Host) -> tuple[dict[InstanceName, Document], dict[InstanceName, WarrenError]]:
    """The documents that this machine has, and those that it refuses."""
    documents: dict[InstanceName, Document] = {}
    refused: dict[InstanceName, WarrenError] = {}
    for name in host.instances():
        try:
            if document := host.read_document(name):
                documents[name] = document
        except WarrenError as error:
            refused[name] = error
    return documents, refused


def _prepare(host: Host, me: MachineName, documents: Documents) -> dict[InstanceName, Pending | WarrenError]:
    prepared: dict[InstanceName, Pending | WarrenError] = {}
    for name, document in documents.items():
        others = _others(host, name, documents)
        try:
            prepared[name] = reconcile.prepare(host, document, me, others)
        except WarrenError as error:
            prepared[name] = error
    preflight.check_together([each.desired for each in prepared.values() if isinstance(each, Pending)])
    return prepared


def _take_back(host: Host, pending: Pending) -> None:
    """Undo a first apply that failed, as far as what broke it allows; the failure itself is what is told."""
    with suppress(WarrenError):
        reconcile.remove(host, pending.desired.instance, pending.desired.interface, pending.others)
        host.forget(pending.desired.instance)


def _others(host: Host, instance: InstanceName, documents: Documents) -> frozenset[IPv6Network]:
    """The bases of the machine's other instances, whose routes are none of this one's."""
    others = frozenset(other.base for name, other in documents.items() if name != instance)
    if all(name in documents for name in host.instances() if name != instance):
        return others
    # A document that is refused does not say its base, and its mesh goes on.
    own = {documents[instance].base} if instance in documents else set()
    return rtnetlink.unreachable_networks() - own


def _perform(host: Host, prepared: Pending | WarrenError) -> Verdict:
    if isinstance(prepared, WarrenError):
        return Verdict(error=prepared)
    try:
        reconcile.perform(host, prepared)
    except WarrenError as error:
        return Verdict(prepared.steps, error, prepared.desired.peer_names)
    return Verdict(prepared.steps, None, prepared.desired.peer_names)
