"""What is on disk is what was written, whatever lies beside it and whatever goes wrong meanwhile."""

import errno
import itertools
import os
import signal
import stat
import sys
import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from namespaces import in_namespace, sh
from warren.errors import VarsError
from warren.names import MachineName
from warren.network.stored import INVITATIONS_FILE, KEY_FILES, REVOKED_FILE
from warren.vars.generators import Variable
from warren.vars.store import STAGING, Reading, Store

KEY = "juK7P/92N2t2t680aLIRobHc3ts49CsZBvfZOyIKpUc="
OTHER_KEY = "AAAAP/92N2t2t680aLIRobHc3ts49CsZBvfZOyIKpUc="


def variable(text: str) -> Variable:
    """From `laptop1 wireguard-keys-vpn/publickey`."""
    machine, _, rest = text.partition(" ")
    return Variable(MachineName(machine), *rest.split("/"))


LAPTOP_KEY = variable("laptop1 wireguard-keys-vpn/publickey")
LAPTOP_SUFFIX = variable("laptop1 wireguard-network-vpn/suffix")
SERVER_PREFIX = variable("server1 wireguard-network-vpn/prefix")
THREE = {LAPTOP_KEY: KEY, LAPTOP_SUFFIX: "bcd6:8f7f:3d6c:0097", SERVER_PREFIX: "fdeb:f20c:7f:4000"}


