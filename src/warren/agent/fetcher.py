"""Has a machine fetch its documents by itself, where its entry says so: when a controller speaks of a newer one.

The work is done by a fork, as that of an update is: the agent's loop goes on, and what is applied outlives the agent.
"""

from __future__ import annotations

import logging
import os
import selectors
import time
from collections.abc import Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import TypeAlias

from warren.agent.requests import Act
from warren.errors import WarrenError
from warren.host import process, state, trial
from warren.host.machine import Host
from warren.names import InstanceName, MachineName
from warren.network.document import Document
from warren.plan import fetching
from warren.plan.signals import Followed

log = logging.getLogger("warren")

FollowedBy: TypeAlias = Mapping[InstanceName, Mapping[MachineName, Followed]]

_NAME = "warren-fetch"


class Fetcher:
    """Readable when a fetching process has ended; a context manager."""

    def __init__(self, host: Host, me: MachineName, act: Act) -> None:
        self._host = host
        self._me = me
        self._act = act
        self._selector = selectors.EpollSelector()
        self._at_work: dict[InstanceName, int] = {}  # the end of a pipe that ends with the process

    def fileno(self) -> int:
        return self._selector.fileno()

    def step(self, documents: Mapping[InstanceName, Document], followed: FollowedBy) -> list[InstanceName]:
        """Begin what is to be begun; what has ended. `followed`: what controllers of each instance said."""
        ended = [key.data for key, _ in self._selector.select(0)]
        for name in ended:
            self._end(name)
        for name, document in documents.items():
            me, said = document.peers.get(self._me), _serials(followed.get(name, {}))
            is_told = max(said.values(), default=0) > document.serial
            if is_told and me is not None and me.pulls and name not in self._at_work:
                self._consider(name, document, said)
        return ended

    def _consider(self, name: InstanceName, document: Document, said: Mapping[MachineName, int]) -> None:
        try:
            failures = state.read_fetching(name, self._host.state)
            if trial.read(self._host.state) is not None:
                return
        except WarrenError:  # the look of the agent says what is wrong
            return
        if fetching.candidates(said, document.serial, failures, time.time()):
            words = [f"{controller}={serial}" for controller, serial in said.items()]
            self._begin(name, ["machine", "fetch", name, *words, "--machine", self._me])

    def _begin(self, name: InstanceName, words: Sequence[str]) -> None:
        ours, theirs = os.pipe()
        log_end = os.dup(2)
        try:
            process.detach(_NAME, (theirs, log_end), partial(_fetch, log_end, self._act, words))
        except OSError as error:
            os.close(ours)
            log.warning("%s: no process to fetch documents with: %s", name, error.strerror)
            return
        finally:
            os.close(theirs)
            os.close(log_end)
        self._at_work[name] = ours
        self._selector.register(ours, selectors.EVENT_READ, name)

    def _end(self, name: InstanceName) -> None:
        ours = self._at_work.pop(name)
        self._selector.unregister(ours)
        os.close(ours)

    def __enter__(self) -> Fetcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in list(self._at_work):
            self._end(name)
        self._selector.close()


def _serials(followed: Mapping[MachineName, Followed]) -> dict[MachineName, int]:
    return {name: each.follows.serial for name, each in followed.items()}


def _fetch(log_end: int, act: Act, words: Sequence[str]) -> None:
    os.dup2(log_end, 2)  # the log is the agent's own
    act(words)
