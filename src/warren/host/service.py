"""The service manager's side of this process.

sd_notify(3): a few datagrams to the socket that it names. Its journal: lines on stderr, each with its priority.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from contextlib import suppress

_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))  # sd-daemon(3)


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


def has_journal() -> bool:
    """Whether stderr is the journal's own end, and not a terminal or a file of somebody who inherited its name."""
    try:
        status = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def complain(text: object) -> None:
    """Say on stderr what went wrong, as an error where that is the journal."""
    print(_with_priority(str(text), logging.ERROR) if has_journal() else text, file=sys.stderr)


class JournalFormatter(logging.Formatter):
    """Without a time, which the journal has, and with the priority before each line, which it takes for an entry."""

    def format(self, record: logging.LogRecord) -> str:
        return _with_priority(super().format(record), record.levelno)


def _with_priority(text: str, level: int) -> str:
    priority = next((each for least, each in _PRIORITIES if level >= least), 7)
    return "\n".join(f"<{priority}>{line}" for line in text.splitlines())
