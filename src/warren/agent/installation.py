"""What `warren machines install` leaves on a machine, put there by the machine itself when it joins.

The same program does it, `fleet/bootstrap.py`, which is carried along as a file: it comes before all else there, and so
is imported by nobody.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Callable, Collection
from importlib.resources import files as resources
from pathlib import Path

import warren
from warren.errors import MachineError
from warren.host import requirements, signature, state
from warren.names import MachineName

BUNDLE = Path("/usr/local/lib/warren/warren.pyz")
PROGRAM = Path("/usr/local/bin/warren")
CARRIED = ("ask.py", "bootstrap.py", "warren.service")  # of the folder `fleet`
_TIMEOUT_S = 120.0

made: Callable[[], bytes] = bytes  # set by the command line where this is a package, which can make one


def own_archive() -> bytes:
    """The archive that this Warren runs from, or that `made` makes; b"": none."""
    archive = Path(warren.__file__).parent.parent
    return archive.read_bytes() if archive.is_file() else made()


def is_installed() -> bool:
    return BUNDLE.exists()


def check_signers(signers: Collection[str]) -> None:
    """Raise MachineError where this machine follows other operators: who hands over a line must not become one."""
    try:
        known = {_key(line) for line in signature.ALLOWED_SIGNERS.read_text(errors="replace").splitlines()}
    except FileNotFoundError:
        return
    except OSError as error:
        raise MachineError(f"cannot be read: {error.strerror}", where=str(signature.ALLOWED_SIGNERS)) from None
    if not {_key(line) for line in signers} <= known:
        raise MachineError(
            "this machine follows other operators already, and the invitation names one who is not among them",
            where=str(signature.ALLOWED_SIGNERS),
            mend="if that is right, add the line of the new one there by hand",
        )


def _key(line: str) -> tuple[str, ...]:
    words = line.split()
    place = next((i for i, word in enumerate(words) if word.startswith(("ssh-", "ecdsa-", "sk-"))), len(words))
    return tuple(words[place : place + 2])


def install(machine: MachineName, signers: Collection[str], archive: bytes) -> None:
    """All or nothing; what is there already stays as it is."""
    if is_installed() and signature.ALLOWED_SIGNERS.exists():
        state.write_machine_name(machine)
        return
    if not archive:
        raise MachineError("this Warren cannot bring itself here", mend="run the archive: python3 warren.pyz join LINE")
    folder = resources("warren") / "fleet"
    ask, program, unit = ((folder / name).read_text() for name in CARRIED)
    request = {
        "machine": machine,
        "bundle": base64.b64encode(archive).decode("ascii"),
        "ask": ask,
        "allowed_signers": "".join(f"{each}\n" for each in signers),
        "unit": unit,
    }
    wireguard = "kernel" if requirements.look().has_kernel_wireguard else ""
    done = subprocess.run(
        [sys.executable, "-I", "-c", program, wireguard],
        input=json.dumps(request).encode(), capture_output=True, timeout=_TIMEOUT_S, check=False,
    )  # fmt: skip
    if done.returncode:
        said = done.stdout.decode(errors="replace").strip() or done.stderr.decode(errors="replace").strip()
        raise MachineError(f"nothing was installed: {said}", where=str(BUNDLE))
