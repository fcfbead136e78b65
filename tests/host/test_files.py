"""Files replaced whole: what is kept, what is refused, and what a crash at any moment leaves."""

import errno
import os
import signal
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from namespaces import drop_root, in_namespace, sh
from warren.errors import MachineError
from warren.host import files

OLD, NEW = b"127.0.0.1 localhost\n" * 400, b"127.0.0.1 localhost\n" * 400 + b"fd00::1 server1.vpn\n" * 400
OTHER = b"::1 ip6-localhost\n" * 300


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def test_a_new_file(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    assert files.read(path) is None
    files.replace(path, NEW)
    assert files.read(path) == path.read_bytes() == NEW
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert names(tmp_path) == ["hosts"]


def test_no_folder_is_no_file_and_nothing_can_be_written_there(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "hosts"
    assert files.read(path) is None
    with pytest.raises(MachineError) as caught:
        files.replace(path, NEW)
    assert str(path.parent) in caught.value.mend


@pytest.mark.root
def test_mode_owner_and_attributes_stay(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.write_bytes(OLD)
    os.chown(path, 12, 34)
    path.chmod(0o2640)
    os.setxattr(path, "user.note", b"mine")
    os.setxattr(path, "security.selinux", b"system_u:object_r:net_conf_t:s0\0")
    before = path.stat()
    files.replace(path, NEW)
    after = path.stat()
    assert after.st_ino != before.st_ino
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert {name: os.getxattr(path, name) for name in os.listxattr(path)} == {
        "user.note": b"mine",
        "security.selinux": b"system_u:object_r:net_conf_t:s0\0",
    }


@pytest.mark.root
def test_a_mode_that_is_given_takes_nothing_over(tmp_path: Path) -> None:
    path = tmp_path / "private.key"
    path.write_bytes(OLD)
    os.chown(path, 12, 34)
    path.chmod(0o666)
    with files.edit(path) as file:
        file.replace(NEW, mode=0o600)
    status = path.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o600, 0, 0)


def test_the_same_content_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.write_bytes(OLD)
    before = path.stat()
    files.replace(path, OLD)
    assert path.stat() == before


def test_what_a_link_points_to_is_replaced(tmp_path: Path) -> None:
    target, link = tmp_path / "real" / "hosts", tmp_path / "hosts"
    target.parent.mkdir()
    target.write_bytes(OLD)
    link.symlink_to("real/hosts")
    files.replace(link, NEW)
    assert link.is_symlink()
    assert target.read_bytes() == NEW
    assert names(target.parent) == ["hosts"]


def test_links_in_a_circle_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(MachineError, match="symbolic links"):
        files.replace(tmp_path / "a", NEW)
    assert names(tmp_path) == ["a", "b"]


@pytest.mark.parametrize(("make", "words"), [(Path.mkdir, "a folder"), (os.mkfifo, "no regular file")])
def test_what_is_no_file_is_refused(tmp_path: Path, make: Callable[[Path], None], words: str) -> None:
    path = tmp_path / "hosts"
    make(path)
    for act in (files.read, lambda path: files.replace(path, NEW)):
        with pytest.raises(MachineError, match=words) as caught:
            act(path)
        assert caught.value.where == str(path)
        assert "move it away" in caught.value.mend
    assert names(tmp_path) == ["hosts"]


def test_remove(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.write_bytes(OLD)
    with files.edit(path) as file:
        file.remove()
        file.remove()
    assert names(tmp_path) == []


def test_what_a_killed_process_left_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    (tmp_path / ".hosts.warren-new").write_bytes(b"half")
    files.replace(path, NEW)
    assert path.read_bytes() == NEW
    assert names(tmp_path) == ["hosts"]


def test_make_folder(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    files.make_folder(folder, mode=0o700)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    folder.chmod(0o755)
    files.make_folder(folder, mode=0o700)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755
    (tmp_path / "file").touch()
    with pytest.raises(MachineError, match="cannot be made"):
        files.make_folder(tmp_path / "file" / "c", mode=0o700)


def test_editors_wait_for_each_other_and_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "hosts"

    def add_lines(name: str) -> None:
        for number in range(20):
            with files.edit(path) as file:
                file.replace((file.content or b"") + f"{name} {number}\n".encode())

    threads = [threading.Thread(target=add_lines, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(path.read_text().splitlines()) == sorted(f"{name} {number}" for name in "abc" for number in range(20))


def test_a_lock_that_is_never_given_back_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LOCK_TIMEOUT_S", 0.05)
    with files.edit(tmp_path / "a"), pytest.raises(MachineError, match="another process holds the lock") as caught:
        files.replace(tmp_path / "b", NEW)
    assert "fuser" in caught.value.mend


# --- the file as a mount point of its own, the way containers and lab machines have /etc/hosts


def bind_mounted(folder: Path, content: bytes, *, read_only_folder: bool = False) -> Path:
    """A file in `folder` that is a mount point; what is mounted lies on another file system."""
    path = folder / "hosts"
    sh(f"mkdir -p /run/elsewhere {folder}; mount -t tmpfs -o size=256k none /run/elsewhere")
    Path("/run/elsewhere/hosts").write_bytes(content)
    path.touch()
    if read_only_folder:
        sh(f"mount --bind {folder} {folder}; mount -o remount,bind,ro {folder}")
    sh(f"mount --bind /run/elsewhere/hosts {path}")
    return path


def in_place(folder: Path) -> None:
    path = bind_mounted(folder, OLD)
    path.chmod(0o640)
    before = path.stat()
    for content in (NEW, OLD, OTHER, b"", NEW[:5000], NEW):
        files.replace(path, content)
        assert files.read(path) == path.read_bytes() == content
    after = path.stat()
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)
    assert names(folder) == ["hosts"]


@pytest.mark.root
def test_a_mount_point_is_written_in_place() -> None:
    in_namespace(in_place, Path("/run/etc"))


@pytest.mark.root
def test_a_mount_point_in_a_read_only_folder_is_written_in_place() -> None:
    def check() -> None:
        path = bind_mounted(Path("/run/etc"), OLD, read_only_folder=True)
        with pytest.raises(OSError, match="Read-only"):
            (path.parent / "other").touch()
        files.replace(path, NEW)
        assert files.read(path) == path.read_bytes() == NEW

    in_namespace(check)


# --- disks that refuse


def refuses(path: Path, code: int, words: str) -> None:
    """Replacing fails with a reason, and everything is as before."""
    folder, before = path.parent, path.read_bytes() if path.exists() else None
    there = names(folder)
    with pytest.raises(MachineError, match=os.strerror(code)) as caught:
        files.replace(path, NEW * 20)
    assert caught.value.where == str(path)
    assert words in caught.value.mend
    assert names(folder) == there
    assert files.read(path) == before
    assert before is None or path.read_bytes() == before


@pytest.mark.root
@pytest.mark.parametrize("content", [None, OLD])
def test_a_full_disk_changes_nothing(content: bytes | None) -> None:
    def check() -> None:
        sh("mkdir /run/etc; mount -t tmpfs -o size=64k none /run/etc")
        path = Path("/run/etc/hosts")
        if content is not None:
            path.write_bytes(content)
        refuses(path, errno.ENOSPC, "free some space")

    in_namespace(check)


@pytest.mark.root
@pytest.mark.parametrize("read_only_folder", [True, False])
def test_a_full_disk_below_a_mount_point_changes_nothing(read_only_folder: bool) -> None:
    def check() -> None:
        path = bind_mounted(Path("/run/etc"), OLD, read_only_folder=read_only_folder)
        refuses(path, errno.ENOSPC, "free some space")

    in_namespace(check)


@pytest.mark.root
def test_no_space_for_the_undo_journal_changes_nothing() -> None:
    def check() -> None:
        sh("mkdir /run/etc; mount -t tmpfs -o size=64k none /run/etc")
        path = bind_mounted(Path("/run/etc"), OLD)
        with pytest.raises(MachineError, match="No space"):
            files.replace(path, NEW * 8)
        assert path.read_bytes() == OLD
        assert names(path.parent) == ["hosts"]

    in_namespace(check)


@pytest.mark.root
def test_a_read_only_disk_changes_nothing() -> None:
    def check() -> None:
        sh("mkdir /run/etc; mount -t tmpfs none /run/etc")
        path = Path("/run/etc/hosts")
        path.write_bytes(OLD)
        sh("mount -o remount,ro /run/etc")
        refuses(path, errno.EROFS, "read-write")

    in_namespace(check)


@pytest.mark.root
def test_a_read_only_mount_point_changes_nothing() -> None:
    def check() -> None:
        path = bind_mounted(Path("/run/etc"), OLD)
        sh(f"mount -o remount,bind,ro {path}")
        refuses(path, errno.EROFS, "read-write")

    in_namespace(check)


@pytest.mark.root
def test_an_immutable_file_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.write_bytes(OLD)
    sh(f"chattr +i {path}")
    try:
        refuses(path, errno.EPERM, "lsattr")
    finally:
        sh(f"chattr -i {path}")


@pytest.mark.root
def test_nobody_changes_nothing() -> None:
    def check() -> None:
        Path("/run/etc").mkdir()
        path = Path("/run/etc/hosts")
        path.write_bytes(OLD)
        drop_root()
        refuses(path, errno.EACCES, "as root")

    in_namespace(check)


# --- crashes

CALLS = ("open", "pwrite", "fsync", "rename", "unlink", "ftruncate", "posix_fallocate", "fchmod", "fchown", "setxattr")


def dies_at(step: int, act: Callable[[], None]) -> bool:
    """Run `act` in a child that kills itself at its system call number `step`; whether it came that far.

    A write that is cut short writes half of what it should.
    """
    child = os.fork()
    if child == 0:
        count = 0

        def fatal(name: str, real: Callable[..., object]) -> Callable[..., object]:
            def call(*arguments: object, **options: object) -> object:
                nonlocal count
                count += 1
                if count == step:
                    if name == "pwrite":
                        descriptor, data, offset = arguments
                        assert isinstance(data, memoryview)
                        real(descriptor, data[: len(data) // 2], offset)
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*arguments, **options)

            return call

        for name in CALLS:
            setattr(os, name, fatal(name, getattr(os, name)))
        try:
            act()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def crash_everywhere(path: Path, before: bytes, after: bytes) -> int:
    """Kill the writer at each of its steps: readers see the old or the new content, and the next edit works."""
    step, seen = 0, set()
    while True:
        step += 1
        files.replace(path, before)
        died = dies_at(step, lambda: files.replace(path, after))
        content = files.read(path)
        assert content in (before, after), (step, content)
        seen.add(content)
        with files.edit(path) as file:
            assert file.content == content == path.read_bytes()
        files.replace(path, before + b"# and on\n")
        assert path.read_bytes() == before + b"# and on\n"
        assert names(path.parent) == ["hosts"]
        if not died:
            assert seen == {before, after}
            return step


def test_a_crash_at_any_step_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.write_bytes(OLD)
    assert crash_everywhere(path, OLD, NEW) > 5
    assert crash_everywhere(path, NEW, OTHER) > 5


@pytest.mark.root
def test_a_crash_at_any_step_of_writing_in_place_is_undone() -> None:
    def check() -> None:
        path = bind_mounted(Path("/run/etc"), OLD)
        for before, after in ((OLD, NEW), (NEW, OLD), (OLD, OTHER), (OTHER, OLD)):
            assert crash_everywhere(path, before, after) > 10

    in_namespace(check)


@pytest.mark.root
def test_what_somebody_edited_after_a_crash_is_not_undone() -> None:
    def check() -> None:
        path = bind_mounted(Path("/run/etc"), OLD)
        step = 0
        while path.read_bytes() in (OLD, NEW):  # until a crash leaves the file torn
            step += 1
            assert dies_at(step, lambda: files.replace(path, NEW))
        edited = path.read_bytes().replace(b"localhost", b"localhome", 1)
        path.write_bytes(edited)
        assert files.read(path) == edited
        files.replace(path, edited + b"more\n")
        assert path.read_bytes() == edited + b"more\n"
        assert names(path.parent) == ["hosts"]

    in_namespace(check)


@pytest.mark.root
def test_what_a_crash_left_of_another_file_is_not_applied_to_this_one() -> None:
    """Lab machines share a folder, and each has a hosts file of its own mounted in it."""

    def check() -> None:
        path = bind_mounted(Path("/run/etc"), OLD)
        step = 1
        while dies_at(step, lambda: files.replace(path, NEW)) and ".hosts.warren-undo" not in names(path.parent):
            step += 1
        Path("/run/other").write_bytes(NEW)
        sh(f"mount --bind /run/other {path}")
        assert files.read(path) == NEW
        files.replace(path, OTHER)
        assert path.read_bytes() == OTHER

    in_namespace(check)


@pytest.mark.root
def test_a_full_disk_refuses_before_a_byte_is_written_in_place() -> None:
    def check() -> None:
        path = bind_mounted(Path("/run/etc"), OLD, read_only_folder=True)
        os.pwrite = None  # type: ignore[assignment]  # not to be called
        refuses(path, errno.ENOSPC, "free some space")

    in_namespace(check)


@pytest.mark.root
@pytest.mark.parametrize("read_only_folder", [True, False])
def test_a_disk_that_fails_in_the_middle_of_writing_in_place_gets_the_old_content_back(read_only_folder: bool) -> None:
    def check() -> None:
        path = bind_mounted(Path("/run/etc"), OLD, read_only_folder=read_only_folder)
        inode, real, failed = path.stat().st_ino, os.pwrite, False

        def fails_once(descriptor: int, data: memoryview, offset: int) -> int:
            nonlocal failed
            if failed or os.fstat(descriptor).st_ino != inode:
                return real(descriptor, data, offset)
            failed = True
            real(descriptor, data[: len(data) // 2], offset)
            assert path.read_bytes() != OLD
            raise OSError(errno.EIO, "as a broken disk has it")

        os.pwrite = fails_once  # type: ignore[assignment]  # the disk's part
        with pytest.raises(MachineError, match=os.strerror(errno.EIO)):
            files.replace(path, OTHER)
        assert path.read_bytes() == OLD
        assert names(path.parent) == ["hosts"]

    in_namespace(check)


@given(st.binary(max_size=20), st.binary(max_size=20), st.integers(0, 20), st.booleans())
def test_what_a_cut_write_makes_is_recognized(before: bytes, after: bytes, written: int, reserved: bool) -> None:
    space = before + bytes(max(0, len(after) - len(before)) if reserved else 0)
    torn = after[:written] + space[len(after[:written]) :]
    assert files._is_between(torn, before, after)


@given(st.binary(max_size=8), st.binary(max_size=8), st.binary(max_size=8))
def test_what_no_cut_write_makes_is_recognized(before: bytes, after: bytes, content: bytes) -> None:
    def possible(index: int) -> set[int]:
        old, new = before[index : index + 1], after[index : index + 1]
        return {*old, *new} if old else {*new, 0}

    sizes = range(min(len(before), len(after)), max(len(before), len(after)) + 1)
    fits = len(content) in sizes and all(byte in possible(index) for index, byte in enumerate(content))
    assert files._is_between(content, before, after) == fits
