"""Only what one of the operators signed for Warren is followed, byte for byte."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from operators import sign
from warren.errors import DocumentRefused, MachineError
from warren.host import signature

CONTENT = b'{"a network":"document"}\n'


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two key pairs, `operator` and `stranger`."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("operator", "stranger"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    return folder


def signers(folder: Path, keys: Path, line: str = "operator {key}") -> Path:
    file = folder / "allowed_signers"
    file.write_text(line.format(key=(keys / "operator.pub").read_text()) + "\n")
    file.chmod(0o644)
    return file


@pytest.mark.parametrize(
    "line", ["operator {key}", 'operator namespaces="warren" {key}', "somebody {key}\noperator {key}\n# and no more"]
)
def test_what_an_operator_signed_is_his(tmp_path: Path, keys: Path, line: str) -> None:
    said = signature.verify(CONTENT, sign(CONTENT, keys / "operator"), signers(tmp_path, keys, line))
    assert said.startswith("ED25519 key SHA256:")


def test_every_other_byte_is_refused(tmp_path: Path, keys: Path) -> None:
    given, file = sign(CONTENT, keys / "operator"), signers(tmp_path, keys)
    for other in (b"", CONTENT[:-1], CONTENT + b"\n", CONTENT.replace(b"network", b"netw0rk")):
        with pytest.raises(DocumentRefused, match="changed after it was signed") as caught:
            signature.verify(other, given, file)
        assert caught.value.mend


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("somebody {key}", "no operator that this machine knows"),
        ("", "no operator that this machine knows"),
        ("not a line of such a file", "no operator that this machine knows"),
        ('operator valid-before="20200101" {key}', "has expired"),
        ('operator valid-after="29990101" {key}', "not valid yet"),
        ('operator namespaces="git" {key}', "may not sign for Warren"),
    ],
)
def test_keys_that_do_not_count(tmp_path: Path, keys: Path, line: str, words: str) -> None:
    with pytest.raises(DocumentRefused, match=words):
        signature.verify(CONTENT, sign(CONTENT, keys / "operator"), signers(tmp_path, keys, line))


def test_a_strangers_signature_is_refused(tmp_path: Path, keys: Path) -> None:
    file = signers(tmp_path, keys)
    with pytest.raises(DocumentRefused, match="no operator that this machine knows") as caught:
        signature.verify(CONTENT, sign(CONTENT, keys / "stranger"), file)
    assert caught.value.where == str(file)
    assert "warren machines install" in caught.value.mend


def test_a_signature_for_another_purpose_is_refused(tmp_path: Path, keys: Path) -> None:
    with pytest.raises(DocumentRefused, match="not made for Warren"):
        signature.verify(CONTENT, sign(CONTENT, keys / "operator", "git"), signers(tmp_path, keys))


@pytest.mark.parametrize("damage", [lambda text: b"", lambda text: b"signed\n", lambda text: text[:150]])
def test_what_is_no_signature_is_refused(tmp_path: Path, keys: Path, damage: object) -> None:
    assert callable(damage)
    with pytest.raises(DocumentRefused, match="no OpenSSH signature"):
        signature.verify(CONTENT, damage(sign(CONTENT, keys / "operator")), signers(tmp_path, keys))


def test_without_a_list_of_operators_nobody_is_one(tmp_path: Path, keys: Path) -> None:
    with pytest.raises(DocumentRefused, match="knows no operator") as caught:
        signature.verify(CONTENT, sign(CONTENT, keys / "operator"), tmp_path / "allowed_signers")
    assert caught.value.mend.startswith("warren machines install")


def test_a_list_that_others_can_write_is_none(tmp_path: Path, keys: Path) -> None:
    file = signers(tmp_path, keys)
    file.chmod(0o664)
    with pytest.raises(DocumentRefused, match="others can write it") as caught:
        signature.verify(CONTENT, sign(CONTENT, keys / "operator"), file)
    assert "chmod 644" in caught.value.mend


def test_a_machine_without_the_program_says_what_to_install(
    tmp_path: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, file = sign(CONTENT, keys / "operator"), signers(tmp_path, keys)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MachineError, match="no program ssh-keygen") as caught:
        signature.verify(CONTENT, given, file)
    assert "apt install openssh-client" in caught.value.mend


def test_no_descriptor_is_left_open(tmp_path: Path, keys: Path) -> None:
    given, file = sign(CONTENT, keys / "operator"), signers(tmp_path, keys)
    before = len(list(Path("/proc/self/fd").iterdir()))
    signature.verify(CONTENT, given, file)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
