"""Linux namespaces for tests: a Python function runs as root of a machine of its own.

    result = in_namespace(function, *arguments)          # one fresh machine, gone afterwards

    with Namespace() as left, Namespace() as right:      # several, with a cable between them
        left.connect(right, "fd99::1/64", "fd99::2/64")
        left.run(function, *arguments)

Each has its own network, mounts and processes: /run is an empty tmpfs, /proc and /sys are its own, lo is up. Nothing
outlives it: its first process holds one end of a pipe, and when the test ends, however it ends, the kernel kills
every process of the namespace.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, TypeAlias, TypeVar, cast

import pytest

T = TypeVar("T")
Answer: TypeAlias = tuple[Any, BaseException | None, str]  # result, exception, its traceback

RUN_TIMEOUT_S = 120.0

# linux/sched.h; os.unshare and os.setns came with Python 3.12
_CLONE_NEWNS, _CLONE_NEWPID, _CLONE_NEWNET = 0x00020000, 0x20000000, 0x40000000
_MS_REC, _MS_PRIVATE = 0x4000, 1 << 18  # linux/mount.h
_libc = ctypes.CDLL(None, use_errno=True)

_alive_fds: set[int] = set()  # of every namespace that lives: see _forget_namespaces


class _Skip(Exception):
    """pytest's own exception cannot be pickled."""


class Namespace:
    """A network, mount and process namespace; a context manager. `pid` is its first process, seen from outside."""

    def __init__(self) -> None:
        self.pid = 0
        self._keeper = 0
        self._alive_fd = -1

    def __enter__(self) -> Namespace:
        if os.geteuid() != 0:
            pytest.skip("needs root: namespaces are made")
        death, self._alive_fd = os.pipe()
        ready, report = os.pipe()
        self._keeper = os.fork()
        if self._keeper == 0:
            os.close(self._alive_fd)
            _keep(death, report)
        _alive_fds.add(self._alive_fd)
        os.close(death)
        os.close(report)
        with os.fdopen(ready, "rb") as stream:
            answer = stream.read().decode()
        if not answer.isdigit():
            self._close()
            pytest.skip(f"no namespaces can be made here: {answer}")
        self.pid = int(answer)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def run(self, function: Callable[..., T], *arguments: Any, timeout_s: float = RUN_TIMEOUT_S) -> T:
        """Call `function(*arguments)` in a process inside; its result or exception comes back (pickled)."""
        reader, writer = os.pipe()
        sys.stdout.flush()  # or the child would say it again
        sys.stderr.flush()
        outer = os.fork()
        if outer == 0:
            os.close(reader)
            _enter_and_call(self.pid, writer, function, arguments)
        os.close(writer)
        try:
            answer = _read_all(reader, timeout_s)
        except BaseException:
            os.kill(outer, signal.SIGKILL)
            raise
        finally:
            os.close(reader)
            os.waitpid(outer, 0)
        if not answer:
            raise RuntimeError("the process inside the namespace died without a word")
        result: T | None
        result, error, trace_text = pickle.loads(answer)
        if isinstance(error, _Skip):
            pytest.skip(str(error))
        if error is not None:
            error.add_note(f"inside the namespace:\n{trace_text}")
            raise error
        return cast(T, result)

    def sh(self, script: str) -> str:
        """Run a shell script inside, stopping at its first failure; returns its stdout."""
        return self.run(sh, script)

    def connect(self, other: Namespace, here: str, there: str, names: tuple[str, str] = ("eth0", "eth0")) -> None:
        """A veth cable to `other`, with an address at each end, up and usable at once (no duplicate detection)."""
        cable = f"ip link add {names[0]} type veth peer name {names[1]} netns /proc/{other.pid}/ns/net"
        sh(f"nsenter -t {self.pid} -n {cable}")
        # Up before the addresses: the other way round, the first packet waits a second for neighbor discovery.
        self.sh(f"ip link set {names[0]} up")
        other.sh(f"ip link set {names[1]} up")
        self.sh(_add_address(here, names[0]))
        other.sh(_add_address(there, names[1]))

    def _close(self) -> None:
        if self._alive_fd >= 0:
            _alive_fds.discard(self._alive_fd)
            os.close(self._alive_fd)
            self._alive_fd = -1
            os.waitpid(self._keeper, 0)


def in_namespace(function: Callable[..., T], *arguments: Any, timeout_s: float = RUN_TIMEOUT_S) -> T:
    """Call `function(*arguments)` on a fresh machine of its own; its result or exception comes back."""
    with Namespace() as namespace:
        return namespace.run(function, *arguments, timeout_s=timeout_s)


def drop_root() -> None:
    """Become nobody, for good: what the rest of this process asks of the kernel is refused."""
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)


