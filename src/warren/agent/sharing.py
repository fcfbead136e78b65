"""Documents inside the tunnel: handed out on controllers, fetched by machines that ssh does not reach."""

from __future__ import annotations

import selectors
from collections.abc import Mapping
from contextlib import ExitStack
from types import TracebackType

from warren.agent.fetcher import Fetcher
from warren.agent.handing import DocumentService
from warren.agent.held import HeldDocuments
from warren.agent.redundancy import ControllerWatch
from warren.agent.requests import Act
from warren.host.machine import Host
from warren.names import InstanceName, MachineName
from warren.network.document import Document


class Sharing:
    """Both ends as one thing to wait for; a context manager. `due_s`: when to step anyway (CLOCK_BOOTTIME)."""

    def __init__(self, host: Host, me: MachineName, held: HeldDocuments, act: Act) -> None:
        self._stack = ExitStack()
        self._selector = self._stack.enter_context(selectors.EpollSelector())
        self._service = self._stack.enter_context(DocumentService(host, me, held))
        self._fetcher = self._stack.enter_context(Fetcher(host, me, act))
        for each in (self._service, self._fetcher):
            self._selector.register(each, selectors.EVENT_READ)

    def fileno(self) -> int:
        return self._selector.fileno()

    @property
    def due_s(self) -> float:
        return self._service.due_s

    def refresh(self, documents: Mapping[InstanceName, Document]) -> None:
        """After a look: these are the documents now."""
        self._service.refresh(documents)

    def step(self, controllers: ControllerWatch) -> None:
        """Do what is due, and what came in calls for."""
        self._service.step()
        for name in self._fetcher.step(controllers.documents(), controllers.followed()):
            controllers.say_followed(name)

    def __enter__(self) -> Sharing:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
