"""sops, by its program: secrets as clan keeps them, one JSON file each, encrypted to age recipients.

What is in them passes through pipes alone. Whoever opens one may have any identity that sops knows of: of age's, ssh's,
in a key service, on a token.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from warren.errors import UsageError, VarsError

PROGRAM = "sops"

_ENCRYPT = ("encrypt", "--input-type", "binary", "--output-type", "json")
_DECRYPT = ("decrypt", "--input-type", "json", "--output-type", "binary")
_NAMED = ("--filename-override", "secret")  # it wants one, and takes types from it where none are said
_NO_CONFIGURATION = ("--config", os.devnull)  # which could leave parts in clear, or add recipients
_AGE_FILE, _SSH_FILE = "SOPS_AGE_KEY_FILE", "SOPS_AGE_SSH_PRIVATE_KEY_FILE"
_NO_KEY_FITS = 128
_TIMEOUT_S = 120.0  # somebody may have to type a passphrase, or to touch a token
_MISSING = f"{PROGRAM} is not installed here"
_INSTALL = 'install it; or keep secrets without it: meta.vault = "age" in the inventory'


def is_sops(text: str) -> bool:
    """Whether this is a file of sops', and none of age's."""
    return text.lstrip().startswith("{")


def seal(content: bytes, recipients: Sequence[str]) -> str:
    """The content, encrypted to all of them; UsageError where sops is missing or does not do it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SOPS_")}
    command = (*_NO_CONFIGURATION, *_ENCRYPT, *_NAMED, "--age", ",".join(recipients))
    try:
        done = _run(command, content, environment)
    except FileNotFoundError:
        raise UsageError(_MISSING, mend=_INSTALL) from None
    text = done.stdout.decode("utf-8", errors="replace")
    if done.returncode != 0 or _recipients_of(text) != set(recipients):
        raise UsageError(f"{PROGRAM} did not encrypt: {_last_line(done)}", mend="see meta.recipients in the inventory")
    return text


def opened(text: str, identity: str | None) -> bytes:
    """What is in it; VarsError says why not. `identity`: a file of age's or ssh's that sops is told of besides."""
    environment = dict(os.environ)
    if identity is not None:
        file = Path(identity).expanduser()
        environment[_SSH_FILE if _is_ssh_key(file) else _AGE_FILE] = str(file)
    try:
        done = _run((*_NO_CONFIGURATION, *_DECRYPT, *_NAMED), text.encode(), environment)
    except FileNotFoundError:
        raise VarsError(_MISSING, mend="install it, to open what it encrypted") from None
    if done.returncode == 0:
        return done.stdout
    if done.returncode == _NO_KEY_FITS:
        mend = "sops looks in SOPS_AGE_KEY_FILE, ~/.config/sops/age/keys.txt, ~/.ssh/id_ed25519; or say --identity FILE"
        raise VarsError("none of the identities that sops finds opens it", mend=mend)
    raise VarsError(f"damaged: {_last_line(done)}", mend="take it from git, as it was before: git log -- PATH")


def _run(words: Sequence[str], content: bytes, environment: Mapping[str, str]) -> subprocess.CompletedProcess[bytes]:
    program = shutil.which(PROGRAM)
    if program is None:
        raise FileNotFoundError(PROGRAM)
    try:
        return subprocess.run(
            (program, *words), input=content, env=environment, capture_output=True, timeout=_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        raise VarsError(f"{PROGRAM} did not end within {_TIMEOUT_S:.0f} s", mend="does it wait for somebody?") from None


def _recipients_of(text: str) -> set[str]:
    """To whom the file is encrypted, all of it; nobody, where anything of it is in clear."""
    try:
        tree = json.loads(text)
        return {each["recipient"] for each in tree["sops"]["age"]} if tree["data"].startswith("ENC[") else set()
    except (ValueError, LookupError, TypeError, AttributeError):
        return set()


def _is_ssh_key(path: Path) -> bool:
    try:
        return path.read_bytes().startswith(b"-----BEGIN ")
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=str(path), mend="--identity FILE") from None


def _last_line(done: subprocess.CompletedProcess[bytes]) -> str:
    lines = done.stderr.decode("utf-8", errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else f"it ended with {done.returncode}"
