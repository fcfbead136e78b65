"""What the operator sees of plans before any machine does: the commands for one machine, the sizes for all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import TypeVar

from warren.names import InstanceName, MachineName
from warren.network.document import ControllerEntry, Document, Entry, PeerEntry
from warren.plan.desired import Desired, Observed
from warren.plan.diff import diff
from warren.plan.forwarding import NEW_INTERFACES, key
from warren.render.columns import columns
from warren.render.commands import script
from warren.wireguard.keys import PublicKey

AnEntry = TypeVar("AnEntry", ControllerEntry, PeerEntry)

EMPTY_MACHINE = Observed(sysctls={key(NEW_INTERFACES, "force_forwarding"): "0"})
"""A machine without the instance, of Linux 6.17 or later."""


def preview(desired: Desired, unknown: frozenset[PublicKey] = frozenset()) -> str:
    """The commands that bring the instance up on a machine that has nothing of it."""
    steps = diff(EMPTY_MACHINE, desired)
    return f"# {desired.instance} on {desired.machine}\n{script(steps, desired.peer_names, unknown)}"


def with_stand_ins(document: Document) -> tuple[Document, frozenset[PublicKey]]:
    """The document with a key for every machine, and those of the keys that only stand for keys not made yet.

    So that machines are planned with all that is known of them: everything but the key follows from names.
    """
    completed = replace(
        document,
        controllers={name: _with_key(entry) for name, entry in document.controllers.items()},
        peers={name: _with_key(entry) for name, entry in document.peers.items()},
    )
    return completed, frozenset(map(_stand_in, _without_key(document)))


def _with_key(entry: AnEntry) -> AnEntry:
    return entry if entry.public_key is not None else replace(entry, public_key=_stand_in(entry.name))


def _stand_in(name: MachineName) -> PublicKey:
    return PublicKey(sha256(f"stands for the key of {name}".encode()).digest())


def _without_key(document: Document) -> list[MachineName]:
    entries: list[Entry] = [*document.controllers.values(), *document.peers.values()]
    return [entry.name for entry in entries if entry.public_key is None]


@dataclass(frozen=True, slots=True)
class Summary:
    """How large one machine's plan for one instance is."""

    machine: MachineName
    instance: InstanceName
    role: str
    addresses: int
    wireguard_peers: int
    host_names: int
    has_key: bool


def summaries(document: Document) -> Iterator[Summary]:
    """Counted, not planned: 10,000 plans would hold 10,000 lines for the hosts file each."""
    controllers = len(document.controllers)
    machines = controllers + len(document.peers)
    of_controllers = _second_keys(document.controllers.values())
    of_all = of_controllers + _second_keys(document.peers.values())
    for controller in document.controllers.values():
        has_key = controller.public_key is not None
        wireguard_peers = machines - 1 + of_all - (controller.second_key is not None)
        yield Summary(controller.name, document.instance, "controller", 1, wireguard_peers, machines, has_key)
    for peer in document.peers.values():
        has_key = peer.public_key is not None
        wireguard_peers = controllers + of_controllers
        yield Summary(peer.name, document.instance, "peer", controllers, wireguard_peers, machines, has_key)


def _second_keys(entries: Iterable[Entry]) -> int:
    return sum(entry.second_key is not None for entry in entries)


def summary_tree(rows: Iterable[Summary]) -> dict[str, object]:
    """What `warren plan --json` prints without a machine."""
    machines: dict[str, dict[str, object]] = {}
    for row in rows:
        machines.setdefault(row.machine, {})[row.instance] = {
            "role": row.role,
            "addresses": row.addresses,
            "peers": row.wireguard_peers,
            "hosts": row.host_names,
            "has_key": row.has_key,
        }
    return {"machines": {machine: {"instances": instances} for machine, instances in machines.items()}}


def summary_table(rows: Iterable[Summary]) -> str:
    head = ("MACHINE", "INSTANCE", "ROLE", "ADDRESSES", "WIREGUARD PEERS", "NAMES", "KEY")
    return columns([head, *map(_row, rows)])


def _row(row: Summary) -> tuple[str, ...]:
    counts = (f"{row.addresses:,}", f"{row.wireguard_peers:,}", f"{row.host_names:,}")
    return row.machine, row.instance, row.role, *counts, "yes" if row.has_key else "not yet"


def missing_keys(document: Document) -> str:
    """A line about the machines that have no key yet; "" where all have one."""
    names = _without_key(document)
    if not names:
        return ""
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")
    return f"{document.instance}: no key yet: {shown} (warren vars generate)"
