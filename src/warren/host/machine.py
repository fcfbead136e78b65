"""This machine as one thing to observe and to change: each step of a plan, carried out."""

from __future__ import annotations

import fcntl
import logging
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv6Network
from pathlib import Path
from typing import IO, Any

from warren.errors import KernelError, MachineError
from warren.host import (
    files,
    hosts_file,
    keys,
    nftables,
    other_firewalls,
    ports,
    preshared,
    rtnetlink,
    state,
    sysctl,
    wireguard,
)
from warren.host.resolve import resolve
from warren.names import InstanceName, InterfaceName, MachineName
from warren.network.document import Document
from warren.plan import steps
from warren.plan.desired import Observed, ObservedLink
from warren.plan.diff import Resolved
from warren.plan.preshared import Held, of_machine
from warren.plan.steps import Step
from warren.wireguard.endpoint import Endpoint, IPAddress, SocketAddress
from warren.wireguard.keys import KEY_BYTES, PresharedKey, PublicKey
from warren.wireguard.preshared import NO_PRESHARED_KEY, NOBODYS, Fingerprint

log = logging.getLogger("warren")

LOCK = Path("/run/warren/lock")
LOCK_TIMEOUT_S = 60.0
AWAIT_HANDSHAKE_S = 1.0  # the other side's first message takes a round trip; longer than that it is not there yet
_POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class Host:
    """This machine's kernel and files. `state` is its own folder."""

    state: Path = state.ROOT
    said: set[str] = field(default_factory=set)  # what the log has of endpoints that have no address now
    preshared_keys: dict[Fingerprint, PresharedKey] = field(default_factory=dict)  # that programs said to this process

    # Who and what

    def machine_name(self) -> MachineName | None:
        return state.machine_name(self.state)

    def instances(self) -> tuple[InstanceName, ...]:
        return state.instances(self.state)

    def read_document(self, instance: InstanceName) -> Document | None:
        return state.read_document(instance, self.state)

    def write_document(self, instance: InstanceName, content: bytes) -> None:
        state.write_document(instance, content, self.state)

    def document_folders(self) -> list[Path]:
        """Where a document may appear or change."""
        files.make_folder(self.state, mode=0o755)
        try:
            return [self.state, *(each for each in self.state.iterdir() if each.is_dir())]
        except OSError as error:
            raise MachineError(f"cannot be read: {error.strerror}", where=str(self.state)) from None

    def public_keys(self, instance: InstanceName) -> tuple[PublicKey, ...]:
        """Of the private keys that this machine has for the instance; the second is the one to which it will switch."""
        return tuple(keys.own_keys(instance, self.state))

    def revoked(self, instance: InstanceName) -> frozenset[PublicKey]:
        """Keys that this machine accepts no more, whatever a document says."""
        return state.revoked(instance, self.state)

    def settle_key(self, instance: InstanceName, in_use: PublicKey) -> None:
        """The machine has this key for good: if it is the one that it switched to, the one before is gone."""
        keys.settle(instance, in_use, self.state)

    def preshared(self, instance: InstanceName) -> Held:
        """The names of the preshared keys that this machine holds."""
        return preshared.held(instance, self.state)

    def settle_preshared(self, document: Document, me: MachineName) -> None:
        """The document holds for good: keys that it replaced are gone."""
        others = frozenset((*document.controllers, *document.peers))
        preshared.settle(document.instance, others, dict(of_machine(document, me)), self.state)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else changes this machine meanwhile."""
        with _opened_lock() as lock:
            deadline = time.monotonic() + LOCK_TIMEOUT_S
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise MachineError(
                            f"another warren has been changing this machine for {LOCK_TIMEOUT_S:.0f} s",
                            where=str(LOCK),
                            mend="see who: fuser -v /run/warren/lock",
                        ) from None
                    time.sleep(_POLL_S)
            yield

    # Looking

    def observe(self, instance: InstanceName, interface: InterfaceName, others: frozenset[IPv6Network]) -> Observed:
        """One instance as it is now; `others` are the bases of other instances, which are not counted."""
        link = rtnetlink.links().get(interface)
        device = wireguard.open_device(interface) if link else None
        routes, own_routes = rtnetlink.routes(interface) if link else (frozenset(), frozenset())
        return Observed(
            link=ObservedLink(link.kind, link.mtu_bytes, link.is_up) if link else None,
            device=device.read() if device else None,
            addresses=rtnetlink.addresses(interface) if link else frozenset(),
            routes=routes,
            own_routes=own_routes,
            unreachable=rtnetlink.unreachable_networks() - others,
            sysctls=sysctl.observe(interface),
            sysctls_before=sysctl.before(instance),
            firewall=nftables.list_table(instance),
            other_firewalls=other_firewalls.observe(),
            hosts=hosts_file.read_lines(instance),
            unix_s=time.time(),
        )

    def resolve(self, endpoints: Iterable[Endpoint]) -> Resolved:
        """The addresses of the endpoints; an endpoint without any has none, and the log says why."""
        found = resolve(endpoints)
        problems = {resolution.problem for resolution in found.values() if resolution.problem}
        for problem in sorted(problems - self.said):
            log.warning("%s", problem)
        self.said.clear()
        self.said.update(problems)
        return {endpoint: resolution.addresses for endpoint, resolution in found.items()}

    def path_mtu(self, endpoints: Iterable[IPAddress]) -> int:
        return rtnetlink.path_mtu(endpoints)

    def port_holder(self, port: int) -> str | None:
        return ports.holder(port, wireguard.listen_ports)

    # Changing

    def perform(self, step: Step, resolved: Resolved) -> None:
        """Carry the step out; `resolved` has the addresses of the endpoints in it."""
        _PERFORMERS[type(step)](self, step, resolved)


def _opened_lock() -> IO[str]:
    files.make_folder(LOCK.parent, mode=0o755)
    try:
        return LOCK.open("w")
    except OSError as error:
        mend = "it is Warren's own: see what else put something there"
        raise MachineError(f"cannot be opened: {error.strerror}", where=str(LOCK), mend=mend) from None


def _set_private_key(host: Host, step: steps.SetPrivateKey, _: Resolved) -> None:
    key = keys.own_keys(step.instance, host.state).get(step.public_key)
    if key is None:
        raise MachineError(f"this machine has no private key for {step.public_key}", where=step.instance)
    _device(step.interface).set_private_key(key)


def _set_peers(host: Host, step: steps.SetPeers, resolved: Resolved) -> None:
    known = {
        NO_PRESHARED_KEY: wireguard.NO_KEY,
        NOBODYS: PresharedKey(secrets.token_bytes(KEY_BYTES)),
        **host.preshared_keys,
    }
    names = {change.preshared for change in step.changes if change.preshared is not None}
    known |= preshared.find(names - known.keys(), host.state)
    changes = [
        wireguard.PeerChange(
            change.public_key,
            change.is_new,
            change.allowed_ips,
            _first_address(change.endpoint, resolved),
            change.keepalive_s,
            change.gained_ips,
            known.get(change.preshared) if change.preshared is not None else None,
        )
        for change in step.changes
    ]
    _device(step.interface).set_peers(changes, step.removed)


def _first_address(endpoint: Endpoint | None, resolved: Resolved) -> SocketAddress | None:
    addresses = resolved.get(endpoint, ()) if endpoint else ()
    return addresses[0] if addresses else None


def _await_handshake(_: Host, step: steps.AwaitHandshake, __: Resolved) -> None:
    device = _device(step.interface)
    deadline = time.monotonic() + AWAIT_HANDSHAKE_S
    waiting = set(step.public_keys)
    while waiting and time.monotonic() < deadline:
        time.sleep(_POLL_S)
        peers = device.read().peers
        waiting = {key for key in waiting if key in peers and not peers[key].handshake_unix_s}


def _device(interface: InterfaceName) -> wireguard.Device:
    device = wireguard.open_device(interface)
    if device is None:
        raise KernelError("no WireGuard answers there", command=f"wg show {interface}")
    return device


_PERFORMERS: dict[type[Step], Callable[[Host, Any, Resolved], None]] = {
    steps.CreateLink: lambda _, step, __: wireguard.create(step.interface),
    steps.DeleteLink: lambda _, step, __: wireguard.delete(step.interface),
    steps.SetMtu: lambda _, step, __: rtnetlink.set_mtu(step.interface, step.mtu_bytes),
    steps.SetLinkUp: lambda _, step, __: rtnetlink.set_up(step.interface),
    steps.AddAddress: lambda _, step, __: rtnetlink.add_address(step.interface, step.address),
    steps.RemoveAddress: lambda _, step, __: rtnetlink.remove_address(step.interface, step.address),
    steps.AddRoute: lambda _, step, __: rtnetlink.add_route(step.interface, step.network),
    steps.RemoveRoute: lambda _, step, __: rtnetlink.remove_route(step.interface, step.network),
    steps.AddUnreachable: lambda _, step, __: rtnetlink.add_unreachable(step.network),
    steps.RemoveUnreachable: lambda _, step, __: rtnetlink.remove_unreachable(step.network),
    steps.SetPrivateKey: _set_private_key,
    steps.SetListenPort: lambda _, step, __: _device(step.interface).set_listen_port(step.port),
    steps.SetPeers: _set_peers,
    steps.AwaitHandshake: _await_handshake,
    steps.SetSysctl: lambda _, step, __: sysctl.perform(step),
    steps.RestoreSysctls: lambda _, step, __: sysctl.restore(step.instance),
    steps.LoadTable: lambda _, step, __: nftables.load_table(step.instance, step.firewall),
    steps.DropTable: lambda _, step, __: nftables.drop_table(step.instance),
    steps.AskFirewall: lambda _, step, __: other_firewalls.perform(step),
    steps.WriteHosts: lambda _, step, __: hosts_file.write_lines(step.instance, step.lines),
    steps.ClearHosts: lambda _, step, __: hosts_file.clear_lines(step.instance),
}
