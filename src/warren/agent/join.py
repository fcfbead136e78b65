"""`warren join`: this machine comes into a mesh by an invitation, with nobody logging in to it.

Its key is made here and stays here. A temporary interface with the one-time key reaches controllers, and nothing else;
by it the public key is handed in, and once the operator accepted it, the signed document comes back. It is verified by
the operators' keys in the line, and followed as any other: on trial, until a controller answers by the own key.
"""

from __future__ import annotations

import logging
import os
import secrets
import select
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from ipaddress import IPv6Address, IPv6Interface, IPv6Network
from pathlib import Path

from warren.agent import fetch, installation
from warren.agent.receive import Signed
from warren.errors import DocumentRefused, KernelError, MachineError, UsageError
from warren.host import files, keys, process, requirements, rtnetlink, signature, state, timer, wireguard
from warren.host.machine import Host
from warren.names import InterfaceName
from warren.network import addresses
from warren.network.document import Document
from warren.network.invitations import KEPT_S, guest_address
from warren.plan import asking
from warren.plan.asking import Handed, Refused, Waits
from warren.plan.line import Line, Way
from warren.wireguard.device import AllowedIP
from warren.wireguard.endpoint import SocketAddress
from warren.wireguard.keys import PublicKey
from warren.wireguard.x25519 import public_key

log = logging.getLogger("warren")

INTERFACE = InterfaceName("warren-join")
POLL_S = (1.0, 2.0)
REACH_WITHIN_S = 60.0

_MTU_BYTES = 1280
_KEEPALIVE_S = 25
_CONNECT_S = 3.0
_SIGNERS = Path("/run/warren/join.signers")
_WATCHER = "warren-join"


def command(host: Host, line: Line, *, dry_run: bool) -> None:
    """`warren join`, which says on stderr what it is at."""
    if dry_run:
        check(host, line, time.time())
        _say(f'this machine would join "{line.instance}" as "{line.machine}"')
        return
    join(host, line, installation.own_archive(), _say)
    _say(f'this machine is "{line.machine}" in "{line.instance}"')
    if not timer.has_systemd():
        _say(f"no systemd here: have your init run {installation.PROGRAM} agent")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def check(host: Host, line: Line, now_unix_s: float) -> None:
    """Raise MachineError or UsageError if this machine cannot join; nothing is touched."""
    if missing := requirements.look().missing():
        raise MachineError(
            f"this machine lacks {', '.join(missing)}",
            mend=f"have its distribution install that: apt install {' '.join(missing)}",
        )
    known_as = host.machine_name()
    if known_as not in (None, line.machine):
        raise UsageError(f'this computer is machine "{known_as}", the invitation is for "{line.machine}"')
    if line.instance in host.instances():
        raise UsageError(
            f'this machine follows a document of "{line.instance}" already',
            mend=f"to begin anew: warren down {line.instance}",
        )
    installation.check_signers(line.signers)
    if now_unix_s >= line.expires_unix_s:
        raise UsageError(
            "the invitation has expired, by this machine's clock", mend="ask for another one, or set the clock"
        )


def join(host: Host, line: Line, archive: bytes, say: Callable[[str], None]) -> None:
    """Come in; returns when the machine is in the mesh. An interruption leaves the machine's own key, and no more."""
    check(host, line, time.time())
    had_key = keys.key_path(line.instance, host.state).exists()
    key = keys.ensure_key(line.instance, host.state)
    try:
        with _temporary(line):
            signed = _handed(line, key, say)
    except MachineError:
        if not had_key:
            _forget_key(host, line)
        raise
    document = _verified(line, key, signed)
    installation.install(line.machine, line.signers, archive)
    say(f"document {document.serial} is signed by an operator that the invitation names; following it")
    fetch.follow_on_trial(host, line.machine, document, signed)


def _forget_key(host: Host, line: Line) -> None:
    """What was made for an invitation that led to nothing."""
    with suppress(MachineError):
        state.remove_instance(line.instance, host.state, keep_key=False)


@contextmanager
def _temporary(line: Line) -> Iterator[None]:
    """An interface that reaches the controllers' own addresses. However this process ends, it goes."""
    wireguard.delete(INTERFACE)  # of a run that was killed with its watcher
    reader, writer = os.pipe()
    try:
        process.detach(_WATCHER, (reader,), partial(_remove_after, reader))
        os.close(reader)
        _make(line)
        yield
    finally:
        wireguard.delete(INTERFACE)
        os.close(writer)


