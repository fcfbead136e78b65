"""Files that are replaced whole and durably: after a crash there is the old content or the new, never a part.

The way of choice is a temporary file in the same folder, fsync, rename, fsync of the folder. A file that is a mount
point (a container's or a lab machine's /etc/hosts) cannot be renamed over and is written in place instead:

* space is reserved first, so that a full disk refuses before a byte has changed;
* content before and after is kept durably beside the file until the new content is on disk. What a crash interrupts
  is undone by the next edit, and readers see it as undone already, unless somebody else edited the file since;
* where the folder is read-only (containers, again) there is no place beside it. Then only bytes from the first
  difference on are at risk, for as long as one write takes.

Editors lock the file's folder (flock), so that two of them never lose each other's changes.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from io import FileIO
from itertools import zip_longest
from pathlib import Path

from warren.errors import MachineError

LOCK_TIMEOUT_S = 10.0
_NEW, _UNDO = ".warren-new", ".warren-undo"
# Hashes and signatures over the old content (evm(7), ima): the kernel makes its own for the new.
_XATTRS_OF_CONTENT = ("security.ima", "security.evm")
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


def read(path: Path) -> bytes | None:
    """The file's content; None where there is no file. An unfinished write in place counts as not done."""
    with _explained(path, "cannot be read"):
        if not path.parent.exists():
            return None
    with _opened(path) as file:
        before = file.before_interruption()
        return file.content if before is None else before


@contextmanager
def edit(path: Path) -> Iterator[File]:
    """The file, locked against other editors. Symbolic links are followed: what they point to is edited."""
    with _opened(path) as file:
        file.lock()
        file.recover()
        yield file


def replace(path: Path, content: bytes) -> None:
    """Make `content` what the file holds."""
    with edit(path) as file:
        file.replace(content)


def is_temporary(name: str) -> bool:
    """Of files beside those that are replaced."""
    return name.startswith(".") and name.endswith((_NEW, _UNDO))


