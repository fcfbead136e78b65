"""The network document: one instance's whole mesh, as every machine reads it. No secrets.

Canonical bytes: JSON, keys sorted, no spaces, ASCII, one closing newline; so equal documents are equal bytes, and
a signature can be checked over them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv6Address, IPv6Network
from itertools import pairwise
from typing import Any, TypeAlias

from warren.errors import DocumentRefused
from warren.names import (
    InstanceName,
    InterfaceName,
    MachineName,
    interface_name_problem,
    is_domain,
    is_host_name,
)
from warren.network import addresses
from warren.network.invitations import OPEN, USED, WITHDRAWN, Invitation, guest_address
from warren.network.preshared import Choices, is_pair
from warren.wireguard.device import parse_route
from warren.wireguard.endpoint import Endpoint, parse_endpoint
from warren.wireguard.keys import PublicKey
from warren.wireguard.preshared import NO_PRESHARED_KEY, parse_fingerprint

VERSION = 1
MTU_RANGE = range(1280, 65536)  # IPv6 needs 1280 (RFC 8200, section 5)
PORT_RANGE = range(1, 65536)


@dataclass(frozen=True, slots=True)
class ControllerEntry:
    """A controller as others know it. `public_key` None: its key is not made yet.

    `second_key`: while its key is rotated, the one that it will have, or had: others accept it by either.
    """

    name: MachineName
    public_key: PublicKey | None
    subnet: IPv6Network
    endpoint: Endpoint
    port: int
    interface: InterfaceName
    mtu_bytes: int | None = None
    routes: tuple[IPv6Network, ...] = ()  # networks behind it, sorted; none overlaps another or the base
    second_key: PublicKey | None = None

    @property
    def address(self) -> IPv6Address:
        return addresses.controller_address(self.subnet)


@dataclass(frozen=True, slots=True)
class PeerEntry:
    """A peer as others know it. `public_key` and `second_key` as for a controller.

    `expires_unix_s`: from then on nobody lets it in; None: never. `pulls`: it fetches its documents from controllers.
    """

    name: MachineName
    public_key: PublicKey | None
    suffix: int
    controller: MachineName
    interface: InterfaceName
    mtu_bytes: int | None = None
    second_key: PublicKey | None = None
    expires_unix_s: int | None = None
    pulls: bool = False


Entry: TypeAlias = ControllerEntry | PeerEntry


@dataclass(frozen=True, slots=True)
class Document:
    """One mesh. Both mappings are sorted by name; no machine is in both. `serial` grows with each published one.

    `revoked`: keys that nobody accepts ever again, sorted. `preshared`: by maker and other end, the fingerprints
    of the preshared keys that pairs have (`network.preshared`). `preshared_command`: the name of the
    program that says them instead, on each machine; "": none. `invitations`: to peers, sorted by key.
    """

    instance: InstanceName
    base: IPv6Network
    domain: str
    controllers: Mapping[MachineName, ControllerEntry]
    peers: Mapping[MachineName, PeerEntry]
    serial: int = 0
    revoked: tuple[PublicKey, ...] = ()
    preshared: Mapping[MachineName, Mapping[MachineName, Choices]] = field(default_factory=dict)
    preshared_command: str = ""
    invitations: tuple[Invitation, ...] = ()

    def entry(self, name: MachineName) -> Entry | None:
        return self.controllers.get(name) or self.peers.get(name)

    def name_address(self, entry: Entry) -> IPv6Address:
        """Where the machine's host name points."""
        if isinstance(entry, ControllerEntry):
            return entry.address
        return addresses.peer_address(self.controllers[entry.controller].subnet, entry.suffix)


def keys_of(entry: Entry) -> tuple[PublicKey, ...]:
    """Every key by which others accept the machine, the one that it should have first."""
    return tuple(key for key in (entry.public_key, entry.second_key) if key is not None)


