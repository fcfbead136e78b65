"""The service manager's side of this process: sd_notify(3), a few datagrams to the socket that it names."""

from __future__ import annotations

import os
import socket
from contextlib import suppress


def notify(*assignments: str) -> None:
    """Tell the service manager, such as `READY=1`; nothing where there is none, or where it does not listen."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager:
        # A name that begins with @ is in the abstract namespace.
        manager.connect(address.replace("@", "\0", 1) if address.startswith("@") else address)
        manager.sendall("\n".join(assignments).encode())


def watchdog_s() -> float | None:
    """How often the service manager wants to hear `WATCHDOG=1`, at half its patience; None: it does not."""
    if os.environ.get("WATCHDOG_PID") not in (None, str(os.getpid())):
        return None
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    return int(microseconds) / 2e6 if microseconds.isdigit() and int(microseconds) else None
