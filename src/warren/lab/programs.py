"""The system's own programs: what they find on a machine, and how they are fed with text."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from warren.errors import KernelError, LabError
from warren.names import MachineName

# Where distributions keep them; what a machine's programs find.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PACKAGES = {"ip": "iproute2", "nft": "nftables", "wg": "wireguard-tools", "sleep": "coreutils"}


def missing_programs(names: Sequence[str] = tuple(_PACKAGES)) -> list[str]:
    """Debian's packages of the programs that are not here."""
    return [_PACKAGES[name] for name in names if find(name) is None]


def find(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path=PATH)


def environment(lab: str, machine: MachineName) -> dict[str, str]:
    """What programs on a machine find. This Python's folder comes last, so that `warren` is there too."""
    return {
        "PATH": f"{PATH}:{Path(sys.executable).parent}",
        "HOME": "/root",
        "USER": "root",
        "LOGNAME": "root",
        "SHELL": "/bin/sh",
        "LANG": os.environ.get("LANG", "C.UTF-8"),
        "WARREN_LAB": lab,
        "WARREN_MACHINE": machine,
    }


def ip_batch(text: str, *options: str) -> None:
    """Commands of `ip`, one a line; options such as -6 come before them."""
    _feed(["ip", *options, "-batch", "-"], text)


def load_rules(text: str) -> None:
    """Commands of `nft`, all of them or none."""
    _feed(["nft", "-f", "-"], text)


def _feed(command: list[str], text: str) -> None:
    program = find(command[0])
    if program is None:
        raise LabError(f"the program {command[0]} is missing", mend=f"apt install {_PACKAGES[command[0]]}")
    result = subprocess.run([program, *command[1:]], input=text, capture_output=True, text=True, check=False)
    if result.returncode:
        raise KernelError(f"{result.stderr.strip()}\n{text}", command=" ".join(command))
