"""Notice files that change in some folders, without looking again and again (inotify, by the C library)."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType

from warren.errors import KernelError

# linux/inotify.h
IN_CLOSE_WRITE = 0x008
IN_MOVED_FROM = 0x040
IN_MOVED_TO = 0x080
IN_CREATE = 0x100
IN_DELETE = 0x200
_EVENTS = IN_CLOSE_WRITE | IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_DELETE

_EVENT_BUFFER_BYTES = 64 * 1024
_EVENT = struct.Struct("=iIII")  # watch, mask, cookie, length of the name: struct inotify_event


class FolderWatch:
    """Readable (`fileno`) when something in one of its folders changed.

    `ignored`: names of files that nobody waits for.
    """

    def __init__(self, ignored: Callable[[str], bool] = lambda _: False) -> None:
        self._ignored = ignored
        self._c = ctypes.CDLL(None, use_errno=True)
        self._descriptor = self._c.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            raise _error("inotify_init1", "raise the sysctl fs.inotify.max_user_instances")

    def fileno(self) -> int:
        return int(self._descriptor)

    def watch(self, folders: Iterable[Path]) -> None:
        """Watch these too; naming a folder again changes nothing, and one that is gone is passed over."""
        for folder in folders:
            watch = self._c.inotify_add_watch(self._descriptor, os.fsencode(folder), _EVENTS)
            if watch < 0 and folder.is_dir():
                raise _error(f"inotify_add_watch {folder}", "raise the sysctl fs.inotify.max_user_watches")

    def drain(self) -> bool:
        """Forget what happened so far; whether any of it was waited for."""
        is_awaited = False
        try:
            while events := os.read(self._descriptor, _EVENT_BUFFER_BYTES):
                is_awaited = is_awaited or not all(map(self._ignored, _names(events)))
        except BlockingIOError:
            pass
        return is_awaited

    def close(self) -> None:
        os.close(self._descriptor)

    def __enter__(self) -> FolderWatch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _names(events: bytes) -> Iterator[str]:
    """Empty: of a folder itself, or of more than the kernel could note."""
    offset = 0
    while offset < len(events):
        *_, length = _EVENT.unpack_from(events, offset)
        offset += _EVENT.size + length
        yield os.fsdecode(events[offset - length : offset].rstrip(b"\0"))


def _error(command: str, mend: str) -> KernelError:
    code = ctypes.get_errno()
    return KernelError(os.strerror(code), command=command, code=code, mend=mend)