def encode(document: Document) -> bytes:
    """The canonical bytes."""
    machines: dict[str, dict[str, object]] = {}
    for controller in document.controllers.values():
        machines[controller.name] = {
            "role": "controller",
            "subnet": str(controller.subnet),
            "endpoint": str(controller.endpoint),
            "port": controller.port,
            **({"routes": list(map(str, controller.routes))} if controller.routes else {}),
            **_optional(controller),
        }
    for peer in document.peers.values():
        machines[peer.name] = {
            "role": "peer",
            "suffix": addresses.suffix_text(peer.suffix),
            "controller": peer.controller,
            **({} if peer.expires_unix_s is None else {"expires": peer.expires_unix_s}),
            **({"pull": True} if peer.pulls else {}),
            **_optional(peer),
        }
    for name, fields in machines.items():
        if fields["interface"] == document.instance:
            del machines[name]["interface"]
    tree: dict[str, object] = {
        "version": VERSION,
        "instance": document.instance,
        "serial": document.serial,
        "base": str(document.base),
        "domain": document.domain,
        "machines": machines,
    }
    if document.revoked:
        tree["revoked"] = [key.text for key in document.revoked]
    if document.preshared_command:
        tree["preshared_command"] = document.preshared_command
    if document.preshared:
        tree["preshared"] = {maker: {name: list(each) for name, each in others.items()}
                             for maker, others in document.preshared.items()}  # fmt: skip
    if document.invitations:
        tree["invitations"] = list(map(_invitation_tree, document.invitations))
    return json.dumps(tree, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode("ascii") + b"\n"


def _invitation_tree(invitation: Invitation) -> dict[str, object]:
    closed = {"closed": invitation.closed} if invitation.closed else {}
    return {
        "machine": invitation.machine,
        "public_key": invitation.public_key.text,
        "expires": invitation.expires_unix_s,
        **closed,
    }


def _optional(entry: Entry) -> dict[str, object]:
    fields: dict[str, object] = {"interface": entry.interface}
    if entry.public_key is not None:
        fields["public_key"] = entry.public_key.text
    if entry.second_key is not None:
        fields["second_key"] = entry.second_key.text
    if entry.mtu_bytes is not None:
        fields["mtu"] = entry.mtu_bytes
    return fields


def decode(data: bytes) -> Document:
    """Read a document; DocumentRefused says what this machine does not know or what cannot be true."""
    try:
        tree = json.loads(data, object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise DocumentRefused(f"not a network document: {error}", mend="fetch it again; it may be cut short") from None
    top = _Fields(tree, "the document")
    version = top.take("version", int)
    if version != VERSION:
        raise DocumentRefused(
            f"version {version}, this Warren reads version {VERSION}",
            mend="update Warren on this machine" if version > VERSION else "make the document anew",
        )
    instance = InstanceName(top.take("instance", str, _host_name))
    serial = top.take("serial", int, _not_negative)
    base = top.take("base", str, lambda text: _network(text, addresses.BASE_BITS))
    domain = top.take("domain", str, _domain)
    machines = top.take("machines", dict)
    revoked = top.take("revoked", list, _keys, default=())
    preshared = top.take("preshared", dict, _preshared, default={})
    preshared_command = top.take("preshared_command", str, _host_name, default="")
    invitations = tuple(map(_invitation, top.take("invitations", list, default=())))
    top.finish()
    controllers: dict[MachineName, ControllerEntry] = {}
    peers: dict[MachineName, PeerEntry] = {}
    for key in sorted(machines):
        name = MachineName(key)
        entry = _entry(name, _Fields(machines[key], f"machine {key!r}"), instance)
        if isinstance(entry, ControllerEntry):
            controllers[name] = entry
        else:
            peers[name] = entry
    document = Document(
        instance, base, domain, controllers, peers, serial, revoked, preshared, preshared_command, invitations
    )
    _check_whole(document)
    return document


def _entry(name: MachineName, fields: _Fields, instance: InstanceName) -> Entry:
    if not is_host_name(name):
        raise DocumentRefused(f"{fields.where}: not a host name")
    role = fields.take("role", str)
    public_key = fields.take("public_key", str, PublicKey.parse, default=None)
    second_key = fields.take("second_key", str, PublicKey.parse, default=None)
    if second_key is not None and public_key is None:
        raise DocumentRefused(f"{fields.where}: a second key, and no first")
    interface = InterfaceName(fields.take("interface", str, _interface, default=None) or _default_interface(instance))
    mtu_bytes = fields.take("mtu", int, lambda value: _within(value, MTU_RANGE), default=None)
    entry: Entry
    if role == "controller":
        port = fields.take("port", int, lambda value: _within(value, PORT_RANGE))
        entry = ControllerEntry(
            name,
            public_key,
            fields.take("subnet", str, lambda text: _network(text, addresses.SUBNET_BITS)),
            fields.take("endpoint", str, parse_endpoint),
            port,
            interface,
            mtu_bytes,
            fields.take("routes", list, _routes, default=()),
            second_key=second_key,
        )
    elif role == "peer":
        entry = PeerEntry(
            name,
            public_key,
            fields.take("suffix", str, addresses.parse_suffix),
            MachineName(fields.take("controller", str)),
            interface,
            mtu_bytes,
            second_key,
            fields.take("expires", int, _not_negative, default=None),
            fields.take("pull", bool, default=False),
        )
    else:
        raise DocumentRefused(f"{fields.where}: role {role!r} is not known here", mend="update Warren on this machine")
    fields.finish()
    return entry


def _invitation(tree: object) -> Invitation:
    fields = _Fields(tree, "an invitation")
    invitation = Invitation(
        MachineName(fields.take("machine", str, _host_name)),
        fields.take("public_key", str, PublicKey.parse),
        fields.take("expires", int, _not_negative),
        fields.take("closed", str, _closed, default=OPEN),
    )
    fields.finish()
    return invitation


def _closed(text: str) -> str:
    if text not in (USED, WITHDRAWN):
        raise ValueError(f"{text!r} is not {USED} or {WITHDRAWN}")
    return text


def _default_interface(instance: InstanceName) -> str:
    if problem := interface_name_problem(instance):
        raise DocumentRefused(f"the instance's name {instance!r} is no interface name: {problem}")
    return instance


def _check_whole(document: Document) -> None:
    """What no single machine's fields can show: nothing may overlap, for WireGuard would drop one side silently."""
    for controller in document.controllers.values():
        if not controller.subnet.subnet_of(document.base):
            raise DocumentRefused(f"machine {controller.name!r}: subnet {controller.subnet} is outside {document.base}")
    _check_distinct("subnet", ((entry.name, str(entry.subnet)) for entry in document.controllers.values()))
    _check_routes(document)
    for peer in document.peers.values():
        if peer.controller not in document.controllers:
            raise DocumentRefused(f"machine {peer.name!r}: controller {peer.controller!r} is not in the document")
        if addresses.upper_half(peer.suffix) == 0:
            raise DocumentRefused(f"machine {peer.name!r}: its /96 would cover the controllers' own ::1")
    _check_distinct(
        "/96",
        ((entry.name, f"{addresses.upper_half(entry.suffix):08x}") for entry in document.peers.values()),
    )
    everybody: list[Entry] = [*document.controllers.values(), *document.peers.values()]
    _check_distinct("public key", ((entry.name, key) for entry in everybody for key in keys_of(entry)))
    _check_invitations(document, everybody)
    for entry in everybody:
        if revoked := frozenset(document.revoked).intersection(keys_of(entry)):
            raise DocumentRefused(f"machine {entry.name!r} has the key {min(revoked)}, which is revoked")
        if entry.second_key is not None and entry.second_key == entry.public_key:
            raise DocumentRefused(f"machine {entry.name!r}: its second key is its first")
    _check_pairs(document)
    _check_distinct("name but for case", ((entry.name, entry.name.lower()) for entry in everybody))


def _check_invitations(document: Document, everybody: list[Entry]) -> None:
    """A one-time key opens one door: it is nobody's own key, and nobody else's address."""
    one_time = [each.public_key for each in document.invitations]
    if one_time != sorted(set(one_time)):
        raise DocumentRefused("invitations are sorted by their keys, each once")
    for each in document.invitations:
        if each.machine not in document.peers:
            raise DocumentRefused(f"an invitation for {each.machine!r}, which is no peer")
    _check_distinct(
        "public key",
        (
            *((entry.name, key) for entry in everybody for key in keys_of(entry)),
            *((f"invitation {each}", each) for each in one_time),
        ),
    )
    for controller in document.controllers.values():
        addresses_of = ((f"invitation {each}", str(guest_address(controller.subnet, each))) for each in one_time)
        _check_distinct("guest address", addresses_of)


def _check_routes(document: Document) -> None:
    everything = sorted((network, entry.name) for entry in document.controllers.values() for network in entry.routes)
    for network, name in everything:
        if network.overlaps(document.base):
            raise DocumentRefused(f"machine {name!r}: route {network} overlaps the mesh's own {document.base}")
    for (network, name), (inner, other) in pairwise(everything):
        if network.overlaps(inner):
            raise DocumentRefused(f"machines {name!r} and {other!r} have routes that overlap: {network}, {inner}")


def _check_pairs(document: Document) -> None:
    for maker, others in document.preshared.items():
        for other in others:
            if not is_pair(maker, other, document.controllers, document.peers):
                raise DocumentRefused(f"{maker!r} makes no preshared key for {other!r}")


def keys_text(keys: Iterable[PublicKey]) -> str:
    """One a line, as vars and machines keep them."""
    return "\n".join(key.text for key in sorted(keys))


def parse_keys(text: str) -> frozenset[PublicKey]:
    """What `keys_text` wrote; ValueError where a line is no key."""
    return frozenset(map(PublicKey.parse, text.split()))


def _check_distinct(what: str, pairs: Any) -> None:
    owners: dict[object, MachineName] = {}
    for name, value in pairs:
        first = owners.setdefault(value, name)
        if first != name:
            raise DocumentRefused(f"machines {first!r} and {name!r} have one {what}: {value}")


class _Fields:
    """A JSON object whose members are taken one by one; what is left over is something this Warren does not know."""

    def __init__(self, tree: object, where: str) -> None:
        if not isinstance(tree, dict):
            raise DocumentRefused(f"{where}: an object is needed, this is {_shown(tree)}")
        self._left = dict(tree)
        self.where = where

    def take(self, key: str, kind: type, read: Callable[[Any], Any] = lambda value: value, default: Any = ...) -> Any:
        if key not in self._left:
            if default is ...:
                raise DocumentRefused(f"{self.where}: {key!r} is missing")
            return default
        value = self._left.pop(key)
        if type(value) is not kind:  # isinstance would let True be a number
            raise DocumentRefused(f"{self.where}: {key!r} must be {_KINDS[kind]}, this is {_shown(value)}")
        try:
            return read(value)
        except ValueError as error:
            raise DocumentRefused(f"{self.where}: {key!r}: {error}") from None

    def finish(self) -> None:
        if self._left:
            raise DocumentRefused(
                f"{self.where}: {', '.join(map(repr, sorted(self._left)))} is not known here",
                mend="update Warren on this machine",
            )


_KINDS = {int: "a whole number", str: "text", dict: "an object", list: "a list", bool: "true or false"}


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:40]}…"


