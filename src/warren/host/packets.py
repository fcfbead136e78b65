"""Packets as they come in, by a socket with a filter that the kernel runs: nobody is woken for any others."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from collections.abc import Sequence
from typing import TypeAlias

from warren.errors import KernelError

Program: TypeAlias = Sequence[tuple[int, int, int, int]]
"""Classic BPF (linux/filter.h): operation, where to go on if true and if false, operand."""

ETH_P_IP, ETH_P_IPV6 = 0x0800, 0x86DD  # linux/if_ether.h
LOAD_BYTE, LOAD_HALF, LOAD_WORD = 0x30, 0x28, 0x20  # BPF_LD | BPF_B, H, W | BPF_ABS
LOAD_WORD_X, LOAD_HEADER_LENGTH = 0x40, 0xB1  # BPF_LD | BPF_W | BPF_IND, BPF_LDX | BPF_B | BPF_MSH
EQUAL, ANY_BIT, RETURN = 0x15, 0x45, 0x06

_SO_ATTACH_FILTER = 26  # asm-generic/socket.h
_FLAGS = socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK


def attach(to: socket.socket, program: Program) -> None:
    """From now on the socket hears only what the program returns more than 0 for."""
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *each) for each in program))
    to.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(program), ctypes.addressof(code)))


def listening(protocol: int, program: Program, command: str, interface: str = "") -> socket.socket:
    """What comes in of that protocol, on one interface or on all; it begins at the IP header.

    A few packets of any kind may have come before the filter. `command`: its command form, for errors.
    """
    try:
        # Of protocol 0, which hears nothing, until it is bound to the interface; sockets of one protocol hear what
        # comes in, not what goes out.
        packets = socket.socket(
            socket.AF_PACKET, socket.SOCK_DGRAM | _FLAGS, 0 if interface else socket.htons(protocol)
        )
    except OSError as error:
        raise KernelError(os.strerror(error.errno or 0), command=command) from None
    try:
        attach(packets, program)
        if interface:
            packets.bind((interface, protocol))
    except OSError as error:
        packets.close()
        raise KernelError(os.strerror(error.errno or 0), command=command) from None
    return packets
