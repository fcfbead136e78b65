"""This machine in all of its instances: its documents, and what becomes of them."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv6Network
from typing import Any, TypeAlias

from warren.agent import reconcile, status_socket
from warren.agent.reconcile import Pending
from warren.errors import UsageError, WarrenError
from warren.host import rtnetlink, state, trial
from warren.host.machine import Host
from warren.names import InstanceName, InterfaceName, MachineName, is_host_name
from warren.network.document import Document, decode
from warren.plan import fetching, preflight
from warren.plan.reachability import Reachability
from warren.plan.steps import Step
from warren.render.status import InstanceStatus
from warren.wireguard.keys import PublicKey

Documents: TypeAlias = Mapping[InstanceName, Document]
Reaches: TypeAlias = Mapping[InstanceName, Reachability]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one instance: the steps that were done (of a check: that wait), or why it could not be."""

    steps: tuple[Step, ...] = ()
    error: WarrenError | None = None
    names: Mapping[PublicKey, MachineName] = field(default_factory=dict)  # for people
    notes: tuple[str, ...] = ()  # what the operator has to do here by hand
    expiring: tuple[str, ...] = ()  # who is let in not for long any more


def who_am_i(host: Host, given: str | None = None) -> MachineName:
    """Which machine of the documents this is: as given, else as noted here, else by its host name."""
    name = given or _known_as(host)
    if not is_host_name(name):
        raise UsageError(
            f"{name!r} is no machine's name", mend="say which machine of the inventory this is: --machine NAME"
        )
    return MachineName(name)


def _known_as(host: Host) -> str:
    return host.machine_name() or socket.gethostname().split(".")[0]


def check(
    host: Host, me: MachineName, documents: Documents, before: Documents | None = None
) -> dict[InstanceName, Verdict]:
    """What `apply` would do, for every instance. Nothing is touched."""
    return {
        name: verdict_of(each) if isinstance(each, Pending) else Verdict(error=each)
        for name, each in prepare(host, me, documents, before).items()
    }


def verdict_of(pending: Pending, error: WarrenError | None = None) -> Verdict:
    """Of what waits, or could not be done."""
    desired = pending.desired
    return Verdict(pending.steps, error, desired.peer_names, reconcile.notes(desired, pending.observed))


def apply(
    host: Host, me: MachineName, documents: Documents, new: Mapping[InstanceName, bytes] | None = None
) -> dict[InstanceName, Verdict]:
    """Make this machine what its documents say.

    All that can be known beforehand is checked before the first effect; after that, one instance's failure is no
    reason to neglect the others. `new`: the bytes of documents that the machine does not have yet; it keeps those that
    passed the checks. Of an instance that is new here and fails, nothing stays.
    """
    with host.locked():
        here = host.instances()
        # Without what was taken down while we waited: it would come back, and nobody would look after it.
        documents = {name: each for name, each in documents.items() if name in here or name in (new or {})}
        return _apply(host, me, documents, new or {})


def follow(
    host: Host,
    me: MachineName,
    new: Mapping[InstanceName, bytes] | None = None,
    reaches: Reaches | None = None,
) -> dict[InstanceName, Verdict]:
    """`apply` of what the machine has, and of `new`; those that it refuses to read are among the verdicts.

    The documents are read while nobody else changes them: read before, they could be older than what is applied last.
    `reaches`: what the agent knows of controllers.
    """
    with host.locked():
        if new:
            trial.refuse_during_trial(host.state)
        held, refused = read_documents(host)
        documents = {**held, **_decoded(new or {})}
        verdicts = _apply(host, me, documents, new or {}, held, reaches)
    refused = {name: error for name, error in refused.items() if name not in documents}
    return verdicts | {name: Verdict(error=error) for name, error in refused.items()}


def check_follow(host: Host, me: MachineName, new: Mapping[InstanceName, bytes]) -> dict[InstanceName, Verdict]:
    """What `follow` would do. Nothing is touched."""
    held, refused = read_documents(host)
    documents = {**held, **_decoded(new)}
    verdicts = check(host, me, documents, held)
    return verdicts | {name: Verdict(error=error) for name, error in refused.items() if name not in documents}


def _decoded(new: Mapping[InstanceName, bytes]) -> dict[InstanceName, Document]:
    return {name: decode(content) for name, content in new.items()}


