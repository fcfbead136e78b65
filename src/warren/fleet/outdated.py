"""Which machines do not follow what the inventory says now, as far as is known here: nobody is asked."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TypeAlias

from warren.fleet.plans import Digests, out_of_date, wanted
from warren.fleet.record import Record
from warren.inventory.wording import listed
from warren.names import InstanceName, MachineName
from warren.vars.check import is_revoked
from warren.vars.generators import key_variable
from warren.workspace.folder import Folder

Behind: TypeAlias = Mapping[MachineName, tuple[InstanceName, ...]]
"""Machines, and the instances whose document of now they did not confirm."""


def is_shut_out(folder: Folder, machine: MachineName, instance: InstanceName) -> bool:
    """Whether nobody lets the machine in: its key was revoked, or its time is over. It is asked nothing any more."""
    return has_expired(folder, machine) or is_revoked(folder.texts, key_variable(machine, instance))


def has_expired(folder: Folder, machine: MachineName) -> bool:
    expires_unix_s = folder.inventory.machines[machine].expires_unix_s
    return expires_unix_s is not None and expires_unix_s <= time.time()


def behind(folder: Folder, wants: Digests, acknowledged: Digests) -> Behind:
    """Of all machines that Warren runs on, and that others let in."""
    inventory = folder.inventory
    wants = {pair: digest for pair, digest in wants.items() if not is_shut_out(folder, *pair)}
    stale = out_of_date(wants, acknowledged)
    return {machine: instances for machine, instances in stale.items() if inventory.machines[machine].managed}


def behind_now(folder: Folder) -> Behind:
    return behind(folder, wanted(folder.documents), Record(folder.store).acknowledged())


def overdue(folder: Folder) -> Behind:
    """Of instances that were brought to machines at least once: before that, nobody is late."""
    record = Record(folder.store)
    if not any(map(record.was_published, folder.inventory.instances)):
        return {}
    published = {name: each for name, each in folder.documents.items() if record.was_published(name)}
    return behind(folder, wanted(published), record.acknowledged())


def behind_line(stale: Behind) -> str:
    """For people, with what to do."""
    return f"out of date: {listed(list(stale))} (warren machines update)"
