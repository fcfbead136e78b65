"""What a person sees while a lab comes up: a line that changes on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

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

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[count]}"), TimeElapsedColumn())
    # No refreshing thread: the lab forks.
    with Bar(*columns, console=Console(stderr=True), auto_refresh=False, transient=True) as bar:
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
