"""This machine's private keys. They are made here and never leave: the public key alone is handed out.

private.key         the instance's key
private.key.next    while it is rotated, the one that comes: made, not used until a document says so, and put in the
                    place of the other when the machine has been seen with it (`settle`)
"""

from __future__ import annotations

import os
import resource
import secrets
import stat
from pathlib import Path

from warren.errors import MachineError
from warren.host import files, state
from warren.names import InstanceName
from warren.wireguard.keys import KEY_BYTES, PrivateKey, PublicKey
from warren.wireguard.x25519 import public_key as public_key

MODE = 0o600


def key_path(instance: InstanceName, root: Path = state.ROOT) -> Path:
    return state.instance_folder(instance, root) / state.KEY_FILE


def next_key_path(instance: InstanceName, root: Path = state.ROOT) -> Path:
    return state.instance_folder(instance, root) / state.NEXT_KEY_FILE


def ensure_key(instance: InstanceName, root: Path = state.ROOT) -> PublicKey:
    """The public half of the instance's key, which is made if there is none and is on disk when this returns.

    A key file that is there is never overwritten, whatever is in it.
    """
    return _ensured(instance, key_path(instance, root), root)


def stage_key(instance: InstanceName, root: Path = state.ROOT) -> PublicKey:
    """The public half of the instance's next key; made if there is none, else the one that was staged already.

    MachineError if the instance has no key that it could come after.
    """
    load_key(instance, root)
    return _ensured(instance, next_key_path(instance, root), root)


def keep_key(
    instance: InstanceName,
    key: PrivateKey | None,
    following: PrivateKey | None,
    in_use: PublicKey | None,
    root: Path = state.ROOT,
) -> bool:
    """Keep a key that was made elsewhere, and the one that comes after it; whether there was none here before.

    A key that is here stays: another one waits beside it as the next, until a document says that it counts. `in_use`:
    what the document that is followed has for this machine; what waits there is not replaced while it is that one.
    """
    if key is None:
        first, was_empty = load_key(instance, root), False
    else:
        first, was_empty = _kept_as_first(instance, key, root)
    others = [each for each in (key, following) if each is not None and each != first]
    if others:
        _keep_next(instance, others[0], in_use, root)
    return was_empty


def _kept_as_first(instance: InstanceName, key: PrivateKey, root: Path) -> tuple[PrivateKey, bool]:
    """The key that is there, which is this one if there was none; and whether there was none."""
    state.make_instance_folder(instance, root)
    without_core_dumps()
    path = key_path(instance, root)
    with files.edit(path) as file:
        if file.content is not None:
            return _checked(file.content, file.status, path), False
        file.replace(_encode(key), mode=MODE)
        return key, True


def _keep_next(instance: InstanceName, key: PrivateKey, in_use: PublicKey | None, root: Path) -> None:
    path = next_key_path(instance, root)
    with files.edit(path) as file:
        if file.content is not None:
            waiting = _checked(file.content, file.status, path)
            if waiting != key and public_key(waiting) == in_use:
                raise MachineError(
                    "the key that waits here is in use already, and counts for good when the update is confirmed",
                    where=str(path),
                    mend="warren machines update, and then again",
                )
        file.replace(_encode(key), mode=MODE)


def own_keys(instance: InstanceName, root: Path = state.ROOT) -> dict[PublicKey, PrivateKey]:
    """The instance's key and its next one, as far as there are any, by their public halves and in this order."""
    paths = (key_path(instance, root), next_key_path(instance, root))
    return {public_key(key): key for key in map(_loaded, paths) if key is not None}


def settle(instance: InstanceName, in_use: PublicKey, root: Path = state.ROOT) -> None:
    """The end of a rotation on this machine: if its next key is `in_use`, the one before is gone for good."""
    path = next_key_path(instance, root)
    key = _loaded(path)
    if key is None or public_key(key) != in_use:
        return
    with files.edit(key_path(instance, root)) as file:
        file.replace(_encode(key), mode=MODE)
    with files.edit(path) as file:
        file.remove()


def _ensured(instance: InstanceName, path: Path, root: Path) -> PublicKey:
    state.make_instance_folder(instance, root)
    with files.edit(path) as file:  # of two processes, one makes the key and the other waits and finds it
        if file.content is None:
            key = _new_key()
            file.replace(_encode(key), mode=MODE)
        else:
            key = _checked(file.content, file.status, path)
    return public_key(key)


def load_key(instance: InstanceName, root: Path = state.ROOT) -> PrivateKey:
    """The instance's key; MachineError if there is none, or if it is broken or open to others."""
    path = key_path(instance, root)
    if key := _loaded(path):
        return key
    raise MachineError(
        f'this machine has no key for instance "{instance}"', where=str(path), mend="warren vars generate has it made"
    )


def _loaded(path: Path) -> PrivateKey | None:
    if path.parent.is_dir():
        with files.edit(path) as file:
            if file.content is not None:
                return _checked(file.content, file.status, path)
    return None


def replace_key(instance: InstanceName, root: Path = state.ROOT) -> PublicKey:
    """Make a new key in place of the one that is there, broken or not, which is kept until the new one is on disk.

    What was staged goes, so that nothing is switched to that came before.
    """
    state.make_instance_folder(instance, root)
    key = _new_key()
    with files.edit(key_path(instance, root)) as file:
        file.replace(_encode(key), mode=MODE)
    with files.edit(next_key_path(instance, root)) as file:
        file.remove()
    return public_key(key)


def _new_key() -> PrivateKey:
    without_core_dumps()
    return PrivateKey(secrets.token_bytes(KEY_BYTES))


def without_core_dumps() -> None:
    """From here on this process has a key in its memory; and so has a userspace WireGuard that it starts."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def _encode(key: PrivateKey) -> bytes:
    return f"{key.reveal_text()}\n".encode()


def _checked(content: bytes, status: os.stat_result | None, path: Path) -> PrivateKey:
    """The key in the file, if it is whole and nobody else can read or exchange it."""
    check_private(status, path)
    try:
        return PrivateKey.parse(content.decode("ascii"))
    except ValueError as error:  # its text says how long the content is, never what
        what = "not text" if isinstance(error, UnicodeDecodeError) else str(error)
        raise MachineError(
            f"this is not a private key: {what}",
            where=str(path),
            mend=f"put it back from a backup, or remove it and let warren vars generate have a new one made: rm {path}",
        ) from None


def check_private(status: os.stat_result | None, path: Path) -> None:
    """MachineError where somebody else than root can read or exchange the file of keys that was just read."""
    assert status is not None  # there is content, so there is a file
    without_core_dumps()
    _check_owned(path, status, stat.S_IRWXG | stat.S_IRWXO, MODE)
    _check_owned(path.parent, path.parent.stat(), stat.S_IWGRP | stat.S_IWOTH, 0o700)


def _check_owned(path: Path, status: os.stat_result, forbidden: int, mode: int) -> None:
    if status.st_uid != os.geteuid():
        raise MachineError(
            f"this belongs to user {status.st_uid}, a private key is root's own",
            where=str(path),
            mend=f"see that nobody took the key, then: chown root:root {path}",
        )
    if status.st_mode & forbidden:
        raise MachineError(
            f"others have access: its mode is {stat.S_IMODE(status.st_mode):04o}",
            where=str(path),
            mend=f"if nobody can have taken the key: chmod {mode:o} {path}; else have a new one made",
        )
