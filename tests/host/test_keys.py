"""The machine's private key: made once, durable, never shown, never overwritten."""

import logging
import os
import stat
import subprocess
import sys
import traceback
from base64 import b64encode
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from namespaces import drop_root, in_namespace, sh
from warren.errors import MachineError
from warren.host import keys
from warren.names import InstanceName
from warren.wireguard.keys import PrivateKey, clamp

VPN = InstanceName("vpn")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "warren"


def test_a_key_is_made_once(root: Path) -> None:
    public = keys.ensure_key(VPN, root)
    path = keys.key_path(VPN, root)
    assert path == root / "vpn" / "private.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    before = path.read_bytes()
    assert keys.ensure_key(VPN, root) == public
    assert path.read_bytes() == before
    assert [each.name for each in path.parent.iterdir()] == ["private.key"]
    assert keys.ensure_key(InstanceName("home"), root) != public


def test_the_file_is_what_wg_reads_and_the_key_is_clamped(root: Path) -> None:
    public = keys.ensure_key(VPN, root)
    content = keys.key_path(VPN, root).read_bytes()
    assert subprocess.run(["wg", "pubkey"], input=content, capture_output=True).stdout.decode().strip() == public.text
    key = keys.load_key(VPN, root)
    assert content.decode() == f"{key.reveal_text()}\n"
    assert clamp(key.reveal()) == key.reveal()
    assert keys.public_key(key) == public


def test_replacing_makes_another_key(root: Path) -> None:
    first = keys.ensure_key(VPN, root)
    second = keys.replace_key(VPN, root)
    assert second != first
    assert keys.ensure_key(VPN, root) == second
    assert [each.name for each in (root / "vpn").iterdir()] == ["private.key"]


def _ensure(root: Path, answers: "SimpleQueue[bytes]") -> None:
    answers.put(bytes(keys.ensure_key(VPN, root)))


def test_processes_at_once_get_one_key(root: Path) -> None:
    context = get_context("fork")
    answers: SimpleQueue[bytes] = context.SimpleQueue()
    makers = [context.Process(target=_ensure, args=(root, answers)) for _ in range(8)]
    for maker in makers:
        maker.start()
    found = {answers.get() for _ in makers}
    for maker in makers:
        maker.join()
    assert found == {bytes(keys.ensure_key(VPN, root))}


def test_no_key_is_an_error_and_makes_nothing(root: Path) -> None:
    with pytest.raises(MachineError, match="no key for instance"):
        keys.load_key(VPN, root)
    assert not root.exists()
    keys.ensure_key(VPN, root)
    keys.key_path(VPN, root).unlink()
    with pytest.raises(MachineError, match="no key for instance"):
        keys.load_key(VPN, root)


GOOD = b64encode(clamp(bytes(range(32))))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not the base64 of 32 bytes \\(0 characters\\)"),
        (GOOD[:22], "\\(22 characters\\)"),
        (GOOD + b"\n" + GOOD, "89 characters"),
        (GOOD[:-1] + b"!", "not base64"),
        (b64encode(bytes(31)), "not the base64 of 32 bytes"),
        (b"\xff" * 44, "not text"),
        (bytes(range(32)), "not base64"),
    ],
)
@pytest.mark.parametrize("act", [keys.ensure_key, keys.load_key])
def test_a_broken_file_is_refused_and_stays(
    root: Path, act: Callable[[InstanceName, Path], object], content: bytes, words: str
) -> None:
    keys.ensure_key(VPN, root)
    path = keys.key_path(VPN, root)
    path.write_bytes(content)
    with pytest.raises(MachineError, match=words) as caught:
        act(VPN, root)
    assert caught.value.where == str(path)
    assert "backup" in caught.value.mend
    assert path.read_bytes() == content
    keys.replace_key(VPN, root)
    act(VPN, root)


@pytest.mark.parametrize(
    ("mode", "accepted"), [(0o600, True), (0o400, True), (0o640, False), (0o604, False), (0o620, False)]
)
def test_a_key_that_others_can_read_is_refused(root: Path, mode: int, accepted: bool) -> None:
    keys.ensure_key(VPN, root)
    path = keys.key_path(VPN, root)
    path.chmod(mode)
    if accepted:
        keys.load_key(VPN, root)
        return
    for act in (keys.load_key, keys.ensure_key):
        with pytest.raises(MachineError, match=f"its mode is {mode:04o}") as caught:
            act(VPN, root)
        assert f"chmod 600 {path}" in caught.value.mend
    keys.replace_key(VPN, root)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_folder_in_which_others_can_exchange_the_key_is_refused(root: Path) -> None:
    keys.ensure_key(VPN, root)
    (root / "vpn").chmod(0o777)
    with pytest.raises(MachineError, match="its mode is 0777") as caught:
        keys.load_key(VPN, root)
    assert caught.value.where == str(root / "vpn")
    assert "chmod 700" in caught.value.mend


