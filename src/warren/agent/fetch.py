"""Documents that a machine fetches by itself, where no operator's ssh comes.

They pass what a document that is brought passes: signature, serial, revoked keys, the checks of this machine, and a
trial. Nobody confirms it from outside, so the machine does when a controller answers it inside the tunnel, in the new
state; otherwise it goes back. What failed is not tried again at once, over restarts.
"""

from __future__ import annotations

import logging
import secrets
import socket
import time
from collections.abc import Iterable, Mapping
from hashlib import sha256
from ipaddress import IPv6Address

from warren.agent import receive, restore
from warren.agent.receive import Request, Signed
from warren.errors import DocumentRefused, MachineError, UsageError, WarrenError
from warren.host import state
from warren.host.machine import Host
from warren.names import InstanceName, MachineName
from warren.network.document import Document
from warren.plan import asking, fetching
from warren.plan.asking import Handed, Nothing, Refused
from warren.plan.fetching import Failures

log = logging.getLogger("warren")

CONNECT_S = 5.0
ANSWER_S = 15.0
SLOWEST_BYTES_PER_S = 5_000  # and nobody waits for longer
CONFIRM_WITHIN_S = 60.0
HEARD_WITHIN_S = 40.0
_HEARD_PAUSE_S = 0.5
_CHUNK_BYTES = 64 * 1024


def parse_said(texts: Iterable[str]) -> dict[MachineName, int]:
    """CONTROLLER=SERIAL, each."""
    said = {}
    for text in texts:
        name, _, serial = text.partition("=")
        if not serial.isascii() or not serial.isdigit():
            raise UsageError(f"{text!r} is no CONTROLLER=SERIAL")
        said[MachineName(name)] = int(serial)
    return said


def fetch(host: Host, me: MachineName, name: InstanceName, said: Mapping[MachineName, int]) -> int:
    """Follow the newest document that one of these controllers hands out; its serial.

    `said`: the serials that they spoke of. MachineError if none could be followed; why is noted, for `candidates`.
    """
    document = host.read_document(name)
    if document is None:
        raise MachineError("there is no such instance here", where=name)
    failures = state.read_fetching(name, host.state)
    for controller in fetching.candidates(said, document.serial, failures, time.time()):
        entry = document.controllers.get(controller)
        if entry is None:
            continue
        try:
            signed = _asked(entry.address, document.serial)
            new = receive.verified(name, signed)
            if new.serial <= document.serial:
                raise DocumentRefused(f"an old one, serial {new.serial}, where {document.serial} is followed")
        except (WarrenError, OSError) as error:
            what = error.what if isinstance(error, WarrenError) else error.strerror or str(error)
            log.warning("%s: a document from %s: %s", name, controller, what)
            failures = fetching.controller_failed(failures, controller, said[controller], what, time.time())
            state.write_fetching(name, failures, host.state)
            continue
        failures = fetching.controller_served(failures, controller)
        return _follow(host, me, controller, new, signed, failures)
    raise MachineError("no controller has a newer document that can be followed", where=name)


def _follow(
    host: Host, me: MachineName, controller: MachineName, new: Document, signed: Signed, failures: Failures
) -> int:
    name, digest = new.instance, sha256(signed.content).hexdigest()
    if fetching.is_too_soon(failures, digest, time.time()):
        raise MachineError(f"document {new.serial} failed here a short while ago", where=name)
    log.info("%s: document %d, handed out by %s", name, new.serial, controller)
    try:
        follow_on_trial(host, me, new, signed)
    except WarrenError as error:
        state.write_fetching(
            name, fetching.document_failed(failures, new.serial, digest, error.what, time.time()), host.state
        )
        raise
    state.write_fetching(name, fetching.NO_FAILURES, host.state)
    return new.serial


def follow_on_trial(host: Host, me: MachineName, new: Document, signed: Signed) -> None:
    """Follow it, and confirm that as soon as a controller answers; MachineError if none does: the machine went back."""
    name = new.instance
    answer = receive.receive(host, me, Request({name: signed}, CONFIRM_WITHIN_S))
    for verdict in answer.verdicts.values():
        if verdict.error is not None:
            raise verdict.error
    if answer.token is None:
        return
    if not is_heard(new, me):
        restore.restore(host, answer.token)
        raise MachineError("no controller answered in the new state, so the machine went back", where=f"{name} on {me}")
    restore.confirm(host, answer.token)


def is_heard(document: Document, me: MachineName) -> bool:
    """Whether a controller's agent comes to answer this machine inside the tunnel."""
    addresses = [each.address for each in document.controllers.values() if each.name != me]
    deadline = time.monotonic() + HEARD_WITHIN_S
    while time.monotonic() < deadline:
        for address in _shuffled(addresses):
            try:
                answer_of(address, asking.ask_newer(document.serial), connect_s=2.0)
            except (OSError, MachineError):
                continue
            return True
        time.sleep(_HEARD_PAUSE_S)
    return False


def _shuffled(addresses: Iterable[IPv6Address]) -> list[IPv6Address]:
    return sorted(addresses, key=lambda _: secrets.randbits(32))


def _asked(address: IPv6Address, serial: int) -> Signed:
    answer, content = answer_of(address, asking.ask_newer(serial))
    if isinstance(answer, Handed):
        return Signed(content[: answer.document_bytes], content[answer.document_bytes :])
    if isinstance(answer, Nothing):
        raise MachineError("it said that it has a newer one, and hands out none")
    raise MachineError(f"it refuses: {answer.reason}" if isinstance(answer, Refused) else "no answer to that question")


def answer_of(
    address: IPv6Address, question: bytes, connect_s: float = CONNECT_S, source: IPv6Address | None = None
) -> tuple[asking.Answer, bytes]:
    """The answer, and what follows its first line; OSError or MachineError where none comes."""
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as connection:
        connection.settimeout(connect_s)
        if source is not None:
            connection.bind((str(source), 0))
        connection.connect((str(address), asking.PORT))
        connection.settimeout(ANSWER_S)
        connection.sendall(question)
        deadline = time.monotonic() + ANSWER_S
        content = b""
        while b"\n" not in content:
            content += _received(connection, deadline)
            if len(content) > _CHUNK_BYTES + asking.LONGEST_LINE_BYTES:
                raise MachineError("no answer of Warren's")
        line, _, rest = content.partition(b"\n")
        try:
            answer = asking.read_answer(line)
        except ValueError as error:
            raise MachineError(str(error)) from None
        if not isinstance(answer, Handed):
            return answer, b""
        size = answer.document_bytes + answer.signature_bytes
        deadline += size / SLOWEST_BYTES_PER_S
        parts = bytearray(rest)
        while len(parts) < size:
            parts += _received(connection, deadline)
        return answer, bytes(parts[:size])


def _received(connection: socket.socket, deadline: float) -> bytes:
    left_s = deadline - time.monotonic()
    if left_s <= 0:
        raise MachineError("its answer takes too long")
    connection.settimeout(left_s)
    more = connection.recv(_CHUNK_BYTES)
    if not more:
        raise MachineError("its answer was cut short")
    return more