def _apply(
    host: Host,
    me: MachineName,
    documents: Documents,
    new: Mapping[InstanceName, bytes],
    held: Documents | None = None,
    reaches: Reaches | None = None,
) -> dict[InstanceName, Verdict]:
    before = host.instances()
    prepared = prepare(host, me, documents, held, reaches)
    for name, content in new.items():
        if isinstance(prepared[name], Pending):
            host.write_document(name, content)
            state.write_machine_name(me, host.state)  # its key is this machine's: so it is the right name
    verdicts = {name: perform(host, each) for name, each in prepared.items()}
    for name in new.keys() - before:
        pending = prepared[name]
        if isinstance(pending, Pending) and verdicts[name].error is not None:
            _take_back(host, pending)
    if trial.read(host.state) is None:  # else the machine may yet go back, to the key before
        for name, document in documents.items():
            if name in verdicts and verdicts[name].error is None:
                settle_key(host, document, me)
    return verdicts


def settle_key(host: Host, document: Document, me: MachineName) -> None:
    """The document holds for good, and so do the keys that it has for this machine."""
    entry = document.entry(me)
    if entry is not None and entry.public_key is not None:
        host.settle_key(document.instance, entry.public_key)
        host.settle_preshared(document, me)


def status(host: Host, me: MachineName) -> tuple[list[InstanceStatus], dict[InstanceName, WarrenError]]:
    """How every instance of this machine is, and which ones `apply` would refuse."""
    documents, refused = read_documents(host)
    said = _of_controllers()
    statuses = []
    for name, pending in prepare(host, me, documents).items():
        if isinstance(pending, WarrenError):
            refused[name] = pending
        else:
            failed = fetching.failure_lines(state.read_fetching(name, host.state), time.time())
            statuses.append(_status(pending, tuple(failed), said.get(name)))
    return statuses, refused


def _status(pending: Pending, failed: tuple[str, ...], said: Mapping[str, Any] | None) -> InstanceStatus:
    desired, observed = pending.desired, pending.observed
    return InstanceStatus(desired, observed, len(pending.steps), reconcile.notes(desired, observed), failed, said)


def _of_controllers() -> dict[InstanceName, Mapping[str, Any]]:
    """What the running agent says of the instances in which it watches controllers."""
    try:
        answer: Mapping[str, Any] = status_socket.ask() or {}
    except (OSError, ValueError):  # one that is too busy to answer
        return {}
    return {InstanceName(name): each for name, each in answer.get("instances", {}).items() if "health" in each}


def take_down(host: Host, instance: InstanceName, *, keep_key: bool = True) -> None:
    """Take the instance off this machine, its document included, so that no agent brings it back."""
    with host.locked():
        trial.refuse_during_trial(host.state)
        documents, _ = read_documents(host)
        own = documents.get(instance)
        entry = own.entry(MachineName(_known_as(host))) if own else None
        interface = entry.interface if entry else InterfaceName(instance)
        reconcile.remove(host, instance, interface, others(host, instance, documents))
        state.remove_instance(instance, host.state, keep_key=keep_key)


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


def prepare(
    host: Host,
    me: MachineName,
    documents: Documents,
    before: Documents | None = None,
    reaches: Reaches | None = None,
) -> dict[InstanceName, Pending | WarrenError]:
    """What each instance needs, or why it cannot be; raises where instances are in each other's way.

    `before`: what was followed until now, where `documents` are other ones. `reaches`: what the agent knows.
    """
    prepared: dict[InstanceName, Pending | WarrenError] = {}
    for name, document in documents.items():
        try:
            earlier, reach = (before or {}).get(name), (reaches or {}).get(name)
            prepared[name] = reconcile.prepare(host, document, me, others(host, name, documents), earlier, reach)
        except WarrenError as error:
            prepared[name] = error
    preflight.check_together([each.desired for each in prepared.values() if isinstance(each, Pending)])
    return prepared


def _take_back(host: Host, pending: Pending) -> None:
    """Undo a first apply that failed, as far as what broke it allows; the failure itself is what is told."""
    with suppress(WarrenError):
        reconcile.remove(host, pending.desired.instance, pending.desired.interface, pending.others)
        state.remove_instance(pending.desired.instance, host.state)


def others(host: Host, instance: InstanceName, documents: Documents) -> frozenset[IPv6Network]:
    """The bases of the machine's other instances, whose routes are none of this one's."""
    if all(name in documents for name in host.instances() if name != instance):
        return frozenset(other.base for name, other in documents.items() if name != instance)
    # A document that is refused does not say its base, and its mesh goes on.
    own = {documents[instance].base} if instance in documents else set()
    return rtnetlink.unreachable_networks() - own


def perform(host: Host, prepared: Pending | WarrenError) -> Verdict:
    """Do what `prepare` found."""
    if isinstance(prepared, WarrenError):
        return Verdict(error=prepared)
    try:
        notes = reconcile.perform(host, prepared)
    except WarrenError as error:
        return Verdict(prepared.steps, error, prepared.desired.peer_names)
    return Verdict(prepared.steps, None, prepared.desired.peer_names, notes, prepared.desired.expiring)
