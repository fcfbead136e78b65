"""Places to run things in: the namespaces of a machine, or of the lab's internet.

Everything that the lab does inside is a fork of this process that enters the namespaces: `call` runs a Python function
there and brings its value back, `execute` and `spawn` become programs. Fork from one thread only.
"""

from __future__ import annotations

import errno
import os
import pickle
import signal
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from warren.errors import KernelError, LabError
from warren.lab.namespaces import EVERY_NAMESPACE, Namespace, die_with_parent, enter
from warren.lab.process import Process

T = TypeVar("T")

_children: set[int] = set()  # of this process, made by `fork_into` and not yet waited for
_EXHAUSTED = (errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EMFILE, errno.ENFILE)


@dataclass(frozen=True, slots=True)
class Place:
    """Somewhere to run things: the namespaces of a process, or some of them. `name` is for errors."""

    name: str
    process: Process
    namespaces: Namespace = EVERY_NAMESPACE

    @property
    def root(self) -> Path:
        """The root folder of this place as this process can reach it."""
        return Path(f"/proc/{self.process.pid}/root")

    def only(self, namespaces: Namespace) -> Place:
        return Place(self.name, self.process, namespaces)


@dataclass(frozen=True, slots=True)
class Task(Generic[T]):
    """A function that runs in some place: `pid` is this process's child, its outcome comes through `reader`."""

    place: Place
    pid: int
    reader: int

    def result(self) -> T:
        """Wait for the outcome: the function's value, or its exception raised here."""
        with os.fdopen(self.reader, "rb") as reader:
            outcome = reader.read()
        reap(self.pid)
        value: T = unpack(outcome, self.place.name)
        return value


def start(place: Place, function: Callable[..., T], *arguments: object) -> Task[T]:
    """Run the function in a child inside `place`, and go on."""
    reader, writer = os.pipe()
    pid = fork_into(place)
    if pid == 0:
        os.close(reader)
        report(writer, function, *arguments)
        os._exit(0)
    os.close(writer)
    return Task(place, pid, reader)


def call(place: Place, function: Callable[..., T], *arguments: object) -> T:
    """The function's value, computed inside `place`; its exception is raised here."""
    return start(place, function, *arguments).result()


def results(tasks: Sequence[Task[T]]) -> list[T]:
    """The outcomes of tasks that run side by side; all are waited for before the first exception is raised."""
    values: list[T] = []
    failures: list[Exception] = []
    for task in tasks:
        try:
            values.append(task.result())
        except Exception as error:
            failures.append(error)
    if failures:
        raise failures[0]
    return values


def reap(pid: int) -> int:
    """Wait for a child of `fork_into`; its exit code, below zero the signal that ended it."""
    _children.discard(pid)  # first: once waited for, the pid may be another's
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def abandon_children() -> None:
    """End the children that an interruption left: an init cannot end before those inside were waited for."""
    for pid in list(_children):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        reap(pid)


def execute(place: Place, command: Sequence[str], environment: Mapping[str, str], folder: str) -> int:
    """Start a program inside `place`, with this process's own stdin, stdout and stderr; its pid."""
    pid = fork_into(place)
    if pid:
        return pid
    try:
        os.chdir(folder)
        os.execvpe(command[0], list(command), environment)  # noqa: S606 - becomes it, starts nothing
    except FileNotFoundError:
        code, problem = 127, "no such program"
    except OSError as error:
        code, problem = 126, error.strerror or "cannot be run"
    os.write(2, f"{place.name}: {command[0]}: {problem}\n".encode())
    os._exit(code)


def _nothing() -> int:
    return os.open(os.devnull, os.O_RDONLY)


def spawn(
    place: Place,
    command: Sequence[str],
    environment: Mapping[str, str],
    *,
    log: str = os.devnull,
    stdin: Callable[[], int] = _nothing,
) -> None:
    """Start a program inside `place` that lives on there; `log`, a file there, is appended to.

    `stdin` is called there, before the program starts.
    """
    reader, writer = os.pipe()
    pid = fork_into(place)
    if pid == 0:
        os.close(reader)
        # Once more, so that its parent is the init in there: one outside would have to reap it, and until it did,
        # the init could not end.
        if os.fork() == 0:
            report(writer, _become_service, command, environment, log, stdin)
        os._exit(0)
    os.close(writer)
    reap(pid)
    with os.fdopen(reader, "rb") as pipe:
        problem = pipe.read()  # nothing: exec closed the pipe
    if problem:
        unpack(problem, place.name)


def _become_service(command: Sequence[str], environment: Mapping[str, str], log: str, stdin: Callable[[], int]) -> None:
    os.setsid()
    os.dup2(stdin(), 0)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.chdir("/")
    os.execvpe(command[0], list(command), environment)  # noqa: S606 - becomes it, starts nothing


def fork_into(place: Place | None) -> int:
    """Fork; the child (0) is inside `place`, begins afresh, and ends with this process. None: it is as this one."""
    if place is None:
        pid = os.fork()
    else:
        with place.process.opened() as pidfd:
            if pidfd is None:
                raise LabError(f"{place.name} is not running")
            pid = _fork_into(pidfd, place)
    if pid:
        _children.add(pid)
    return pid


def _fork_into(pidfd: int, place: Place) -> int:
    try:
        pid = _fork(pidfd, place.namespaces)
    except KernelError as error:
        if error.code != errno.ESRCH:
            raise
        raise LabError(f"{place.name} went away in the middle") from None
    if pid == 0:
        try:
            start_afresh()
            die_with_parent(signal.SIGTERM)
            enter(pidfd, place.namespaces & ~Namespace.PID)
        except Exception:
            traceback.print_exc()
            os._exit(126)
    return pid


def report(writer: int, function: Callable[..., Any], *arguments: object) -> bool:
    """Write the function's outcome for `unpack`; whether it returned."""
    try:
        returned, outcome = True, function(*arguments)
    except BaseException as error:
        error.add_note("".join(traceback.format_exception(error)))
        returned, outcome = False, error
    try:
        packed = pickle.dumps((returned, outcome))
    except Exception as error:
        returned = False
        packed = pickle.dumps((False, LabError(f"{outcome!r} cannot be sent: {error}")))
    with os.fdopen(writer, "wb") as pipe:
        pipe.write(packed)
    return returned


def unpack(outcome: bytes, name: str) -> Any:
    """What `report` wrote; no bytes mean that the process was killed."""
    if not outcome:
        raise LabError(f"{name} went away in the middle")
    returned, value = pickle.loads(outcome)  # noqa: S301 - written by a fork of this process
    if returned:
        return value
    if isinstance(value, OSError) and value.errno in _EXHAUSTED:
        raise LabError(f"{name}: {value}", mend="make room: the machines' disks are in this computer's memory")
    raise value


def start_afresh() -> None:
    """Take back what the command's own process has set: a forked child acts on signals, and makes files, as usual."""
    os.umask(0o022)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)


def _plain_fork() -> int:
    """Fork. An interrupt that comes meanwhile is acted on afterwards.

    In what Python does at a fork, for `logging` and others, its exception would be dropped.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return os.fork()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _fork(pidfd: int, namespaces: Namespace) -> int:
    """Fork; the child begins in the pid namespace of the pidfd's process, if that is among `namespaces`."""
    if not namespaces & Namespace.PID:
        return _plain_fork()
    own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    enter(pidfd, Namespace.PID)
    pid = -1
    try:
        pid = _plain_fork()
    finally:
        if pid:  # this process's next children are its own again
            enter(own, Namespace.PID)
        os.close(own)
    return pid
