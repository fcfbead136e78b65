"""The system calls that Python 3.11 does not offer: namespaces, mounts, and dying with one's parent."""

from __future__ import annotations

import ctypes
import os
from enum import IntFlag
from pathlib import Path

from warren.errors import KernelError

_libc = ctypes.CDLL(None, use_errno=True)


class Namespace(IntFlag):
    """linux/sched.h"""

    MOUNT = 0x00020000
    UTS = 0x04000000
    IPC = 0x08000000
    PID = 0x20000000
    NET = 0x40000000


EVERY_NAMESPACE = Namespace.MOUNT | Namespace.UTS | Namespace.IPC | Namespace.PID | Namespace.NET


class MountFlag(IntFlag):
    """linux/mount.h"""

    NONE = 0
    READ_ONLY = 1
    NO_SUID = 2
    NO_DEVICES = 4
    NO_EXEC = 8
    REMOUNT = 32
    BIND = 4096
    RECURSIVE = 16384
    PRIVATE = 1 << 18
    SLAVE = 1 << 19


_DETACH = 2  # MNT_DETACH
_PR_SET_PDEATHSIG = 1


def unshare(namespaces: Namespace) -> None:
    _check(_libc.unshare(ctypes.c_int(namespaces)), f"unshare {namespaces!r}")


def enter(fd: int, namespaces: Namespace) -> None:
    """Go into the namespaces of a pidfd's process, or into the one namespace that a file of /proc/PID/ns stands for.

    A pid namespace is entered by the children, not by the caller.
    """
    _check(_libc.setns(fd, ctypes.c_int(namespaces)), f"setns {namespaces!r}")


def mount(
    source: str, target: str | Path, kind: str = "", flags: MountFlag = MountFlag.NONE, options: str = ""
) -> None:
    result = _libc.mount(
        source.encode(),
        os.fsencode(target),
        kind.encode() or None,
        ctypes.c_ulong(flags),
        options.encode() or None,
    )
    _check(result, f"mount -t {kind or 'bind'} {source} {target}" + (f" -o {options}" if options else ""))


def bind(source: str | Path, target: str | Path, flags: MountFlag = MountFlag.NONE) -> None:
    """Show `source` at `target` too. Flags take a second call: the kernel ignores them in the first."""
    mount(os.fspath(source), target, flags=MountFlag.BIND)
    if flags:
        mount("none", target, flags=MountFlag.BIND | MountFlag.REMOUNT | flags)


def unmount(target: str | Path) -> None:
    """Take the mount away now; the kernel frees it when the last user is gone."""
    _check(_libc.umount2(os.fsencode(target), ctypes.c_int(_DETACH)), f"umount -l {target}")


def change_root(new_root: Path) -> None:
    """Make `new_root`, a mount, the root of this mount namespace and let go of everything else."""
    os.chdir(new_root)
    # Both at ".": the old root comes to lie on the new one, from where it is taken away (pivot_root(2), NOTES).
    _check(_libc.pivot_root(b".", b"."), f"pivot_root {new_root}")
    unmount(".")
    os.chdir("/")


def die_with_parent(signal_number: int) -> None:
    """Have the kernel send this process a signal when the one that forked it ends."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal_number), 0, 0, 0), "prctl PR_SET_PDEATHSIG")


def _check(result: int, command: str) -> None:
    if result < 0:
        code = ctypes.get_errno()
        raise KernelError(os.strerror(code), command=command, code=code)
