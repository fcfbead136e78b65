"""`warren render`: a machine's plan as files for machines that Warren does not run on."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import click

from warren.cli.inventory import opened_folder
from warren.cli.plan import known_machine
from warren.cli.vault import identities, identity_option
from warren.errors import UsageError, VarsError
from warren.inventory.wording import Nearest, listed, quoted
from warren.names import InstanceName, MachineName
from warren.network.document import Document
from warren.network.stored import PUBLIC_KEY_FILE, keys_generator
from warren.plan.desired import Desired
from warren.plan.plan import plan
from warren.render.foreign import File
from warren.render.hosts_text import hosts_text
from warren.render.networkd import networkd
from warren.render.nixos import nixos
from warren.render.preview import missing_keys
from warren.render.wg_quick import FORMAT as WG_QUICK
from warren.render.wg_quick import app_text, wg_quick
from warren.vars.generators import key_variable
from warren.vars.sealed import has_vault_key
from warren.wireguard.keys import PrivateKey
from warren.wireguard.x25519 import public_key
from warren.workspace.folder import Folder

WITHOUT_KEY: Mapping[str, Callable[[Desired], tuple[File, ...]]] = {
    "networkd": networkd,
    "nixos": nixos,
    "hosts": hosts_text,
}
QR = "qr"
FORMATS = (WG_QUICK, *WITHOUT_KEY, QR)


@click.command()
@click.argument("machine")
@click.option("--instance", metavar="NAME", help="Which mesh; needed where the machine is in several.")
@click.option("--format", "kind", type=click.Choice(FORMATS), required=True)
@click.option("--private-key-file", "key_file", metavar="FILE",
              help="For wg-quick and qr: write the machine's private key into the text; - is stdin.")  # fmt: skip
@click.option("--with-key", is_flag=True, help="The same with the private key from the vault.")
@identity_option
@click.option("--output", metavar="PATH", type=click.Path(path_type=Path),
              help="A folder to write the files into; of qr, a file that ends in .png, .svg or .conf.")  # fmt: skip
@click.pass_obj
def render(
    inventory_file: str | None,
    machine: str,
    instance: str | None,
    kind: str,
    key_file: str | None,
    with_key: bool,
    identity: str | None,
    output: Path | None,
) -> None:
    """What MACHINE needs to be in the mesh without Warren, as files for other programs.

    \b
    wg-quick   /etc/wireguard/INSTANCE.conf
    networkd   units of systemd-networkd, a firewall, sysctls
    nixos      a NixOS module
    hosts      the names, for /etc/hosts
    qr         a QR code for WireGuard's apps; needs --with-key or --private-key-file

    Its key stays on the machine (the files name a file that holds it), unless --private-key-file brings it here, or
    --with-key takes it from the vault (keys = "vault"). For such a machine write `managed = false` into the inventory;
    if its key is not in the vault, store its public half with `warren vars set`.

    No private key is left in a terminal: a QR code is shown until Enter is pressed, on a screen of its own; text goes
    into a pipe or, with --output, into a file for you alone.
    """
    folder = opened_folder(inventory_file)
    name = known_machine(folder.inventory, machine)
    # Without an agent nobody hears those who are invited.
    document = replace(_document(folder.documents, name, instance), invitations=())
    if folder.inventory.machines[name].managed:
        click.echo(
            f"{name} is managed by Warren, which has its own way; else: machines.{name}.managed = false", err=True
        )
    if note := missing_keys(document):
        click.echo(note, err=True)
    if with_key and key_file is not None:
        raise UsageError("--with-key and --private-key-file are two keys for one machine", mend="say one of them")
    desired = plan(document, name)
    private_key = _from_vault(folder, desired, kind, identity) if with_key else _private_key(key_file, desired, kind)
    if kind == QR:
        _write_code(desired, private_key or _no_key(folder, desired), output)
        return
    if private_key is not None and output is None and sys.stdout.isatty():
        raise UsageError("a private key would stay in the terminal's memory", mend="--output FOLDER, or a pipe")
    _write_files(WITHOUT_KEY[kind](desired) if kind in WITHOUT_KEY else wg_quick(desired, private_key), output)


def _document(documents: Mapping[InstanceName, Document], machine: MachineName, instance: str | None) -> Document:
    own = {name: document for name, document in documents.items() if document.entry(machine)}
    if instance is not None and instance not in own:
        raise UsageError(
            f"machine {quoted(machine)} is not in instance {quoted(instance)}",
            mend=Nearest().hint(instance, own, "its instances"),
        )
    if not own:
        raise UsageError(f"machine {quoted(machine)} has no role in any instance")
    if instance is None and len(own) > 1:
        raise UsageError(
            f"machine {quoted(machine)} is in {len(own)} instances, and this shows one",
            mend=f"--instance NAME; instances: {listed(own)}",
        )
    return own[InstanceName(instance)] if instance is not None else next(iter(own.values()))


def _refuse_key(kind: str) -> None:
    if kind in WITHOUT_KEY:
        raise UsageError(
            f"{kind} has no private key in its files: others read them",
            mend="put the key where the files say, on the machine itself",
        )


def _from_vault(folder: Folder, desired: Desired, kind: str, identity: str | None) -> PrivateKey:
    """The key that is kept here, encrypted."""
    _refuse_key(kind)
    variable = key_variable(desired.machine, desired.instance)
    if variable not in folder.texts:
        raise VarsError("it has no key yet", where=variable.path, mend="warren vars generate")
    if not _has_vault_key(folder, desired):
        raise UsageError(f"the key of {desired.machine} is not in the vault", mend=_BRING_ONE)
    return folder.vault.private_key(variable, folder.texts[variable], identities(identity))


def _has_vault_key(folder: Folder, desired: Desired) -> bool:
    return has_vault_key(folder.inventory, desired.machine, desired.instance)


_BRING_ONE = "--private-key-file FILE, or - for stdin; a new one: umask 077; wg genkey > FILE"


def _private_key(key_file: str | None, desired: Desired, kind: str) -> PrivateKey | None:
    """The key in the file, if it is the machine's: with another one, nobody would answer."""
    if key_file is None:
        return None
    _refuse_key(kind)
    where = "stdin" if key_file == "-" else key_file
    try:
        content = sys.stdin.buffer.read() if key_file == "-" else Path(key_file).read_bytes()
        key = PrivateKey.parse(content.decode("ascii"))
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=where) from None
    except ValueError as error:  # its text says how long the content is, never what
        what = "not text" if isinstance(error, UnicodeDecodeError) else str(error)
        raise UsageError(f"this is not a private key: {what}", where=where, mend="make one: wg genkey") from None
    if desired.public_key is not None and public_key(key) != desired.public_key:
        generator = keys_generator(desired.instance)
        raise VarsError(
            f"this is not the key of {desired.machine}: its public half is {public_key(key)}, vars have "
            f"{desired.public_key}",
            where=where,
            mend=f"warren vars set {desired.machine} {generator}/{PUBLIC_KEY_FILE} {public_key(key).text}",
        )
    return key


