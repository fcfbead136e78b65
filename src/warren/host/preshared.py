"""This machine's preshared keys. It makes those of some pairs and is brought the others sealed; they leave it sealed
alone.

<instance>/preshared.keys    a line for each: other end, number, state, fingerprint, key
                             staged   held by this end, named by no document that was followed here
                             used     named by one
                             gone     the key is not kept, its number is: what is older is not taken again
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from warren.errors import MachineError
from warren.host import files, keys, state
from warren.names import InstanceName, MachineName, is_host_name
from warren.network.preshared import Choices
from warren.wireguard.keys import KEY_BYTES, PresharedKey, PrivateKey, PublicKey
from warren.wireguard.preshared import Fingerprint, Label, fingerprint, parse_fingerprint

MODE = 0o600

_STAGED, _USED, _GONE = "staged", "used", "gone"
_STATES = (_STAGED, _USED, _GONE)
_NOTHING = "-"


class _Line(NamedTuple):
    """One line of the file, all of it text."""

    other: MachineName
    number: int
    state: str
    fingerprint: Fingerprint
    key: str  # base64

    @property
    def gone(self) -> _Line:
        return self._replace(state=_GONE, key=_NOTHING)


@dataclass(frozen=True, slots=True)
class Sealed:
    """A key on its way. `maker_key`: of the end that made it; the other one names its own."""

    maker: MachineName
    maker_key: PublicKey
    other: MachineName
    number: int
    fingerprint: Fingerprint
    sealed: bytes


@dataclass(frozen=True, slots=True)
class Own:
    """This end: who it is in which instance, and by which of its keys it is known there."""

    instance: InstanceName
    machine: MachineName
    public_key: PublicKey


def path(instance: InstanceName, root: Path = state.ROOT) -> Path:
    return state.instance_folder(instance, root) / state.PRESHARED_FILE


def held(instance: InstanceName, root: Path = state.ROOT) -> dict[MachineName, tuple[Fingerprint, ...]]:
    """The keys that there are, by the other end, oldest first."""
    found: dict[MachineName, tuple[Fingerprint, ...]] = {}
    for line in _read(instance, root):
        if line.state != _GONE:
            found[line.other] = (*found.get(line.other, ()), line.fingerprint)
    return found


def find(names: Iterable[Fingerprint], root: Path = state.ROOT) -> dict[Fingerprint, PresharedKey]:
    """The keys of these names, in whatever instance; MachineError where one is missing."""
    wanted = set(names)
    found = {
        line.fingerprint: _key(line, path(instance, root))
        for instance in (state.instances_with(state.PRESHARED_FILE, root) if wanted else ())
        for line in _read(instance, root)
        if line.fingerprint in wanted and line.state != _GONE
    }
    if missing := wanted - found.keys():
        raise MachineError(f"this machine has no preshared key {min(missing)}", where=str(root))
    return found


def make(own: Own, others: Mapping[MachineName, PublicKey], root: Path = state.ROOT) -> list[Sealed]:
    """Keys for these other ends, each sealed for its own; on disk when this returns.

    One that was made before and is in no document yet is sealed again: whoever was cut short goes on.
    """
    private_key = _private_key(own, root)
    with files.edit(path(own.instance, root)) as file:
        lines = _parsed(file, path(own.instance, root))
        made = {other: _staged(lines, other) or _new(lines, other) for other in others}
        known = set(lines)
        _write(file, [*lines, *(line for line in made.values() if line not in known)])
    return [_sealed(own, private_key, made[other], key) for other, key in others.items()]


def take(
    own: Own, brought: Iterable[Sealed], root: Path = state.ROOT
) -> tuple[dict[MachineName, Fingerprint], dict[MachineName, str]]:
    """Keep what was sealed for this end by each maker; what is held now, and why something was refused."""
    private_key = _private_key(own, root)
    taken: dict[MachineName, Fingerprint] = {}
    refused: dict[MachineName, str] = {}
    with files.edit(path(own.instance, root)) as file:
        lines = _parsed(file, path(own.instance, root))
        for each in brought:
            try:
                line = _opened(own, private_key, each)
                _check_new(lines, line)
            except ValueError as error:
                refused[each.maker] = f"the preshared key from {each.maker} is refused: {error}"
                continue
            if not any(_is_same(known, line) for known in lines):
                lines.append(line)
            taken[each.maker] = line.fingerprint
        _write(file, lines)
    return taken, refused


def settle(
    instance: InstanceName, members: Iterable[MachineName], named: Mapping[MachineName, Choices],
    root: Path = state.ROOT,
) -> None:  # fmt: skip
    """A document holds for good that names these keys: what it replaced is gone for good."""
    place = path(instance, root)
    if not place.exists():
        return
    lines = _read(instance, root)
    after = _settled(lines, frozenset(members), named)
    if after != lines:
        with files.edit(place) as file:
            _write(file, _settled(_parsed(file, place), frozenset(members), named))


def _settled(lines: list[_Line], members: frozenset[MachineName], named: Mapping[MachineName, Choices]) -> list[_Line]:
    in_use: dict[MachineName, int] = {}
    for line in lines:
        if line.fingerprint in named.get(line.other, ()):
            in_use[line.other] = max(in_use.get(line.other, 0), line.number)
    after: dict[tuple[MachineName, Fingerprint], _Line] = {}
    last_gone: dict[MachineName, _Line] = {}
    for line in lines:
        if line.other not in members:
            continue
        if line.fingerprint in named.get(line.other, ()) and line.state != _GONE:
            after[line.other, line.fingerprint] = line._replace(state=_USED)
        elif line.state == _STAGED and line.number > in_use.get(line.other, 0):
            after[line.other, line.fingerprint] = line
        elif line.other not in last_gone or line.number > last_gone[line.other].number:
            last_gone[line.other] = line.gone
    return [*last_gone.values(), *after.values()]


def _private_key(own: Own, root: Path) -> PrivateKey:
    keys.without_core_dumps()
    private_key = keys.own_keys(own.instance, root).get(own.public_key)
    if private_key is None:
        raise MachineError(
            f"this machine has no private key for {own.public_key}",
            where=own.instance,
            mend="bring the vars of here and there together: warren vars check",
        )
    return private_key


def _staged(lines: Iterable[_Line], other: MachineName) -> _Line | None:
    """The newest of a pair, if no document has named it yet."""
    newest = max((line for line in lines if line.other == other), key=lambda line: line.number, default=None)
    return newest if newest is not None and newest.state == _STAGED else None


def _new(lines: Iterable[_Line], other: MachineName) -> _Line:
    key = PresharedKey(secrets.token_bytes(KEY_BYTES))
    before = max((line.number for line in lines if line.other == other), default=0)
    # By the clock, so that a machine that lost this file begins behind what it made before.
    number = max(before + 1, time.time_ns() // 1_000_000)
    return _Line(other, number, _STAGED, fingerprint(key.reveal()), key.reveal_text())


def _label(own: Own, sealed: Sealed) -> Label:
    return Label(own.instance, sealed.maker, sealed.maker_key, own.machine, own.public_key, sealed.number)


def _sealed(own: Own, private_key: PrivateKey, line: _Line, other_key: PublicKey) -> Sealed:
    label = Label(own.instance, own.machine, own.public_key, line.other, other_key, line.number)
    ephemeral = PrivateKey(secrets.token_bytes(KEY_BYTES))
    try:
        sealed = label.sealed(PresharedKey.parse(line.key), private_key, ephemeral)
    except ValueError as error:
        raise MachineError(f"nothing can be sealed for {line.other}: {error}", where=own.instance) from None
    return Sealed(own.machine, own.public_key, line.other, line.number, line.fingerprint, sealed)


def _opened(own: Own, private_key: PrivateKey, brought: Sealed) -> _Line:
    """ValueError where it is not what it says."""
    key = _label(own, brought).opened(brought.sealed, private_key)
    name = fingerprint(key.reveal())
    if name != brought.fingerprint:
        raise ValueError(f"its fingerprint is {name}, not {brought.fingerprint}")
    return _Line(brought.maker, brought.number, _STAGED, name, key.reveal_text())


def _check_new(lines: Iterable[_Line], line: _Line) -> None:
    """ValueError where the pair has had a newer one already: an old one comes again."""
    newest = max((each for each in lines if each.other == line.other), key=lambda each: each.number, default=None)
    if newest is not None and newest.number >= line.number and not (_is_same(newest, line)):
        raise ValueError("a newer one was here already: an old one comes again")


def _is_same(one: _Line, other: _Line) -> bool:
    is_one = (one.other, one.number, one.fingerprint) == (other.other, other.number, other.fingerprint)
    return is_one and one.state != _GONE


def _read(instance: InstanceName, root: Path) -> list[_Line]:
    place = path(instance, root)
    if not place.exists():
        return []
    with files.edit(place) as file:
        return _parsed(file, place)


def _parsed(file: files.File, place: Path) -> list[_Line]:
    if file.content is None:
        return []
    keys.check_private(file.status, place)
    try:
        return [_parsed_line(line) for line in file.content.decode("ascii").splitlines()]
    except ValueError:  # whose text may have a key in it
        raise MachineError(
            "this is not what Warren wrote here",
            where=str(place),
            mend=f"put it back from a backup; or rm {place}, and have new ones made: "
            "warren vars generate --service wireguard-psk-INSTANCE --regenerate --at-once --machine NAME",
        ) from None


def _parsed_line(line: str) -> _Line:
    other, number, state_text, name, key = line.split(" ")
    if not is_host_name(other) or state_text not in _STATES or (key == _NOTHING) != (state_text == _GONE):
        raise ValueError("no line of ours")
    return _Line(MachineName(other), int(number), state_text, parse_fingerprint(name), key)


def _key(line: _Line, place: Path) -> PresharedKey:
    try:
        key = PresharedKey.parse(line.key)
    except ValueError:
        key = None
    if key is None or fingerprint(key.reveal()) != line.fingerprint:
        raise MachineError(f"the preshared key with {line.other} is broken", where=str(place))
    return key


def _write(file: files.File, lines: Iterable[_Line]) -> None:
    file.replace("".join(f"{' '.join(map(str, line))}\n" for line in lines).encode("ascii"), mode=MODE)
