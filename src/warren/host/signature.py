"""Signatures over network documents: OpenSSH's own (`ssh-keygen -Y`), by the keys that this machine was given.

A document is verified when it comes in, before a byte of it is parsed, and not again when the agent reads it from this
machine's disk: who can write there is root here, and could as well exchange the keys that it is verified with. The
signature is kept beside the document nevertheless, for people and for handing both on.
"""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

from warren.errors import DocumentRefused, MachineError

ALLOWED_SIGNERS = Path("/etc/warren/allowed_signers")
PRINCIPAL = "operator"
NAMESPACE = "warren"
PROGRAM = "ssh-keygen"
TIMEOUT_S = 30.0

_INSTALL = "warren machines install, on the operator's side, brings the operators' keys here"
# What ssh-keygen writes -> what is wrong. It says nothing of a key that is not in its list.
_KNOWN = {
    "incorrect signature": "the signature is not over this document: it was changed after it was signed",
    "namespace does not match": f'the signature was not made for Warren (ssh-keygen -n "{NAMESPACE}")',
    "Couldn't parse signature": "this is no OpenSSH signature, or not a whole one",
    "key has expired": "the key that signed it has expired here",
    "key is not yet valid": "the key that signed it is not valid yet here",
    "not permitted for use in signature namespace": "the key that signed it may not sign for Warren here",
}


def verify(content: bytes, signature: bytes, signers: Path = ALLOWED_SIGNERS) -> str:
    """What ssh-keygen says of the key that signed (type and fingerprint); DocumentRefused where it is none of ours."""
    _check_signers(signers)
    # The program wants the signature as a file; one in memory needs no room on the disk.
    descriptor = os.memfd_create("signature", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, signature)
        file = f"/proc/{os.getpid()}/fd/{descriptor}"
        words = ["-Y", "verify", "-f", str(signers), "-I", PRINCIPAL, "-n", NAMESPACE, "-s", file]
        done = _run(words, content)
    finally:
        os.close(descriptor)
    if done.returncode:
        raise _refused(done.stderr.decode(errors="replace"), signers)
    return done.stdout.decode(errors="replace").strip().partition(" with ")[2]


def _check_signers(signers: Path) -> None:
    try:
        status = signers.stat()
    except FileNotFoundError:
        raise DocumentRefused("this machine knows no operator", where=str(signers), mend=_INSTALL) from None
    except OSError as error:
        raise MachineError(f"cannot be read: {error.strerror}", where=str(signers), mend="run this as root") from None
    if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise DocumentRefused(
            "others can write it: its keys need not be the operators'",
            where=str(signers),
            mend=f"look at it, then: chown root:root {signers}; chmod 644 {signers}",
        )


def _run(words: list[str], content: bytes) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "LC_ALL": "C"}  # errors are recognized by their English words
    try:
        return subprocess.run(
            [PROGRAM, *words], input=content, env=environment, capture_output=True, timeout=TIMEOUT_S, check=False
        )
    except FileNotFoundError:
        raise MachineError(
            f"there is no program {PROGRAM}: no signature can be verified",
            mend="install it: apt install openssh-client, dnf install openssh",
        ) from None
    except subprocess.TimeoutExpired:
        raise MachineError(f"{PROGRAM} gave no answer in {TIMEOUT_S:.0f} s") from None


def _refused(said: str, signers: Path) -> DocumentRefused:
    for words, what in _KNOWN.items():
        if words in said:
            return DocumentRefused(what, mend="sign it again: warren machines update")
    reasons = "; ".join(line for line in said.splitlines() if str(signers) in line)
    return DocumentRefused(
        f"no operator that this machine knows signed it{f' ({reasons})' if reasons else ''}",
        where=str(signers),
        mend=f"sign with a key that is in it; for another one: {_INSTALL}",
    )
