"""What Warren needs on a machine, and whether this one has it."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from warren.errors import KernelError
from warren.host import signature, timer, wireguard_process
from warren.host.netlink import generic_family
from warren.host.wireguard_kernel import FAMILY

_TUN = Path("/dev/net/tun")


@dataclass(frozen=True, slots=True)
class Requirements:
    """Programs by their path; None: not there."""

    has_kernel_wireguard: bool
    userspace_wireguard: str | None
    has_tun: bool  # which a userspace WireGuard needs
    nft: str | None
    ssh_keygen: str | None
    has_systemd: bool


def look() -> Requirements:
    """What this machine has; asking for the kernel's WireGuard loads its module, if there is one."""
    return Requirements(
        has_kernel_wireguard=_has_kernel_wireguard(),
        userspace_wireguard=_program(os.environ.get(wireguard_process.PROGRAM_VARIABLE, wireguard_process.PROGRAM)),
        has_tun=_TUN.exists(),
        nft=_program("nft"),
        ssh_keygen=_program(signature.PROGRAM),
        has_systemd=timer.has_systemd(),
    )


def _has_kernel_wireguard() -> bool:
    try:
        return generic_family(FAMILY) is not None
    except (KernelError, OSError):  # no netlink here: a sandbox
        return False


def _program(name: str) -> str | None:
    # Not every PATH that reaches us has the sbin folders.
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
