"""What is seen of a lab: while it comes up, a line that changes on a terminal, plain lines elsewhere; its matrix."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from warren.render.columns import columns
from warren.render.matrix import Reach, matrix

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from warren.lab.lab import Lab
    from warren.lab.probe import Answer
    from warren.lab.up import Progress

_LINES_EVERY_S = 1.0  # in a log, the count of pairs is worth this many lines


@contextmanager
def watcher() -> Iterator[Progress]:
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    parts = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[count]}"), TimeElapsedColumn())
    # No refreshing thread: the lab forks.
    with Bar(*parts, console=Console(stderr=True), auto_refresh=False, transient=True) as bar:
        yield _Bar(bar)


class _Bar:
    def __init__(self, bar: Bar) -> None:
        self._bar = bar
        self._task = bar.add_task("", total=None, count="")

    def begins(self, part: str) -> None:
        self._bar.update(self._task, description=part, refresh=True)

    def answered(self, pairs: int, of: int) -> None:
        self._bar.update(self._task, completed=pairs, total=of, count=f"{pairs} of {of} pairs", refresh=True)


class _Lines:
    def __init__(self) -> None:
        self._last_s = 0.0

    def begins(self, part: str) -> None:
        click.echo(f"{part} …", err=True)

    def answered(self, pairs: int, of: int) -> None:
        now = time.monotonic()
        if pairs == of or now - self._last_s > _LINES_EVERY_S:
            click.echo(f"{pairs} of {of} pairs", err=True)
            self._last_s = now


def matrix_text(answers: Sequence[Answer]) -> str:
    """One matrix for each instance; what fails stands out where there is colour."""
    by_instance: dict[str, list[Reach]] = {}
    for answer in answers:
        machines_between = None if answer.hops is None else answer.hops - 1
        reach = Reach(answer.pair.source, answer.pair.target, answer.ok, answer.rtt_ms, machines_between)
        by_instance.setdefault(answer.pair.instance, []).append(reach)
    texts = [
        (f"{instance}:\n" if len(by_instance) > 1 else "") + matrix(reaches)
        for instance, reaches in by_instance.items()
    ]
    return "\n".join(texts).replace("FAILS", click.style("FAILS", fg="red", bold=True))


def machines_text(lab: Lab) -> str:
    rows = []
    for name, machine in lab.state.machines.items():
        state = str(machine.faults) if lab.state.place(name) else "dead"
        nat = "behind NAT" if machine.site.behind_nat else ""
        rows.append((name, ", ".join(map(str, machine.site.addresses)), ", ".join(filter(None, (nat, state)))))
    return columns(rows) + "\n"


def machines_tree(lab: Lab) -> dict[str, Any]:
    documents = lab.folder.read_documents()
    return {
        name: {
            "state": "running" if lab.state.place(name) else "dead",
            "pid": machine.init.pid if machine.init else None,
            "roles": {
                document.instance: "controller" if name in document.controllers else "peer"
                for document in documents.values()
                if document.entry(name)
            },
            "underlay": [str(address) for address in machine.site.addresses],
            "behind_nat": machine.site.behind_nat,
            "faults": {
                "cut": machine.faults.cut,
                "loss_percent": machine.faults.loss_percent,
                "delay_ms": machine.faults.delay_ms,
            },
        }
        for name, machine in lab.state.machines.items()
    }


def pair_tree(answer: Answer) -> dict[str, Any]:
    return {
        "from": answer.pair.source,
        "to": answer.pair.target,
        "name": answer.pair.name,
        "instance": answer.pair.instance,
        "ok": answer.ok,
        "rtt_ms": None if answer.rtt_ms is None else round(answer.rtt_ms, 3),
        "hops": answer.hops,
        **({"problem": answer.problem} if answer.problem else {}),
    }
