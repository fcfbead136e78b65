"""The instance's block in the hosts file: marked lines that are ours, and every other byte as it was.

A new block goes to the end of the file; where the last line has no newline, to the start, so that not even that
byte is added. A block that somebody moved is kept where it is. Our lines end with a bare newline in any file: the C
library reads hosts with either line ending, mixed or not.
"""

from __future__ import annotations

from collections.abc import Iterable

from warren.errors import MachineError
from warren.names import InstanceName
from warren.plan.desired import HostLine

FILE = "/etc/hosts"
_NOTE = "(kept by warren: edits between these two lines are lost)"


def block_lines(content: bytes, instance: InstanceName, *, file: str = FILE) -> tuple[str, ...] | None:
    """The lines of the instance's block without its markers; None: there is no block.

    Raises MachineError, with `file` and line, where the markers do not say clearly where the block is.
    """
    lines = _lines(content)
    found = _find(lines, instance, file)
    if found is None:
        return None
    inside = lines[found.start + 1 : found.stop - 1]
    return tuple(line.removesuffix(b"\n").decode(errors="backslashreplace") for line in inside)


def with_block(content: bytes, instance: InstanceName, lines: Iterable[HostLine], *, file: str = FILE) -> bytes:
    """The content with the instance's block holding `lines`; raises as `block_lines` does."""
    before = _lines(content)
    block = _block(instance, lines)
    found = _find(before, instance, file)
    if found is not None:
        return b"".join([*before[: found.start], block, *before[found.stop :]])
    return content + block if content.endswith(b"\n") or not content else block + content


def without_block(content: bytes, instance: InstanceName, *, file: str = FILE) -> bytes:
    """The content without the instance's block; raises as `block_lines` does."""
    lines = _lines(content)
    found = _find(lines, instance, file)
    return content if found is None else b"".join(lines[: found.start] + lines[found.stop :])


def _block(instance: InstanceName, lines: Iterable[HostLine]) -> bytes:
    text = [f"# BEGIN warren {instance} {_NOTE}", *map(str, lines), f"# END warren {instance}"]
    return "".join(f"{line}\n" for line in text).encode()


def _lines(content: bytes) -> list[bytes]:
    """Cut at newlines alone: bytes.splitlines takes a lone carriage return for a line's end as well."""
    *whole, rest = content.split(b"\n")
    lines = [line + b"\n" for line in whole]
    return [*lines, rest] if rest else lines


def _find(lines: list[bytes], instance: InstanceName, file: str) -> range | None:
    """Where the block is, markers included."""
    begins: int | None = None
    found: range | None = None
    for number, line in enumerate(lines):
        kind, name = _marker(line)
        if begins is None and (kind is None or name != instance.encode()):
            continue
        if begins is None:
            if kind == b"END":
                raise _refusal(file, number, line, "has no BEGIN before it")
            if found is not None:
                raise _refusal(file, number, line, f"is the second block; the first is at line {found.start + 1}")
            begins = number
        elif kind is not None:
            if (kind, name) != (b"END", instance.encode()):
                raise _refusal(file, number, line, f"is in the block that begins at line {begins + 1}")
            found = range(begins, number + 1)
            begins = None
    if begins is not None:
        raise _refusal(file, begins, lines[begins], "has no END after it")
    return found


def _marker(line: bytes) -> tuple[bytes | None, bytes]:
    """BEGIN or END, or None, and the instance's name; blanks, and what follows the name, do not matter."""
    match line.split(maxsplit=4):
        case [b"#", (b"BEGIN" | b"END") as kind, b"warren", name, *_]:
            return kind, name
    return None, b""


def _refusal(file: str, number: int, line: bytes, what: str) -> MachineError:
    shown = line.strip().decode(errors="backslashreplace")
    return MachineError(
        f'"{shown}" {what}',
        where=f"{file}:{number + 1}",
        mend="remove the block's lines by hand, both markers included; warren writes it anew",
    )
