"""Generators: which of them an inventory has, which value each makes for which machine, and how its text reads."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from graphlib import TopologicalSorter
from hashlib import sha256
from typing import NamedTuple, Protocol, TypeAlias

from warren.inventory.model import Instance, Inventory
from warren.names import InstanceName, MachineName, is_host_name
from warren.network.addresses import parse_prefix, parse_suffix, prefix_text, suffix_text
from warren.network.document import keys_text, parse_keys
from warren.network.invitations import invitations_text, parse_invitations
from warren.network.preshared import exchanges_text, parse_exchanges
from warren.network.stored import (
    FORMER_KEY_FILE,
    INVITATIONS_FILE,
    KEY_FILES,
    NEXT_KEY_FILE,
    PREFIX_FILE,
    PRESHARED_FILE,
    PUBLIC_KEY_FILE,
    REVOKED_FILE,
    SUFFIX_FILE,
    Stored,
    keys_generator,
    network_generator,
    preshared_generator,
    value_path,
)
from warren.wireguard.keys import PublicKey


class Placed(Protocol):
    """Anything that has a place in the vars: its parts are names, and `file` says how its text is written."""

    @property
    def path(self) -> str: ...

    @property
    def file(self) -> str: ...

    def __iter__(self) -> Iterator[str]: ...


class Variable(NamedTuple):
    """One generated value, by where it is stored."""

    machine: MachineName
    generator: str
    file: str

    @property
    def path(self) -> str:
        """Relative to the folder of the inventory."""
        return value_path(*self)

    def __str__(self) -> str:
        return f"{self.machine} {self.generator}/{self.file}"


def key_variable(machine: MachineName, instance: InstanceName) -> Variable:
    """Where the machine's public key is."""
    return Variable(machine, keys_generator(instance), PUBLIC_KEY_FILE)


class SharedVariable(NamedTuple):
    """One value that belongs to no machine, by where it is stored."""

    generator: str
    file: str

    @property
    def path(self) -> str:
        """Relative to the folder of the inventory."""
        return f"vars/shared/{self.generator}/{self.file}/value"

    def __str__(self) -> str:
        return f"shared {self.generator}/{self.file}"


VALIDATION_FILE = ".validation-hash"


class Validation(NamedTuple):
    """Where it is kept what one machine's values of a generator were made of, as clan does: a hash of its inputs."""

    machine: MachineName
    generator: str

    @property
    def file(self) -> str:
        return VALIDATION_FILE

    @property
    def path(self) -> str:
        """Relative to the folder of the inventory."""
        return f"vars/per-machine/{self.machine}/{self.generator}/{VALIDATION_FILE}"


Hashes: TypeAlias = Mapping[Validation, str]


class Kind(Enum):
    """What a generator makes: keys on the machines, network values (addresses) from names."""

    KEYS = "keys"
    NETWORK = "network"


