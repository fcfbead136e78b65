"""Who holds a UDP port of this machine: the answer to "Address already in use"."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from warren.names import InterfaceName

_PROC = Path("/proc")


def holder(port: int, listen_ports: Callable[[], Mapping[InterfaceName, int]] | None = None) -> str | None:
    """Who holds the UDP port, for people: `process 1234 (named)`, `WireGuard interface wg0`; None: nobody does.

    `listen_ports` gives the listen ports of this machine's WireGuard interfaces: the kernel's hold theirs without a
    process.
    """
    inodes = _inodes(port)
    if not inodes:
        return None
    interfaces = sorted(name for name, each in (listen_ports() if listen_ports else {}).items() if each == port)
    process = _process(inodes)
    if interfaces:
        return f"WireGuard interface {interfaces[0]}" + (f", {process}" if process else "")
    return process or "the kernel, or a process that cannot be seen from here (see: wg show)"


def _inodes(port: int) -> set[str]:
    """The sockets that are bound to the port, in this network namespace (proc(5), /proc/net/udp)."""
    inodes = set()
    for table in ("udp", "udp6"):
        with suppress(FileNotFoundError):  # a kernel without IPv6
            for line in (_PROC / "self/net" / table).read_text().splitlines()[1:]:
                fields = line.split()
                if int(fields[1].rpartition(":")[2], 16) == port:
                    inodes.add(fields[9])
    return inodes


def _process(inodes: set[str]) -> str | None:
    links = {f"socket:[{inode}]" for inode in inodes}
    for process in sorted(int(each.name) for each in _PROC.iterdir() if each.name.isdigit()):
        # Processes end while we look; those of others may be closed to us.
        with suppress(OSError):
            if any(str(each.readlink()) in links for each in (_PROC / str(process) / "fd").iterdir()):
                return f"process {process} ({(_PROC / str(process) / 'comm').read_text().strip()})"
    return None
