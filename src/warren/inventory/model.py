"""The inventory as values: checked, defaults filled in, settings merged (role, then tag, then machine)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv6Network
from typing import Literal, TypeAlias

from warren.names import InstanceName, InterfaceName, MachineName
from warren.wireguard.endpoint import Endpoint


@dataclass(frozen=True, slots=True)
class Deploy:
    """How the operator reaches a machine. `host` is what ssh is given (`root@host`); "" means the machine's name."""

    host: str = ""
    port: int | None = None
    via: str = ""  # a jump host, as ssh -J takes it
    pull: bool = False  # ssh does not get there: it fetches its documents from controllers


@dataclass(frozen=True, slots=True)
class Machine:
    name: MachineName
    tags: frozenset[str] = frozenset()
    description: str = ""
    deploy: Deploy = field(default_factory=Deploy)
    managed: bool = True  # False: Warren does not run on it; what it needs is rendered, its key is made by hand
    expires_unix_s: int | None = None  # after that, nobody lets it in; None: never
    has_vault_keys: bool = False  # of all its meshes, unless their settings say otherwise


@dataclass(frozen=True, slots=True)
class Controller:
    """A machine in the role of controller, in one instance."""

    name: MachineName
    endpoint: Endpoint
    port: int  # UDP, where it listens; the endpoint's port is what others send to
    interface: InterfaceName
    mtu_bytes: int | None = None  # None: from the path to the endpoints
    routes: tuple[IPv6Network, ...] = ()  # behind it, and reached through it; sorted
    has_vault_key: bool = False  # its private key is made here and kept encrypted; False: it makes it itself


@dataclass(frozen=True, slots=True)
class PeerMachine:
    """A machine in the role of peer, in one instance."""

    name: MachineName
    controller: MachineName  # designated: the peer's host name points into this one's subnet
    interface: InterfaceName
    mtu_bytes: int | None = None
    has_vault_key: bool = False


Member: TypeAlias = Controller | PeerMachine


@dataclass(frozen=True, slots=True)
class Instance:
    """One mesh. Both mappings are sorted by name; no machine is in both."""

    name: InstanceName
    domain: str
    controllers: Mapping[MachineName, Controller]
    peers: Mapping[MachineName, PeerMachine]
    psk: bool = False  # each pair of machines that speak to each other has a preshared key as well
    psk_command: str = ""  # or one that the program of this name says, on each machine

    @property
    def members(self) -> dict[MachineName, Member]:
        return {**self.controllers, **self.peers}


@dataclass(frozen=True, slots=True)
class Inventory:
    """What the operator wrote. `notes` are lines worth saying once: instances of other modules that were skipped."""

    name: str
    machines: Mapping[MachineName, Machine]
    instances: Mapping[InstanceName, Instance]
    max_key_age_days: int | None = None  # older keys should be rotated
    notes: tuple[str, ...] = ()
    recipients: tuple[str, ...] = ()  # who can open what is in the vault, as age takes them, without comments
    vault: Literal["age", "sops"] = "age"  # by what it is encrypted

    @property
    def vault_machines(self) -> tuple[MachineName, ...]:
        """Those that have a key in the vault, in any instance; sorted."""
        found = {name for each in self.instances.values() for name, own in each.members.items() if own.has_vault_key}
        return tuple(sorted(found))
