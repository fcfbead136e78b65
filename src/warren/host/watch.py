"""Notice files that change in some folders, without looking again and again (inotify, by the C library)."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
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


class FolderWatch:
    """Readable (`fileno`) when something in one of its folders changed."""

    def __init__(self) -> None:
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

    def drain(self) -> None:
        """Forget what happened so far."""
        try:
            while os.read(self._descriptor, _EVENT_BUFFER_BYTES):
                pass
        except BlockingIOError:
            return

    def close(self) -> None:
        os.close(self._descriptor)

    def __enter__(self) -> FolderWatch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _error(command: str, mend: str) -> KernelError:
    code = ctypes.get_errno()
    return KernelError(os.strerror(code), command=command, code=code, mend=mend)
