"""Whom secrets in the vault are encrypted to: the operators' age recipients and ssh keys, as the inventory has them."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Sequence
from contextlib import suppress

from warren.inventory.findings import Path
from warren.inventory.machines import Machines
from warren.inventory.mesh import Mesh, has_vault_key
from warren.inventory.report import Report
from warren.inventory.wording import quoted

SSH_TYPES = ("ssh-ed25519", "ssh-rsa")  # age encrypts to no others

_PATH: Path = ("meta", "recipients")
_CHARACTERS = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"  # BIP 173
_GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_AGE = re.compile(f"age1[{_CHARACTERS}]{{58}}")
_AGE_HEAD = "age"
_FORMS = 'write "age1…" (age-keygen prints it), or the line of an ssh-ed25519 or ssh-rsa public key'


def read_recipients(
    texts: Sequence[str], meshes: Sequence[Mesh], machines: Machines, report: Report
) -> tuple[str, ...]:
    """Each once, without its comment; what cannot be one is reported, and that there is none where one is needed."""
    found: dict[str, int] = {}
    for index, text in enumerate(texts):
        if problem := recipient_problem(text):
            report.add((*_PATH, index), f"{quoted(_short(text))} {problem}", _mend(text))
        elif canonical_recipient(text) in found:
            report.add((*_PATH, index), f"{quoted(_short(text))} stands twice", "remove one of the two")
        found.setdefault(canonical_recipient(text), index)
    if not texts and not report.broken.within(_PATH):
        _report_that_nobody_could_open(meshes, machines, report)
    return tuple(found)


def canonical_recipient(text: str) -> str:
    """Without comment and further spaces: one text for one recipient."""
    return " ".join(text.split()[:2]) if text.lstrip().startswith(SSH_TYPES) else text.strip()


def recipient_problem(text: str) -> str | None:
    """What is wrong with a recipient; None: nothing."""
    text = text.strip()
    if text.upper().startswith("AGE-SECRET-KEY-"):
        return "is a secret key, not a recipient"
    if text.startswith("age1"):
        if not _AGE.fullmatch(text):
            return "is no age recipient of the kind that is supported here (X25519)"
        return (
            None if _checksum_is_right(text) else "is no age recipient: its checksum is wrong, so a character is, too"
        )
    return _ssh_problem(text)


def _ssh_problem(text: str) -> str | None:
    kind, _, rest = text.partition(" ")
    if kind not in SSH_TYPES:
        return "is no age recipient and no ssh-ed25519 or ssh-rsa public key"
    with suppress(ValueError):
        blob = b64decode(rest.split(" ")[0], validate=True)
        name = len(kind).to_bytes(4) + kind.encode()
        if blob.startswith(name) and _is_whole(blob):
            return None
    return "is a damaged ssh key: what follows its type is not the base64 of one"


def _is_whole(blob: bytes) -> bool:
    """Whether it is texts with their lengths before them and nothing else (RFC 4253, section 6.6)."""
    fields = 0
    while blob:
        length = int.from_bytes(blob[:4])
        if len(blob) < 4 + length:
            return False
        blob, fields = blob[4 + length :], fields + 1
    return fields in (2, 3)


def _checksum_is_right(text: str) -> bool:
    """BIP 173; age has no limit to the length."""
    values = [ord(character) >> 5 for character in _AGE_HEAD] + [0] + [ord(character) & 31 for character in _AGE_HEAD]
    values += [_CHARACTERS.index(character) for character in text[len(_AGE_HEAD) + 1 :]]
    check = 1
    for value in values:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value
        for bit, factor in enumerate(_GENERATOR):
            check ^= factor if top >> bit & 1 else 0
    return check == 1


def _mend(text: str) -> str:
    if text.strip().upper().startswith("AGE-SECRET-KEY-"):
        return "write its public half (age-keygen -y FILE), and make another key: this one has been seen now"
    return _FORMS


def _short(text: str) -> str:
    """Never a whole secret key that was written in the wrong place."""
    return f"{text[:16]}…" if len(text) > 20 else text


def _report_that_nobody_could_open(meshes: Sequence[Mesh], machines: Machines, report: Report) -> None:
    for mesh in meshes:
        for role in (mesh.controller, mesh.peer):
            for machine in role.entered:
                if has_vault_key(role, machine, machines):
                    setting = role.settings(machine, machines).get("keys")
                    report.add(
                        setting.path if setting else ("machines", machine, "keys"),
                        f"the key of machine {quoted(machine)} is kept in the vault, which nobody could open",
                        f"name the operators: {report.dotted(*_PATH)} = [{quoted('age1…')}, {quoted('ssh-ed25519 …')}]",
                    )
                    return
