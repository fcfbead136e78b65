"""The machine's own folder: who it is, and for each instance its network document and private key.

machine.name                 one line; the dot keeps it apart from instances, whose names have none
<instance>/network.json      the document that the machine follows
<instance>/private.key       see warren.host.keys
"""

from __future__ import annotations

import shutil
from pathlib import Path

from warren.errors import DocumentRefused, MachineError
from warren.host import files
from warren.names import HOST_NAME_RULE, InstanceName, MachineName, is_host_name
from warren.network.document import Document, decode

ROOT = Path("/var/lib/warren")
KEY_FILE = "private.key"

_DOCUMENT_FILE = "network.json"
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
    try:
        names = [each.name for each in root.iterdir() if (each / _DOCUMENT_FILE).exists()]
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


def write_document(instance: InstanceName, content: bytes, root: Path = ROOT) -> Document:
    """Keep the document, if it is one for this instance; DocumentRefused leaves what was there."""
    document = _decode(content, instance, "")
    make_instance_folder(instance, root)
    files.replace(instance_folder(instance, root) / _DOCUMENT_FILE, content)
    return document


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
                if each.name != KEY_FILE:
                    each.unlink()
        files.sync_folder(folder if kept else root)
    except OSError as error:
        raise MachineError(f"cannot be removed: {error}", where=str(folder), mend="run this as root") from error


def _decode(content: bytes, instance: InstanceName, where: str) -> Document:
    try:
        document = decode(content)
    except DocumentRefused as refused:
        raise DocumentRefused(refused.what, where=refused.where or where, mend=refused.mend) from None
    if document.instance != instance:
        raise DocumentRefused(
            f'this is the document of instance "{document.instance}", not of "{instance}"',
            where=where,
            mend=f'bring the document of "{instance}"',
        )
    return document
