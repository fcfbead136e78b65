"""Private keys in the vars, encrypted: which files there are, and what stands in them.

vars/per-machine/<machine>/wireguard-keys-<instance>/
    privatekey/secret.age       the private half of `publickey`: its line of base64, as `age --armor` writes it
    privatekey/secret           with meta.vault = "sops" the same, as sops and clan keep it
    privatekey/recipients       what such a file does not say: whose key it is, and who can open it
    nextprivatekey/…            the private half of `nextkey`; and any key that was made just now, until its public half
                                is stored: what is there is never overwritten before the new one counts (`settle`)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple

from warren.inventory.model import Inventory
from warren.names import InstanceName, MachineName, is_host_name
from warren.network.stored import NEXT_KEY_FILE
from warren.vars import sealing, sops
from warren.vars.generators import Variable, instance_of, key_variable
from warren.vars.store import PER_MACHINE, Store
from warren.wireguard.keys import PrivateKey
from warren.wireguard.x25519 import public_key

PRIVATE_KEY_FILE = "privatekey"
NEXT_PRIVATE_KEY_FILE = "nextprivatekey"
SECRETS = {"age": "secret.age", "sops": "secret"}  # by meta.vault
RECORD = "recipients"

_FILES = (PRIVATE_KEY_FILE, NEXT_PRIVATE_KEY_FILE)


class SealedFile(NamedTuple):
    """A secret, or the record beside it, by where it is stored."""

    machine: MachineName
    generator: str
    file: str
    leaf: str = SECRETS["age"]

    @property
    def path(self) -> str:
        """Relative to the folder of the inventory."""
        return f"vars/per-machine/{self.machine}/{self.generator}/{self.file}/{self.leaf}"

    def __str__(self) -> str:
        return f"{self.machine} {self.generator}/{self.file}"

    @property
    def both(self) -> tuple[SealedFile, SealedFile]:
        """The secret that this is, and its record."""
        return self, self._replace(leaf=RECORD)


@dataclass(frozen=True, slots=True)
class Record:
    """What is public of a secret: the public half, the digest of the file that this was written for, its recipients."""

    key: str
    digest: str
    recipients: tuple[str, ...]

    @property
    def text(self) -> str:
        lines = [f"publickey: {self.key}", f"sha256: {self.digest}", *(f"recipient: {one}" for one in self.recipients)]
        return "".join(f"{line}\n" for line in lines)


@dataclass(frozen=True, slots=True)
class Sealed:
    """A secret as it was found. `record`: None where there is none, or not of this very file."""

    place: SealedFile
    text: str
    record: Record | None


def sealed_texts(key: PrivateKey, place: SealedFile, recipients: Sequence[str]) -> dict[SealedFile, str]:
    """What is to be stored for a secret."""
    seal = sops.seal if place.leaf == SECRETS["sops"] else sealing.seal
    text = seal(f"{key.reveal_text()}\n".encode(), recipients)
    secret, record = place.both
    return {secret: text, record: Record(public_key(key).text, _digest(text), tuple(sorted(recipients))).text}


def sealed_files(machine: MachineName, generator: str) -> list[SealedFile]:
    """All that there may be of one generator."""
    leaves = (*SECRETS.values(), RECORD)
    return [SealedFile(machine, generator, file, leaf) for file in _FILES for leaf in leaves]


def read_sealed(store: Store, machine: MachineName | None = None) -> dict[SealedFile, Sealed]:
    """Every secret that there is, of one machine or of all; VarsError with one that cannot be read."""
    found = {}
    for place in places(store, machine):
        text = store.text(place)
        if text is not None:
            found[place] = Sealed(place, text, _record(store, place, text))
    return found


def places(store: Store, machine: str | None) -> Iterator[SealedFile]:
    root = store.folder / PER_MACHINE
    for path in sorted(each for leaf in SECRETS.values() for each in root.glob(f"{machine or '*'}/*/*/{leaf}")):
        name, generator, file, leaf = path.relative_to(root).parts
        if is_host_name(name) and instance_of(generator) is not None and file in _FILES:
            yield SealedFile(MachineName(name), generator, file, leaf)


def _record(store: Store, place: SealedFile, secret: str) -> Record | None:
    text = store.text(place._replace(leaf=RECORD))
    pairs = [line.partition(": ")[::2] for line in (text or "").splitlines()]
    single = dict(pairs)
    record = Record(
        single.get("publickey", ""),
        single.get("sha256", ""),
        tuple(value for name, value in pairs if name == "recipient"),
    )
    return record if record.digest == _digest(secret) else None


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def vault_variables(inventory: Inventory) -> Iterator[Variable]:
    """The public values whose private halves belong into the vault."""
    for instance in inventory.instances.values():
        for name, member in instance.members.items():
            if member.has_vault_key:
                first = key_variable(name, instance.name)
                yield first
                yield first._replace(file=NEXT_KEY_FILE)


def has_vault_key(inventory: Inventory, machine: MachineName, instance: InstanceName) -> bool:
    member = inventory.instances[instance].members.get(machine)
    return member is not None and member.has_vault_key


def anew(place: Variable | SealedFile) -> str:
    """The command that makes the key anew."""
    return f"warren vars generate --service {place.generator} --regenerate --machine {place.machine}"
