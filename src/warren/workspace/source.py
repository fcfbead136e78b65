"""The file that the operator wrote: found, and read."""

from __future__ import annotations

import os
from pathlib import Path

from warren.errors import InventoryError, UsageError
from warren.inventory import syntax
from warren.inventory.model import Inventory
from warren.inventory.parse import Format
from warren.inventory.read import read
from warren.workspace.nix import read_nix

FILE_NAMES = ("warren.toml", "clan.nix", "inventory.json")

_MOST_BYTES = 256 * 1024 * 1024  # a hundred times the largest fleet's; protects from devices and wrong files


def find_inventory(start: Path, given: str | None) -> Path:
    """The file that was given, or the first that is there in `start` and the folders above it."""
    if given:
        return Path(given)
    folders = (start.absolute(), *start.absolute().parents)
    for folder in folders:
        for name in FILE_NAMES:
            if (folder / name).is_file():
                return folder / name
    raise UsageError(
        f"there is no {', '.join(FILE_NAMES[:-1])} or {FILE_NAMES[-1]} in {', '.join(map(str, folders))}",
        mend="write a first one with `warren init`, or name the file: warren --inventory FILE",
    )


def load_inventory(path: Path) -> Inventory:
    """Read the file; InventoryError with everything that is wrong in it, UsageError where it is no file to read."""
    name = shown_name(path)
    text = _text(path, name)
    if path.suffix == ".nix":
        return read_nix(path, name)
    return read(text, _format(path, text), name)


def shown_name(path: Path) -> str:
    """What messages call the file: the shorter way to name it from here."""
    name = min(str(path), os.path.relpath(path), key=len)
    return os.fsencode(name).decode(errors="replace")


def _format(path: Path, text: str) -> Format:
    """By the name's ending; without one (`-f <(nix eval --json …)`), a brace can only begin JSON."""
    if path.suffix in (".toml", ".json"):
        return "toml" if path.suffix == ".toml" else "json"
    return "json" if text.lstrip("\ufeff \t\r\n").startswith("{") else "toml"


def _text(path: Path, name: str) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        mend = "write a first one with `warren init`" if isinstance(error, FileNotFoundError) else ""
        if isinstance(error, IsADirectoryError):
            mend = f"name the file in it: {Path(name) / FILE_NAMES[0]}"
        raise UsageError(f"cannot read it: {error.strerror}", where=name, mend=mend) from None
    except ValueError:  # a NUL in the name
        raise UsageError("this cannot be the name of a file", where=repr(name)) from None
    if len(data) > _MOST_BYTES:
        raise UsageError(f"larger than {_MOST_BYTES:,} bytes", where=name, mend="name the inventory: --inventory FILE")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        text = data.decode(errors="replace")
        mistake = syntax.not_utf8(len(data[: error.start].decode()))
        raise InventoryError((syntax.problem_of(mistake, text, name),)) from None
