"""What went over an interface, as its network namespace counts it: quicker to ask than WireGuard itself."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from warren.names import InterfaceName

COUNTERS = Path("/proc/self/net/dev")
_SENT = 8  # what was received has that many columns: bytes, packets, ...


class Traffic(NamedTuple):
    """In both directions, since the interface was made."""

    bytes: int
    packets: int


def traffic(interface: InterfaceName) -> Traffic | None:
    """None: there is no such interface, or nobody can tell."""
    try:
        lines = COUNTERS.read_bytes().splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, numbers = line.partition(b":")
        if name.strip() == interface.encode():
            counts = [int(each) for each in numbers.split()]
            return Traffic(counts[0] + counts[_SENT], counts[1] + counts[_SENT + 1])
    return None
