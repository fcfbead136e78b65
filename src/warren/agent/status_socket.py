"""The agent's local socket: whoever connects gets what the agent last found, as one JSON object, and the end."""

from __future__ import annotations

import errno
import json
import os
import socket
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from warren.errors import MachineError
from warren.host import files

PATH = Path("/run/warren/agent.sock")
_ANSWER_TIMEOUT_S = 1.0


class StatusSocket:
    """Listens at PATH, for root alone. `fileno` is readable when somebody connected."""

    def __init__(self, path: Path = PATH) -> None:
        self._path = path
        if ask(path) is not None:
            raise MachineError("another agent runs on this machine", where=str(path), mend="stop that one first")
        self._socket = listening(path, socket.SOCK_STREAM)

    def fileno(self) -> int:
        return self._socket.fileno()

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

    def __enter__(self) -> StatusSocket:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()
        with suppress(FileNotFoundError):
            self._path.unlink()


def listening(path: Path, kind: socket.SocketKind) -> socket.socket:
    """A socket for root alone, in place of one that an agent left which died."""
    files.make_folder(path.parent, mode=0o755)
    with suppress(FileNotFoundError):
        path.unlink()
    found = socket.socket(socket.AF_UNIX, kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    before = os.umask(0o177)
    try:
        found.bind(str(path))
    finally:
        os.umask(before)
    found.listen(16)
    return found


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
