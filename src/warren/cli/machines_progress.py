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
    from rich.console import Group
    from rich.live import Live

    from warren.fleet.update import Outcome, Watcher

_MOST_ROWS = 15
_OTHER_LINES = 3  # the heading, how many more there are, and where the cursor is


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

    def _rows(self) -> Group:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        failed = [outcome.machine for outcome in self.outcomes if not outcome.is_well]
        heading = f"{len(self.outcomes)} through" + (f"   failed: {', '.join(failed)}" if failed else "")
        table = Table.grid(padding=(0, 3))
        for _ in range(2):
            table.add_column(no_wrap=True)
        # A frame that is higher than the terminal could not be taken back.
        most = min(_MOST_ROWS, max(0, self._live.console.height - _OTHER_LINES))
        for machine, what in list(self._active.items())[:most]:
            table.add_row(machine, what)
        more = [Text(f"… and {len(self._active) - most} more")] if len(self._active) > most else []
        return Group(Text(heading, no_wrap=True, overflow="ellipsis"), table, *more)
