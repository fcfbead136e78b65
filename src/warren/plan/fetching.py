"""From which controller a machine fetches its next document, and what it does not try again too soon.

Pure. Controllers say the serial of what they follow. A failure counts against the controller when what it said or
handed out was not true, and against the document when that was good and this machine could not follow it. Either is
passed over for a while, the longer the more often it failed; something newer is tried at once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from warren.names import MachineName

CONTROLLER_PAUSE_S = (10.0, 1800.0)  # the first, and the longest; each failure doubles it
DOCUMENT_PAUSE_S = (300.0, 21600.0)


@dataclass(frozen=True, slots=True)
class Failure:
    """What failed, by its serial; not again before that time. `sha256`: of a document's bytes."""

    serial: int
    problem: str
    until_unix_s: float
    times: int = 1
    sha256: str = ""
    at_unix_s: float = 0.0

    def holds(self, now_unix_s: float) -> bool:
        """Whether it is too soon; a clock that was set back does not make it longer."""
        return now_unix_s < self.until_unix_s <= now_unix_s + max(DOCUMENT_PAUSE_S)


@dataclass(frozen=True, slots=True)
class Failures:
    """Of one instance on one machine."""

    controllers: Mapping[MachineName, Failure] = field(default_factory=dict)
    document: Failure | None = None


NO_FAILURES = Failures()


def candidates(
    said: Mapping[MachineName, int], own_serial: int, failures: Failures, now_unix_s: float
) -> tuple[MachineName, ...]:
    """The controllers to ask, in this order: those that have something newer, the newest first. `said`: serials."""
    found = [name for name, serial in said.items() if serial > own_serial and _may(name, serial, failures, now_unix_s)]
    return tuple(sorted(found, key=lambda name: (-said[name], name)))


def _may(name: MachineName, serial: int, failures: Failures, now_unix_s: float) -> bool:
    failed, document = failures.controllers.get(name), failures.document
    if failed is not None and serial <= failed.serial and failed.holds(now_unix_s):
        return False
    return document is None or serial != document.serial or not document.holds(now_unix_s)


def is_too_soon(failures: Failures, sha256: str, now_unix_s: float) -> bool:
    """Whether this very document failed here a short while ago."""
    failed = failures.document
    return failed is not None and failed.sha256 == sha256 and failed.holds(now_unix_s)


def controller_failed(failures: Failures, name: MachineName, serial: int, problem: str, now_unix_s: float) -> Failures:
    failed = _again(failures.controllers.get(name), Failure(serial, problem, 0.0), CONTROLLER_PAUSE_S, now_unix_s)
    return replace(failures, controllers={**failures.controllers, name: failed})


def document_failed(failures: Failures, serial: int, sha256: str, problem: str, now_unix_s: float) -> Failures:
    before = failures.document if failures.document and failures.document.sha256 == sha256 else None
    failed = _again(before, Failure(serial, problem, 0.0, sha256=sha256), DOCUMENT_PAUSE_S, now_unix_s)
    return replace(failures, document=failed)


def controller_served(failures: Failures, name: MachineName) -> Failures:
    return replace(failures, controllers={each: value for each, value in failures.controllers.items() if each != name})


def _again(before: Failure | None, failed: Failure, pause_s: tuple[float, float], now_unix_s: float) -> Failure:
    times = before.times + 1 if before else 1
    shortest_s, longest_s = pause_s
    wait_s = min(longest_s, shortest_s * 2 ** min(times - 1, 30))
    return replace(failed, times=times, until_unix_s=now_unix_s + wait_s, at_unix_s=now_unix_s)


def failure_lines(failures: Failures, now_unix_s: float) -> list[str]:
    """For people: what is passed over now."""
    lines = [
        f"{name} was asked for a newer document in vain: {each.problem}"
        for name, each in failures.controllers.items()
        if each.holds(now_unix_s)
    ]
    if failures.document is not None and failures.document.holds(now_unix_s):
        lines.append(f"document {failures.document.serial} cannot be followed here: {failures.document.problem}")
    return lines


def encode(failures: Failures) -> bytes:
    tree = {
        "controllers": {name: _tree(each) for name, each in failures.controllers.items()},
        "document": _tree(failures.document) if failures.document else None,
    }
    return json.dumps(tree, indent=1).encode() + b"\n"


def decode(content: bytes) -> Failures:
    """What `encode` wrote; nothing where it is no such thing: all of it is only to save work."""
    try:
        tree = json.loads(content)
        controllers = {MachineName(name): _failure(each) for name, each in tree["controllers"].items()}
        return Failures(controllers, _failure(tree["document"]) if tree["document"] else None)
    except (ValueError, LookupError, TypeError, AttributeError):
        return NO_FAILURES


def _tree(failure: Failure) -> dict[str, object]:
    return {
        "serial": failure.serial,
        "problem": failure.problem,
        "until_unix_s": failure.until_unix_s,
        "times": failure.times,
        "sha256": failure.sha256,
        "at_unix_s": failure.at_unix_s,
    }


def _failure(tree: Any) -> Failure:
    return Failure(
        int(tree["serial"]), str(tree["problem"]), float(tree["until_unix_s"]), int(tree["times"]),
        str(tree["sha256"]), float(tree["at_unix_s"]),
    )  # fmt: skip
