"""Preshared keys from a program of this machine's own, such as one that does a post-quantum exchange with the others.

What is run as root is for root of this machine to say, and not for whoever signs documents: they have nothing but the
name of a program in FOLDER. The program, the folder, and all above them must be root's, and nobody else's to write.

Its environment says what it is about: WARREN_INSTANCE, WARREN_MACHINE and WARREN_OTHER. It prints the key as
`wg genpsk` does; nothing at all says that this pair has none.
"""

from __future__ import annotations

import os
import select
import signal
import stat
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from warren.errors import MachineError
from warren.host.keys import without_core_dumps
from warren.names import InstanceName, MachineName
from warren.wireguard.keys import PresharedKey
from warren.wireguard.preshared import fingerprint

FOLDER = Path("/etc/warren/psk-commands")
TIMEOUT_S = 10.0
LONGEST_BYTES = 256  # a key has 44

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def check(name: str, folder: Path = FOLDER) -> Path:
    """The program of that name; MachineError where there is none, or others than root could exchange it."""
    place = folder / name
    try:
        target = place.resolve(strict=True)
        for each in dict.fromkeys((target, *target.parents, *folder.parents, folder)):
            _check_owned(each, place)
        if not target.is_file() or not os.access(target, os.X_OK):
            raise MachineError("this is no program", where=str(place), mend=f"chmod 0755 {place}")
    except OSError as error:
        raise MachineError(
            f"there is no such program, from which preshared keys are to come: {error.strerror}",
            where=str(place),
            mend="put it there, as root; it prints the key for the machine in $WARREN_OTHER",
        ) from None
    return target


def _check_owned(path: Path, place: Path) -> None:
    status = path.stat()
    if status.st_uid != 0 or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise MachineError(
            f"it would run as root, and others than root can write {path}",
            where=str(place),
            mend=f"chown root:root {path}; chmod go-w {path}",
        )


def ask(
    name: str,
    instance: InstanceName,
    machine: MachineName,
    other: MachineName,
    folder: Path = FOLDER,
    timeout_s: float = TIMEOUT_S,
) -> PresharedKey | None:
    """The key of that pair as the program says it; None: it has none. MachineError where the program fails."""
    program = check(name, folder)
    without_core_dumps()
    about = {"WARREN_INSTANCE": instance, "WARREN_MACHINE": machine, "WARREN_OTHER": other}
    try:
        # In a group of its own, so that nothing that it started is left.
        process = subprocess.Popen(
            [str(program)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # nobody knows whether a key is in it
            cwd="/",
            env={"PATH": _PATH, **about},
            start_new_session=True,
        )
    except OSError as error:
        raise MachineError(f"cannot be started: {error.strerror}", where=str(program)) from None
    try:
        said, code = _outcome(process, time.monotonic() + timeout_s)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    return _key(said, code, f"{program}, for {other}")


def _outcome(process: subprocess.Popen[bytes], deadline_s: float) -> tuple[bytes | None, int | None]:
    """What it printed, None where that is too much; and its exit code, None where it did not end in time."""
    assert process.stdout is not None
    said, descriptor = b"", process.stdout.fileno()
    while True:
        left_s = deadline_s - time.monotonic()
        if left_s <= 0 or not select.select([descriptor], [], [], left_s)[0]:
            return said, None
        part = os.read(descriptor, LONGEST_BYTES + 1)
        said += part
        if len(said) > LONGEST_BYTES:
            return None, None
        if not part:
            break
    with suppress(subprocess.TimeoutExpired):
        return said, process.wait(max(0.0, deadline_s - time.monotonic()))
    return said, None


def _key(said: bytes | None, code: int | None, where: str) -> PresharedKey | None:
    if said is None:
        raise MachineError(f"it printed more than {LONGEST_BYTES} bytes, a key has 44", where=where)
    if code is None:
        raise MachineError("it did not end in time", where=where)
    if code != 0:
        raise MachineError(f"it ended with {code}", where=where)
    if not said.strip():
        return None
    try:
        key = PresharedKey.parse(said.decode("ascii"))
    except ValueError:  # whose text may have a part of the key
        key = None
    if key is None or not fingerprint(key.reveal()):
        raise MachineError("what it printed is no key: 32 bytes in base64 are needed", where=where)
    return key