def _no_key(folder: Folder, desired: Desired) -> NoReturn:
    mend = "--with-key takes it from the vault" if _has_vault_key(folder, desired) else _BRING_ONE
    raise UsageError("an app has its private key from the code", mend=mend)


def _write_code(desired: Desired, private_key: PrivateKey, output: Path | None) -> None:
    from warren.render import qr

    if output is None:
        _show(qr.terminal(desired, private_key))
        return
    kind = output.suffix.removeprefix(".").lower()
    if kind not in (*qr.PICTURES, "conf"):
        raise UsageError(f"{output.name} is no picture", where="--output", mend="a file ending in .png, .svg or .conf")
    is_text = kind == "conf"
    content = app_text(desired, private_key).encode() if is_text else qr.picture(desired, private_key, kind)
    _write(output, content, 0o600)


def _show(code: str) -> None:
    """On a terminal, until Enter is pressed, on the screen that leaves nothing to scroll back to (xterm's, 1049)."""
    if not (sys.stdout.isatty() and sys.stdin.isatty()):
        click.echo(code, nl=False)
        return
    columns, rows = shutil.get_terminal_size()
    lines = code.splitlines()
    if len(lines) >= rows or max(len(click.unstyle(line)) for line in lines) > columns:
        needed = f"{max(len(click.unstyle(line)) for line in lines)} columns and {len(lines) + 1} rows"
        raise UsageError(f"the terminal is too small for the code: it needs {needed}", mend="--output FILE.png")
    sys.stdout.write(f"\x1b[?1049h\x1b[H{code}Enter takes it away ")
    sys.stdout.flush()
    try:
        sys.stdin.readline()
    finally:
        sys.stdout.write("\x1b[2J\x1b[?1049l")
        sys.stdout.flush()


def _write_files(files: tuple[File, ...], folder: Path | None) -> None:
    if folder is None:
        click.echo("\n".join(file.text for file in files), nl=False)
        return
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot be made: {error.strerror}", where=str(folder)) from None
    for file in files:
        _write(folder / file.name, file.text.encode(), 0o600 if file.is_secret else 0o644)


def _write(path: Path, content: bytes, mode: int) -> None:
    """Whole or not at all, and never open to others for a moment."""
    beside = path.with_name(f".{path.name}.new")
    try:
        beside.unlink(missing_ok=True)
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
        beside.replace(path)
    except OSError as error:
        with suppress(OSError):
            beside.unlink()
        raise UsageError(f"cannot be written: {error.strerror}", where=str(path)) from None
    click.echo(f"{path} is written", err=True)
