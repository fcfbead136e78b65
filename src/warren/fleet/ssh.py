"""One command on one machine, through the system's own OpenSSH.

The user's configuration holds: keys, agents, hardware keys, jump hosts, known hosts. Nothing is ever asked: a
question (an unknown host key, a password) is an error that says how to answer it by hand.
"""

from __future__ import annotations

import asyncio
import os
import shlex
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO

from warren.errors import MachineError, UsageError
from warren.fleet.ssh_exchange import quick_exchange
from warren.fleet.ssh_problems import Problem, explain
from warren.inventory.model import Machine
from warren.names import MachineName

PROGRAM_VARIABLE = "WARREN_SSH"
CONNECT_TIMEOUT_S = 10
KILL_S = 5.0

_WARNING = "** "  # what ssh of 10.1 and later begins each line of its remarks on key exchanges with
_SSH_FAILED = 255  # ssh(1), EXIT STATUS
_NO_ROOT, _NO_PROGRAM = 77, 127  # EX_NOPERM of sysexits.h; what a shell says
_OPTIONS = (
    "-T",
    "-o", "BatchMode=yes",
    "-o", f"ConnectTimeout={CONNECT_TIMEOUT_S}",
    "-o", "ServerAliveInterval=5",
    "-o", "ServerAliveCountMax=3",
    "-o", "LogLevel=INFO",
)  # fmt: skip
_NEW_CONNECTION = ("-o", "ControlMaster=no", "-o", "ControlPath=none")

_settings: dict[Target, str] = {}  # what ssh -G said of it

# Without root and without sudo nothing is started; a shell of any kind hands this to sh.
_AS_ROOT = (
    'command -v "$1" > /dev/null || exit 127; [ "$(id -u)" = 0 ] && exec "$@"; '
    'sudo -n true 2> /dev/null || exit 77; exec sudo -n -- "$@"'
)


@dataclass(frozen=True, slots=True)
class Target:
    """How ssh is told where a machine is."""

    machine: MachineName
    host: str  # user@host, or a name of the user's ssh configuration
    port: int | None = None
    via: str = ""  # jump hosts, as `ssh -J` takes them

    @property
    def by_hand(self) -> str:
        """What the user would type."""
        port = ["-p", str(self.port)] if self.port else []
        via = ["-J", self.via] if self.via else []
        return shlex.join(["ssh", *port, *via, self.host])


@dataclass(frozen=True, slots=True)
class Finished:
    """A command that ran to its end on the machine."""

    code: int
    out: bytes
    err: str


class Unreachable(MachineError):
    """ssh did not come to the machine, or lost it; what it was to do may have been done."""


def target_of(machine: Machine) -> Target:
    return Target(machine.name, machine.deploy.host or machine.name, machine.deploy.port, machine.deploy.via)


async def run(
    target: Target,
    words: Sequence[str],
    stdin: bytes = b"",
    *,
    timeout_s: float,
    new_connection: bool = False,
    is_public: bool = False,
) -> Finished:
    """Run a program on the machine as root; Unreachable where ssh fails, MachineError where nobody may be root.

    `new_connection`: not one that the user's ssh keeps open. `is_public`: nothing that goes either way has to stay
    secret for years, so that a quick key exchange will do.
    """
    exchange = await _quick_exchange(target, new_connection) if is_public else ()
    process = await _start([*program(), *exchange, *arguments(target, words, new_connection)], stdin)
    try:
        out, err = await asyncio.wait_for(process.communicate(), timeout_s)
    except TimeoutError:
        what = f"it did not finish within {timeout_s:.0f} s"
        raise Unreachable(what, where=target.machine, mend=f"see whether it answers: {target.by_hand}") from None
    finally:
        await _end(process)
    assert process.returncode is not None  # communicate() waited for it
    return _finished(target, process.returncode, out, without_warnings(err.decode(errors="replace")))