@pytest.mark.root
def test_a_key_of_another_user_is_refused(root: Path) -> None:
    keys.ensure_key(VPN, root)
    os.chown(keys.key_path(VPN, root), 1000, 1000)
    with pytest.raises(MachineError, match="belongs to user 1000"):
        keys.load_key(VPN, root)


@pytest.mark.root
def test_nobody_else_gets_the_key() -> None:
    def check() -> None:
        root = Path("/run/warren")
        keys.ensure_key(VPN, root)
        drop_root()
        for act in (keys.load_key, keys.ensure_key, keys.replace_key):
            with pytest.raises(MachineError) as caught:
                act(VPN, root)
            assert "as root" in caught.value.mend

    in_namespace(check)


@pytest.mark.root
def test_a_full_disk_keeps_the_key_that_is_there() -> None:
    def check() -> None:
        sh("mkdir /run/warren; mount -t tmpfs -o size=16k none /run/warren")
        root = Path("/run/warren")
        first = keys.ensure_key(VPN, root)
        sh("dd if=/dev/zero of=/run/warren/full bs=4k 2>/dev/null || true")
        with pytest.raises(MachineError, match="No space"):
            keys.replace_key(VPN, root)
        assert keys.ensure_key(VPN, root) == first
        with pytest.raises(MachineError, match="No space"):
            keys.ensure_key(InstanceName("home"), root)
        assert not any((root / "home").glob("*"))

    in_namespace(check)


