"""Private keys that are made here: encrypted with age, in the vars, beside the public values that they belong to.

vars/per-machine/<machine>/wireguard-keys-<instance>/
    privatekey/secret.age       the private half of `publickey`: its line of base64, as `age --armor` writes it
    privatekey/recipients       what an age file does not say: whose key it is, and who can open it
    nextprivatekey/…            the private half of `nextkey`; and any key that was made just now, until its public half
                                is stored: what is there is never overwritten before the new one counts (`settle`)

In clear they are in the memory of a process that writes no core dump, and nowhere else.
"""

from __future__ import annotations

import resource
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple

from warren.errors import Problem, VarsError
from warren.inventory.model import Inventory
from warren.inventory.recipients import canonical_recipient
from warren.names import InstanceName, MachineName, is_host_name
from warren.network.stored import NEXT_KEY_FILE, PUBLIC_KEY_FILE
from warren.vars import sealing
from warren.vars.generators import Variable, instance_of, key_variable
from warren.vars.host_keys import host_key_variable
from warren.vars.store import PER_MACHINE, Store
from warren.wireguard.keys import KEY_BYTES, PrivateKey, PublicKey
from warren.wireguard.x25519 import public_key

PRIVATE_KEY_FILE = "privatekey"
NEXT_PRIVATE_KEY_FILE = "nextprivatekey"
SECRET, RECORD = "secret.age", "recipients"

_FILES = (PRIVATE_KEY_FILE, NEXT_PRIVATE_KEY_FILE)


class SealedFile(NamedTuple):
    """A secret, or the record beside it, by where it is stored."""

    machine: MachineName
    generator: str
    file: str
    leaf: str = SECRET

    @property
    def path(self) -> str:
        """Relative to the folder of the inventory."""
        return f"vars/per-machine/{self.machine}/{self.generator}/{self.file}/{self.leaf}"

    def __str__(self) -> str:
        return f"{self.machine} {self.generator}/{self.file}"

    @property
    def both(self) -> tuple[SealedFile, SealedFile]:
        """The secret, and its record."""
        return self._replace(leaf=SECRET), self._replace(leaf=RECORD)


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
    text = sealing.seal(f"{key.reveal_text()}\n".encode(), recipients)
    secret, record = place.both
    return {secret: text, record: Record(public_key(key).text, _digest(text), tuple(sorted(recipients))).text}


def sealed_files(machine: MachineName, generator: str) -> list[SealedFile]:
    """All that there may be of one generator."""
    return [each for file in _FILES for each in SealedFile(machine, generator, file).both]


def read_sealed(store: Store, machine: MachineName | None = None) -> dict[SealedFile, Sealed]:
    """Every secret that there is, of one machine or of all; VarsError with one that cannot be read."""
    found = {}
    for place in _places(store, machine):
        text = store.text(place)
        if text is not None:
            found[place] = Sealed(place, text, _record(store, place, text))
    return found


def _places(store: Store, machine: str | None) -> Iterator[SealedFile]:
    root = store.folder / PER_MACHINE
    for path in sorted(root.glob(f"{machine or '*'}/*/*/{SECRET}")):
        name, generator, file, _ = path.relative_to(root).parts
        if is_host_name(name) and instance_of(generator) is not None and file in _FILES:
            yield SealedFile(MachineName(name), generator, file)


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


