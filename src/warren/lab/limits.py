"""What a lab needs of this computer, looked at before the first effect. Only this process's own limits are raised."""

from __future__ import annotations

import os
import resource
from contextlib import suppress
from pathlib import Path

from warren.errors import LabError
from warren.lab.namespaces import Namespace, unshare
from warren.lab.programs import find, ip_batch, missing_programs

FILES_PER_MACHINE = 4  # pipes and sockets while it starts
FILES_BESIDES = 100
INOTIFY_PER_MACHINE = 2  # the agent, and a userspace WireGuard

_INOTIFY_LIMIT = Path("/proc/sys/fs/inotify/max_user_instances")


def check_computer() -> None:
    """Whether labs can be made here; LabError says what is missing."""
    if os.geteuid() != 0:
        raise LabError("a lab needs root: it makes namespaces and mounts", mend="sudo warren lab …")
    missing = missing_programs()
    if missing:
        raise LabError(
            f"programs are missing, of these packages: {', '.join(missing)}", mend=f"apt install {' '.join(missing)}"
        )
    if not Path("/proc/net/if_inet6").exists():
        raise LabError("this kernel has IPv6 switched off", mend="boot it without ipv6.disable=1")
    if find("wireguard-go") is None:
        if not _has_kernel_wireguard():
            raise LabError(
                "there is no WireGuard, neither in this kernel nor as a program",
                mend="modprobe wireguard, or apt install wireguard-go",
            )
    elif not Path("/dev/net/tun").exists():
        raise LabError("/dev/net/tun is missing, which wireguard-go needs", mend="modprobe tun")


def make_room(machines: int) -> None:
    """Raise this process's limit of open files for so many new machines; LabError where this computer's are too low."""
    files = FILES_BESIDES + FILES_PER_MACHINE * machines
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and files > hard:
        raise LabError(f"{machines} machines need {files} open files, {hard} are allowed", mend=f"ulimit -Hn {files}")
    if soft != resource.RLIM_INFINITY and files > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    watchers = INOTIFY_PER_MACHINE * machines
    allowed = int(_INOTIFY_LIMIT.read_text())
    used = _inotify_instances() if watchers > allowed / 4 else 0  # looking at every process takes time
    if used + watchers > allowed:
        raise LabError(
            f"{machines} machines need {watchers} inotify instances; of the {allowed} that this computer allows "
            f"each user {used} are taken",
            mend=f"sysctl fs.inotify.max_user_instances={max(1024, 2 * (used + watchers))}",
        )


def _inotify_instances() -> int:
    """How many this user's processes hold."""
    count = 0
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            if process.stat().st_uid == os.geteuid():
                count += sum(str(each.readlink()) == "anon_inode:inotify" for each in (process / "fd").iterdir())
    return count


def _has_kernel_wireguard() -> bool:
    """Ask for an interface in a network that nobody sees; the kernel loads the module then, where it has one."""
    pid = os.fork()
    if pid == 0:
        try:
            unshare(Namespace.NET)
            ip_batch("link add probe type wireguard\n")
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(pid, 0)[1] == 0
