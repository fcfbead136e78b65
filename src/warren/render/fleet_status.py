"""How all machines of a fleet are: a line for each machine and instance, what is wrong below it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from warren.render.columns import columns
from warren.render.status import duration, size


def fleet_status_text(machines: Mapping[str, Mapping[str, Any]], now_unix_s: float) -> str:
    """Of the tree that `fleet.status.tree` makes."""
    rows: list[tuple[str, ...]] = [("MACHINE", "INSTANCE", "STATE", "SESSIONS", "HANDSHAKE", "RECEIVED", "SENT")]
    problems = []
    for name, machine in machines.items():
        rows += _rows(name, machine, now_unix_s)
        problems += list(_problems(name, machine))
    return columns(rows) + "".join(f"\n{problem}\n" for problem in problems)


def _rows(name: str, machine: Mapping[str, Any], now_unix_s: float) -> Iterator[tuple[str, ...]]:
    instances = machine["instances"]
    stale = machine["out_of_date"]
    if (heard := machine.get("heard")) is not None:
        yield from _heard_rows(name, heard, stale)
        return
    for instance, found in instances.items():
        state = "on trial" if instance in _on_trial(machine) else _state(found, instance in stale)
        yield (name, instance, state, *_sessions(found["machines"].values(), now_unix_s))
    for instance in stale:
        if instance not in instances and not machine["problem"]:
            yield name, instance, "out of date, nothing there yet"
    if machine["problem"]:
        yield name, "-", "not reached" if not instances else "failed"
    elif not instances and not stale:
        yield name, "-", "in no mesh"


def _heard_rows(name: str, heard: Mapping[str, Any], stale: Iterable[str]) -> Iterator[tuple[str, ...]]:
    """Of one that fetches its documents by itself: it is not asked, controllers are."""
    for instance, each in heard.items():
        state = "out of date, fetches by itself" if instance in stale else "up to date"
        if each["failed"] is not None:
            state = f"could not follow document {each['failed']}"
        yield name, instance, state, f"heard by {each['by']}", f"{duration(each['age_s'])} ago"
    for instance in stale:
        if instance not in heard:
            yield name, instance, "out of date, fetches by itself when it is on"
    if not heard and not stale:
        yield name, "-", "not heard of lately"


def _state(found: Mapping[str, Any], is_stale: bool) -> str:
    words = []
    if not found["up"]:
        words.append("not up")
    elif found["steps_pending"]:
        words.append(f"{found['steps_pending']} steps pending")
    if is_stale:
        words.append("out of date")
    return ", ".join(words) or "up to date"


def _sessions(peers: Iterable[Mapping[str, Any]], now_unix_s: float) -> tuple[str, str, str, str]:
    """How many of its WireGuard peers it has a session with, the latest handshake, and bytes in all."""
    held = [peer for peer in peers if peer["configured"]]
    latest = max((peer["handshake_unix_s"] or 0.0 for peer in held), default=0.0)
    return (
        f"{sum(peer['has_session'] for peer in held)} of {len(held)}",
        f"{duration(now_unix_s - latest)} ago" if latest else "never",
        size(sum(peer["received_bytes"] for peer in held)),
        size(sum(peer["sent_bytes"] for peer in held)),
    )


def _on_trial(machine: Mapping[str, Any]) -> list[str]:
    return list((machine.get("trial") or {}).get("instances", ()))


def _problems(name: str, machine: Mapping[str, Any]) -> Iterator[str]:
    if machine["problem"]:
        yield str(machine["problem"])
    if restored := machine.get("restored"):
        at = f"{datetime.fromtimestamp(restored['unix_s'], UTC):%Y-%m-%d %H:%M:%S %Z}"
        instances = ", ".join(restored["instances"])
        yield f"{name}: {instances}: went back to the last good document at {at}: {restored['why']}"
    for instance, found in machine["instances"].items():
        yield from (f"{name}: {instance}: to be done by hand: {note}" for note in found.get("notes", ()))
