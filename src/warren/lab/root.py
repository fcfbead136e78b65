"""A machine's root folder: this computer's own files under a layer of the machine's, so that nothing is copied.

Reads come from this computer, writes go to the machine's disk. /proc, /sys, /dev, /run and /tmp are the machine's own;
of /proc/sys only the part that belongs to its network can be written, so that nothing in a machine changes this
computer.
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
import stat
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from warren.errors import KernelError, LabError
from warren.lab.namespaces import MountFlag, bind, change_root, mount
from warren.names import MachineName

STATE_FOLDER = Path("/var/lib/warren")

_OWN_FOLDERS = ("proc", "sys", "dev", "run", "tmp")
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "ptmx", "fuse", "net/tun")


@dataclass(frozen=True, slots=True)
class Disk:
    """What of a machine outlives its death: a folder in the lab's own memory file system."""

    folder: Path

    @property
    def state(self) -> Path:
        """What the machine sees as /var/lib/warren."""
        return self.folder / "state"

    @property
    def root(self) -> Path:
        """Where the machine's root is put together, in its own mount namespace."""
        return self.folder / "root"

    @property
    def etc(self) -> Path:
        return self.layer("/") / "etc"

    def layer(self, mount_point: str) -> Path:
        """What the machine wrote below a file system of this computer."""
        return self.folder / "layers" / (mount_point.strip("/").replace("/", "-") or "root")

    def create(self, etc: Mapping[str, str]) -> None:
        """Make it, with these files in /etc; all of it or, where this process is killed, nothing."""
        new = Disk(self.folder.with_name(f"{self.folder.name}.new"))
        shutil.rmtree(new.folder, ignore_errors=True)
        new.state.mkdir(parents=True)
        new.root.mkdir()
        new.etc.mkdir(parents=True)
        for name, text in etc.items():
            (new.etc / name).write_text(text)
        new.folder.rename(self.folder)


def needed_folders() -> list[Path]:
    """Where this Python and Warren themselves are."""
    return [Path(path) for path in dict.fromkeys([sys.base_prefix, sys.prefix, *sys.path]) if Path(path).is_dir()]


def layered_mounts(mount_points: list[str], needed: list[Path]) -> list[str]:
    """The file systems that a machine gets a layer over: those right below /, such as /var, and needed ones."""
    chosen = {path for path in mount_points if path.count("/") == 1 and path != "/"}
    for folder in needed:
        chosen |= {path for path in mount_points if path != "/" and folder.is_relative_to(path)}
    return sorted(path for path in chosen if path.split("/")[1] not in _OWN_FOLDERS)


def enter_root(machine: MachineName, disk: Disk) -> None:
    """Put the machine's root together and go there for good; runs as the machine's init."""
    mount("none", "/", flags=MountFlag.RECURSIVE | MountFlag.PRIVATE)
    needed = needed_folders()
    _lay_over("/", disk)
    for path in layered_mounts(_mount_points(), needed):
        _lay_over(path, disk)
    _mount_kernel(disk.root)
    _make_devices(disk.root / "dev")
    for name, mode in (("run", "0755"), ("tmp", "1777")):
        mount("tmpfs", disk.root / name, "tmpfs", MountFlag.NO_SUID | MountFlag.NO_DEVICES, f"mode={mode}")
    (disk.root / "run/lock").mkdir(mode=0o1777)
    for folder in needed:
        _show(folder, disk.root)
    state = disk.root / STATE_FOLDER.relative_to("/")
    state.mkdir(parents=True, exist_ok=True)
    bind(disk.state, state)
    change_root(disk.root)
    socket.sethostname(machine)


def _mount_points() -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    # Field 5, with octal escapes for blanks (proc(5)).
    return [line.split()[4].encode().decode("unicode_escape") for line in lines]


def _lay_over(path: str, disk: Disk) -> None:
    upper = disk.layer(path)
    work = upper.with_name(f"{upper.name}.work")
    upper.mkdir(exist_ok=True)
    work.mkdir(exist_ok=True)
    target = disk.root / path.lstrip("/")
    try:
        mount("overlay", target, "overlay", options=f"lowerdir={path},upperdir={upper},workdir={work}")
    except KernelError as error:
        if error.code == errno.ENODEV:
            raise LabError("this kernel has no overlayfs", mend="modprobe overlay") from None
        if path == "/":
            raise
        bind(path, target, MountFlag.READ_ONLY)  # a file system that overlayfs cannot stand on


def _mount_kernel(root: Path) -> None:
    plain = MountFlag.NO_SUID | MountFlag.NO_DEVICES | MountFlag.NO_EXEC
    proc = root / "proc"
    mount("proc", proc, "proc", plain)
    network = proc / "sys/net"
    bind(proc / "sys", proc / "sys", plain | MountFlag.READ_ONLY)
    bind(proc / "sys/net", network)
    mount("none", network, flags=MountFlag.BIND | MountFlag.REMOUNT | plain)
    if (proc / "sysrq-trigger").exists():
        bind("/dev/null", proc / "sysrq-trigger")
    mount("sysfs", root / "sys", "sysfs", plain | MountFlag.READ_ONLY)


def _make_devices(folder: Path) -> None:
    """A /dev with what programs need and no disk; terminals are this computer's, so that `tty` knows its name."""
    mount("tmpfs", folder, "tmpfs", MountFlag.NO_SUID, "mode=0755")
    for name in _DEVICES:
        with suppress(FileNotFoundError):
            original = Path("/dev", name).stat()
            node = folder / name
            node.parent.mkdir(exist_ok=True)
            os.mknod(node, original.st_mode, original.st_rdev)
            node.chmod(stat.S_IMODE(original.st_mode))
    for name, target in {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}.items():
        (folder / name).symlink_to(target)
    (folder / "shm").mkdir(mode=0o1777)
    (folder / "pts").mkdir()
    if Path("/dev/pts").is_mount():
        bind("/dev/pts", folder / "pts")


def _show(folder: Path, root: Path) -> None:
    """Show a folder that one of the machine's own mounts hides."""
    target = root / folder.relative_to("/")
    if not target.exists():
        target.mkdir(parents=True)
        bind(folder, target, MountFlag.READ_ONLY)