class Vault:
    """The secrets of one operator's folder. `written`: what was stored or removed, for the commit.

    Whoever calls what writes holds the store's lock.
    """

    def __init__(self, store: Store, inventory: Inventory, host_keys: Mapping[MachineName, str]) -> None:
        self.store = store
        self.written: list[SealedFile | Variable] = []
        self.host_keys = dict(host_keys)
        self._operators = inventory.recipients

    def taken_written(self) -> list[SealedFile | Variable]:
        """What was stored or removed since this was asked last."""
        written, self.written = self.written, []
        return written

    def learn(self, told: Mapping[MachineName, str]) -> list[Variable]:
        """Store the host keys that machines told; those that are others than before."""
        new = {host_key_variable(name): key for name, key in told.items() if self.host_keys.get(name) != key}
        self.store.write(new)
        self.host_keys |= told
        self.written += new
        return list(new)

    def recipients(self, machine: MachineName) -> tuple[str, ...]:
        """Who shall be able to open the machine's secrets: the operators, and the machine itself."""
        own = self.host_keys.get(machine)
        return (*self._operators, *([canonical_recipient(own)] if own else []))

    def make(self, variable: Variable, texts: Mapping[Variable, str]) -> PublicKey:
        """A new key, stored as what `variable` says: `publickey` or `nextkey`. `texts`: what is stored now."""
        without_core_dumps()
        place = SealedFile(variable.machine, variable.generator, NEXT_PRIVATE_KEY_FILE)
        self._refuse_overwriting(place, texts)
        key = PrivateKey(secrets.token_bytes(KEY_BYTES))
        public = public_key(key)
        sealed = sealed_texts(key, place, self.recipients(variable.machine))
        in_order: dict[SealedFile | Variable, str] = dict(sealed.items())  # should it be killed in the middle
        self.store.write(in_order | {variable: public.text})
        self.written += sealed
        return public

    def _refuse_overwriting(self, place: SealedFile, texts: Mapping[Variable, str]) -> None:
        """What waits there may be the only copy of a key that is in use, as long as nothing says otherwise."""
        found = read_sealed(self.store, place.machine)
        there, first = found.get(place), found.get(place._replace(file=PRIVATE_KEY_FILE))
        in_use = texts.get(Variable(place.machine, place.generator, PUBLIC_KEY_FILE))
        if there is None or there.record is not None or in_use is None:
            return
        if first is None or first.record is None or first.record.key != in_use:
            raise VarsError("it is not known which key this is", where=place.path, mend="warren vars reseal")

    def settle(self, texts: Mapping[Variable, str], machine: MachineName | None = None) -> None:
        """Put each key whose public half counts by now into the place of the one before."""
        for place, sealed in read_sealed(self.store, machine).items():
            public = Variable(place.machine, place.generator, PUBLIC_KEY_FILE)
            if place.file == NEXT_PRIVATE_KEY_FILE and sealed.record and sealed.record.key == texts.get(public):
                self._promote(place, sealed.text, sealed.record)

    def _promote(self, place: SealedFile, text: str, record: Record) -> None:
        secret, note = place._replace(file=PRIVATE_KEY_FILE).both
        self.store.write({secret: text, note: record.text})
        self.remove([place])
        self.written += [secret, note]

    def remove(self, places: Sequence[SealedFile]) -> None:
        """Secrets that nobody needs any more, and what is beside them."""
        files = [each for place in places for each in place.both]
        self.store.delete(files)
        self.written += files

    def of(self, machine: MachineName, generator: str | None = None) -> list[SealedFile]:
        """The machine's secrets, of one generator or of all."""
        return [place for place in _places(self.store, machine) if generator in (None, place.generator)]

    def keeps(self, variable: Variable) -> bool:
        """Whether there is any secret of the value's generator. A quick look, for fleets of which few have one."""
        places = (SealedFile(variable.machine, variable.generator, file) for file in _FILES)
        return any((self.store.folder / place.path).exists() for place in places)

    def has(self, variable: Variable, text: str) -> bool:
        """Whether the private half of what `variable` has is here, as far as records say."""
        return bool(self._candidates(variable, text))

    def _candidates(self, variable: Variable, text: str) -> list[Sealed]:
        found = [each for each in read_sealed(self.store, variable.machine).values() if _is_of(each, variable)]
        with_record = [each for each in found if each.record is not None and each.record.key == text]
        return with_record or [each for each in found if each.record is None]

    def private_key(self, variable: Variable, text: str, identities: sealing.Opens) -> PrivateKey:
        """The private half of what `variable` has; VarsError where there is none, or it cannot be opened."""
        without_core_dumps()
        for sealed in self._candidates(variable, text):
            key = _opened(sealed, identities)
            if public_key(key).text == text:
                return key
        raise VarsError(
            f"the vault does not have the private half of {text[:8]}…",
            where=SealedFile(variable.machine, variable.generator, PRIVATE_KEY_FILE).path,
            mend=_anew(variable),
        )

    def reseal(self, texts: Mapping[Variable, str], identities: sealing.Opens) -> Resealed:
        """Encrypt anew what others than the recipients of now can open, or not all of them; all at once."""
        without_core_dumps()
        self.settle(texts)
        anew: dict[SealedFile, str] = {}
        lost: dict[SealedFile, set[str]] = {}
        problems = []
        for place, sealed in read_sealed(self.store).items():
            wanted = self.recipients(place.machine)
            if sealed.record is not None and set(sealed.record.recipients) == set(wanted):
                continue
            try:
                anew |= sealed_texts(_opened(sealed, identities), place, wanted)
            except VarsError as error:
                problems.append(error)
                continue
            lost[place] = set(sealed.record.recipients if sealed.record else ()) - set(wanted)
        self.store.write(anew)
        self.written += anew
        self.settle(texts)  # what no record told before
        return Resealed(lost, tuple(problems))


