"""Controllers hand what they follow to machines of the mesh, inside the tunnel, and hear those who are invited."""

from __future__ import annotations

import logging
import selectors
from collections.abc import Mapping
from functools import partial
from ipaddress import IPv6Address
from types import TracebackType

from warren.agent.guests import Guests
from warren.agent.held import HeldDocuments
from warren.agent.listener import Listener
from warren.errors import KernelError
from warren.host.machine import Host
from warren.names import InstanceName, MachineName
from warren.network.document import ControllerEntry, Document
from warren.plan import asking, joining
from warren.plan.asking import Newer

log = logging.getLogger("warren")

_FOREVER = float("inf")


class DocumentService:
    """All instances in which this machine is a controller. Readable when there is something to do; a context manager.

    `due_s`: when to step anyway (CLOCK_BOOTTIME).
    """

    def __init__(self, host: Host, me: MachineName, held: HeldDocuments) -> None:
        self._me = me
        self._held = held
        self._guests = Guests(host, me)
        self._selector = selectors.EpollSelector()
        self._listeners: dict[InstanceName, Listener] = {}
        self._told: dict[InstanceName, str] = {}
        self.due_s = _FOREVER

    def fileno(self) -> int:
        return self._selector.fileno()

    def refresh(self, documents: Mapping[InstanceName, Document]) -> None:
        """After a look: these are the documents now, and interfaces may be others than before."""
        entries = {name: each.controllers.get(self._me) for name, each in documents.items()}
        for name in list(self._listeners):
            me = entries.get(name)
            if me is None or not self._listeners[name].is_current(me.interface, me.address):
                self._close(name)
        for name, me in entries.items():
            if me is not None and name not in self._listeners:
                self._open(name, me)

    def step(self) -> None:
        for each in self._listeners.values():
            each.step()
        self.due_s = min((each.due_s for each in self._listeners.values()), default=_FOREVER)

    def _open(self, name: InstanceName, me: ControllerEntry) -> None:
        try:
            listener = Listener(me.interface, me.address, asking.PORT, partial(self._answer, name))
        except KernelError as error:  # it comes again with the next look; it is told once
            if self._told.get(name) != str(error):
                log.warning("%s: documents are not handed out: %s", name, error)
            self._told[name] = str(error)
            return
        self._told.pop(name, None)
        self._listeners[name] = listener
        self._selector.register(listener, selectors.EVENT_READ)

    def _close(self, name: InstanceName) -> None:
        listener = self._listeners.pop(name)
        self._selector.unregister(listener)
        listener.close()

    def _answer(self, name: InstanceName, source: IPv6Address, line: bytes) -> bytes:
        held = self._held.of(name)
        me = held.document.controllers.get(self._me) if held else None
        if held is not None and me is not None and joining.is_guest(source, me):
            return self._guests.answer(held, me, source, line)
        try:
            asked = asking.read_question(line)
        except ValueError as error:
            return asking.refuse(str(error))
        if held is None:
            return asking.refuse("this controller follows no signed document")
        if not asking.is_of_a_machine(source, held.document):
            return asking.refuse("documents are for machines of the mesh")
        if not isinstance(asked, Newer):
            return asking.refuse("this is for those who were invited")
        if held.document.serial <= asked.serial:
            return asking.NOTHING
        return asking.hand(held.content, held.signature)

    def __enter__(self) -> DocumentService:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in list(self._listeners):
            self._close(name)
        self._selector.close()
