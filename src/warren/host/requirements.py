"""What Warren needs on a machine, and whether this one has it."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from warren.errors import KernelError, MachineError
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

    def missing(self) -> list[str]:
        """Debian's names of the packages that are to be installed; MachineError where no package helps."""
        has_wireguard = self.has_kernel_wireguard or self.userspace_wireguard is not None
        if not self.has_kernel_wireguard and not self.has_tun:
            raise MachineError(
                f"this kernel has no WireGuard, and a userspace one needs {_TUN}, which is not there",
                mend="load the kernel module wireguard or tun; in a container, let it have the device",
            )
        wanted = (
            ("nftables", self.nft is not None),
            ("openssh-client", self.ssh_keygen is not None),
            (wireguard_process.PROGRAM, has_wireguard),
        )
        return [package for package, is_there in wanted if not is_there]


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
