"""The clock that intervals are measured by."""

from __future__ import annotations

import time


def now_s() -> float:
    """Seconds of the clock that goes on while the machine sleeps, and that nobody sets."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
