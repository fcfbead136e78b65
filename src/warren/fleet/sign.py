"""Documents are signed with the operator's own ssh key, by `ssh-keygen -Y`: agents and hardware keys included."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from warren.errors import UsageError

KEY_VARIABLE = "WARREN_SIGN_KEY"
NAMESPACE = "warren"
PRINCIPAL = "operator"

_USUAL_KEYS = ("id_ed25519", "id_ed25519_sk", "id_ecdsa", "id_ecdsa_sk", "id_rsa")
_NAME_ONE = f"make one (ssh-keygen -t ed25519), or name one: --sign-key FILE, or {KEY_VARIABLE}"
_LITERAL = "key::"  # how git's user.signingkey begins where it holds the public key itself


@dataclass(frozen=True, slots=True)
class SigningKey:
    """The operator's key. `file` holds its private half; None: an agent does."""

    public: str  # one line of OpenSSH: type, key, maybe a comment
    file: Path | None

    @property
    def allowed_signer(self) -> str:
        """The line by which machines know it (ssh-keygen(1), ALLOWED SIGNERS)."""
        return f'{PRINCIPAL} namespaces="{NAMESPACE}" {self.public}'


def find_key(given: str | None, folder: Path) -> SigningKey:
    """The key to sign with: the one that is named, git's, the user's own, the agent's first. `folder`: git's."""
    if given:
        return _named(given, "--sign-key")
    if variable := os.environ.get(KEY_VARIABLE):
        return _named(variable, KEY_VARIABLE)
    candidates = (_gits(folder), *map(_own, _usual_files()), *_agents_keys())
    found = next(filter(None, candidates), None)
    if found is None:
        raise UsageError("there is no ssh key to sign with", mend=_NAME_ONE)
    return found


def sign(key: SigningKey, content: bytes) -> str:
    """The signature, as OpenSSH writes it."""
    with tempfile.TemporaryDirectory(prefix="warren-") as folder:
        file = key.file
        if file is None:
            file = Path(folder, "key.pub")
            file.write_text(f"{key.public}\n")
        done = _ssh_keygen(("-Y", "sign", "-f", str(file), "-n", NAMESPACE), content)
    if done.returncode or not done.stdout:
        name = key.file or " ".join(key.public.split()[:2])
        raise UsageError(
            f"the key does not sign: {_last_line(done.stderr) or 'ssh-keygen says nothing'}",
            where=str(name),
            mend=f"load it into your agent (ssh-add {key.file or ''}), or name another one: --sign-key FILE",
        )
    return done.stdout.decode("ascii")


def _named(text: str, where: str) -> SigningKey:
    key = _literal(text) or _own(Path(text).expanduser())
    if key is None:
        raise UsageError(f"{text} is no ssh key, or cannot be read", where=where, mend=_NAME_ONE)
    return key


def _gits(folder: Path) -> SigningKey | None:
    """Git's user.signingkey, where it is an ssh key and not one of GPG."""
    command = ("git", "-C", str(folder), "config", "--get", "user.signingkey")
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return None
    text = done.stdout.strip()
    return (_literal(text) or _own(Path(text).expanduser())) if text else None


def _literal(text: str) -> SigningKey | None:
    text = text.removeprefix(_LITERAL)
    is_key = text.startswith(("ssh-", "ecdsa-", "sk-")) and len(text.split()) > 1
    return SigningKey(text.strip(), None) if is_key else None


def _usual_files() -> Iterator[Path]:
    return (Path.home() / ".ssh" / name for name in _USUAL_KEYS)


def _own(path: Path) -> SigningKey | None:
    """The key in a file, its private half or its public one."""
    private = path.with_suffix("") if path.suffix == ".pub" else path
    public = private.with_name(f"{private.name}.pub")
    try:
        if public.is_file():
            line = public.read_text().strip()
        elif private.is_file():
            line = _public_half(private)
        else:
            return None
        has_private = private.is_file()
    except (OSError, UnicodeDecodeError):
        return None
    return SigningKey(line, private if has_private else None) if _literal(line) else None


def _public_half(private: Path) -> str:
    done = _ssh_keygen(("-y", "-P", "", "-f", str(private)), b"")
    return done.stdout.decode(errors="replace").strip()


def _agents_keys() -> Iterator[SigningKey]:
    if "SSH_AUTH_SOCK" not in os.environ:
        return
    try:
        done = subprocess.run(("ssh-add", "-L"), capture_output=True, text=True, check=False)
    except OSError:
        return
    yield from filter(None, map(_literal, done.stdout.splitlines()))


def _ssh_keygen(words: Sequence[str], stdin: bytes) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(("ssh-keygen", *words), input=stdin, capture_output=True, check=False)
    except OSError as error:
        raise UsageError(f"ssh-keygen cannot be started: {error.strerror}", mend="apt install openssh-client") from None


def _last_line(said: bytes) -> str:
    lines = said.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""
