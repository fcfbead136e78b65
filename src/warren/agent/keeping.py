"""Private keys that the operator brings, the vault's: on stdin, and to the disk in the way of those that are made here.

What cannot be read is never repeated in an error: it may be a key.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from warren.errors import UsageError, WarrenError
from warren.host import keys
from warren.host.machine import Host
from warren.names import InstanceName, MachineName, is_host_name
from warren.wireguard.keys import PrivateKey, PublicKey

log = logging.getLogger("warren")


@dataclass(frozen=True, slots=True)
class Brought:
    """Of one instance: the key that counts, and the one that comes after it."""

    key: PrivateKey | None
    following: PrivateKey | None


def parse(text: bytes) -> dict[InstanceName, Brought]:
    """Read what `machine keep` reads; UsageError where it is anything else."""
    with suppress(ValueError, KeyError, TypeError, AttributeError):
        tree = json.loads(text)["keys"]
        if all(map(is_host_name, tree)):
            return {InstanceName(name): Brought(_key(each["key"]), _key(each["next"])) for name, each in tree.items()}
    raise UsageError("this is not what `machine keep` reads")


def _key(text: Any) -> PrivateKey | None:
    return None if text is None else PrivateKey.parse(text)


def keep(host: Host, me: MachineName, request: Mapping[InstanceName, Brought]) -> dict[str, dict[str, object]]:
    """Keep all of them; the answer as JSON has it."""
    with host.locked():
        return {name: _kept(host, me, name, brought) for name, brought in request.items()}


def _kept(host: Host, me: MachineName, instance: InstanceName, brought: Brought) -> dict[str, object]:
    before = host.public_keys(instance)
    was_empty = keys.keep_key(instance, brought.key, brought.following, _in_use(host, me, instance), host.state)
    held = host.public_keys(instance)
    for key in held:
        if key not in before:
            log.info("%s: keeps its key %s, which the operator brought", instance, key)
    return {"public_keys": [key.text for key in held], "was_empty": was_empty}


def _in_use(host: Host, me: MachineName, instance: InstanceName) -> PublicKey | None:
    with suppress(WarrenError):  # a broken document says nothing of keys
        document = host.read_document(instance)
        entry = document.entry(me) if document else None
        return entry.public_key if entry else None
    return None
