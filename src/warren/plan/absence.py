"""When a controller has to be left before it is changed."""

from __future__ import annotations

from collections.abc import Iterable

from warren.names import MachineName
from warren.network.document import Document
from warren.plan.steps import CreateLink, DeleteLink, SetListenPort, Step


def interrupts(steps: Iterable[Step]) -> bool:
    """Whether they cut the sessions of an interface that is there already."""
    is_new = False
    for step in steps:
        if isinstance(step, DeleteLink) or (isinstance(step, SetListenPort) and not is_new):
            return True
        is_new = is_new or isinstance(step, CreateLink)
    return False


def is_one_of_several(document: Document, machine: MachineName) -> bool:
    """Whether it is a controller, and not the only one: others can carry what it carries."""
    return machine in document.controllers and len(document.controllers) > 1