@dataclass(frozen=True, slots=True)
class Resealed:
    """What was encrypted anew, and who could open each before and cannot now; what could not be opened."""

    lost: Mapping[SealedFile, set[str]]
    problems: tuple[VarsError, ...]


def _opened(sealed: Sealed, identities: sealing.Opens) -> PrivateKey:
    try:
        return PrivateKey.parse(identities.open(sealed.text).decode("ascii"))
    except VarsError as error:
        raise VarsError(error.what, where=sealed.place.path, mend=error.mend) from None
    except ValueError:
        raise VarsError(
            "what is encrypted there is no private key", where=sealed.place.path, mend=_anew(sealed.place)
        ) from None


def vault_problems(inventory: Inventory, texts: Mapping[Variable, str], vault: Vault) -> tuple[Problem, ...]:
    """Where secrets are missing, are of no key that counts, or can be opened by others than the inventory says."""
    if not inventory.vault_machines:
        return ()
    try:
        found = read_sealed(vault.store)
    except VarsError as error:
        return (Problem(error.where, 0, 0, error.what, error.mend),)
    problems = list(_missing(inventory, texts, found))
    for place, sealed in found.items():
        problems += _problems_of(inventory, texts, vault, place, sealed)
    return tuple(Problem(path, 0, 0, message, mend) for path, message, mend in problems)


def _missing(
    inventory: Inventory, texts: Mapping[Variable, str], found: Mapping[SealedFile, Sealed]
) -> Iterator[tuple[str, str, str]]:
    for variable in vault_variables(inventory):
        text = texts.get(variable)
        own = [each for each in found.values() if _is_of(each, variable)]
        if text is None or any(each.record is None or each.record.key == text for each in own):
            continue
        message = f"the private half of {variable.file} {text[:8]}… is not in the vault"
        yield SealedFile(variable.machine, variable.generator, PRIVATE_KEY_FILE).path, message, _anew(variable)


def _problems_of(
    inventory: Inventory, texts: Mapping[Variable, str], vault: Vault, place: SealedFile, sealed: Sealed
) -> Iterator[tuple[str, str, str]]:
    record = sealed.record
    counts = [texts.get(each) for each in vault_variables(inventory) if _is_of(sealed, each)]
    if record is None:
        yield place._replace(leaf=RECORD).path, "this says nothing of the secret beside it", "warren vars reseal"
    elif record.key not in counts:
        yield (
            place.path,
            f"left over: nothing uses the key {record.key[:8]}…",
            f"git rm -r {place.path.rpartition('/')[0]}",
        )
    else:
        wanted, can = set(vault.recipients(place.machine)), set(record.recipients)
        parts = [
            *(f"cannot be opened by {shown_recipient(one, vault, place.machine)} yet" for one in sorted(wanted - can)),
            *(f"can still be opened by {shown_recipient(one, vault, place.machine)}" for one in sorted(can - wanted)),
        ]
        if parts:
            yield place.path, "; ".join(parts), "warren vars reseal"


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


def shown_recipient(recipient: str, vault: Vault, machine: MachineName) -> str:
    """For people."""
    if canonical_recipient(vault.host_keys.get(machine, "")) == recipient:
        return f"{machine} itself (its ssh host key)"
    kind, _, key = recipient.rpartition(" ")
    return f"{kind} …{key[-12:]}" if kind else f"{recipient[:16]}…"


def without_core_dumps() -> None:
    """From here on this process may have a key in its memory."""
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def _is_of(sealed: Sealed, variable: Variable) -> bool:
    return (sealed.place.machine, sealed.place.generator) == (variable.machine, variable.generator)


def _anew(variable: Variable | SealedFile) -> str:
    return f"warren vars generate --service {variable.generator} --regenerate --machine {variable.machine}"
