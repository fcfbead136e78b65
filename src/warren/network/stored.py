"""What the vars hold of one instance, as the texts that stand in the files, and where each file is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from warren.names import InstanceName, MachineName

PREFIX_FILE = "prefix"
SUFFIX_FILE = "suffix"
PUBLIC_KEY_FILE = "publickey"
NEXT_KEY_FILE = "nextkey"  # staged by its machine, which does not use it yet
FORMER_KEY_FILE = "formerkey"  # still accepted, until its machine was seen with the one in `publickey`
INVITATIONS_FILE = "invitations"  # to the machine to come in and bring its key, one a line
REVOKED_FILE = "revoked"  # keys of the machine that nobody may accept ever again, one a line
PRESHARED_FILE = "fingerprints"  # of the preshared keys that the machine made, by the other end
KEY_FILES = (PUBLIC_KEY_FILE, NEXT_KEY_FILE, FORMER_KEY_FILE)


def network_generator(instance: InstanceName) -> str:
    return f"wireguard-network-{instance}"


def keys_generator(instance: InstanceName) -> str:
    return f"wireguard-keys-{instance}"


def preshared_generator(instance: InstanceName) -> str:
    return f"wireguard-psk-{instance}"


def value_path(machine: MachineName, generator: str, file: str) -> str:
    """The file of a public value, relative to the folder of the inventory (the layout of clan repositories)."""
    return f"vars/per-machine/{machine}/{generator}/{file}/value"


@dataclass(frozen=True, slots=True)
class Stored:
    """One instance's stored texts, by machine. Machines that left the inventory may still have some."""

    prefixes: Mapping[MachineName, str] = field(default_factory=dict)
    suffixes: Mapping[MachineName, str] = field(default_factory=dict)
    public_keys: Mapping[MachineName, str] = field(default_factory=dict)
    next_keys: Mapping[MachineName, str] = field(default_factory=dict)
    former_keys: Mapping[MachineName, str] = field(default_factory=dict)
    revoked: Mapping[MachineName, str] = field(default_factory=dict)
    preshared: Mapping[MachineName, str] = field(default_factory=dict)
    invitations: Mapping[MachineName, str] = field(default_factory=dict)


NOTHING_STORED = Stored()
