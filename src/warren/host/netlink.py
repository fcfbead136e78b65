"""Netlink: what is asked of the kernel, its answer, and its words when it refuses.

Layouts: linux/netlink.h (messages, attributes), linux/genetlink.h (families by name).
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import socket
import struct
import sys
from collections.abc import Iterator
from types import TracebackType

from warren.errors import KernelError

NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NESTED = 0x8000  # NLA_F_NESTED, a flag of an attribute's kind

GENERIC_HEADER = struct.Struct("=BBH")  # command, version, reserved: struct genlmsghdr
GENERIC_VERSION = 1

_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_DUMP = 0x1, 0x4, 0x300
_NLM_F_DUMP_INTR = 0x10
_NLM_F_CAPPED, _NLM_F_ACK_TLVS = 0x100, 0x200
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLMSGERR_ATTR_MSG = 1
_NLA_TYPE_MASK = 0x3FFF
_SOL_NETLINK = 270
_NETLINK_CAP_ACK, _NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK = 10, 11, 12
_NETLINK_GENERIC = 16
_SO_RCVBUFFORCE = 33
_GENL_ID_CTRL, _CTRL_CMD_GETFAMILY = 0x10, 3
_CTRL_ATTR_FAMILY_ID, _CTRL_ATTR_FAMILY_NAME = 1, 2

_MESSAGE_HEADER = struct.Struct("=IHHII")  # length, kind, flags, sequence, port: struct nlmsghdr
_ATTRIBUTE_HEADER = struct.Struct("=HH")  # length with header, kind: struct nlattr
_ERROR_CODE = struct.Struct("=i")

RECEIVE_BYTES = 1 << 16  # the kernel fills at most 32 kB of it at a time
RECEIVE_QUEUE_BYTES = 4 << 20
ANSWER_TIMEOUT_S = 30  # the kernel answers within the call; only a lost answer takes longer
DUMP_ATTEMPTS = 10


def attribute(kind: int, data: bytes) -> bytes:
    """One attribute, padded to four bytes."""
    return attribute_header(kind, len(data)) + data + bytes(-len(data) & 3)


def attribute_header(kind: int, size: int) -> bytes:
    """What stands before a content of `size` bytes."""
    return _ATTRIBUTE_HEADER.pack(_ATTRIBUTE_HEADER.size + size, kind)


def text_attribute(kind: int, text: str) -> bytes:
    """A string as the kernel takes it, closed by a NUL."""
    return attribute(kind, text.encode() + b"\0")


def number_attribute(kind: int, number: int) -> bytes:
    """An unsigned 32-bit number."""
    return attribute(kind, struct.pack("=I", number))


def nested(kind: int, attributes: bytes) -> bytes:
    """An attribute made of attributes."""
    return attribute(kind | NESTED, attributes)


def each_attribute(data: bytes, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """The attributes in `data` from `offset` on: kind without flags, and content."""
    end = len(data)
    while offset + 4 <= end:
        size, kind = _ATTRIBUTE_HEADER.unpack_from(data, offset)
        if size < 4 or offset + size > end:
            raise KernelError(f"an attribute of {size} bytes does not fit into the kernel's answer")
        yield kind & _NLA_TYPE_MASK, data[offset + 4 : offset + size]
        offset += size + 3 & ~3


def attributes(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """The same by kind; of several of one kind, the last."""
    return dict(each_attribute(data, offset))


class NetlinkSocket:
    """One conversation with the kernel; a context manager. `command` is how a person would have asked, for errors."""

    def __init__(self, protocol: int) -> None:
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        except OSError as error:
            raise KernelError(f"no netlink socket: {error.strerror}", code=error.errno or 0) from None
        self._sequence = itertools.count(1)
        self._buffer = bytearray(RECEIVE_BYTES)
        self._socket.bind((0, 0))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", ANSWER_TIMEOUT_S, 0))
        with contextlib.suppress(OSError):  # needs CAP_NET_ADMIN; without it the default size must do
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_QUEUE_BYTES)
        for option in (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK):
            with contextlib.suppress(OSError):  # kernels before 4.20 lack some: shorter words, no filters
                self._socket.setsockopt(_SOL_NETLINK, option, 1)

    def __enter__(self) -> NetlinkSocket:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def request(self, kind: int, body: bytes, *, command: str, flags: int = 0) -> list[bytes]:
        """Ask one thing and wait until it is done; returns the bodies of what came back before the closing ACK."""
        sequence = self._send(kind, body, _NLM_F_REQUEST | _NLM_F_ACK | flags, command)
        answers, _ = self._collect(sequence, command, is_dump=False)
        return answers

    def dump(self, kind: int, body: bytes, *, command: str) -> list[bytes]:
        """Ask for a list; returns the bodies of its messages. One that changed under the reading is read again."""
        for _ in range(DUMP_ATTEMPTS):
            sequence = self._send(kind, body, _NLM_F_REQUEST | _NLM_F_DUMP, command)
            answers, is_whole = self._collect(sequence, command, is_dump=True)
            if is_whole:
                return answers
        raise KernelError(f"the list changed under each of {DUMP_ATTEMPTS} readings", command=command)

    def _send(self, kind: int, body: bytes, flags: int, command: str) -> int:
        sequence = next(self._sequence) & 0xFFFFFFFF
        header = _MESSAGE_HEADER.pack(_MESSAGE_HEADER.size + len(body), kind, flags, sequence, 0)
        try:
            self._socket.sendto(header + body, (0, 0))
        except OSError as error:
            raise refusal(command, error.errno or 0) from None
        return sequence

    def _collect(self, sequence: int, command: str, *, is_dump: bool) -> tuple[list[bytes], bool]:
        """The bodies of one answer, and whether it is whole: nothing was lost, and nothing changed meanwhile."""
        answers: list[bytes] = []
        is_whole = True
        while True:
            try:
                messages = self._receive(sequence)
            except OSError as error:
                # The queue was full, and something was dropped: an ACK perhaps, but never what closes a list.
                if error.errno != errno.ENOBUFS or not is_dump:
                    raise refusal(command, error.errno or 0) from None
                is_whole = False
                continue
            for kind, flags, body in messages:
                is_whole = is_whole and not flags & _NLM_F_DUMP_INTR
                if kind not in (_NLMSG_ERROR, _NLMSG_DONE):
                    answers.append(body)
                    continue
                code = -_ERROR_CODE.unpack_from(body)[0] if len(body) >= _ERROR_CODE.size else 0
                if code:
                    raise refusal(command, code, _words(kind, flags, body))
                return answers, is_whole

    def _receive(self, sequence: int) -> list[tuple[int, int, bytes]]:
        """The messages of one datagram that answer `sequence`: kind, flags, body."""
        try:
            size, _, datagram_flags, (sender, _) = self._socket.recvmsg_into([self._buffer])
        except BlockingIOError:
            raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)) from None
        if sender != 0:
            return []  # another process, not the kernel
        if datagram_flags & socket.MSG_TRUNC:
            raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))
        data = bytes(memoryview(self._buffer)[:size])
        messages = []
        offset = 0
        while offset + _MESSAGE_HEADER.size <= size:
            length, kind, flags, answered, _ = _MESSAGE_HEADER.unpack_from(data, offset)
            if length < _MESSAGE_HEADER.size or offset + length > size:
                raise KernelError(f"a message of {length} bytes does not fit into the kernel's answer")
            if answered == sequence:
                messages.append((kind, flags, data[offset + _MESSAGE_HEADER.size : offset + length]))
            offset += length + 3 & ~3
        return messages


def generic_family(name: str) -> int | None:
    """The number under which generic netlink knows the family now; None: this kernel does not have it."""
    body = GENERIC_HEADER.pack(_CTRL_CMD_GETFAMILY, GENERIC_VERSION, 0) + text_attribute(_CTRL_ATTR_FAMILY_NAME, name)
    with generic_socket() as netlink:
        try:
            [answer] = netlink.request(_GENL_ID_CTRL, body, command=f"genl ctrl get name {name}")
        except KernelError as error:
            if error.code == errno.ENOENT:
                return None
            raise
    return int.from_bytes(attributes(answer, GENERIC_HEADER.size)[_CTRL_ATTR_FAMILY_ID], sys.byteorder)


def generic_socket() -> NetlinkSocket:
    return NetlinkSocket(_NETLINK_GENERIC)


def refusal(command: str, code: int, words: str = "") -> KernelError:
    """The kernel's no: its own words where it had some, else those of the error number."""
    text = os.strerror(code)
    mend = "run this as root" if code in (errno.EPERM, errno.EACCES) else ""
    return KernelError(f"{text}: {words}" if words else text, command=command, code=code, mend=mend)


def _words(kind: int, flags: int, body: bytes) -> str:
    """The extended ACK's message, behind the error number and, in an error, the head of what was asked."""
    if not flags & _NLM_F_ACK_TLVS:
        return ""
    offset = _ERROR_CODE.size
    if kind == _NLMSG_ERROR:
        asked = _MESSAGE_HEADER.unpack_from(body, offset)[0]
        offset += _MESSAGE_HEADER.size if flags & _NLM_F_CAPPED else asked + 3 & ~3
    return attributes(body, offset).get(_NLMSGERR_ATTR_MSG, b"").rstrip(b"\0").decode(errors="replace").strip()