def _remove_after(alive: int) -> None:
    select.select([alive], [], [])
    wireguard.delete(INTERFACE)


def _make(line: Line) -> None:
    wireguard.create(INTERFACE)
    device = wireguard.open_device(INTERFACE)
    if device is None:
        raise KernelError("no WireGuard answers there", command=f"wg show {INTERFACE}")
    device.set_private_key(line.private_key)
    rtnetlink.set_mtu(INTERFACE, _MTU_BYTES)
    own = public_key(line.private_key)
    for way in line.ways:
        rtnetlink.add_address(INTERFACE, IPv6Interface((guest_address(way.subnet, own), 128)))
    rtnetlink.set_up(INTERFACE)
    for way in line.ways:
        rtnetlink.add_route(INTERFACE, _controller(way))


def _controller(way: Way) -> IPv6Network:
    return IPv6Network((addresses.controller_address(way.subnet), 128))


def _call(host: Host, line: Line) -> None:
    """Where controllers are, by their names as they are now."""
    resolved = host.resolve([way.endpoint for way in line.ways])
    device = wireguard.open_device(INTERFACE)
    held = device.read().peers if device is not None else {}
    changes = []
    for way in line.ways:
        found = resolved.get(way.endpoint, ())
        if found and way.public_key not in held:
            allowed = frozenset([AllowedIP.of(_controller(way))])
            where = SocketAddress(found[0].address, found[0].port)
            changes.append(wireguard.PeerChange(way.public_key, True, allowed, where, _KEEPALIVE_S))
    if device is not None and changes:
        device.set_peers(changes)


def _handed(line: Line, key: PublicKey, say: Callable[[str], None]) -> Signed:
    """Hand the key in, and wait for the document in which it is."""
    own, host, waits = public_key(line.private_key), Host(), False
    began = time.monotonic()
    while time.time() < line.expires_unix_s + (KEPT_S if waits else 0):
        _call(host, line)
        for way in sorted(line.ways, key=lambda _: secrets.randbits(32)):
            found = _asked(line, way, own, key)
            if isinstance(found, Signed):
                return found
            if found and not waits:
                say(f"the key {key} is handed in; it waits for the operator: warren machines accept {line.machine}")
                waits = True
        if not waits and time.monotonic() - began > REACH_WITHIN_S:
            where = ", ".join(str(way.endpoint) for way in line.ways)
            raise MachineError(
                f"no controller answers within {REACH_WITHIN_S:.0f} s, at {where}",
                mend="see whether UDP gets out of this network, and whether the invitation still holds",
            )
        time.sleep(POLL_S[0] + (POLL_S[1] - POLL_S[0]) * secrets.randbelow(1000) / 1000)
    raise MachineError("the invitation has expired", mend="ask for another one")


def _asked(line: Line, way: Way, own: PublicKey, key: PublicKey) -> Signed | bool:
    """The document; else whether the key is handed in there. MachineError where it is refused."""
    source = guest_address(way.subnet, own)
    to = IPv6Address(addresses.controller_address(way.subnet))
    try:
        answer, content = fetch.answer_of(to, asking.ask_join(line.machine, key), connect_s=_CONNECT_S, source=source)
    except (OSError, MachineError):  # of this one
        return False
    match answer:
        case Handed():
            return Signed(content[: answer.document_bytes], content[answer.document_bytes :])
        case Refused():
            raise MachineError(
                f"refused: {answer.reason}",
                mend="if you did not use it before, tell your operator that somebody may have it",
            )
        case Waits():
            return True
    return False


def _verified(line: Line, key: PublicKey, signed: Signed) -> Document:
    """By the keys in the line, before a byte of it is parsed."""
    files.make_folder(_SIGNERS.parent, mode=0o755)
    try:
        with files.edit(_SIGNERS) as file:
            file.replace("".join(f"{each}\n" for each in line.signers).encode(), mode=0o600)
        signature.verify(signed.content, signed.signature, _SIGNERS)
    finally:
        _SIGNERS.unlink(missing_ok=True)
    document = state.decoded(signed.content)
    entry = document.peers.get(line.machine)
    if document.instance != line.instance or entry is None or entry.public_key != key:
        raise DocumentRefused(
            f'this is no document of "{line.instance}" in which "{line.machine}" has this machine\'s key'
        )
    return document
