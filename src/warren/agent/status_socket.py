"""The agent's local socket: whoever connects gets what the agent last found, as one JSON object, and the end."""

from __future__ import annotations

import errno
import json
import os
import socket
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from warren.errors import MachineError
from warren.host import files

PATH = Path("/run/warren/agent.sock")
_ANSWER_TIMEOUT_S = 1.0


class LocalSocket:
    """Listens at a path, for root alone, in place of a socket that an agent left which died; a context manager.

    `fileno` is readable when somebody connected.
    """

    def __init__(self, path: Path, kind: socket.SocketKind) -> None:
        self._path = path
        files.make_folder(path.parent, mode=0o755)
        with suppress(FileNotFoundError):
            path.unlink()
        self._socket = socket.socket(socket.AF_UNIX, kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        before = os.umask(0o177)
        try:
            self._socket.bind(str(path))
        finally:
            os.umask(before)
        self._socket.listen(16)

    def fileno(self) -> int:
        return self._socket.fileno()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()
        with suppress(FileNotFoundError):
            self._path.unlink()


class StatusSocket(LocalSocket):
    """Listens at PATH."""

    def __init__(self, path: Path = PATH) -> None:
        if ask(path) is not None:
            raise MachineError("another agent runs on this machine", where=str(path), mend="stop that one first")
        super().__init__(path, socket.SOCK_STREAM)

    def answer(self, found: dict[str, object]) -> None:
        """Give `found` to everybody who waits."""
        content = json.dumps(found).encode() + b"\n"
        while True:
            try:
                connection, _ = self._socket.accept()
            except BlockingIOError:
                return
            with suppress(OSError), connection:  # one that does not read must not hold up the agent
                connection.settimeout(_ANSWER_TIMEOUT_S)
                connection.sendall(content)


def is_served(path: Path = PATH) -> bool:
    """Whether an agent runs here, busy or not."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as connection:
        return connection.connect_ex(str(path)) in (0, errno.EAGAIN)


def ask(path: Path = PATH) -> dict[str, object] | None:
    """What the running agent says; None: none runs."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as connection:
        connection.settimeout(_ANSWER_TIMEOUT_S * 5)
        try:
            connection.connect(str(path))
            with connection.makefile("rb") as stream:
                content = stream.read()
        except (FileNotFoundError, ConnectionRefusedError, ConnectionResetError):
            return None
    if not content:  # it ended before it could answer
        return None
    found = json.loads(content)
    assert isinstance(found, dict)
    return found