async def _quick_exchange(target: Target, new_connection: bool) -> tuple[str, ...]:
    """Options for ssh; none with another program than ssh, which need not know them."""
    if PROGRAM_VARIABLE in os.environ:
        return ()
    if target not in _settings:
        process = await _start([*program(), "-G", *arguments(target, [], new_connection=False)], b"")
        try:
            said, _ = await asyncio.wait_for(process.communicate(), CONNECT_TIMEOUT_S)
        except TimeoutError:  # a command of the user's configuration that hangs: whatever comes next will say so
            said = b""
        finally:
            await _end(process)
        _settings[target] = said.decode(errors="replace")
    return quick_exchange(_settings[target], new_connection=new_connection)


async def _start(command: Sequence[str], stdin: bytes) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    try:
        with _readable(stdin) as file:
            # A session of its own: an interrupt at the keyboard is ours to handle, machine by machine.
            return await asyncio.create_subprocess_exec(
                *command, stdin=file, stdout=pipe, stderr=pipe, start_new_session=True
            )
    except OSError as error:
        raise UsageError(
            f"{command[0]} cannot be started: {error.strerror}",
            mend=f"apt install openssh-client, or name another program in {PROGRAM_VARIABLE}",
        ) from None


def _readable(content: bytes) -> BinaryIO:
    """A file in memory. A pipe would break where ssh ends before it has read all, and asyncio complains of that."""
    file = os.fdopen(os.memfd_create("stdin", os.MFD_CLOEXEC), "w+b")
    file.write(content)
    file.seek(0)
    return file


async def _end(process: asyncio.subprocess.Process) -> None:
    """Whatever happened, ssh does not outlive its call."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.kill()
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), KILL_S)


def program() -> list[str]:
    return shlex.split(os.environ.get(PROGRAM_VARIABLE, "")) or ["ssh"]


def arguments(target: Target, words: Sequence[str], new_connection: bool) -> list[str]:
    port = ("-p", str(target.port)) if target.port else ()
    sharing = _NEW_CONNECTION if new_connection else ()
    return [*_OPTIONS, *sharing, *_proxy(target.via), *port, "--", target.host, remote_command(words)]


def _proxy(via: str) -> list[str]:
    """What -J does, with our options for the jump host too: with -J it would ask its questions at the keyboard."""
    if not via:
        return []
    *before, last = via.split(",")
    jumps = ["-J", ",".join(before)] if before else []
    destination = last if last.startswith("ssh://") else f"ssh://{last}"
    command = [*program(), *_OPTIONS, *jumps, "-W", "[%h]:%p", "--", destination]
    return ["-o", f"ProxyCommand={' '.join(map(_quoted_for_proxy, command))}"]


def _quoted_for_proxy(word: str) -> str:
    return word if word == "[%h]:%p" else shlex.quote(word.replace("%", "%%"))


def remote_command(words: Sequence[str]) -> str:
    return f"exec sh -c {shlex.quote(_AS_ROOT)} warren {shlex.join(words)}"


def _finished(target: Target, code: int, out: bytes, err: str) -> Finished:
    if code == _SSH_FAILED:
        raise _unreachable(target, explain(err, target.host, target.via, target.by_hand))
    if code == _NO_ROOT:
        raise MachineError(
            "this needs root there, and sudo without a password is not to be had",
            where=target.machine,
            mend=f"let deploy.host be root@…, or allow the user of {target.host} NOPASSWD in sudoers",
        )
    if code < 0:
        raise Unreachable(f"ssh was ended by signal {-code}", where=target.machine)
    return Finished(code, out, err)


def _unreachable(target: Target, problem: Problem) -> Unreachable:
    return Unreachable(f"{problem.hop}: {problem.what}", where=target.machine, mend=problem.mend)


def without_warnings(said: str) -> str:
    """What ssh says, without its remarks on connections that work."""
    return "".join(line for line in said.splitlines(keepends=True) if not line.startswith(_WARNING))


def is_missing(finished: Finished) -> bool:
    """Whether the program was not there."""
    return finished.code == _NO_PROGRAM
