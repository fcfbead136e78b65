"""What a person sees while machines are updated: a table that changes on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from warren.fleet.report import outcome_lines
from warren.names import MachineName

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

    from warren.fleet.update import Outcome, Watcher

_MOST_ROWS = 15


@contextmanager
def watcher(*, quiet: bool, every_step: bool) -> Iterator[Watcher]:
    """`quiet`: stdout is for a program."""
    if not sys.stderr.isatty():
        yield _Lines(quiet, every_step)
        return
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(stderr=True), transient=True, refresh_per_second=8) as live:
        table = _Table(live)
        yield table
    lines = _Lines(quiet, every_step)
    for outcome in table.outcomes:
        lines.ended(outcome)


class _Lines:
    """One block of lines for each machine that is through: data on stdout, for people who read it later."""

    def __init__(self, quiet: bool, every_step: bool) -> None:
        self._quiet = quiet
        self._every_step = every_step

    def begins(self, machine: MachineName, what: str) -> None:
        pass

    def ended(self, outcome: Outcome) -> None:
        if outcome.problem or not self._quiet:
            lines = outcome_lines(outcome, every_step=self._every_step)
            click.echo("\n".join(lines), err=bool(outcome.problem))


class _Table:
    """Who is at what; those that are through are counted."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._active: dict[MachineName, str] = {}
        self.outcomes: list[Outcome] = []

    def begins(self, machine: MachineName, what: str) -> None:
        self._active[machine] = what
        self._show()

    def ended(self, outcome: Outcome) -> None:
        self._active.pop(outcome.machine, None)
        self.outcomes.append(outcome)
        self._show()

    def _show(self) -> None:
        self._live.update(self._rows())

    def _rows(self) -> Table:
        from rich.table import Table

        failed = [outcome.machine for outcome in self.outcomes if not outcome.is_well]
        table = Table.grid(padding=(0, 3))
        table.add_row(f"{len(self.outcomes)} through", f"failed: {', '.join(failed)}" if failed else "")
        for machine, what in list(self._active.items())[:_MOST_ROWS]:
            table.add_row(machine, what)
        if len(self._active) > _MOST_ROWS:
            table.add_row("…", f"and {len(self._active) - _MOST_ROWS} more")
        return table
