"""Init processes: PID 1 of new namespaces, for the lab itself and for each of its machines.

An init does nothing but reap: when it dies, the kernel ends everything in its pid namespace and in those below, and
frees their networks and mounts. So SIGKILL of one process is the whole of taking something down.

A new init is provisional: it dies with the process that made it, until that one says `keep`.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, NoReturn, TypeVar

from warren.errors import LabError
from warren.lab.namespaces import EVERY_NAMESPACE, unshare
from warren.lab.place import Place, fork_into, reap, report, start_afresh, unpack
from warren.lab.process import Process

T = TypeVar("T")

_KEEP = b"k"


@dataclass(frozen=True, slots=True)
class NewInit(Generic[T]):
    """An init that is being prepared; its namespaces are there already."""

    place: Place
    control: socket.socket
    reader: int

    def result(self) -> T:
        """Wait for `prepare`: its value, or its exception raised here."""
        with os.fdopen(self.reader, "rb") as reader:
            value: T = unpack(reader.read(), self.place.name)
        return value

    def keep(self) -> None:
        """Let it live on after this process."""
        try:
            self.control.send(_KEEP)
        except OSError:
            raise LabError(f"{self.place.name} went away in the middle") from None
        self.control.close()


def start_init(
    name: str, parent: Place | None, prepare: Callable[..., T], *arguments: object, environment: Mapping[str, str]
) -> NewInit[T]:
    """A PID 1 in new namespaces below those of `parent`, where it runs `prepare` and then only reaps."""
    program = _sleep_program()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    reader, writer = os.pipe()
    pid = fork_into(parent)
    if pid == 0:
        _between(theirs, writer, lambda: _live(theirs, writer, prepare, arguments, program, environment))
    theirs.close()
    os.close(writer)
    reap(pid)
    process = _received_process(ours)
    if process is None:
        with os.fdopen(reader, "rb") as pipe:
            unpack(pipe.read(), name)  # raises what went wrong
        raise LabError(f"{name} went away in the middle")
    return NewInit(Place(name, process), ours, reader)


def _received_process(control: socket.socket) -> Process | None:
    _, descriptors, _, _ = socket.recv_fds(control, 16, 1)
    process = None
    for descriptor in descriptors:
        process = Process.behind(descriptor)
        os.close(descriptor)
    return process


def _between(control: socket.socket, writer: int, live: Callable[[], NoReturn]) -> NoReturn:
    """The process between: a pid namespace holds the children of who made it, so one more fork is needed."""
    try:
        _close_all_but(control.fileno(), writer)
        unshare(EVERY_NAMESPACE)
        pid = os.fork()
        if pid == 0:
            live()
        pidfd = os.pidfd_open(pid)
        socket.send_fds(control, [b"p"], [pidfd])
    except Exception as error:
        report(writer, _raise, error)
    os._exit(0)


def _live(
    control: socket.socket,
    writer: int,
    prepare: Callable[..., object],
    arguments: tuple[object, ...],
    program: str,
    environment: Mapping[str, str],
) -> NoReturn:
    try:
        start_afresh()
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        prepared = report(writer, prepare, *arguments)
        # An ignored SIGCHLD makes the kernel reap all children, adopted ones too; unlike a handler it outlives exec.
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        if prepared and control.recv(1) == _KEEP:
            os.execve(program, ["sleep", "2147483647"], environment)  # noqa: S606 - becomes it, starts nothing
    finally:
        os._exit(1)


def _close_all_but(*kept: int) -> None:
    """Locks and pipes of this process must not live on in the init."""
    low = 3
    for descriptor in sorted(kept):
        os.closerange(low, descriptor)
        low = descriptor + 1
    os.closerange(low, os.sysconf("SC_OPEN_MAX"))


def _raise(error: Exception) -> NoReturn:
    raise error


def _sleep_program() -> str:
    program = shutil.which("sleep")
    if program is None:
        raise LabError("the program sleep is missing", mend="install coreutils or busybox")
    return os.path.realpath(program)  # the link may lead through a folder that a machine has of its own, such as /run
