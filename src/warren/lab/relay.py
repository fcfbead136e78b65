"""Hold packets back: what is read from a TUN device is written to it again, later and in the same order.

netem does this in the kernel where there is one that has it; this works everywhere. Run as a program of its own, with
the device as stdin and the delay in seconds as argument; it imports nothing else, to stay small.
"""

import fcntl
import os
import select
import struct
import sys
import time
from collections import deque
from contextlib import suppress

QUEUE_PACKETS = 10_000  # as a router's: bounded, and what does not fit is lost
_LARGEST_PACKET = 65536
_TUNSETIFF = 0x400454CA  # linux/if_tun.h
_IFF_TUN = 0x0001
_IFF_NO_PI = 0x1000


def open_device(name: str) -> int:
    """A TUN device that exists as long as it is open."""
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
    return device


def relay(device: int, delay_s: float) -> None:
    """Go on until the device is taken away, which is an OSError."""
    os.set_blocking(device, False)
    waiting: deque[tuple[float, bytes]] = deque()
    while True:
        timeout = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        if select.select([device], [], [], timeout)[0]:
            _take(device, waiting, delay_s)
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            _give(device, waiting.popleft()[1])


def _take(device: int, waiting: deque[tuple[float, bytes]], delay_s: float) -> None:
    due = time.monotonic() + delay_s
    with suppress(BlockingIOError):
        while True:
            packet = os.read(device, _LARGEST_PACKET)
            if len(waiting) < QUEUE_PACKETS:
                waiting.append((due, packet))


def _give(device: int, packet: bytes) -> None:
    with suppress(OSError):  # a packet that the kernel does not want back is a lost one
        os.write(device, packet)


if __name__ == "__main__":
    with suppress(OSError):
        relay(0, float(sys.argv[1]))