def make_folder(path: Path, *, mode: int) -> None:
    """Make the folder, and those above it, durably. One that exists stays as it is."""
    with _explained(path, "cannot be made"):
        if path.is_dir():
            return
        make_folder(path.parent, mode=mode)
        with suppress(FileExistsError):  # another process was quicker
            path.mkdir(mode)
        sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make durable what was created, renamed or removed in the folder."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class File:
    """A file under edit: its content as found, and what can be done to it."""

    def __init__(self, path: Path, folder: int, content: bytes | None, found: _Found | None) -> None:
        self.path = path  # past symbolic links
        self.content = content
        self._folder = folder
        self._found = found

    @property
    def status(self) -> os.stat_result | None:
        return self._found.status if self._found else None

    def replace(self, content: bytes, *, mode: int | None = None) -> None:
        """Write durably, if it is other content than before.

        Owner, mode and extended attributes (SELinux label, ACL) stay those of the file before, unless `mode` is given:
        then nothing is taken over, and what others were allowed ends.
        """
        if content == self.content:
            return
        taken_over = self._found if mode is None else None
        with _explained(self.path, "cannot be written"):
            if self.content is not None and self._found is not None and self._found.is_mount_point:
                self._write_in_place(self._found, self.content, content)
                if mode is not None:
                    os.chmod(self.path.name, mode, dir_fd=self._folder)
            else:
                self._write_by_rename(self.path.name, content, 0o644 if mode is None else mode, taken_over)
        self.content = content

    def remove(self) -> None:
        """Remove the file durably; none is fine."""
        with _explained(self.path, "cannot be removed"), suppress(FileNotFoundError):
            os.unlink(self.path.name, dir_fd=self._folder)
            os.fsync(self._folder)
        self.content = None

    def lock(self) -> None:
        deadline = time.monotonic() + LOCK_TIMEOUT_S
        while True:
            try:
                fcntl.flock(self._folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise MachineError(
                        f"another process holds the lock of this folder for {LOCK_TIMEOUT_S:.0f} s",
                        where=str(self.path.parent),
                        mend=f"see who: fuser -v {self.path.parent}",
                    ) from None
                time.sleep(0.01)
            else:
                break
        with _explained(self.path, "cannot be read"):  # again: it may have changed before the lock was ours
            self.content, self._found = _read(self._folder, self.path)

    def before_interruption(self) -> bytes | None:
        """The content before a write in place that a crash cut short; None where there was none."""
        with _explained(self._journal, "cannot be read"):
            journal, _ = _read(self._folder, self._journal)
        if journal is None or self.content is None or self._found is None:
            return None
        inode, before, after = _parse_journal(journal)
        is_ours = inode == self._found.status.st_ino and _is_between(self.content, before, after)
        return before if is_ours else None

    def recover(self) -> None:
        """Undo a write in place that a crash cut short."""
        before = self.before_interruption()
        with _explained(self.path, "a write that was cut short cannot be undone"):
            if before is not None and before != self.content:
                with self._opened_for_writing() as file:
                    _overwrite(file, before)
                self.content = before
            self._unlink_if_there(self._journal.name)

    @property
    def _journal(self) -> Path:
        return self.path.with_name(f".{self.path.name}{_UNDO}")

    def _write_by_rename(self, name: str, content: bytes, mode: int, taken_over: _Found | None = None) -> None:
        temporary = f".{name}{_NEW}"
        self._unlink_if_there(temporary)  # of somebody who was killed; the lock is ours, so nobody else uses it
        descriptor = os.open(
            temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=self._folder
        )
        try:
            with FileIO(descriptor, "wb"):
                _write_all(descriptor, content, 0)
                os.fchmod(descriptor, mode)
                if taken_over is not None:
                    taken_over.give_to(descriptor)
                os.fsync(descriptor)
            os.rename(temporary, name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        except BaseException:
            self._unlink_if_there(temporary)
            raise
        os.fsync(self._folder)

    def _write_in_place(self, found: _Found, before: bytes, after: bytes) -> None:
        with self._opened_for_writing() as file:
            try:
                self._write_by_rename(self._journal.name, _journal(found.status.st_ino, before, after), 0o600)
            except OSError as error:
                if error.errno not in _READ_ONLY:
                    raise
            try:
                _overwrite(file, after)
            except OSError:
                _overwrite(file, before)  # its space is there; where even this fails the journal stays
                self._unlink_if_there(self._journal.name)
                raise
        self._unlink_if_there(self._journal.name)
        os.fsync(self._folder)  # a journal that came back would undo what we report as done

    def _opened_for_writing(self) -> FileIO:
        descriptor = os.open(self.path.name, os.O_RDWR | os.O_NOFOLLOW, dir_fd=self._folder)
        return FileIO(descriptor, "r+b")

    def _unlink_if_there(self, name: str) -> None:
        with suppress(FileNotFoundError):
            try:
                os.unlink(name, dir_fd=self._folder)
            except OSError as error:
                if error.errno not in _READ_ONLY:
                    raise


@dataclass(frozen=True, slots=True)
class _Found:
    """What a new file takes over from the one that it replaces."""

    status: os.stat_result
    xattrs: dict[str, bytes]
    is_mount_point: bool

    def give_to(self, descriptor: int) -> None:
        os.fchown(descriptor, self.status.st_uid, self.status.st_gid)
        os.fchmod(descriptor, stat.S_IMODE(self.status.st_mode))  # after fchown, which clears set-user-id
        for name, value in self.xattrs.items():
            os.setxattr(descriptor, name, value)


@contextmanager
def _opened(path: Path) -> Iterator[File]:
    target = Path(os.path.realpath(path))
    with ExitStack() as stack:
        with _explained(target, "cannot be read"):
            folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
            stack.callback(os.close, folder)
            content, found = _read(folder, target)
        yield File(target, folder, content, found)


def _read(folder: int, path: Path) -> tuple[bytes | None, _Found | None]:
    try:
        # O_NONBLOCK: opening a named pipe would wait for its writer.
        descriptor = os.open(path.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    except FileNotFoundError:
        return None, None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        what = "a folder" if stat.S_ISDIR(status.st_mode) else "no regular file"
        raise MachineError(f"this is {what}, a file is needed", where=str(path), mend=f"move it away: {path}")
    with FileIO(descriptor) as file:
        return file.readall(), _Found(status, _xattrs(descriptor), _mount(descriptor) != _mount(folder))


def _xattrs(descriptor: int) -> dict[str, bytes]:
    try:
        names = os.listxattr(descriptor)
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        return {}
    return {name: os.getxattr(descriptor, name) for name in names if name not in _XATTRS_OF_CONTENT}


def _mount(descriptor: int) -> str:
    """Which mount the file was reached through (proc(5), fdinfo): device numbers do not tell a bind mount."""
    lines = Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines()
    return next(line for line in lines if line.startswith("mnt_id:"))


def _overwrite(file: FileIO, content: bytes) -> None:
    """Make `content` what the file holds without a new file, from the first byte that differs on."""
    file.seek(0)
    now = file.readall()
    _reserve(file.fileno(), len(now), len(content))
    same = _same_bytes(now, content)
    _write_all(file.fileno(), content[same:], same)
    os.ftruncate(file.fileno(), len(content))
    os.fsync(file.fileno())


def _same_bytes(one: bytes, other: bytes) -> int:
    """How many bytes at the start are the same."""
    return next(
        (index for index, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )


def _reserve(descriptor: int, size: int, needed: int) -> None:
    if needed <= size:
        return
    try:
        os.posix_fallocate(descriptor, size, needed - size)
    except OSError:
        os.ftruncate(descriptor, size)  # glibc's emulation may have come half the way
        raise


def _write_all(descriptor: int, content: bytes, offset: int) -> None:
    view = memoryview(content)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def _journal(inode: int, before: bytes, after: bytes) -> bytes:
    return b"%d %d\n" % (inode, len(before)) + before + after


def _parse_journal(journal: bytes) -> tuple[int, bytes, bytes]:
    """It was renamed into place, so it is whole."""
    head, _, rest = journal.partition(b"\n")
    inode, size = map(int, head.split())
    return inode, rest[:size], rest[size:]


def _is_between(content: bytes, before: bytes, after: bytes) -> bool:
    """Whether an interrupted write can have made this content: each byte is the old, the new, or reserved space."""
    shorter, longer = sorted((len(before), len(after)))
    return shorter <= len(content) <= longer and all(
        now in (old, new) or (now == 0 and old is None)
        for now, old, new in zip_longest(content, before, after)
        if now is not None
    )


@contextmanager
def _explained(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        mend = _MENDS.get(error.errno or 0, "").format(path=path, folder=path.parent)
        raise MachineError(f"{what}: {os.strerror(error.errno or 0)}", where=str(path), mend=mend) from error


_MENDS = {
    errno.ENOSPC: "free some space on its disk (df {folder})",
    errno.EDQUOT: "the quota is used up: free some space (quota)",
    errno.EROFS: "its file system is mounted read-only: mount it read-write, or see in dmesg why it became so",
    errno.EACCES: "run this as root",
    errno.EPERM: "run this as root; if it is, something protects the file (lsattr {path})",
    errno.ENOENT: "make the folder: {folder}",
    errno.ENOTDIR: "a file stands where a folder is needed: move it away",
    errno.ELOOP: "the symbolic link leads nowhere: remove it",
    errno.EIO: "the disk fails: see dmesg",
}
