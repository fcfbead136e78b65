"""The machine's own folder: who it is, and for each instance its network document and private key.

machine.name                        one line; the dot keeps it apart from instances, whose names have none
trial.json, restored.json           see warren.host.trial
<instance>/network.json             the document that the machine follows
<instance>/network.json.sig         the operator's signature over it, where it came with one
<instance>/network.json.confirmed   during a trial: a hard link to the document before, so that going back is a rename,
<instance>/network.json.sig.confirmed    which works on a full disk, too
<instance>/draining                 see warren.host.absence
<instance>/guests.json              see warren.host.guestbook
<instance>/fetching.json            what failed when the machine fetched documents by itself (warren.plan.fetching)
<instance>/private.key, ….key.next  see warren.host.keys
<instance>/preshared.keys           see warren.host.preshared
<instance>/revoked                  keys that any document that was followed here revoked; it only grows
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

from warren.errors import DocumentRefused, MachineError
from warren.host import files
from warren.names import HOST_NAME_RULE, InstanceName, MachineName, is_host_name
from warren.network.document import Document, decode, keys_text, parse_keys
from warren.plan import fetching
from warren.plan.fetching import Failures
from warren.wireguard.keys import PublicKey

ROOT = Path("/var/lib/warren")
KEY_FILE = "private.key"
NEXT_KEY_FILE = "private.key.next"
REVOKED_FILE = "revoked"
PRESHARED_FILE = "preshared.keys"
FETCHING_FILE = "fetching.json"
GUESTS_FILE = "guests.json"

_DOCUMENT_FILE = "network.json"
_SIGNATURE_FILE = "network.json.sig"
CONFIRMED = ".confirmed"
_NAME_FILE = "machine.name"


def machine_name(root: Path = ROOT) -> MachineName | None:
    """What this machine is called in the documents; None: nobody has said."""
    path = root / _NAME_FILE
    content = files.read(path)
    if content is None:
        return None
    name = content.decode(errors="replace").strip()
    if not is_host_name(name):
        raise MachineError(
            f"{name!r} is not a machine's name: {HOST_NAME_RULE}",
            where=str(path),
            mend="write the name that the inventory has for this machine into it",
        )
    return MachineName(name)


def write_machine_name(name: MachineName, root: Path = ROOT) -> None:
    files.make_folder(root, mode=0o755)
    files.replace(root / _NAME_FILE, f"{name}\n".encode())


def instances(root: Path = ROOT) -> tuple[InstanceName, ...]:
    """The instances whose document this machine has, sorted."""
    return instances_with(_DOCUMENT_FILE, root)


def instances_with(file: str, root: Path = ROOT) -> tuple[InstanceName, ...]:
    """Those that have such a file, sorted."""
    try:
        names = [each.name for each in root.iterdir() if (each / file).exists()]
    except FileNotFoundError:
        return ()
    except OSError as error:  # what cannot be seen is not said to be nothing
        raise MachineError(f"cannot be read: {error}", where=str(root), mend="run this as root") from error
    return tuple(sorted(InstanceName(name) for name in names if is_host_name(name)))


def instance_folder(instance: InstanceName, root: Path = ROOT) -> Path:
    return root / instance


def read_document(instance: InstanceName, root: Path = ROOT) -> Document | None:
    """The document that the machine follows; None: it has none. DocumentRefused, with its path, if it is broken."""
    path = instance_folder(instance, root) / _DOCUMENT_FILE
    content = files.read(path)
    return None if content is None else _decode(content, instance, str(path))


def read_document_content(instance: InstanceName, root: Path = ROOT) -> bytes | None:
    """The document's bytes, whatever they say."""
    return files.read(instance_folder(instance, root) / _DOCUMENT_FILE)


def document_files(instance: InstanceName, root: Path = ROOT) -> tuple[Path, Path]:
    """Where the document and its signature are."""
    folder = instance_folder(instance, root)
    return folder / _DOCUMENT_FILE, folder / _SIGNATURE_FILE


def read_signed(instance: InstanceName, root: Path = ROOT) -> tuple[bytes | None, bytes | None]:
    """The document's bytes and its signature, as they are at this moment: one may be newer than the other."""
    document, signed = document_files(instance, root)
    return files.read(document), files.read(signed)


def read_fetching(instance: InstanceName, root: Path = ROOT) -> Failures:
    return fetching.decode(files.read(instance_folder(instance, root) / FETCHING_FILE) or b"")


def write_fetching(instance: InstanceName, failures: Failures, root: Path = ROOT) -> None:
    with files.edit(instance_folder(instance, root) / FETCHING_FILE) as file:
        if failures == fetching.NO_FAILURES:
            file.remove()
        else:
            file.replace(fetching.encode(failures))


def write_document(
    instance: InstanceName, content: bytes, root: Path = ROOT, *, signature: bytes | None = None
) -> Document:
    """Keep the document, if it is one for this instance; DocumentRefused leaves what was there.

    `signature`: kept beside it; None: the root of this machine says so, and a signature over another one goes.
    """
    document = _decode(content, instance, "")
    make_instance_folder(instance, root)
    _keep_revoked(instance, document, root)  # first: a machine that goes back to another document keeps to it
    folder = instance_folder(instance, root)
    if signature is None:
        with files.edit(folder / _SIGNATURE_FILE) as file:
            file.remove()
    files.replace(folder / _DOCUMENT_FILE, content)
    if signature is not None:
        files.replace(folder / _SIGNATURE_FILE, signature)
    return document