def test_the_key_is_on_disk_before_its_public_half_comes_out(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file and folder that was made is synced, in the order in which a crash would need it."""
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    keys.ensure_key(VPN, root)
    assert synced == [root.parent.name, "warren", ".private.key.warren-new", "vpn"]


def test_the_key_is_nowhere_to_be_seen(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Not in logs, not in errors with their whole traceback, not in how the value shows itself."""
    caplog.set_level(logging.DEBUG)
    keys.ensure_key(VPN, root)
    key = keys.load_key(VPN, root)
    path = keys.key_path(VPN, root)
    path.write_bytes(key.reveal_text().encode()[:30])
    with pytest.raises(MachineError) as caught:
        keys.load_key(VPN, root)
    text = "".join([*traceback.format_exception(caught.value), str(caught.value), caplog.text, repr(key), str(key)])
    secrets = (key.reveal_text()[:20], key.reveal().hex(), repr(key.reveal()))
    assert not any(secret in text for secret in secrets)


@pytest.mark.root
def test_no_other_program_sees_the_key() -> None:
    def check() -> None:
        started: list[str] = []
        sys.addaudithook(lambda event, _: started.append(event) if event in PROCESSES else None)
        root = Path("/run/warren")
        keys.ensure_key(VPN, root)
        keys.replace_key(VPN, root)
        keys.load_key(VPN, root)
        assert started == []
        sh("true")
        assert started

    in_namespace(check)


PROCESSES = ("subprocess.Popen", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.system")


def test_a_next_key_waits_beside_the_key_until_it_is_in_use(root: Path) -> None:
    first = keys.ensure_key(VPN, root)
    second = keys.stage_key(VPN, root)
    assert second != first
    assert keys.stage_key(VPN, root) == second  # whoever asks again gets the same
    path = keys.next_key_path(VPN, root)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(keys.own_keys(VPN, root)) == [first, second]
    keys.settle(VPN, first, root)
    assert list(keys.own_keys(VPN, root)) == [first, second]
    before = keys.key_path(VPN, root).read_bytes()
    keys.settle(VPN, second, root)
    assert list(keys.own_keys(VPN, root)) == [second]
    assert keys.public_key(keys.load_key(VPN, root)) == second
    assert not any(before in each.read_bytes() for each in root.rglob("*") if each.is_file())


def test_there_is_no_next_key_without_a_key(root: Path) -> None:
    with pytest.raises(MachineError, match='no key for instance "vpn"'):
        keys.stage_key(VPN, root)
    assert not root.exists()


def test_a_settling_that_was_cut_short_is_finished(root: Path) -> None:
    """Killed between the two files: the key stands in both."""
    keys.ensure_key(VPN, root)
    second = keys.stage_key(VPN, root)
    keys.key_path(VPN, root).write_bytes(keys.next_key_path(VPN, root).read_bytes())
    assert list(keys.own_keys(VPN, root)) == [second]
    keys.settle(VPN, second, root)
    assert [each.name for each in (root / "vpn").iterdir()] == ["private.key"]


def test_a_key_that_is_replaced_takes_the_staged_one_with_it(root: Path) -> None:
    keys.ensure_key(VPN, root)
    staged = keys.stage_key(VPN, root)
    replaced = keys.replace_key(VPN, root)
    assert list(keys.own_keys(VPN, root)) == [replaced]
    assert keys.stage_key(VPN, root) != staged


FIRST, SECOND, THIRD = (PrivateKey(bytes([number]) * 32) for number in (1, 2, 3))


def test_a_key_that_is_brought_is_kept_like_one_that_is_made_here(root: Path) -> None:
    assert keys.keep_key(VPN, FIRST, None, None, root) is True
    path = keys.key_path(VPN, root)
    assert path.read_text() == f"{FIRST.reveal_text()}\n"
    assert [stat.S_IMODE(each.stat().st_mode) for each in (path, path.parent)] == [0o600, 0o700]
    assert keys.keep_key(VPN, FIRST, None, None, root) is False
    assert [each.name for each in path.parent.iterdir()] == ["private.key"]


def test_a_key_that_is_there_is_never_overwritten_by_one_that_is_brought(root: Path) -> None:
    """It waits as the next one, which a document brings into use or not."""
    own = keys.ensure_key(VPN, root)
    keys.keep_key(VPN, FIRST, None, own, root)
    assert list(keys.own_keys(VPN, root)) == [own, keys.public_key(FIRST)]
    keys.settle(VPN, keys.public_key(FIRST), root)
    assert list(keys.own_keys(VPN, root)) == [keys.public_key(FIRST)]


def test_both_keys_of_a_rotation_are_brought_at_once_and_again(root: Path) -> None:
    for _ in range(2):
        keys.keep_key(VPN, FIRST, SECOND, keys.public_key(FIRST), root)
        assert list(keys.own_keys(VPN, root).values()) == [FIRST, SECOND]
    keys.keep_key(VPN, FIRST, THIRD, keys.public_key(FIRST), root)  # staged anew, before it counted
    assert list(keys.own_keys(VPN, root).values()) == [FIRST, THIRD]


def test_a_next_key_that_is_in_use_already_is_not_replaced(root: Path) -> None:
    keys.keep_key(VPN, FIRST, SECOND, keys.public_key(FIRST), root)
    with pytest.raises(MachineError, match="in use already"):
        keys.keep_key(VPN, FIRST, THIRD, keys.public_key(SECOND), root)
    assert list(keys.own_keys(VPN, root).values()) == [FIRST, SECOND]


def test_a_next_key_is_not_kept_without_one_that_it_comes_after(root: Path) -> None:
    with pytest.raises(MachineError, match='no key for instance "vpn"'):
        keys.keep_key(VPN, None, SECOND, None, root)
    assert not root.exists()


@pytest.mark.parametrize(("mode", "content"), [(0o644, GOOD), (0o600, GOOD[:20])])
def test_beside_a_broken_key_nothing_is_kept(root: Path, mode: int, content: bytes) -> None:
    keys.keep_key(VPN, FIRST, None, None, root)
    path = keys.key_path(VPN, root)
    path.write_bytes(content)
    path.chmod(mode)
    with pytest.raises(MachineError):
        keys.keep_key(VPN, SECOND, None, None, root)
    assert path.read_bytes() == content
    assert [each.name for each in path.parent.iterdir()] == ["private.key"]


@pytest.mark.root
def test_a_full_disk_keeps_no_half_of_a_key_that_is_brought() -> None:
    def check() -> None:
        sh("mkdir /run/warren; mount -t tmpfs -o size=16k none /run/warren")
        root = Path("/run/warren")
        keys.keep_key(VPN, FIRST, None, None, root)
        sh("dd if=/dev/zero of=/run/warren/full bs=4k 2>/dev/null || true")
        for brought in (FIRST, SECOND):
            with pytest.raises(MachineError, match="No space"):
                keys.keep_key(VPN, brought, THIRD, None, root)
        assert list(keys.own_keys(VPN, root).values()) == [FIRST]
        with pytest.raises(MachineError, match="No space"):
            keys.keep_key(InstanceName("home"), FIRST, None, None, root)
        assert not any((root / "home").glob("*"))

    in_namespace(check)


@given(st.data())
def test_whatever_is_in_a_key_file_no_part_of_it_is_told(data: st.DataObject) -> None:
    """A key with something wrong about it is a secret still."""
    marker = b64encode(clamp(bytes(range(100, 132))))
    before, after = (data.draw(st.binary(max_size=20)) for _ in range(2))
    cut = data.draw(st.integers(0, len(marker)))
    content = data.draw(st.sampled_from([before + marker + after, marker[:cut] + before + marker[cut:], marker[:cut]]))
    with TemporaryDirectory() as folder:
        root = Path(folder) / "warren"
        keys.ensure_key(VPN, root)
        keys.key_path(VPN, root).write_bytes(content)
        try:
            told = str(keys.load_key(VPN, root)) + repr(keys.own_keys(VPN, root))
        except MachineError as error:
            told = "".join(traceback.format_exception(error)) + str(error)
        text = marker.decode()
        assert not any(text[start : start + 8] in told for start in range(len(text) - 8))
