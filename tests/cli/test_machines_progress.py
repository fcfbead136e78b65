"""What a person sees while machines are updated, on a terminal: a few lines that change, and in the end plain ones."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from dataclasses import dataclass, field

import pytest

# Machines go through one by one; the second one is dead.
PROGRAM = """
import sys, time
from warren.cli.machines_progress import watcher
from warren.fleet.update import Outcome, State
names = [f"laptop{number}" for number in range(1, int(sys.argv[1]) + 1)]
with watcher(quiet=False, every_step=False) as watching:
    for name in names:
        watching.begins(name, "applying")
    for name in names:
        watching.begins(name, "confirming")
        time.sleep(0.6 / len(names))
        if name == "laptop2":
            watching.ended(Outcome(name, State.NOT_REACHED, problem="laptop2: Connection timed out"))
        else:
            watching.ended(Outcome(name, State.DONE, {"vpn": ("ip link set dev vpn mtu 1300",)}))
print("through", file=sys.stderr)
"""
CONTROL = re.compile(r"\x1b\[([?\d;]*)([A-Za-z])|(.)", re.DOTALL)


@dataclass
class Screen:
    """As much of a terminal as is used here. `lines`: all that there ever was; the first ones have scrolled out."""

    columns: int
    rows: int
    lines: list[str] = field(default_factory=lambda: [""])
    frames: list[str] = field(default_factory=list)  # what there was each time before it was taken back
    is_new: bool = False
    row: int = 0
    column: int = 0

    def show(self, text: str) -> None:
        for number, letter, plain in CONTROL.findall(text):
            if letter and self.is_new:
                self.frames.append("\n".join(self.lines))
                self.is_new = False
            match letter, plain:
                case "A", _:
                    self.row = max(self.row - int(number or 1), len(self.lines) - self.rows, 0)
                case "K", _:
                    self.lines[self.row] = ""
                case _, "\r":
                    self.column = 0
                case _, "\n":
                    self._down()
                case _, plain if plain:
                    self._put(plain)

    def _down(self) -> None:
        self.row += 1
        if self.row == len(self.lines):
            self.lines.append("")

    def _put(self, character: str) -> None:
        if self.column == self.columns:
            self.column = 0
            self._down()
        line = self.lines[self.row].ljust(self.column)
        self.lines[self.row] = line[: self.column] + character + line[self.column + 1 :]
        self.column += 1
        self.is_new = True


def on_a_terminal(machines: int, columns: int = 80, rows: int = 24, **environment: str) -> tuple[Screen, str]:
    """The screen in the end, and all that was sent to it."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "LINES", "CI")}
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(machines)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**kept, "TERM": "xterm", **environment},
    ) as process:
        os.close(theirs)
        sent = b""
        while part := _read(ours):
            sent += part
        os.close(ours)
    assert process.returncode == 0, sent
    screen = Screen(columns, rows)
    screen.show(sent.decode())
    return screen, sent.decode()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1 << 16)
    except OSError:  # nobody holds the other end any more
        return b""


def in_the_end(machines: int) -> list[str]:
    lines = []
    for number in range(1, machines + 1):
        if number == 2:
            lines += ["laptop2: not reached", "  laptop2: Connection timed out"]
        else:
            lines += [f"laptop{number}: updated: vpn: 1 change", "  ip link set dev vpn mtu 1300"]
    return [*lines, "through", ""]


@pytest.mark.parametrize(("machines", "columns", "rows"), [(3, 80, 24), (30, 80, 24), (30, 80, 6), (30, 34, 24)])
def test_in_the_end_there_is_what_a_pipe_would_have_got(machines: int, columns: int, rows: int) -> None:
    screen, sent = on_a_terminal(machines, columns, rows)
    assert [line.rstrip() for line in screen.lines] == in_the_end(machines)
    assert sent.index("\x1b[?25l") < sent.index("\x1b[?25h"), "the cursor is there again"


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (80, 6), (20, 24)])
def test_meanwhile_who_is_at_what_without_scrolling(columns: int, rows: int) -> None:
    screen, _ = on_a_terminal(30, columns, rows)
    frames = [frame.rstrip().splitlines() for frame in screen.frames if " through" in frame]
    assert max(map(len, frames)) < rows
    assert all(len(line.rstrip()) <= columns for frame in frames for line in frame)
    assert all(frame[0].split()[1] == "through" for frame in frames)
    assert any("confirm" in line for frame in frames for line in frame)
    assert any("failed" in frame[0] for frame in frames), "the dead one is named at once"
    assert any(frame[-1].startswith("…") and "more" in frame[-1] for frame in frames)


@pytest.mark.parametrize("no_color", ["", "1"])
def test_it_is_readable_without_colour(no_color: str) -> None:
    _, sent = on_a_terminal(3, NO_COLOR=no_color)
    assert not re.search(r"\x1b\[[\d;]*m", sent)


def test_a_terminal_that_cannot_move_its_cursor_gets_plain_lines() -> None:
    _, sent = on_a_terminal(3, TERM="dumb")
    assert sent.replace("\r\n", "\n") == "\n".join(in_the_end(3))