def revoked(instance: InstanceName, root: Path = ROOT) -> frozenset[PublicKey]:
    """Every key that a document revoked which was followed here, at any time."""
    path = instance_folder(instance, root) / REVOKED_FILE
    try:
        return parse_keys((files.read(path) or b"").decode("ascii"))
    except ValueError:  # nobody is let in because of a broken file
        raise MachineError(
            "this is not what Warren wrote here",
            where=str(path),
            mend=f"rm {path}, and bring this machine its document again: warren machines update",
        ) from None


def _keep_revoked(instance: InstanceName, document: Document, root: Path) -> None:
    if document.revoked:
        with files.edit(instance_folder(instance, root) / REVOKED_FILE) as file:
            known = parse_keys((file.content or b"").decode("ascii"))
            file.replace(f"{keys_text(known.union(document.revoked))}\n".encode(), mode=0o600)


def has_signature(instance: InstanceName, root: Path = ROOT) -> bool:
    return (instance_folder(instance, root) / _SIGNATURE_FILE).exists()


def keep_confirmed(instance: InstanceName, root: Path = ROOT) -> bool:
    """Keep a hold on the document as it is, for `put_back`; False: there is none."""
    with _explained(folder := instance_folder(instance, root), "the document cannot be kept beside"):
        for name in (_SIGNATURE_FILE, _DOCUMENT_FILE):
            (folder / f"{name}{CONFIRMED}").unlink(missing_ok=True)
            with suppress(FileNotFoundError):
                (folder / f"{name}{CONFIRMED}").hardlink_to(folder / name)
        if not (folder / f"{_DOCUMENT_FILE}{CONFIRMED}").exists():
            return False
        files.sync_folder(folder)
        return True


def put_back(instance: InstanceName, root: Path = ROOT) -> None:
    """Make the document that `keep_confirmed` holds the one that is followed; nothing if that was done already."""
    with _explained(folder := instance_folder(instance, root), "the document before cannot be put back"):
        kept, kept_signature = (folder / f"{name}{CONFIRMED}" for name in (_DOCUMENT_FILE, _SIGNATURE_FILE))
        if not kept.exists():
            return
        # Until the document's own name is there again, all of this can be done again.
        (folder / _SIGNATURE_FILE).unlink(missing_ok=True)
        with suppress(FileNotFoundError):
            (folder / _SIGNATURE_FILE).hardlink_to(kept_signature)
        kept.replace(folder / _DOCUMENT_FILE)
        kept.unlink(missing_ok=True)  # rename(2) leaves both names where they are links to one file
        kept_signature.unlink(missing_ok=True)
        files.sync_folder(folder)


def drop_confirmed(instance: InstanceName, root: Path = ROOT) -> None:
    """Let go of what `keep_confirmed` holds."""
    with _explained(folder := instance_folder(instance, root), "the document before cannot be dropped"):
        for name in (_SIGNATURE_FILE, _DOCUMENT_FILE):
            (folder / f"{name}{CONFIRMED}").unlink(missing_ok=True)


def make_instance_folder(instance: InstanceName, root: Path = ROOT) -> None:
    """For root alone: the private key lives in it."""
    files.make_folder(root, mode=0o755)
    files.make_folder(instance_folder(instance, root), mode=0o700)


def remove_instance(instance: InstanceName, root: Path = ROOT, *, keep_key: bool = True) -> None:
    """Forget the instance. The key stays unless asked: a machine that comes back is the same machine then."""
    folder = instance_folder(instance, root)
    if not folder.is_dir():
        return
    kept = keep_key and (folder / KEY_FILE).exists()
    try:
        if not kept:
            shutil.rmtree(folder)
        else:
            for each in folder.iterdir():
                if each.name not in (KEY_FILE, NEXT_KEY_FILE, PRESHARED_FILE, REVOKED_FILE):
                    each.unlink()
        files.sync_folder(folder if kept else root)
    except OSError as error:
        raise MachineError(f"cannot be removed: {error}", where=str(folder), mend="run this as root") from error


@contextmanager
def _explained(folder: Path, what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        mend = f"see what stands in the way: df {folder}; lsattr -d {folder}; dmesg"
        raise MachineError(f"{what}: {os.strerror(error.errno or 0)}", where=str(folder), mend=mend) from error


@lru_cache(maxsize=4)
def decoded(content: bytes) -> Document:
    """The same bytes are the same document; the agent reads them anew at every look."""
    return decode(content)


def _decode(content: bytes, instance: InstanceName, where: str) -> Document:
    try:
        document = decoded(content)
    except DocumentRefused as refused:
        raise DocumentRefused(refused.what, where=refused.where or where, mend=refused.mend) from None
    if document.instance != instance:
        raise DocumentRefused(
            f'this is the document of instance "{document.instance}", not of "{instance}"',
            where=where,
            mend=f'bring the document of "{instance}"',
        )
    return document
