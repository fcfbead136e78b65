"""Public values on disk, in the layout of clan repositories: vars/per-machine/<machine>/<generator>/<file>/value.

Beside the values of a generator stands `.validation-hash`: what they were made of (vars.generators.Validation). What
else stands there (secrets, symbolic links, values of others) is left alone.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from warren.errors import Problem, VarsError
from warren.names import MachineName, is_host_name
from warren.vars.generators import Hashes, Placed, Validation, Variable, file_bytes, possible_files

PER_MACHINE = "vars/per-machine"
STAGING = "vars/.warren-staging"
LONGEST_VALUE_BYTES = 65536  # what is longer is no value
SINGLE_SYNCS = 100  # beyond this many files, one sync of everything is quicker

_NO_LOCKS_HERE = (errno.EBADF, errno.ENOLCK, errno.EOPNOTSUPP)  # NFS locks no folders


AVariable = TypeVar("AVariable", bound=Placed)


@dataclass(frozen=True, slots=True)
class Reading:
    """What is stored, what it was made of, and what could not be read: each with its file."""

    texts: Mapping[Variable, str]
    problems: tuple[Problem, ...] = ()
    hashes: Hashes = field(default_factory=dict)


class Store:
    """The values below one folder, that of the inventory. Whoever reads to write holds the lock meanwhile."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self) -> Reading:
        """Every value of Warren's generators, those of machines and instances that left included."""
        texts: dict[Variable, str] = {}
        hashes: dict[Validation, str] = {}
        problems: list[Problem] = []
        for machine in self._machines(problems):
            for generator in self._names(f"{PER_MACHINE}/{machine}", problems):
                found = self._values(machine, generator, problems)
                texts |= found
                validation = Validation(machine, generator)
                if found and (text := self._text(validation, problems)) is not None:
                    hashes[validation] = text.strip()
        return Reading(texts, tuple(problems), hashes)

    def _values(self, machine: MachineName, generator: str, problems: list[Problem]) -> dict[Variable, str]:
        variables = (Variable(machine, generator, file) for file in possible_files(generator))
        texts = ((variable, self._text(variable, problems)) for variable in variables)
        return {variable: text for variable, text in texts if text is not None}

    def text(self, stored: Placed) -> str | None:
        """What the file holds, to the last byte; None where there is none, VarsError where it cannot be read."""
        try:
            data = _regular_file(self._path(stored))
            return None if data is None else data.decode()
        except OSError as error:
            raise VarsError(f"cannot be read: {_reason(error)}", where=stored.path) from None
        except UnicodeDecodeError:
            raise VarsError("is not text (UTF-8)", where=stored.path, mend=f"git log -- {stored.path}") from None

    def value(self, variable: Variable) -> bytes:
        """One public value of any generator, as its file holds it; VarsError where there is none."""
        path = self._path(variable)
        try:
            data = _regular_file(path)
        except OSError as error:
            raise VarsError(f"cannot be read: {_reason(error)}", where=variable.path) from None
        if data is None:
            is_secret = any(path.with_name(name).exists() for name in ("secret", "secret.age"))
            what = "a secret, which stays sealed" if is_secret else "not stored"
            raise VarsError(what, where=variable.path, mend="`warren vars list` shows what there is")
        return data

    def write(self, texts: Mapping[AVariable, str]) -> None:
        """Store values: all of them or, when the disk is full or a folder is closed, none.

        They reach the disk beside the place first and are renamed then, so that a reader sees the value before or
        the one after, and a killed run leaves no half one.
        """
        if not texts:
            return
        staging = self.folder / STAGING
        made: list[Path] = []
        try:
            targets = self._stage(texts, staging, made)
            for number, target in enumerate(targets):
                (staging / str(number)).replace(target)
            staging.rmdir()
            _flush({target.parent for target in targets} | {folder.parent for folder in made})
        except BaseException as error:
            shutil.rmtree(staging, ignore_errors=True)
            for folder in reversed(made):
                with suppress(OSError):  # not empty: a value is in it
                    folder.rmdir()
            if isinstance(error, OSError):
                raise self._not_written(error) from None
            raise

    def _stage(self, texts: Mapping[AVariable, str], staging: Path, made: list[Path]) -> list[Path]:
        """Bring all to the disk under other names; what could stop the renaming stops it here. Returns the places."""
        shutil.rmtree(staging, ignore_errors=True)  # a killed run's
        self._make_folders(staging.parent, made)
        staging.mkdir()
        self._give_to_owner(staging)
        inside = (self.folder / "vars").resolve()
        targets = []
        for number, (variable, text) in enumerate(texts.items()):
            target = self._path(variable)
            self._make_folders(target.parent, made)
            _refuse_unfit(variable, target, inside)
            new = staging / str(number)
            new.write_bytes(file_bytes(variable.file, text))
            self._give_to_owner(new)
            targets.append(target)
        _flush([staging / str(number) for number in range(len(targets))])
        return targets

    def delete(self, variables: Iterable[Placed]) -> None:
        """Remove values, and the folders that are empty then."""
        for variable in variables:
            path = self._path(variable)
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise VarsError(f"cannot be removed: {_reason(error)}", where=variable.path) from None
            with suppress(OSError):  # not empty, or not there
                for folder in list(path.parents)[:3]:
                    folder.rmdir()

    @contextmanager
    def lock(self, waiting: Callable[[], None]) -> Iterator[None]:
        """Keep other runs out; `waiting` is called when one is in.

        The lock is the inventory's folder itself: it exists before the first value does, and nothing is left behind.
        """
        try:
            descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise VarsError(f"cannot be locked: {_reason(error)}", where=str(self.folder)) from None
        try:
            _lock(descriptor, waiting)
            shutil.rmtree(self.folder / STAGING, ignore_errors=True)  # a killed run's
            yield
        finally:
            os.close(descriptor)

    def _machines(self, problems: list[Problem]) -> list[MachineName]:
        folder = self.folder / PER_MACHINE
        try:
            with os.scandir(folder) as entries:
                return sorted(
                    MachineName(entry.name) for entry in entries if is_host_name(entry.name) and entry.is_dir()
                )
        except FileNotFoundError:
            return []
        except OSError as error:
            problems.append(_problem(PER_MACHINE, error))
            return []

    def _names(self, folder: str, problems: list[Problem]) -> list[str]:
        try:
            with os.scandir(f"{self.folder}/{folder}") as entries:
                return sorted(entry.name for entry in entries)
        except OSError as error:
            problems.append(_problem(folder, error))
            return []

    def _text(self, variable: Variable | Validation, problems: list[Problem]) -> str | None:
        try:
            data = _regular_file(f"{self.folder}/{variable.path}")
            return None if data is None else data.decode().removesuffix("\n")
        except UnicodeDecodeError:
            problems.append(_problem(variable.path, "is not text (UTF-8)"))
        except OSError as error:
            problems.append(_problem(variable.path, error))
        return None

    def _path(self, variable: Placed) -> Path:
        """Where the value is; a name never leads out of its place."""
        for part in variable:
            if part in ("", ".", "..") or "/" in part or "\0" in part:
                raise VarsError(f"{part!r} cannot be a part of the place of a value")
        return self.folder / variable.path

    def _make_folders(self, folder: Path, made: list[Path]) -> None:
        if folder.is_dir():
            return
        missing = [folder]
        while not missing[-1].parent.is_dir():
            missing.append(missing[-1].parent)
        for each in reversed(missing):
            each.mkdir()
            made.append(each)
            self._give_to_owner(each)

    def _give_to_owner(self, path: Path) -> None:
        """Under sudo, what is made belongs to whose folder it is, and not to root."""
        if os.geteuid() == 0 and (owner := self.folder.stat()).st_uid != 0:
            os.chown(path, owner.st_uid, owner.st_gid)

    def _not_written(self, error: OSError) -> VarsError:
        place = Path(error.filename2 or error.filename or self.folder / STAGING)
        return VarsError(
            f"cannot be written: {_reason(error)}",
            where="vars" if place.is_relative_to(self.folder / STAGING) else str(place.relative_to(self.folder)),
            mend=_WRITE_MENDS.get(error.errno or 0, ""),
        )


