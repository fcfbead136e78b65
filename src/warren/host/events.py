"""Notice that the kernel's network configuration changed: links, IPv6 addresses and routes, nftables.

Only that something changed is of interest: what it is, is read from the kernel.
"""

from __future__ import annotations

import errno
import os
import socket
from types import TracebackType

from warren.errors import KernelError

# linux/rtnetlink.h, linux/netfilter/nfnetlink.h: bits of group numbers
_ROUTE_GROUPS = 1 << 0 | 1 << 8 | 1 << 10  # RTNLGRP_LINK, RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV6_ROUTE
_NFTABLES_GROUPS = 1 << 6  # NFNLGRP_NFTABLES
_NETLINK_ROUTE, _NETLINK_NETFILTER = 0, 12

_RECEIVE_BYTES = 1 << 16


class NetworkEvents:
    """Sockets that are readable when something changed; a context manager."""

    def __init__(self) -> None:
        self.sockets = [_listening(_NETLINK_ROUTE, _ROUTE_GROUPS), _listening(_NETLINK_NETFILTER, _NFTABLES_GROUPS)]

    def drain(self) -> None:
        """Forget what happened so far."""
        for each in self.sockets:
            while True:
                try:
                    each.recv(_RECEIVE_BYTES)
                except BlockingIOError:
                    break
                except OSError as error:
                    if error.errno != errno.ENOBUFS:  # more happened than the queue holds: something did happen
                        raise KernelError(os.strerror(error.errno or 0), command="ip monitor") from None

    def __enter__(self) -> NetworkEvents:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each in self.sockets:
            each.close()


def _listening(protocol: int, groups: int) -> socket.socket:
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, protocol)
    netlink.bind((0, groups))
    return netlink
