"""What happened to a mesh as one machine sees it, and why: for the log, the status socket, `warren status`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from warren.names import MachineName

KEPT = 200


class Kind(Enum):
    VERDICT = "verdict"  # health of a controller changed
    MOVE = "move"  # subnets have other carriers
    RENEWAL = "renewal"  # a session is started anew
    DRAIN = "drain"  # a controller asks not to be used, or to be used again
    EXCEPTION = "exception"  # another peer cannot use what we can, or can again
    WAKE = "wake"  # the machine slept, or its clock jumped


@dataclass(frozen=True, slots=True)
class Event:
    """`machine`: the one that it is about. `text` reads well behind its name; `cause` after "because"."""

    kind: Kind
    machine: MachineName
    text: str
    cause: str
    unix_s: float  # for people; nothing is decided by it

    def __str__(self) -> str:
        return f"{self.machine} {self.text}" + (f": {self.cause}" if self.cause else "")


def kept(events: Iterable[Event], new: Iterable[Event]) -> tuple[Event, ...]:
    """The last of them all, oldest first."""
    return (*events, *new)[-KEPT:]


def event_tree(event: Event) -> dict[str, object]:
    """As the status socket and `warren status --json` show it."""
    return {
        "unix_s": round(event.unix_s, 3),
        "kind": event.kind.value,
        "machine": event.machine,
        "text": event.text,
        "cause": event.cause,
    }


def read_event(tree: Mapping[str, object]) -> Event:
    """Back from its tree; ValueError or LookupError where it is none."""
    unix_s = tree["unix_s"]
    if not isinstance(unix_s, int | float):
        raise ValueError("an event without a time")
    return Event(Kind(tree["kind"]), MachineName(str(tree["machine"])), str(tree["text"]), str(tree["cause"]), unix_s)
