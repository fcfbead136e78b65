"""Those who come by invitations to this controller: answered, and kept for the operator to see."""

from __future__ import annotations

import logging
import time
from ipaddress import IPv6Address

from warren.agent.held import Held
from warren.errors import WarrenError
from warren.host import guestbook, wireguard
from warren.host.machine import Host
from warren.names import InstanceName, MachineName
from warren.network.document import ControllerEntry, Document
from warren.network.invitations import Invitation
from warren.plan import asking, joining
from warren.plan.asking import Join
from warren.plan.joining import Guestbook, HandIn, HandOut, Refusal, Wait

log = logging.getLogger("warren")

WRITE_PAUSE_S = 5.0  # between writes that only count refusals again: who asks on and on must not wear the disk out


class Guests:
    """Of all instances. What is kept is read from the disk when it is first needed."""

    def __init__(self, host: Host, me: MachineName) -> None:
        self._host = host
        self._me = me
        self._books: dict[InstanceName, Guestbook] = {}
        self._written_s: dict[InstanceName, float] = {}

    def answer(self, held: Held, me: ControllerEntry, source: IPv6Address, line: bytes) -> bytes:
        """To what came from a guest's address."""
        document = held.document
        invitation = joining.invitation_of(document, me, source)
        if invitation is None:
            return asking.refuse("there is no such invitation any more")
        try:
            asked = asking.read_question(line)
            if not isinstance(asked, Join):
                raise ValueError("who was invited may join, and nothing else")
        except ValueError as error:
            return self._no(document, me, invitation, str(error), line.decode(errors="replace"))
        revoked = self._host.revoked(document.instance)
        verdict = joining.judged(document, invitation, asked, revoked, self._book(document), time.time())
        match verdict:
            case HandOut():
                return asking.hand(held.content, held.signature)
            case Wait():
                return self._wait(document, me, invitation, asked)
        return self._no(document, me, invitation, verdict.reason, f"{asked.machine} {asked.public_key}")

    def _wait(self, document: Document, me: ControllerEntry, invitation: Invitation, asked: Join) -> bytes:
        book = self._book(document)
        came_from = _came_from(me, invitation)
        new = HandIn(invitation.public_key, invitation.machine, asked.public_key, came_from, time.time())
        with_it = joining.with_hand_in(book, new)
        if with_it != book:
            try:
                guestbook.write(document.instance, with_it, self._host.state)
            except WarrenError as error:  # a full disk: the operator could not see it after a restart
                log.warning("%s", error)
                return asking.refuse("this controller cannot keep it now: try again")
            log.info("%s: key %s was handed in for %s", document.instance, asked.public_key, invitation.machine)
            self._books[document.instance] = with_it
        return asking.WAITS

    def _no(self, document: Document, me: ControllerEntry, invitation: Invitation, reason: str, asked: str) -> bytes:
        name, book = document.instance, self._book(document)
        refusal = Refusal(
            invitation.public_key, invitation.machine, reason, asking.printable(asked), _came_from(me, invitation),
            time.time(),
        )  # fmt: skip
        self._books[name] = with_it = joining.with_refusal(book, refusal)
        is_new = len(with_it.refusals) > len(book.refusals)
        if is_new:
            log.warning("%s: refused who came by the invitation of %s: %s", name, invitation.machine, reason)
        if is_new or time.monotonic() - self._written_s.get(name, 0.0) > WRITE_PAUSE_S:
            self._written_s[name] = time.monotonic()
            try:
                guestbook.write(name, with_it, self._host.state)
            except WarrenError as error:
                log.warning("%s", error)
        return asking.refuse(reason)

    def _book(self, document: Document) -> Guestbook:
        name = document.instance
        if name not in self._books:
            self._books[name] = guestbook.read(name, self._host.state)
        book = joining.pruned(self._books[name], document.invitations)
        self._books[name] = book
        return book


def _came_from(me: ControllerEntry, invitation: Invitation) -> str:
    """Where the outer packets came from, as WireGuard knows."""
    device = wireguard.open_device(me.interface)
    peer = device.read().peers.get(invitation.public_key) if device is not None else None
    return str(peer.endpoint.address) if peer is not None and peer.endpoint is not None else ""
