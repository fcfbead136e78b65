"""Every exception of Warren, as a tree.

WarrenError                     what is wrong, where, how to mend it; `exit_code` is what the command ends with
├── InventoryError         1    the inventory has problems: all of them, each with its place
├── VarsError              1    a stored value is missing, broken or taken
├── UsageError             2    the command was called in a way that cannot work
└── MachineError           4    a machine did not become, or cannot become, what it should be
    ├── DocumentRefused    4    a network document that this machine must not follow
    ├── KernelError        4    the kernel or a program of the system said no
    ├── NotConverged       4    all was performed, and the machine still differs
    ├── LabError           4    the lab cannot be made or reached
    ├── SignalRefused      4    a datagram that is no signal of another agent's; it is counted, and forgotten
    └── Unreachable        4    ssh did not come to a machine (warren.fleet.ssh)

Exceptions carry fields; their text is made here. Only `cli` exits.
"""

from __future__ import annotations

from dataclasses import dataclass


class WarrenError(Exception):
    """What is wrong, where, and how to mend it."""

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", mend: str = "") -> None:
        self.what = what
        self.where = where
        self.mend = mend
        super().__init__(what)

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        mend = f"\nmend: {self.mend}" if self.mend else ""
        return f"{place}{self.what}{mend}"


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a file the operator wrote. Lines and columns count from 1; 0 means that the place is unknown."""

    file: str
    line: int
    column: int
    message: str
    mend: str = ""
    source_line: str = ""
    width: int = 1  # characters to underline
    caret_column: int = 0  # of source_line, where that is an excerpt of a long line; 0: it is whole

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        text = f"{place}: {self.message}"
        if self.line and self.source_line:
            number = f"{self.line:>5} | "
            # Tabs stay tabs, so that the caret stands under its character in any terminal.
            indent = "".join(
                c if c == "\t" else " " for c in self.source_line[: (self.caret_column or self.column) - 1]
            )
            text += f"\n{number}{self.source_line}\n{'| ':>{len(number)}}{indent}{'^' * self.width}"
        return f"{text}\nmend: {self.mend}" if self.mend else text


class InventoryError(WarrenError):
    """The inventory cannot be used; `problems` holds everything found, in the order of the file."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        self.problems = problems
        super().__init__("\n\n".join(map(str, problems)))


class VarsError(WarrenError):
    """A stored value is missing, broken or taken."""


class UsageError(WarrenError):
    """The command was called in a way that cannot work."""

    exit_code = 2


class MachineError(WarrenError):
    """A machine did not become, or cannot become, what it should be."""

    exit_code = 4


class DocumentRefused(MachineError):
    """A network document that this machine must not follow."""


class KernelError(MachineError):
    """The kernel or a program of the system said no; `command` is the command form of what was asked."""

    def __init__(self, what: str, *, command: str = "", where: str = "", mend: str = "", code: int = 0) -> None:
        self.command = command
        self.code = code  # errno, where there is one
        super().__init__(f"{command}: {what}" if command else what, where=where, mend=mend)


class NotConverged(MachineError):
    """All steps were performed, and the machine still differs from what it should be."""


class SignalRefused(MachineError):
    """A datagram that is no signal of another agent's."""


class LabError(MachineError):
    """The lab cannot be made or reached."""
