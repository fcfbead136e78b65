"""Notice WireGuard handshakes on this machine as their messages come in, on whatever link.

What they say only the device can tell. That one came in is enough to look there; the first of a handshake comes a round
trip before the session carries packets.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from types import TracebackType

from warren.errors import KernelError

_SO_ATTACH_FILTER = 26  # asm-generic/socket.h
_ETH_P_IP, _ETH_P_IPV6 = (
    0x0800,
    0x86DD,
)  # linux/if_ether.h; sockets of one protocol hear what comes in, not what goes out
_COMMAND = "tcpdump 'udp[8:4] = 0x01000000'"  # the command form, for errors
_UDP = 17
_INITIATION, _RESPONSE = 0x01000000, 0x02000000  # whitepaper, section 5.4: a type, three bytes of zero

# Classic BPF (linux/filter.h): operation, where to go on if true and if false, operand. It begins at the IP header.
_LOAD_BYTE, _LOAD_HALF, _LOAD_WORD = 0x30, 0x28, 0x20  # BPF_LD | BPF_B, H, W | BPF_ABS
_LOAD_WORD_X, _LOAD_HEADER_LENGTH = 0x40, 0xB1  # BPF_LD | BPF_W | BPF_IND, BPF_LDX | BPF_B | BPF_MSH
_EQUAL, _ANY_BIT, _RETURN = 0x15, 0x45, 0x06
_IPV4 = (
    (_LOAD_BYTE, 0, 0, 9),
    (_EQUAL, 0, 7, _UDP),
    (_LOAD_HALF, 0, 0, 6),
    (_ANY_BIT, 5, 0, 0x1FFF),  # a later fragment
    (_LOAD_HEADER_LENGTH, 0, 0, 0),
    (_LOAD_WORD_X, 0, 0, 8),
    (_EQUAL, 1, 0, _INITIATION),
    (_EQUAL, 0, 1, _RESPONSE),
    (_RETURN, 0, 0, 1),
    (_RETURN, 0, 0, 0),
)
_IPV6 = (
    (_LOAD_BYTE, 0, 0, 6),
    (_EQUAL, 0, 4, _UDP),
    (_LOAD_WORD, 0, 0, 48),
    (_EQUAL, 1, 0, _INITIATION),
    (_EQUAL, 0, 1, _RESPONSE),
    (_RETURN, 0, 0, 1),
    (_RETURN, 0, 0, 0),
)


class Handshakes:
    """Sockets that are readable when a message of a handshake came in; a context manager."""

    def __init__(self) -> None:
        self.sockets = [_listening(_ETH_P_IP, _IPV4), _listening(_ETH_P_IPV6, _IPV6)]

    def drain(self) -> bool:
        """Forget those that came so far; whether there were any."""
        found = False
        for each in self.sockets:
            while True:
                try:
                    each.recv(1)
                    found = True
                except BlockingIOError:
                    break
                except OSError:  # a link that it heard is gone: it hears the others
                    continue
        return found

    def close(self) -> None:
        for each in self.sockets:
            each.close()

    def __enter__(self) -> Handshakes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _listening(protocol: int, program: tuple[tuple[int, int, int, int], ...]) -> socket.socket:
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *each) for each in program))
    filter_program = struct.pack("@HP", len(program), ctypes.addressof(code))  # struct sock_fprog
    flags = socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    try:
        packets = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | flags, socket.htons(protocol))
    except OSError as error:
        raise KernelError(os.strerror(error.errno or 0), command=_COMMAND) from None
    try:
        packets.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filter_program)
    except OSError as error:
        packets.close()
        raise KernelError(os.strerror(error.errno or 0), command=_COMMAND) from None
    return packets  # with a few packets of any kind that came before the filter: a look for nothing