def _no_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    tree = dict(pairs)
    if len(tree) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return tree


def _no_constant(text: str) -> object:
    raise ValueError(f"{text} is not JSON")


def _routes(texts: list[object]) -> tuple[IPv6Network, ...]:
    for text in texts:
        if not isinstance(text, str):
            raise ValueError(f"{_shown(text)} is not text")
    return tuple(sorted(parse_route(text) for text in texts))  # type: ignore[arg-type] # looked at above


def _host_name(text: str) -> str:
    if not is_host_name(text):
        raise ValueError(f"{text!r} is not a host name")
    return text


def _domain(text: str) -> str:
    if not is_domain(text):
        raise ValueError(f"{text!r} is not a domain")
    return text


def _interface(text: str) -> str:
    if problem := interface_name_problem(text):
        raise ValueError(f"{text!r} is no interface name: {problem}")
    return text


def _not_negative(value: int) -> int:
    if value < 0:
        raise ValueError(f"{value} is negative")
    return value


def _within(value: int, allowed: range) -> int:
    if value not in allowed:
        raise ValueError(f"{value} is outside {allowed.start}–{allowed.stop - 1}")
    return value


def _keys(texts: list[Any]) -> tuple[PublicKey, ...]:
    keys = tuple(PublicKey.parse(text) for text in texts if isinstance(text, str))
    if len(keys) != len(texts) or list(keys) != sorted(set(keys)):
        raise ValueError("keys are texts, sorted, each once")
    return keys


def _preshared(tree: dict[str, Any]) -> dict[MachineName, dict[MachineName, Choices]]:
    return {
        MachineName(maker): {MachineName(other): _choices(each) for other, each in _table(others).items()}
        for maker, others in tree.items()
    }


def _table(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{_shown(value)} is no object")
    return value


def _choices(texts: object) -> Choices:
    if not isinstance(texts, list) or len(texts) not in (1, 2) or not all(isinstance(each, str) for each in texts):
        raise ValueError(f"{_shown(texts)} is not one fingerprint or two")
    if len(set(texts)) != len(texts) or texts == [NO_PRESHARED_KEY]:
        raise ValueError(f"{_shown(texts)} says nothing")
    return tuple(parse_fingerprint(each) if each else NO_PRESHARED_KEY for each in texts)


def _network(text: str, bits: int) -> IPv6Network:
    network = IPv6Network(text)
    if network.prefixlen != bits or not network.subnet_of(addresses.ULA):
        raise ValueError(f"{text!r} is not a /{bits} in {addresses.ULA}")
    return network
