"""The mesh on a lab's machines: keys are made on them, documents brought to them, agents started on them.

The lab has vars of its own: the operator's addresses are honoured, the operator's folder is never touched.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from warren.host import state
from warren.host.keys import ensure_key
from warren.inventory.model import Inventory
from warren.lab import programs
from warren.lab.place import Place, call, results, spawn, start
from warren.lab.probe import Pair
from warren.names import InstanceName, MachineName
from warren.network.document import ControllerEntry, Document, encode

AGENT_LOG = "/var/log/warren-agent.log"
INTERFACE_WAIT_S = 3.0

_POLL_S = 0.005
_IFF_UP = 1  # linux/if.h


def instances_of(inventory: Inventory) -> dict[MachineName, list[InstanceName]]:
    found: dict[MachineName, list[InstanceName]] = {name: [] for name in inventory.machines}
    for instance in inventory.instances.values():
        for name in instance.members:
            found[name].append(instance.name)
    return found


def make_keys(
    places: Mapping[MachineName, Place], instances: Mapping[MachineName, Iterable[InstanceName]]
) -> dict[MachineName, dict[InstanceName, str]]:
    """Public keys as text; each machine makes what it has not got."""
    made = results([start(place, _make_keys, list(instances[name])) for name, place in places.items()])
    return dict(zip(places, made, strict=True))


def _make_keys(instances: Iterable[InstanceName]) -> dict[InstanceName, str]:
    os.environ["PATH"] = programs.PATH
    return {instance: ensure_key(instance).text for instance in instances}


def deliver(places: Mapping[MachineName, Place], documents: Collection[Document]) -> None:
    """Bring each machine the documents that know it; instances that it left are taken down.

    A first message of WireGuard to somebody who does not listen yet is lost, and the next one follows 5 s later. So
    controllers come first, and among them, whose ends both speak, those that leave the first word to others.
    """
    controllers = _in_order_of_listening(documents)
    for name in controllers:
        if name in places:
            call(places[name], _take_documents, name, _own(name, documents))
            _await_interfaces(places[name], [each.controllers[name] for each in documents if name in each.controllers])
    others = {name: place for name, place in places.items() if name not in controllers}
    results([start(place, _take_documents, name, _own(name, documents)) for name, place in others.items()])


def _own(machine: MachineName, documents: Iterable[Document]) -> dict[InstanceName, bytes]:
    return {document.instance: encode(document) for document in documents if document.entry(machine)}


def _in_order_of_listening(documents: Iterable[Document]) -> list[MachineName]:
    """Controllers, the largest public key first: plan.speaks_first gives the smaller one the first word."""
    keys = {name: entry.public_key or b"" for document in documents for name, entry in document.controllers.items()}
    return sorted(keys, key=lambda name: keys[name], reverse=True)


def _await_interfaces(place: Place, entries: Iterable[ControllerEntry]) -> None:
    """Until the machine's agent has set its interfaces up, or for a moment: why it did not, the pairs will show."""
    deadline = time.monotonic() + INTERFACE_WAIT_S
    for entry in entries:
        flags = place.root / "sys/class/net" / entry.interface / "flags"
        while not _is_up(flags) and time.monotonic() < deadline:
            time.sleep(_POLL_S)


def _is_up(flags: Path) -> bool:
    try:
        return bool(int(flags.read_text(), 16) & _IFF_UP)
    except OSError:
        return False


def _take_documents(me: MachineName, documents: Mapping[InstanceName, bytes]) -> None:
    state.write_machine_name(me)
    for instance, content in documents.items():
        state.write_document(instance, content)
    for instance in set(state.instances()) - set(documents):
        _take_down(instance)


def _take_down(instance: InstanceName) -> None:
    from warren.agent.machine import take_down
    from warren.host.machine import Host

    os.environ["PATH"] = programs.PATH
    take_down(Host(), instance)


def start_agent(lab: str, machine: MachineName, place: Place) -> None:
    command = [sys.executable, "-m", "warren", "agent", "--machine", machine]
    spawn(place, command, programs.environment(lab, machine), log=AGENT_LOG)


def pairs(documents: Iterable[Document]) -> list[Pair]:
    """Every machine to every other of its instances, by name, in the order of names."""
    return [
        Pair(document.instance, source, target, f"{target}.{document.domain}")
        for document in documents
        for source in sorted([*document.controllers, *document.peers])
        for target in sorted([*document.controllers, *document.peers])
        if source != target
    ]