def _lock(descriptor: int, waiting: Callable[[], None]) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        waiting()
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in _NO_LOCKS_HERE:
            raise


def _refuse_unfit(variable: Placed, target: Path, inside: Path) -> None:
    """What would make the rename fail, or lead it astray, stops the run before the first one."""
    if not target.parent.resolve().is_relative_to(inside):
        raise VarsError(
            "a symbolic link leads out of the vars folder", where=variable.path, mend="replace the link by a folder"
        )
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(target))


def _regular_file(path: str | Path) -> bytes | None:
    """The file's bytes, None where there is none; OSError for all that is no small plain file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a FIFO would wait for ever
    except FileNotFoundError:
        if Path(path).is_symlink():
            raise OSError(errno.ENOENT, "a symbolic link to nothing") from None
        return None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a file" if not stat.S_ISDIR(status.st_mode) else "a folder, not a file")
        if status.st_size > LONGEST_VALUE_BYTES:
            raise OSError(
                errno.EFBIG, f"{status.st_size:,} bytes long, no value is longer than {LONGEST_VALUE_BYTES:,}"
            )
        return os.read(descriptor, LONGEST_VALUE_BYTES)
    finally:
        os.close(descriptor)


def _flush(paths: Collection[Path]) -> None:
    """Wait until files and folders are on the disk."""
    if len(paths) > SINGLE_SYNCS:
        os.sync()
        return
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _reason(error: OSError) -> str:
    text = error.strerror or str(error)
    return text[:1].lower() + text[1:]


def _problem(path: str, error: OSError | str) -> Problem:
    reason = error if isinstance(error, str) else f"cannot be read: {_reason(error)}"
    return Problem(path, 0, 0, reason, "make it readable, or remove it and run `warren vars generate`")


_WRITE_MENDS = {
    errno.ENOSPC: "make room on the disk, then run the command again",
    errno.EROFS: "the file system is read-only; mount it writable, or work in a copy",
    errno.EACCES: "make the folder writable for you",
    errno.EISDIR: "a folder is in the place of the file; remove it",
    errno.ENOTDIR: "a file is in the place of a folder; remove it",
    errno.EEXIST: "a file is in the place of a folder; remove it",
}
