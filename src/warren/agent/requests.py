"""Commands of the operator's side that the running agent has done by a fork of itself, with all imports behind it.

The agent's part is an accept and a fork. The fork is a process like the one that ssh would have started: it has the
caller's stdin, stdout and stderr, owes nothing to the agent, outlives it, and what it applies is watched by the same
watchdog. For root alone: the socket's mode says so, and the kernel says who the caller is.

    caller   the stamp of the archive that is installed, and the words, with a zero between
    fork     "ready"      or the end, and the caller does it by itself: it has another Warren, or wants something else
    caller   "go", and its descriptors 0, 1, 2      or the end: it did not wait, and nothing is done
    fork     one byte, the exit code

No descriptor comes before somebody is there to take it: it would stay open in the queue of an agent that hangs, and the
ssh session with it.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeAlias

import warren
from warren.agent import receive, restore  # noqa: F401 - what is asked for is in memory by then
from warren.agent.status_socket import LocalSocket
from warren.host import process

Act: TypeAlias = Callable[[Sequence[str]], int]
"""What a command line does; its exit code."""

PATH = Path("/run/warren/requests.sock")
SERVED = (["machine", "receive"], ["machine", "confirm"])

_NAME = "warren-request"
_READY, _GO = b"ready", b"go"
_LARGEST_BYTES = 4096
_DESCRIPTORS = 3
_PATIENCE_S = 5.0
_OF_THE_SERVICE = ("JOURNAL_STREAM", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")  # sd_notify(3), systemd.exec(5)


def stamp(archive: Path | None = None) -> str:
    """Which archive this Warren was loaded from; one that takes its place has another. Empty: from no archive."""
    archive = archive or Path(warren.__file__).parent.parent
    if not archive.is_file():
        return ""
    status = archive.stat()
    return f"{status.st_dev}:{status.st_ino}:{status.st_mtime_ns}:{status.st_size}"


class RequestSocket(LocalSocket):
    """Listens at PATH."""

    def __init__(self, act: Act, own: str, path: Path = PATH) -> None:
        super().__init__(path, socket.SOCK_SEQPACKET)
        self._act = act
        self._own = own

    def serve(self) -> None:
        """Have a process of its own answer each of those who wait."""
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            # Without room for a process, the caller sees the end, and does it by itself.
            with connection, suppress(OSError):
                process.detach(_NAME, (connection.fileno(),), partial(_answer, connection, self._act, self._own))


def _answer(connection: socket.socket, act: Act, own: str) -> None:
    connection.settimeout(_PATIENCE_S)
    given, *words = os.fsdecode(connection.recv(_LARGEST_BYTES)).split("\0")
    if given != own or not own or words[:2] not in SERVED or not _is_root(connection):
        return
    connection.sendall(_READY)
    content, descriptors, *_ = socket.recv_fds(connection, len(_GO), _DESCRIPTORS)
    if content != _GO or len(descriptors) != _DESCRIPTORS:
        return
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    # Anew: whatever the agent read or left unwritten is none of this.
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
    for name in _OF_THE_SERVICE:
        os.environ.pop(name, None)
    try:
        code = act(words)
    except SystemExit as ended:  # of the parser of command lines
        code = ended.code if isinstance(ended.code, int) else 1
    sys.stdout.flush()
    sys.stderr.flush()
    connection.sendall(bytes([code & 0xFF]))


def _is_root(connection: socket.socket) -> bool:
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, user, _ = struct.unpack("3i", credentials)
    return bool(user == os.geteuid())
