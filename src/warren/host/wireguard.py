"""WireGuard interfaces: the kernel's where it has WireGuard, else a userspace implementation's."""

from __future__ import annotations

import errno

from warren.errors import KernelError
from warren.host import rtnetlink, wireguard_process
from warren.host.wireguard_device import NO_KEY, Device, PeerChange
from warren.host.wireguard_kernel import KernelDevice
from warren.host.wireguard_userspace import UserspaceDevice, connect
from warren.names import InterfaceName

__all__ = ["NO_KEY", "Device", "PeerChange", "create", "delete", "listen_ports", "open_device"]

_KERNEL_KIND, _USERSPACE_KIND = "wireguard", "tun"


def create(interface: InterfaceName) -> None:
    """A new interface, down and without key, port and peers."""
    try:
        rtnetlink.create_wireguard_link(interface)
    except KernelError as error:
        if error.code != errno.EOPNOTSUPP:
            raise
        wireguard_process.start(interface)


def delete(interface: InterfaceName) -> None:
    """Take the interface away, and what served it; nothing happens where there is none."""
    link = rtnetlink.links().get(interface)
    if link is None:
        return
    if link.kind == _KERNEL_KIND:
        device = KernelDevice(interface)
        # First the peers: otherwise the kernel takes 12 to 17 ms for each, half a minute for 2,000.
        device.set_peers((), removed=tuple(device.read().peers))
        rtnetlink.delete_link(interface)
    elif link.kind == _USERSPACE_KIND:
        wireguard_process.stop(interface)
    else:
        raise KernelError(
            f"a link of kind {link.kind or 'hardware'}, not WireGuard", command=f"ip link delete {interface}"
        )


def open_device(interface: InterfaceName) -> Device | None:
    """The device behind an interface; None: there is no such interface, or nobody answers for it."""
    link = rtnetlink.links().get(interface)
    return _device(interface, link.kind) if link else None


def listen_ports() -> dict[InterfaceName, int]:
    """The port of every WireGuard interface of this network namespace that has one."""
    ports = {}
    for interface, link in rtnetlink.links().items():
        device = _device(interface, link.kind)
        if device and (port := device.read().listen_port):
            ports[interface] = port
    return ports


def _device(interface: InterfaceName, kind: str) -> Device | None:
    if kind == _KERNEL_KIND:
        return KernelDevice(interface)
    if kind == _USERSPACE_KIND and (connection := connect(interface)):
        connection.close()
        return UserspaceDevice(interface)
    return None