def tree(folder: Path) -> dict[str, str]:
    """Every file and empty folder below, with the file's text or the link's target."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        elif path.is_file():
            found[name] = path.read_text(errors="replace")
        elif not any(path.iterdir()):
            found[name] = "empty folder"
    return found


def put(folder: Path, path: str, text: str | bytes = "x") -> Path:
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(text if isinstance(text, bytes) else text.encode())
    return target


def test_the_layout_is_that_of_clan_repositories(tmp_path: Path) -> None:
    """Keys end their line, as `wg pubkey` writes them there; addresses do not: Nix glues `::1` to them."""
    Store(tmp_path).write(THREE)
    assert tree(tmp_path) == {
        "vars/per-machine/laptop1/wireguard-keys-vpn/publickey/value": f"{KEY}\n",
        "vars/per-machine/laptop1/wireguard-network-vpn/suffix/value": "bcd6:8f7f:3d6c:0097",
        "vars/per-machine/server1/wireguard-network-vpn/prefix/value": "fdeb:f20c:7f:4000",
    }
    assert Store(tmp_path).read() == Reading(THREE)


names = st.from_regex(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,20}[A-Za-z0-9_])?", fullmatch=True)
variables = st.builds(
    lambda machine, instance, kind: Variable(MachineName(machine), f"wireguard-{kind[0]}-{instance}", kind[1]),
    names,
    names,
    st.sampled_from((("keys", "publickey"), ("network", "prefix"), ("network", "suffix"))),
)
texts = st.text(max_size=60).filter(lambda text: not text.endswith("\n"))
stored = st.dictionaries(variables, texts, max_size=8)


@settings(deadline=None, max_examples=50)  # the disk has its own pace
@given(stored, stored)
def test_what_is_written_is_read_and_what_is_deleted_is_gone(
    first: Mapping[Variable, str], second: Mapping[Variable, str]
) -> None:
    with TemporaryDirectory() as folder:
        store = Store(Path(folder))
        store.write(first)
        store.write(second)
        assert store.read() == Reading({**first, **second})
        store.delete(first)
        assert store.read().texts == {each: text for each, text in second.items() if each not in first}
        store.delete(second)
        assert not any(path.is_file() for path in Path(folder).rglob("*"))


def test_no_vars_is_nothing_stored(tmp_path: Path) -> None:
    assert Store(tmp_path).read() == Reading({})


def test_what_clan_puts_beside_is_neither_read_nor_touched(tmp_path: Path) -> None:
    put(tmp_path, "vars/README.md")
    put(tmp_path, "vars/per-machine/README", "not a machine")
    put(tmp_path, "vars/per-machine/.gitkeep")
    put(tmp_path, "vars/shared/wireguard-keys-vpn/publickey/value", "shared")
    machine = "vars/per-machine/laptop1"
    put(tmp_path, f"{machine}/openssh/ssh.id_ed25519.pub/value", "ssh-ed25519 AAAA")
    put(tmp_path, f"{machine}/wireguard-keys-vpn/privatekey/secret", '{"sops": 1}')
    put(tmp_path, f"{machine}/wireguard-keys-vpn/privatekey/machines/laptop1")
    (tmp_path / f"{machine}/wireguard-keys-vpn/privatekey/machines/laptop1").unlink()
    (tmp_path / f"{machine}/wireguard-keys-vpn/privatekey/machines/laptop1").symlink_to("../../../nowhere")
    put(tmp_path, f"{machine}/wireguard-network-vpn/.validation-hash", "360f9f")
    put(tmp_path, f"{machine}/wireguard-keys-vpn/publickey/.value.swp")
    before = tree(tmp_path)
    store = Store(tmp_path)
    assert store.read() == Reading({})
    store.write({LAPTOP_KEY: KEY})
    assert tree(tmp_path) == {**before, LAPTOP_KEY.path: f"{KEY}\n"}
    store.delete([LAPTOP_KEY])
    assert (tmp_path / machine / "wireguard-keys-vpn/privatekey/secret").is_file()


def test_only_the_last_line_end_is_not_part_of_a_value(tmp_path: Path) -> None:
    put(tmp_path, LAPTOP_KEY.path, "two\n\n")
    put(tmp_path, LAPTOP_SUFFIX.path, "")
    assert Store(tmp_path).read().texts == {LAPTOP_KEY: "two\n", LAPTOP_SUFFIX: ""}


def test_everything_unreadable_is_named_at_once_and_nothing_is_overwritten(tmp_path: Path) -> None:
    machines = "vars/per-machine"
    key, *others = (f"wireguard-keys-vpn/{file}/value" for file in (*KEY_FILES, REVOKED_FILE, INVITATIONS_FILE))
    put(tmp_path, f"{machines}/a/{key}", b"\xff\xfe")
    (tmp_path / f"{machines}/b/{key}").mkdir(parents=True)
    put(tmp_path, f"{machines}/c/wireguard-keys-vpn/publickey", "a file where a folder belongs")
    put(tmp_path, f"{machines}/d/wireguard-keys-vpn", "a file where a folder belongs")
    put(tmp_path, f"{machines}/e/{key}").unlink()
    (tmp_path / f"{machines}/e/{key}").symlink_to("nowhere")
    put(tmp_path, f"{machines}/f/{key}").unlink()
    os.mkfifo(tmp_path / f"{machines}/f/{key}")
    put(tmp_path, f"{machines}/g/{key}", "g" * 100_000)
    put(tmp_path, f"{machines}/h/{key}", KEY)
    reading = Store(tmp_path).read()
    assert {str(problem).splitlines()[0] for problem in reading.problems} == {
        f"{machines}/a/{key}: is not text (UTF-8)",
        f"{machines}/b/{key}: cannot be read: a folder, not a file",
        f"{machines}/c/{key}: cannot be read: not a directory",
        *(f"{machines}/d/{file}: cannot be read: not a directory" for file in (key, *others)),
        f"{machines}/e/{key}: cannot be read: a symbolic link to nothing",
        f"{machines}/f/{key}: cannot be read: not a file",
        f"{machines}/g/{key}: cannot be read: 100,000 bytes long, no value is longer than 65,536",
    }
    assert reading.texts == {variable("h wireguard-keys-vpn/publickey"): KEY}


def test_vars_that_is_a_file_is_a_problem_not_an_empty_store(tmp_path: Path) -> None:
    put(tmp_path, "vars")
    (problem,) = Store(tmp_path).read().problems
    assert (problem.file, problem.message) == ("vars/per-machine", "cannot be read: not a directory")
    with pytest.raises(VarsError, match="vars: cannot be written: file exists"):
        Store(tmp_path).write(THREE)
    assert tree(tmp_path) == {"vars": "x"}


@pytest.mark.parametrize(
    "name", ["../out", "..", ".", "", "a/b", "/etc", "a\0b"]
)  # fmt: skip
@pytest.mark.parametrize("part", range(3))
def test_names_never_lead_out(tmp_path: Path, name: str, part: int) -> None:
    folder = tmp_path / "deep" / "down"
    folder.mkdir(parents=True)
    parts = ["laptop1", "wireguard-keys-vpn", "publickey"]
    parts[part] = name
    bad = Variable(MachineName(parts[0]), parts[1], parts[2])
    for act in (lambda: Store(folder).write({LAPTOP_KEY: KEY, bad: KEY}), lambda: Store(folder).value(bad)):
        with pytest.raises(VarsError, match="cannot be a part of the place of a value"):
            act()
    assert tree(tmp_path) == {"deep/down": "empty folder"}


def test_a_symbolic_link_never_leads_out(tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "fleet"
    outside.mkdir()
    (folder / "vars/per-machine").mkdir(parents=True)
    (folder / "vars/per-machine/laptop1").symlink_to(outside)
    before = tree(tmp_path)
    with pytest.raises(VarsError, match="leads out of the vars folder"):
        Store(folder).write(THREE)
    (folder / STAGING).symlink_to(outside)
    with pytest.raises(VarsError, match="cannot be written: file exists"):
        Store(folder).write({SERVER_PREFIX: "fdeb:f20c:7f:4000"})
    assert tree(tmp_path) == {**before, f"fleet/{STAGING}": f"-> {outside}"}


@pytest.mark.parametrize("hindrance", ["file as machine", "file as generator", "folder as value"])
def test_all_or_none_is_written(tmp_path: Path, hindrance: str) -> None:
    """The hindrance is met last; what came before it is taken back."""
    last = variable("zz wireguard-keys-vpn/publickey")
    store = Store(tmp_path)
    store.write({LAPTOP_KEY: OTHER_KEY})
    match hindrance:
        case "file as machine":
            put(tmp_path, "vars/per-machine/zz")
        case "file as generator":
            put(tmp_path, "vars/per-machine/zz/wireguard-keys-vpn")
        case _:
            (tmp_path / last.path).mkdir(parents=True)
    before = tree(tmp_path)
    with pytest.raises(VarsError, match=r"vars/per-machine/zz.*cannot be written") as error:
        store.write({**THREE, last: KEY})
    assert "mend: a f" in str(error.value)
    assert tree(tmp_path) == before


def test_one_value_is_read_as_it_stands(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write(THREE)
    put(tmp_path, "vars/per-machine/laptop1/wireguard-keys-vpn/privatekey/secret")
    put(tmp_path, "vars/per-machine/laptop1/openssh/ssh.id_ed25519.pub/value", "ssh-ed25519 AAAA\n\n")
    assert store.value(LAPTOP_KEY) == f"{KEY}\n".encode()
    assert store.value(variable("laptop1 openssh/ssh.id_ed25519.pub")) == b"ssh-ed25519 AAAA\n\n"
    with pytest.raises(VarsError, match="laptop1/wireguard-keys-vpn/privatekey/value: a secret"):
        store.value(variable("laptop1 wireguard-keys-vpn/privatekey"))
    with pytest.raises(VarsError, match="not stored"):
        store.value(variable("laptop2 wireguard-keys-vpn/publickey"))


def test_a_run_that_is_killed_anywhere_leaves_whole_values(tmp_path: Path) -> None:
    """Killed before each of its changes in turn: each value is the old one or the new one, and the next run works."""
    new = {**THREE, LAPTOP_KEY: OTHER_KEY}
    for calls in itertools.count():
        folder = tmp_path / str(calls)
        folder.mkdir()
        store = Store(folder)
        store.write({LAPTOP_KEY: KEY})
        was_killed = killed_before_change(calls, partial(store.write, new))
        reading = store.read()
        assert reading.problems == ()
        assert set(reading.texts.items()) <= {*new.items(), (LAPTOP_KEY, KEY)}
        assert LAPTOP_KEY in reading.texts
        store.write(new)
        assert tree(folder).keys() == {each.path for each in new}
        assert store.read() == Reading(new)
        if not was_killed:
            break
    assert calls > 10  # folders, staged files, renames


def killed_before_change(calls: int, act: Callable[[], None]) -> bool:
    """Run `act` in a child that is killed before its change of the disk after so many; False: it had no more."""
    child = os.fork()
    if child == 0:
        left = calls

        def count(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal left
            writes = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)
            if writes or event in ("os.mkdir", "os.rename", "os.rmdir", "os.remove"):
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        try:
            act()
        except BaseException:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def test_two_writers_wait_for_each_other(tmp_path: Path) -> None:
    store, log = Store(tmp_path), []
    second_waits = threading.Event()

    def second() -> None:
        with Store(tmp_path).lock(second_waits.set):
            log.append("second")

    def unexpected() -> None:
        raise AssertionError("nobody else is in")

    with store.lock(unexpected):
        thread = threading.Thread(target=second)
        thread.start()
        assert second_waits.wait(10)
        log.append("first")
    thread.join(10)
    assert log == ["first", "second"]
    assert tree(tmp_path) == {}


@pytest.mark.root
def test_a_full_disk_changes_nothing() -> None:
    outcome = in_namespace(_fill_the_disk)
    assert outcome == ["vars: cannot be written: no space left on device", "mend: make room", "as before"] * 2


def _fill_the_disk() -> list[str]:
    """The disk is full while values are staged, then while folders are made."""
    said = []
    for limit in ("size=64k", "nr_inodes=30"):
        sh(f"mount -t tmpfs -o {limit} tmpfs /run/wireguard")
        folder = Path("/run/wireguard")
        store = Store(folder)
        store.write(THREE)
        before = tree(folder)
        many = {variable(f"laptop{n} wireguard-keys-vpn/publickey"): KEY for n in range(100)}
        try:
            store.write({LAPTOP_KEY: OTHER_KEY, **many})
        except VarsError as error:
            first, _, mend = str(error).partition("\n")
            said += [
                "vars: " + first.partition(": ")[2],
                mend[:15],
                "as before" if tree(folder) == before else "changed",
            ]
        sh("umount /run/wireguard")
    return said


@pytest.mark.root
def test_a_read_only_folder_changes_nothing() -> None:
    assert in_namespace(_write_read_only) == (
        "vars",
        "cannot be written: read-only file system",
        THREE,
    )


def _write_read_only() -> tuple[str, str, Mapping[Variable, str]]:
    sh("mount -t tmpfs tmpfs /run/wireguard")
    store = Store(Path("/run/wireguard"))
    store.write(THREE)
    sh("mount -o remount,ro /run/wireguard")
    with store.lock(lambda: None), pytest.raises(VarsError) as error:
        store.write({LAPTOP_KEY: OTHER_KEY})
    return error.value.where, error.value.what, store.read().texts


@pytest.mark.root
def test_closed_folders_are_named() -> None:
    """Root sees through permissions, so this runs as nobody."""
    reading, error = in_namespace(_as_nobody)
    assert [problem.file for problem in reading.problems] == [
        "vars/per-machine/laptop1",
        "vars/per-machine/server1/wireguard-network-vpn/prefix/value",
    ]
    assert {problem.message for problem in reading.problems} == {"cannot be read: permission denied"}
    assert error.startswith("vars: cannot be written: permission denied\nmend: make the folder writable for you")


def _as_nobody() -> tuple[Reading, str]:
    sh("mount -t tmpfs tmpfs /run/wireguard")
    folder = Path("/run/wireguard")
    store = Store(folder)
    store.write(THREE)
    (folder / "vars/per-machine/laptop1").chmod(0)
    (folder / SERVER_PREFIX.path).chmod(0)
    os.setresuid(65534, 65534, 65534)
    reading = store.read()
    with pytest.raises(VarsError) as error:
        store.write({SERVER_PREFIX: "fdeb:f20c:7f:4000"})
    return reading, str(error.value)


@pytest.mark.root
def test_under_sudo_the_files_belong_to_whose_folder_it_is(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: it gives a folder to another user")
    folder = tmp_path / "fleet"
    folder.mkdir()
    os.chown(folder, 4321, 4322)
    Store(folder).write(THREE)
    assert {(each.stat().st_uid, each.stat().st_gid) for each in folder.rglob("*")} == {(4321, 4322)}


def test_values_are_readable_as_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        Store(tmp_path).write({LAPTOP_KEY: KEY})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / LAPTOP_KEY.path).stat().st_mode) == 0o640


def test_where_folders_cannot_be_locked_work_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS refuses; that cannot be had here, so the refusal is made up."""

    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr("fcntl.flock", refuse)
    with Store(tmp_path).lock(lambda: None):
        Store(tmp_path).write(THREE)
    assert Store(tmp_path).read() == Reading(THREE)
