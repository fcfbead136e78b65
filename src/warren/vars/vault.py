"""The vault: private keys that are made here, kept encrypted (vars.sealed), and opened for whoever has an identity.

In clear they are in the memory of a process that writes no core dump, and nowhere else.
"""

from __future__ import annotations

import resource
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from warren.errors import VarsError
from warren.inventory.model import Inventory
from warren.inventory.recipients import canonical_recipient
from warren.names import MachineName
from warren.network.stored import PUBLIC_KEY_FILE
from warren.vars import sealing
from warren.vars.generators import Variable
from warren.vars.host_keys import host_key_variable
from warren.vars.sealed import (
    NEXT_PRIVATE_KEY_FILE,
    PRIVATE_KEY_FILE,
    SECRETS,
    Record,
    Sealed,
    SealedFile,
    anew,
    read_sealed,
    sealed_files,
    sealed_texts,
)
from warren.vars.store import Store
from warren.wireguard.keys import KEY_BYTES, PrivateKey, PublicKey
from warren.wireguard.x25519 import public_key


class Vault:
    """The secrets of one operator's folder. `written`: what was stored or removed, for the commit.

    Whoever calls what writes holds the store's lock.
    """

    def __init__(self, store: Store, inventory: Inventory, host_keys: Mapping[MachineName, str]) -> None:
        self.store = store
        self.written: list[SealedFile | Variable] = []
        self.host_keys = dict(host_keys)
        self.leaf = SECRETS[inventory.vault]
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

    def read(self, machine: MachineName | None = None) -> dict[SealedFile, Sealed]:
        """Every secret that there is, of one machine or of all. What clan keeps with sops is its own, unless the
        inventory says that it is ours as well."""
        found = read_sealed(self.store, machine)
        ours = {self.leaf, SECRETS["age"]}
        return {place: sealed for place, sealed in found.items() if place.leaf in ours or sealed.record is not None}

    def make(self, variable: Variable, texts: Mapping[Variable, str]) -> PublicKey:
        """A new key, stored as what `variable` says: `publickey` or `nextkey`. `texts`: what is stored now."""
        without_core_dumps()
        place = SealedFile(variable.machine, variable.generator, NEXT_PRIVATE_KEY_FILE, self.leaf)
        former = self._refuse_overwriting(place, texts)
        key = PrivateKey(secrets.token_bytes(KEY_BYTES))
        public = public_key(key)
        sealed = sealed_texts(key, place, self.recipients(variable.machine))
        in_order: dict[SealedFile | Variable, str] = dict(sealed.items())  # should it be killed in the middle
        self.store.write(in_order | {variable: public.text})
        self.written += sealed
        self._remove_files([each for each in former if each != place])
        return public

    def _refuse_overwriting(self, place: SealedFile, texts: Mapping[Variable, str]) -> list[SealedFile]:
        """What waits there may be the only copy of a key that is in use, as long as nothing says otherwise.

        Returns what may be overwritten.
        """
        found = self.read(place.machine)
        there, first = _at(found, place), _at(found, place._replace(file=PRIVATE_KEY_FILE))
        in_use = texts.get(Variable(place.machine, place.generator, PUBLIC_KEY_FILE))
        is_unknown = in_use is not None and any(each.record is None for each in there)
        if is_unknown and not any(each.record is not None and each.record.key == in_use for each in first):
            raise VarsError("it is not known which key this is", where=place.path, mend="warren vars reseal")
        return [each.place for each in there]

    def settle(self, texts: Mapping[Variable, str], machine: MachineName | None = None) -> None:
        """Put each key whose public half counts by now into the place of the one before."""
        found = self.read(machine)
        for place, sealed in found.items():
            public = Variable(place.machine, place.generator, PUBLIC_KEY_FILE)
            if place.file == NEXT_PRIVATE_KEY_FILE and sealed.record and sealed.record.key == texts.get(public):
                secret = place._replace(file=PRIVATE_KEY_FILE)
                former = [each.place for each in _at(found, secret) if each.place != secret]
                self._promote(place, sealed.text, sealed.record, former)

    def _promote(self, place: SealedFile, text: str, record: Record, former: Sequence[SealedFile]) -> None:
        """`former`: what the place to come has by another program."""
        secret, note = place._replace(file=PRIVATE_KEY_FILE).both
        self.store.write({secret: text, note: record.text})
        self.remove([place])
        self.written += [secret, note]
        self._remove_files(former)

    def remove(self, places: Sequence[SealedFile]) -> None:
        """Secrets that nobody needs any more, and what is beside them."""
        self._remove_files([each for place in places for each in place.both])

    def _remove_files(self, files: Sequence[SealedFile]) -> None:
        self.store.delete(files)
        self.written += files

    def of(self, machine: MachineName, generator: str | None = None) -> list[SealedFile]:
        """The machine's secrets, of one generator or of all."""
        return [place for place in self.read(machine) if generator in (None, place.generator)]

    def keeps(self, variable: Variable) -> bool:
        """Whether there is any secret of the value's generator. A quick look, for fleets of which few have one."""
        files = sealed_files(variable.machine, variable.generator)
        is_any = any((self.store.folder / each.path).exists() for each in files)
        return is_any and bool(self.of(variable.machine, variable.generator))

    def has(self, variable: Variable, text: str) -> bool:
        """Whether the private half of what `variable` has is here, as far as records say."""
        return bool(self._candidates(variable, text))

    def _candidates(self, variable: Variable, text: str) -> list[Sealed]:
        found = [each for each in self.read(variable.machine).values() if _is_of(each, variable)]
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
            mend=anew(variable),
        )

    def reseal(self, texts: Mapping[Variable, str], identities: sealing.Opens) -> Resealed:
        """Encrypt anew what others than the recipients of now can open, or not all of them; all at once."""
        without_core_dumps()
        self.settle(texts)
        texts_anew: dict[SealedFile, str] = {}
        lost: dict[SealedFile, set[str]] = {}
        former: list[SealedFile] = []
        problems = []
        for place, sealed in self.read().items():
            wanted = self.recipients(place.machine)
            is_as_wanted = sealed.record is not None and set(sealed.record.recipients) == set(wanted)
            if is_as_wanted and place.leaf == self.leaf:
                continue
            try:
                texts_anew |= sealed_texts(_opened(sealed, identities), place._replace(leaf=self.leaf), wanted)
            except VarsError as error:
                problems.append(error)
                continue
            lost[place] = set(sealed.record.recipients if sealed.record else ()) - set(wanted)
            former += [place] if place.leaf != self.leaf else []
        self.store.write(texts_anew)
        self.written += texts_anew
        self._remove_files(former)
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
            "what is encrypted there is no private key", where=sealed.place.path, mend=anew(sealed.place)
        ) from None


def without_core_dumps() -> None:
    """From here on this process may have a key in its memory."""
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def _at(found: Mapping[SealedFile, Sealed], place: SealedFile) -> list[Sealed]:
    """What is there, whatever it is encrypted by."""
    return [sealed for other, sealed in found.items() if other._replace(leaf=place.leaf) == place]


def _is_of(sealed: Sealed, variable: Variable) -> bool:
    return (sealed.place.machine, sealed.place.generator) == (variable.machine, variable.generator)
