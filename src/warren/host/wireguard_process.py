"""The process of a userspace WireGuard implementation: started so that it stands by itself, ended with certainty."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from warren.errors import KernelError
from warren.host import rtnetlink
from warren.host.wireguard_userspace import connect, socket_paths
from warren.names import InterfaceName

PROGRAM_VARIABLE = "WARREN_WIREGUARD_USERSPACE"
PROGRAM = "wireguard-go"
START_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 10.0

_TUN = Path("/dev/net/tun")
# wireguard-go watches its control socket; Linux gives a user 128 such watches, which a large lab uses up.
_INOTIFY_MEND = "raise the sysctl fs.inotify.max_user_instances, or the limit of open files"
_POLL_MS = 2
_WORDS_BYTES = 4096
_PEER_CREDENTIALS = struct.Struct("=iII")  # process, user, group: struct ucred


def start(interface: InterfaceName) -> None:
    """An interface of the userspace implementation, which runs on by itself; returns when it answers."""
    name = os.environ.get(PROGRAM_VARIABLE, PROGRAM)
    command = f"{name} {interface}"
    program = _program(name, command)
    _require_tun(command)
    _remove_stale_sockets(interface, command)
    _launch([program, "-f", interface], interface, command)


def stop(interface: InterfaceName) -> None:
    """Take the interface away and wait until the process that served it is gone, and its socket."""
    command = f"ip link delete {interface}"
    with _process(interface) as process:
        rtnetlink.delete_link(interface)
        _await_end(interface, process, command)
    _remove_stale_sockets(interface, command)


def _program(name: str, command: str) -> str:
    program = shutil.which(name)
    if program is None:
        raise KernelError(
            f"this kernel has no WireGuard, and there is no program {name}",
            command=command,
            code=errno.EOPNOTSUPP,
            mend=f"install a kernel with WireGuard, or the package {PROGRAM},"
            f" or name another userspace implementation in {PROGRAM_VARIABLE}",
        )
    return program


def _require_tun(command: str) -> None:
    try:
        os.close(os.open(_TUN, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        raise KernelError(
            f"this kernel has no WireGuard, and a userspace implementation needs {_TUN}: {error.strerror}",
            command=command,
            code=error.errno or 0,
            mend=f"load the kernel module wireguard or tun; in a container, let it have the device {_TUN}",
        ) from None


def _launch(arguments: list[str], interface: InterfaceName, command: str) -> None:
    """Run the program on its own and wait until its control socket answers."""
    environment = {**os.environ, "LOG_LEVEL": "error", "WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD": "1"}
    # What it says until it answers is ours to show. Datagrams: later, with our end closed, its writes fail and nothing
    # more, while from a pipe it would get the signal that ends it, and a file would grow without bound.
    words, its_words = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    alive, its_alive = os.pipe()  # the program's end is closed by its death alone
    with words, its_words, os.fdopen(alive), os.fdopen(its_alive, "w") as its_alive_file:
        # The shell goes at once and leaves the program to process 1: as a child of ours it would end as a zombie.
        launcher = subprocess.Popen(
            ["sh", "-c", '"$@" &', "sh", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=its_words.fileno(),
            stderr=subprocess.DEVNULL,
            env=environment,
            cwd="/",
            pass_fds=(its_alive,),
            start_new_session=True,
        )
        try:
            launcher.wait()
            its_alive_file.close()
            if not _answers(interface, alive):
                said = _last_words(words) or "it does not answer"
                raise KernelError(said, command=command, mend=_INOTIFY_MEND if "too many open files" in said else "")
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(launcher.pid, signal.SIGKILL)
            raise


def _answers(interface: InterfaceName, alive: int) -> bool:
    """Whether it comes to answer a request. That somebody listens is not enough: it may fail with its next call."""
    poll = select.poll()
    poll.register(alive, select.POLLIN)
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if poll.poll(_POLL_MS):
            return False
        if connection := connect(interface):
            with connection, contextlib.suppress(OSError):
                connection.settimeout(max(_POLL_MS / 1000, deadline - time.monotonic()))
                connection.sendall(b"get=1\n\n")
                return bool(connection.recv(1))
            return False
    return False


def _last_words(words: socket.socket) -> str:
    lines = []
    with contextlib.suppress(BlockingIOError):
        while True:
            lines.append(words.recv(_WORDS_BYTES, socket.MSG_DONTWAIT).decode(errors="replace").strip())
    return "\n".join(lines)


@contextlib.contextmanager
def _process(interface: InterfaceName) -> Iterator[int | None]:
    """A process file descriptor of whoever answers for the interface; None where it cannot be told for sure."""
    descriptor = _process_descriptor(interface)
    try:
        yield descriptor
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _process_descriptor(interface: InterfaceName) -> int | None:
    connection = connect(interface)
    if connection is None:
        return None
    with connection:
        size = _PEER_CREDENTIALS.size
        process, _, _ = _PEER_CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    try:
        descriptor = os.pidfd_open(process)
    except OSError:
        return None
    # The socket names the process that opened it, which may have handed it on and ended, and its number may be
    # another's by now. Who holds the interface is the right one, and stays so as long as the descriptor is open.
    if _holds_tun(process, interface):
        return descriptor
    os.close(descriptor)
    return None


def _holds_tun(process: int, interface: InterfaceName) -> bool:
    wanted = f"iff:\t{interface}"
    with contextlib.suppress(OSError):
        return any(wanted in each.read_text().splitlines() for each in Path(f"/proc/{process}/fdinfo").iterdir())
    return False


def _await_end(interface: InterfaceName, process: int | None, command: str) -> None:
    """Until the process is gone, for it holds the listen port; one that does not go by itself is killed."""
    if process is None:
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while connection := connect(interface):
            connection.close()
            if time.monotonic() > deadline:
                raise KernelError("the link is gone, but its userspace WireGuard still answers", command=command)
            time.sleep(_POLL_MS / 1000)
        return
    poll = select.poll()
    poll.register(process, select.POLLIN)
    if poll.poll(STOP_TIMEOUT_S * 1000):
        return
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(process, signal.SIGKILL)
    if not poll.poll(STOP_TIMEOUT_S * 1000):
        raise KernelError("its userspace WireGuard cannot be killed", command=command)


def _remove_stale_sockets(interface: InterfaceName, command: str) -> None:
    """The control sockets of dead processes; KernelError where a living one has the name."""
    if connection := connect(interface):
        connection.close()
        raise KernelError(
            "another process answers for an interface of this name, in another network namespace perhaps",
            command=command,
            code=errno.EADDRINUSE,
            mend=f"see who: fuser -v {' '.join(map(str, socket_paths(interface)))}",
        )
    for path in socket_paths(interface):
        path.unlink(missing_ok=True)
