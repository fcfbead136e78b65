"""Which machines a document changes: each machine's own part of it, as a digest that is compared with the last one.

Pure. A machine is planned from what it sees of the document, and the names of all machines, which everybody has, are
digested once; so that ten thousand machines take seconds.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from hashlib import sha256
from typing import Any, TypeAlias

from warren.names import InstanceName, MachineName
from warren.network.addresses import prefix_text, suffix_text
from warren.network.document import ControllerEntry, Document, Entry, PeerEntry, encode, keys_of, keys_text
from warren.network.stored import PREFIX_FILE, PUBLIC_KEY_FILE, SUFFIX_FILE
from warren.plan.plan import host_lines, plan
from warren.render.desired import desired_tree

Digest: TypeAlias = str  # SHA-256, hexadecimal; FETCHES behind it: of a machine that then fetches by itself
Digests: TypeAlias = Mapping[tuple[MachineName, InstanceName], Digest]
OwnValues: TypeAlias = Mapping[str, str]  # of one machine, by the files that they have in the vars


FETCHES = "-fetches"


def content_digest(document: Document) -> Digest:
    """Of all but the serial, which says when and not what."""
    return sha256(encode(replace(document, serial=0))).hexdigest()


def plan_digests(document: Document) -> dict[MachineName, Digest]:
    """Each machine's part of the document."""
    hosts = sha256("\n".join(map(str, host_lines(document))).encode()).hexdigest()
    if document.revoked:  # everybody has to hear of it, those too who never spoke to the machine
        hosts = sha256(f"{hosts} {keys_text(document.revoked)}".encode()).hexdigest()
    if expiries := [f"{name} {at}" for name, each in document.peers.items() if (at := each.expires_unix_s) is not None]:
        hosts = sha256("\n".join([hosts, *expiries]).encode()).hexdigest()
    alike = _with_keys_alike(document)
    # Where somebody fetches documents, controllers have to have the newest, whether or not it changes themselves.
    is_handed_out = document.invitations or any(each.pulls for each in document.peers.values())
    handed = content_digest(document) if is_handed_out else ""
    shared = {**dict.fromkeys(document.controllers, hosts + handed), **dict.fromkeys(document.peers, hosts)}
    return {name: _digest(document, alike, name, also) for name, also in shared.items()}


def own_values(document: Document, machine: MachineName) -> dict[str, str]:
    """What of the machine itself the document has from the vars."""
    entry = document.entry(machine)
    assert entry is not None
    if isinstance(entry, ControllerEntry):
        values = {PREFIX_FILE: prefix_text(entry.subnet)}
    else:
        values = {SUFFIX_FILE: suffix_text(entry.suffix)}
    return values | ({PUBLIC_KEY_FILE: entry.public_key.text} if entry.public_key else {})


def _with_keys_alike(document: Document) -> Document:
    """Which of a machine's two keys is the first is its own affair: others hold both, and hear which one speaks."""
    return replace(
        document,
        controllers={name: replace(entry, **_sorted_keys(entry)) for name, entry in document.controllers.items()},
        peers={name: replace(entry, **_sorted_keys(entry)) for name, entry in document.peers.items()},
    )


def _sorted_keys(entry: Entry) -> dict[str, Any]:
    if entry.second_key is None:
        return {}
    first, second = sorted(keys_of(entry))
    return {"public_key": first, "second_key": second}


def _digest(document: Document, alike: Document, machine: MachineName, hosts: Digest) -> Digest:
    me = document.entry(machine)
    assert me is not None
    seen = alike if machine in alike.controllers else replace(alike, peers={machine: alike.peers[machine]})
    desired = replace(plan(seen, machine), public_key=me.public_key, hosts=())
    tree = {**desired_tree(machine, [desired]), "hosts": hosts}
    digest = sha256(json.dumps(tree, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    return digest + FETCHES if isinstance(me, PeerEntry) and me.pulls else digest


def fetches(machine: MachineName, acknowledged: Digests) -> bool:
    """Whether the machine confirmed a document that has it fetch the next one by itself."""
    return any(name == machine and digest.endswith(FETCHES) for (name, _), digest in acknowledged.items())


def wanted(documents: Mapping[InstanceName, Document]) -> dict[tuple[MachineName, InstanceName], Digest]:
    """What every machine should have acknowledged."""
    return {
        (machine, instance): digest
        for instance, document in documents.items()
        for machine, digest in plan_digests(document).items()
    }


def out_of_date(wants: Digests, acknowledged: Digests) -> dict[MachineName, tuple[InstanceName, ...]]:
    """The instances that each machine has to be brought anew; machines without any are not in it."""
    return _by_machine(pair for pair, digest in wants.items() if acknowledged.get(pair) != digest)


def to_forget(
    machines: Mapping[MachineName, object], wants: Digests, acknowledged: Digests
) -> dict[MachineName, tuple[InstanceName, ...]]:
    """The instances that machines of the inventory still follow and are in no longer."""
    return _by_machine(pair for pair in acknowledged if pair[0] in machines and pair not in wants)


def _by_machine(pairs: Iterable[tuple[MachineName, InstanceName]]) -> dict[MachineName, tuple[InstanceName, ...]]:
    found: dict[MachineName, tuple[InstanceName, ...]] = {}
    for machine, instance in sorted(pairs):
        found[machine] = (*found.get(machine, ()), instance)
    return found
