"""The hosts file of this machine: one marked block for each instance (`plan.hosts` says where and how)."""

from __future__ import annotations

from pathlib import Path

from warren.host import files
from warren.names import InstanceName
from warren.plan import hosts
from warren.plan.desired import HostLine

PATH = Path(hosts.FILE)


def read_lines(instance: InstanceName, path: Path = PATH) -> tuple[str, ...] | None:
    """The lines of the instance's block; None: there is no block, or no file."""
    return hosts.block_lines(files.read(path) or b"", instance, file=str(path))


def write_lines(instance: InstanceName, lines: tuple[HostLine, ...], path: Path = PATH) -> None:
    """Make the instance's block hold `lines`; a missing file is made."""
    with files.edit(path) as file:
        file.replace(hosts.with_block(file.content or b"", instance, lines, file=str(path)))


def clear_lines(instance: InstanceName, path: Path = PATH) -> None:
    """Take the instance's block out."""
    with files.edit(path) as file:
        if file.content is not None:
            file.replace(hosts.without_block(file.content, instance, file=str(path)))