@dataclass(frozen=True, slots=True)
class Generator:
    """What makes one instance's values of one kind: one public file for each machine of the instance.

    `dependencies`: the generators whose values are there before it makes its own. `inputs`: what of the inventory a
    machine's values are made of; where that is another than it was, they are stale. A machine without any inputs has
    values that nothing in the inventory makes stale, and no hash is stored for it.
    """

    name: str
    kind: Kind
    instance: InstanceName
    files: Mapping[MachineName, str]
    dependencies: tuple[str, ...] = ()
    inputs: Mapping[MachineName, Mapping[str, str]] = field(default_factory=dict)

    def variable(self, machine: MachineName) -> Variable:
        return Variable(machine, self.name, self.files[machine])

    @property
    def variables(self) -> tuple[Variable, ...]:
        return tuple(map(self.variable, self.files))

    def validation_hash(self, machine: MachineName) -> str | None:
        """Of the machine's inputs, as clan makes it: SHA-256 of what Nix's `toJSON` writes."""
        inputs = self.inputs.get(machine)
        if not inputs:
            return None
        return sha256(json.dumps(inputs, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def generators(inventory: Inventory) -> dict[str, Generator]:
    """Every generator of the inventory by its name: addresses before keys, instance by instance."""
    return in_order(make(each) for each in inventory.instances.values() for make in (_network, _keys))


def overtaken(variable: Variable, stored: Iterable[Variable]) -> tuple[Variable, ...]:
    """What a public key that was not staged makes void: the keys that were to come after, or before, another one."""
    if variable.file != PUBLIC_KEY_FILE:
        return ()
    others = (variable._replace(file=file) for file in (NEXT_KEY_FILE, FORMER_KEY_FILE))
    return tuple(sorted(set(others) & set(stored)))


def in_order(every: Iterable[Generator]) -> dict[str, Generator]:
    """By their names, each after those that it depends on; else as they come."""
    named = {generator.name: generator for generator in every}
    order = TopologicalSorter({name: named.keys() & generator.dependencies for name, generator in named.items()})
    return {name: named[name] for name in order.static_order()}


def is_stale(generator: Generator, machine: MachineName, stored: Hashes) -> bool:
    """Whether the machine's values were made of other inputs. Without a stored hash they are not: existing
    repositories are used as they are."""
    before = stored.get(Validation(machine, generator.name))
    return before is not None and generator.validation_hash(machine) not in (None, before)


def validations(generator: Generator, machine: MachineName) -> dict[Validation, str]:
    """What is to be stored beside the machine's values; nothing where they have no inputs."""
    now = generator.validation_hash(machine)
    return {} if now is None else {Validation(machine, generator.name): now}


def _keys(instance: Instance) -> Generator:
    """Without inputs: a key is random. (In clan repositories a hash beside it would have clan make it anew.)"""
    files = dict.fromkeys(instance.members, PUBLIC_KEY_FILE)
    return Generator(keys_generator(instance.name), Kind.KEYS, instance.name, files)


def _network(instance: Instance) -> Generator:
    """The inputs are clan's own. The role is none of them: it decides which file there is."""
    files = dict.fromkeys(instance.controllers, PREFIX_FILE) | dict.fromkeys(instance.peers, SUFFIX_FILE)
    inputs = {name: {"hostname": name} for name in files}
    return Generator(network_generator(instance.name), Kind.NETWORK, instance.name, files, inputs=inputs)


_KEYS_START = keys_generator(InstanceName(""))
_NETWORK_START = network_generator(InstanceName(""))
_PRESHARED_START = preshared_generator(InstanceName(""))


def instance_of(generator: str) -> InstanceName | None:
    """The instance that a generator's name says; None where the generator is not Warren's."""
    for start in (_KEYS_START, _NETWORK_START, _PRESHARED_START):
        if generator.startswith(start) and is_host_name(generator.removeprefix(start)):
            return InstanceName(generator.removeprefix(start))
    return None


@cache  # asked for each machine's generators
def possible_files(generator: str) -> tuple[str, ...]:
    """The public files that a generator of this name can make, whatever the machine's role."""
    if instance_of(generator) is None:
        return ()
    if generator.startswith(_PRESHARED_START):
        return (PRESHARED_FILE,)
    of_keys = (*KEY_FILES, REVOKED_FILE, INVITATIONS_FILE)
    return of_keys if generator.startswith(_KEYS_START) else (PREFIX_FILE, SUFFIX_FILE)


def canonical(file: str, text: str) -> str:
    """The value as Warren writes it; ValueError says what is wrong with the text."""
    if file == PREFIX_FILE:
        return prefix_text(parse_prefix(text))
    if file == SUFFIX_FILE:
        return suffix_text(parse_suffix(text))
    if file == REVOKED_FILE:
        return keys_text(parse_keys(text))
    if file == PRESHARED_FILE:
        return exchanges_text(parse_exchanges(text))
    if file == INVITATIONS_FILE:
        return invitations_text(parse_invitations(MachineName(""), text))
    return PublicKey.parse(text).text


def same_value(variable: Variable, stored: str | None, text: str) -> bool:
    """Whether the stored text means this value: clan's texts without their zero groups are left as they are."""
    try:
        return stored is not None and canonical(variable.file, stored) == text
    except ValueError:
        return False


def file_bytes(file: str, text: str) -> bytes:
    """What the file holds for a value: keys end their line, as `wg pubkey` writes them; addresses do not, for Nix
    expressions of clan repositories glue `::1` to them."""
    in_lines = (*KEY_FILES, REVOKED_FILE, PRESHARED_FILE, INVITATIONS_FILE)
    return f"{text}\n".encode() if file in in_lines else text.encode()


def paths_of(written: Iterable[Placed]) -> list[str]:
    """What of the disk belongs to these values: their files, and the hashes of what addresses were made of."""
    paths: dict[str, None] = {}
    for variable in written:
        paths[variable.path] = None
        if isinstance(variable, Variable) and variable.generator.startswith(_NETWORK_START):
            paths[Validation(variable.machine, variable.generator).path] = None
    return list(paths)


def by_hand(variable: Variable) -> str:
    """How a machine that Warren does not run on comes to its key."""
    return (
        "make its key (wg genkey), on the machine itself if it can, and store the public half (wg pubkey): "
        f"warren vars set {variable.machine} {variable.generator}/{variable.file} KEY"
    )


def shortened(variable: Variable, text: str) -> str:
    """The value for people: of a key, its first eight characters; of a list, how long it is."""
    if variable.file == PRESHARED_FILE:
        return f"({len(text.splitlines())} of them)"
    return f"{text[:8]}…" if variable.file in KEY_FILES and len(text) > 8 else text


def stored_by_instance(texts: Mapping[Variable, str]) -> dict[InstanceName, Stored]:
    """The texts as `network` takes them."""
    files: dict[InstanceName, dict[str, dict[MachineName, str]]] = {}
    for (machine, generator, file), text in texts.items():
        instance = instance_of(generator)
        if instance is not None:
            files.setdefault(instance, {}).setdefault(file, {})[machine] = text
    return {
        instance: Stored(
            by_file.get(PREFIX_FILE, {}),
            by_file.get(SUFFIX_FILE, {}),
            by_file.get(PUBLIC_KEY_FILE, {}),
            by_file.get(NEXT_KEY_FILE, {}),
            by_file.get(FORMER_KEY_FILE, {}),
            by_file.get(REVOKED_FILE, {}),
            by_file.get(PRESHARED_FILE, {}),
            by_file.get(INVITATIONS_FILE, {}),
        )
        for instance, by_file in files.items()
    }


def leftovers(inventory: Inventory, stored: Iterable[Variable]) -> tuple[Variable, ...]:
    """Stored values that nothing in the inventory makes any more: of machines and instances that left, or whose role
    changed. They keep their addresses taken; nothing else comes of them."""
    made = {
        variable._replace(file=file)
        for generator in generators(inventory).values()
        for variable in generator.variables
        for file in ((*KEY_FILES, INVITATIONS_FILE) if generator.kind is Kind.KEYS else (variable.file,))
    }
    made |= {
        Variable(machine, preshared_generator(instance.name), PRESHARED_FILE)
        for instance in inventory.instances.values()
        for machine in instance.members
    }
    # What is revoked stays so, whoever leaves.
    return tuple(sorted(variable for variable in stored if variable not in made and variable.file != REVOKED_FILE))
