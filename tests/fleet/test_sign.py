"""The operator's ssh key signs; `ssh-keygen` on the machine's side says whether it was one of theirs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from warren.errors import UsageError
from warren.fleet.sign import KEY_VARIABLE, NAMESPACE, PRINCIPAL, SigningKey, find_key, sign

CONTENT = b'{"instance":"vpn"}\n'


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without keys, without an agent, and without anybody's git configuration."""
    for name in ("SSH_AUTH_SOCK", KEY_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir(mode=0o700)
    return tmp_path


def keygen(path: Path, *options: str, passphrase: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = options or ("-t", "ed25519")
    subprocess.run(["ssh-keygen", "-q", *kind, "-N", passphrase, "-C", "olga", "-f", str(path)], check=True)
    return path


def is_accepted(key: SigningKey, signature: str, folder: Path, content: bytes = CONTENT) -> bool:
    (folder / "signers").write_text(f"{key.allowed_signer}\n")
    (folder / "signature").write_text(signature)
    words = ("-f", str(folder / "signers"), "-I", PRINCIPAL, "-n", NAMESPACE, "-s", str(folder / "signature"))
    return subprocess.run(["ssh-keygen", "-Y", "verify", *words], input=content, capture_output=True).returncode == 0


@pytest.fixture
def agent(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty ssh agent, which ends with the test."""
    path = home / "agent.sock"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    process.stdout.readline()  # it is there
    monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
    yield
    process.terminate()
    process.wait()
    process.stdout.close()


@pytest.mark.parametrize("kind", [("-t", "ed25519"), ("-t", "ecdsa"), ("-t", "rsa", "-b", "2048")], ids=lambda k: k[1])
def test_a_signature_is_accepted_and_only_over_the_same_bytes(home: Path, kind: tuple[str, ...]) -> None:
    key = find_key(str(keygen(home / "key", *kind)), home)
    signature = sign(key, CONTENT)
    assert is_accepted(key, signature, home)
    assert not is_accepted(key, signature, home, CONTENT.replace(b"vpn", b"vpm"))


def test_the_key_that_is_named_wins_then_the_variable_then_gits_then_the_own(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, gits, variable, named = (keygen(home / path) for path in (".ssh/id_ed25519", "gits", "variable", "named"))
    assert find_key(None, home).file == own
    (home / ".gitconfig").write_text(f"[user]\nsigningkey = {gits}.pub\n")
    assert find_key(None, home).file == gits
    monkeypatch.setenv(KEY_VARIABLE, str(variable))
    assert find_key(None, home).file == variable
    assert find_key(str(named), home).file == named
    assert find_key("~/named.pub", home).file == named


def test_gits_key_of_gpg_is_passed_over(home: Path) -> None:
    own = keygen(home / ".ssh/id_ed25519")
    (home / ".gitconfig").write_text("[user]\nsigningkey = 0x1234ABCD\n")
    assert find_key(None, home).file == own


def test_a_key_that_only_the_agent_has(home: Path, agent: None) -> None:
    file = keygen(home / "elsewhere")
    subprocess.run(["ssh-add", "-q", str(file)], check=True, capture_output=True)
    file.unlink()
    key = find_key(None, home)
    assert key.file is None
    assert key.public == (home / "elsewhere.pub").read_text().strip()
    assert is_accepted(key, sign(key, CONTENT), home)
    (home / ".gitconfig").write_text(f'[user]\nsigningkey = "key::{key.public}"\n')
    assert find_key(None, home) == key
    assert is_accepted(key, sign(find_key(str(home / "elsewhere.pub"), home), CONTENT), home)


def test_no_key_at_all(home: Path) -> None:
    with pytest.raises(UsageError, match="there is no ssh key to sign with") as caught:
        find_key(None, home)
    assert "ssh-keygen -t ed25519" in caught.value.mend
    assert KEY_VARIABLE in caught.value.mend


def test_a_file_that_is_no_key(home: Path) -> None:
    (home / "file").write_text("hello")
    with pytest.raises(UsageError, match="is no ssh key") as caught:
        find_key(str(home / "file"), home)
    assert caught.value.where == "--sign-key"


def test_a_public_key_whose_other_half_is_nowhere(home: Path) -> None:
    file = keygen(home / "key")
    file.unlink()
    with pytest.raises(UsageError, match="the key does not sign") as caught:
        sign(find_key(f"{file}.pub", home), CONTENT)
    assert "ssh-add" in caught.value.mend


def test_a_key_with_a_passphrase_and_nobody_to_ask(home: Path) -> None:
    file = keygen(home / "key", passphrase="secret")
    if os.isatty(0):
        pytest.skip("ssh-keygen would ask at this terminal")
    with pytest.raises(UsageError, match="the key does not sign"):
        sign(find_key(str(file), home), CONTENT)
