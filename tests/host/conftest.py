"""WireGuard devices of every implementation that this machine has."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from warren.host import rtnetlink, wireguard_process
from warren.host.netlink import generic_family
from warren.host.wireguard import Device
from warren.host.wireguard_kernel import FAMILY, KernelDevice
from warren.host.wireguard_userspace import UserspaceDevice
from warren.names import InterfaceName

REQUIRED = os.environ.get("WARREN_REQUIRE_KERNEL") == "1"  # make test-kernel: a skip would prove nothing


@pytest.fixture(params=["userspace", pytest.param("kernel", marks=pytest.mark.kernel)])
def new_device(request: pytest.FixtureRequest) -> Callable[[InterfaceName], Device]:
    """What makes a new device of one implementation; to be called inside a namespace."""
    if request.param == "kernel":
        if not REQUIRED and generic_family(FAMILY) is None:
            pytest.skip("this kernel has no WireGuard: make test-kernel brings one that has")
        return _new_kernel_device
    _require_userspace()
    return _new_userspace_device


@pytest.fixture
def userspace_wireguard() -> None:
    """The test is about a userspace implementation."""
    _require_userspace()


def _require_userspace() -> None:
    if not shutil.which(wireguard_process.PROGRAM):
        pytest.skip(f"there is no {wireguard_process.PROGRAM} on this machine")
    if not Path("/dev/net/tun").exists():
        pytest.skip("there is no /dev/net/tun on this machine")


def _new_kernel_device(interface: InterfaceName) -> Device:
    rtnetlink.create_wireguard_link(interface)
    return KernelDevice(interface)


def _new_userspace_device(interface: InterfaceName) -> Device:
    wireguard_process.start(interface)
    return UserspaceDevice(interface)