def sh(script: str) -> str:
    """Run a shell script, stopping at its first failure; returns its stdout."""
    done = subprocess.run(["sh", "-ec", script], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{script!r} ended with {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


def wait_until(condition: Callable[[], Any], timeout_s: float = 10.0, what: str = "the condition") -> None:
    """Return as soon as `condition()` is true; an AssertionError names what did not come."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come true within {timeout_s:.0f} s"
        time.sleep(0.01)


def _keep(death: int, report: int) -> NoReturn:
    """Make the namespaces, start their first process, and wait until that one has ended."""
    try:
        _close_others(death, report)
        _unshare(_CLONE_NEWNET | _CLONE_NEWNS | _CLONE_NEWPID)
        ready_reader, ready_writer = os.pipe()
        first = os.fork()
        if first == 0:
            os.close(report)
            _first_process(death, ready_writer)
        os.close(ready_writer)
        problem = os.read(ready_reader, 4096)
        os.write(report, problem or str(first).encode())
        os.close(report)
        os.waitpid(first, 0)
    except OSError as error:
        os.write(report, str(error).encode())
    os._exit(0)


def _first_process(death: int, ready: int) -> NoReturn:
    """Process 1 inside. Children of the dead become its own and are reaped by the kernel, for it ignores SIGCHLD."""
    try:
        _mount("none", "/", None, _MS_REC | _MS_PRIVATE)
        _mount("tmpfs", "/run", "tmpfs")
        _mount("proc", "/proc", "proc")
        _mount("sysfs", "/sys", "sysfs")
        Path("/run/wireguard").mkdir(mode=0o755)
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    except OSError as error:
        os.write(ready, str(error).encode())
        os._exit(1)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.close(ready)
    os.read(death, 1)  # returns when the test's end of the pipe is closed
    os._exit(0)


def _enter_and_call(pid: int, writer: int, function: Callable[..., Any], arguments: tuple[Any, ...]) -> NoReturn:
    """In a child: join the namespaces of `pid`, then call in a grandchild, which alone is in the pid namespace."""
    try:
        _forget_namespaces()
        for kind in ("net", "pid", "mnt"):
            namespace = os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY)
            _check(_libc.setns(namespace, 0))
            os.close(namespace)
        os.chdir("/")
        inner = os.fork()
        if inner == 0:
            _call(writer, function, arguments)
        os.close(writer)
        os.waitpid(inner, 0)
    except OSError as error:
        _send(writer, (None, error, traceback.format_exc()))
    os._exit(0)


def _call(writer: int, function: Callable[..., Any], arguments: tuple[Any, ...]) -> NoReturn:
    answer: Answer
    try:
        answer = (function(*arguments), None, "")
    except pytest.skip.Exception as skip:
        answer = (None, _Skip(str(skip)), "")
    except BaseException as error:
        answer = (None, error, traceback.format_exc())
    with contextlib.suppress(BrokenPipeError):
        _send(writer, answer)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _send(writer: int, answer: Answer) -> None:
    try:
        data = pickle.dumps(answer)
        pickle.loads(data)  # some exceptions pickle and do not come back
    except Exception as problem:
        text = f"{answer[1] or answer[0]!r} cannot be sent out of the namespace: {problem}"
        data = pickle.dumps((None, RuntimeError(text), answer[2]))
    with os.fdopen(writer, "wb") as stream:
        stream.write(data)


def _read_all(reader: int, timeout_s: float) -> bytes:
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    parts: list[bytes] = []
    while True:
        if not poll.poll(timeout_s * 1000):
            raise TimeoutError(f"silent for {timeout_s:.0f} s inside the namespace")
        part = os.read(reader, 1 << 20)
        if not part:
            return b"".join(parts)
        parts.append(part)


def _forget_namespaces() -> None:
    """A process inside that held its own namespace's pipe would keep the namespace alive, and itself with it."""
    for fd in _alive_fds:
        os.close(fd)
    _alive_fds.clear()


def _close_others(*kept: int) -> None:
    """Without this, a namespace would hold the pipes of those made before it, and they would outlive the test."""
    first = 3
    for fd in (*sorted(kept), os.sysconf("SC_OPEN_MAX")):
        os.closerange(first, fd)
        first = fd + 1


def _unshare(flags: int) -> None:
    _check(_libc.unshare(flags))


def _mount(source: str, target: str, kind: str | None, flags: int = 0) -> None:
    _check(_libc.mount(source.encode(), target.encode(), kind.encode() if kind else None, flags, None))


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _add_address(address: str, interface: str) -> str:
    return f"ip address add {address} dev {interface} {'nodad' if ':' in address else ''}"
