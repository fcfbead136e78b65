"""Preshared keys from programs (`host.preshared_command`), for every pair of this machine, each minute.

The programs run beside the agent, one after the other; what they say is set by the agent itself. One that fails is told
once, and the pair keeps the key that it has.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from warren.errors import WarrenError
from warren.host import preshared_command, wireguard
from warren.host.machine import Host
from warren.names import InstanceName, InterfaceName, MachineName
from warren.network.document import Document, keys_of
from warren.plan.plan import plan
from warren.wireguard.keys import PresharedKey, PublicKey
from warren.wireguard.preshared import NO_PRESHARED_KEY, Fingerprint, fingerprint

log = logging.getLogger("warren")

EVERY_S = 60.0
LOOK_S = 0.5


class _Question(NamedTuple):
    """One pair of one instance."""

    program: str
    instance: InstanceName
    other: MachineName


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is asked, and which WireGuard peers the answers are for."""

    questions: tuple[_Question, ...]
    interfaces: Mapping[InstanceName, InterfaceName]
    keys: Mapping[tuple[InstanceName, MachineName], tuple[PublicKey, ...]]


_NOTHING = _Asked((), {}, {})


class PresharedCommands:
    """`due_s`: when to look for answers (monotonic)."""

    def __init__(self, host: Host, me: MachineName) -> None:
        self._host = host
        self._me = me
        self._names: dict[_Question, Fingerprint] = {}
        self._asked = _NOTHING
        self._answers: queue.SimpleQueue[tuple[_Question, PresharedKey | str | None]] = queue.SimpleQueue()
        self._told: dict[_Question, str] = {}
        self._stop = threading.Event()
        self.due_s = float("inf")

    def refresh(self, documents: Mapping[InstanceName, Document]) -> None:
        """After a look of the agent: these are the documents now."""
        asked = _asked(documents, self._me)
        if asked == self._asked:
            return
        self._asked = asked
        self._stop.set()  # whoever asks the questions of before ends after the one that he is at
        self._stop = threading.Event()
        self.due_s = float("inf")
        if asked.questions:
            self.due_s = time.monotonic()
            threading.Thread(target=self._ask, args=(asked.questions, self._stop), daemon=True).start()

    def look(self) -> None:
        """If it is time: set what was answered meanwhile."""
        if time.monotonic() < self.due_s:
            return
        while not self._answers.empty():
            question, answer = self._answers.get()
            if question not in self._asked.questions:
                continue
            if isinstance(answer, str):
                self._tell(question, answer)
                continue
            try:
                self._set(question, answer)
                self._tell(question, "")
            except WarrenError as error:  # the interface is just being made or taken away; a minute later again
                log.debug("%s: %s", question.instance, error)
        self.due_s = time.monotonic() + LOOK_S

    def _ask(self, questions: Iterable[_Question], stop: threading.Event) -> None:
        while not stop.is_set():
            next_s = time.monotonic() + EVERY_S
            for each in questions:
                if stop.is_set():
                    return
                try:
                    answer: PresharedKey | str | None = preshared_command.ask(
                        each.program, each.instance, self._me, each.other
                    )
                except WarrenError as error:
                    answer = str(error)
                self._answers.put((each, answer))
            stop.wait(max(0.0, next_s - time.monotonic()))

    def _set(self, question: _Question, key: PresharedKey | None) -> None:
        device = wireguard.open_device(self._asked.interfaces[question.instance])
        if device is None:
            return
        name = self._known(question, key)
        peers = device.read().peers
        changes = [
            wireguard.PeerChange(each, preshared_key=wireguard.NO_KEY if key is None else key)
            for each in self._asked.keys[question.instance, question.other]
            if each in peers and peers[each].preshared != name
        ]
        device.set_peers(changes)

    def _known(self, question: _Question, key: PresharedKey | None) -> Fingerprint:
        """Its name. Whoever begins a session anew meanwhile has to set the key again."""
        name = NO_PRESHARED_KEY if key is None else fingerprint(key.reveal())
        self._host.preshared_keys.pop(self._names.get(question, NO_PRESHARED_KEY), None)
        self._names[question] = name
        if key is not None:
            self._host.preshared_keys[name] = key
        return name

    def _tell(self, question: _Question, problem: str) -> None:
        if problem and self._told.get(question) != problem:
            log.warning("%s: no preshared key for %s: %s", question.instance, question.other, problem)
        elif not problem and self._told.get(question):
            log.info("%s: a preshared key for %s again", question.instance, question.other)
        self._told[question] = problem


def _asked(documents: Mapping[InstanceName, Document], me: MachineName) -> _Asked:
    questions: list[_Question] = []
    interfaces: dict[InstanceName, InterfaceName] = {}
    keys: dict[tuple[InstanceName, MachineName], tuple[PublicKey, ...]] = {}
    for name, document in documents.items():
        entry = document.entry(me)
        if not document.preshared_command or entry is None:
            continue
        interfaces[name] = entry.interface
        for other in sorted(set(plan(document, me).peer_names.values())):
            found = document.entry(other)
            if found is not None:
                questions.append(_Question(document.preshared_command, name, other))
                keys[name, other] = keys_of(found)
    return _Asked(tuple(questions), interfaces, keys)
