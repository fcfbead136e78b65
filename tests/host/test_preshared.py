"""Preshared keys on their machines' disks: made by one end, taken by the other, and nothing else is taken."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from warren.errors import MachineError
from warren.host import keys, preshared
from warren.host.preshared import Own, Sealed
from warren.names import InstanceName, MachineName
from warren.wireguard.keys import PublicKey
from warren.wireguard.preshared import NO_PRESHARED_KEY, Fingerprint, fingerprint

VPN = InstanceName("vpn")
LAPTOP, SERVER = MachineName("laptop1"), MachineName("server1")


class End(NamedTuple):
    """A machine: its folder, and who it is."""

    root: Path
    own: Own

    def held(self) -> dict[MachineName, tuple[Fingerprint, ...]]:
        return preshared.held(VPN, self.root)

    @property
    def file(self) -> Path:
        return preshared.path(VPN, self.root)


class Both(NamedTuple):
    laptop: End
    server: End

    def made(self) -> Sealed:
        [sealed] = preshared.make(self.laptop.own, {SERVER: self.server.own.public_key}, self.laptop.root)
        return sealed

    def taken(self, sealed: Sealed) -> tuple[dict[MachineName, Fingerprint], dict[MachineName, str]]:
        return preshared.take(self.server.own, [sealed], self.server.root)

    def exchange(self) -> Fingerprint:
        """A key made and taken, and named by the documents of both, as the only one."""
        sealed = self.made()
        assert self.taken(sealed) == ({LAPTOP: sealed.fingerprint}, {})
        preshared.settle(VPN, [LAPTOP, SERVER], {SERVER: (sealed.fingerprint,)}, self.laptop.root)
        preshared.settle(VPN, [LAPTOP, SERVER], {LAPTOP: (sealed.fingerprint,)}, self.server.root)
        return sealed.fingerprint


@pytest.fixture
def both(tmp_path: Path) -> Both:
    ends = []
    for name in (LAPTOP, SERVER):
        root = tmp_path / name
        ends.append(End(root, Own(VPN, name, keys.ensure_key(VPN, root))))
    return Both(*ends)


def test_both_ends_have_one_key_which_is_for_root_alone(both: Both) -> None:
    assert both.laptop.held() == {}
    sealed = both.made()
    assert both.taken(sealed) == ({LAPTOP: sealed.fingerprint}, {})
    assert both.laptop.held() == {SERVER: (sealed.fingerprint,)}
    assert both.server.held() == {LAPTOP: (sealed.fingerprint,)}
    one, other = (preshared.find([sealed.fingerprint], end.root)[sealed.fingerprint] for end in both)
    assert one == other
    assert fingerprint(one.reveal()) == sealed.fingerprint
    for end in both:
        assert stat.S_IMODE(end.file.stat().st_mode) == 0o600
        assert stat.S_IMODE(end.file.parent.stat().st_mode) == 0o700
    text = repr(sealed)
    assert not any(form in text for form in (one.reveal_text(), one.reveal().hex(), repr(one.reveal())))


def test_what_is_in_no_document_yet_is_sealed_again_and_taken_again(both: Both) -> None:
    """Whoever carried it was cut short, before the other end had it or after."""
    first, second = both.made(), both.made()
    assert (first.fingerprint, first.number) == (second.fingerprint, second.number)
    assert first.sealed != second.sealed
    for sealed in (first, second, first):
        assert both.taken(sealed) == ({LAPTOP: first.fingerprint}, {})
    assert both.server.held() == {LAPTOP: (first.fingerprint,)}


def test_after_a_document_that_names_it_the_next_is_another(both: Both) -> None:
    former = both.exchange()
    sealed = both.made()
    assert sealed.fingerprint != former
    both.taken(sealed)
    assert both.laptop.held() == {SERVER: (former, sealed.fingerprint)}
    for choices in ((sealed.fingerprint, former), (sealed.fingerprint,)):
        preshared.settle(VPN, [LAPTOP, SERVER], {SERVER: choices}, both.laptop.root)
        assert set(both.laptop.held()[SERVER]) == set(choices)
    with pytest.raises(MachineError, match=f"has no preshared key {former}"):
        preshared.find([former], both.laptop.root)


def test_a_key_to_come_stays_whatever_document_is_followed_meanwhile(both: Both) -> None:
    former = both.exchange()
    to_come = both.made().fingerprint
    preshared.settle(VPN, [LAPTOP, SERVER], {SERVER: (former,)}, both.laptop.root)
    assert both.laptop.held() == {SERVER: (former, to_come)}


def test_switched_off_nothing_of_it_is_left_and_none_comes_again(both: Both) -> None:
    first = both.made()
    both.taken(first)
    for choices in ((first.fingerprint, NO_PRESHARED_KEY), (NO_PRESHARED_KEY, first.fingerprint)):
        preshared.settle(VPN, [LAPTOP, SERVER], {LAPTOP: choices}, both.server.root)
        assert both.server.held() == {LAPTOP: (first.fingerprint,)}
    preshared.settle(VPN, [LAPTOP, SERVER], {}, both.server.root)
    assert both.server.held() == {}
    assert first.fingerprint in both.server.file.read_text()
    assert all(line.endswith(" -") for line in both.server.file.read_text().splitlines())
    held, refused = both.taken(first)
    assert (held, both.server.held()) == ({}, {})
    assert "an old one comes again" in refused[LAPTOP]
    preshared.settle(VPN, [SERVER], {}, both.server.root)  # the other machine left the mesh
    assert both.server.file.read_text() == ""


def test_an_old_one_does_not_come_again(both: Both) -> None:
    old = both.made()
    both.taken(old)
    former = both.exchange()
    assert former == old.fingerprint
    both.exchange()
    held, refused = both.taken(old)
    assert held == {}
    assert "an old one comes again" in refused[LAPTOP]


def changed(sealed: bytes, place: int) -> bytes:
    return sealed[:place] + bytes([sealed[place] ^ 1]) + sealed[place + 1 :]


SPOILT: dict[str, Callable[[Sealed], Sealed]] = {
    "key": lambda each: replace(each, sealed=changed(each.sealed, 0)),
    "text": lambda each: replace(each, sealed=changed(each.sealed, 40)),
    "tag": lambda each: replace(each, sealed=changed(each.sealed, -1 + len(each.sealed))),
    "cut": lambda each: replace(each, sealed=each.sealed[:-1]),
    "empty": lambda each: replace(each, sealed=b""),
    "another number": lambda each: replace(each, number=each.number + 1),
    "another maker": lambda each: replace(each, maker=MachineName("laptop2")),
    "another maker's key": lambda each: replace(each, maker_key=PublicKey(bytes(range(32)))),
    "another fingerprint": lambda each: replace(each, fingerprint=fingerprint(b"another")),
}


@pytest.mark.parametrize("spoil", SPOILT)
def test_what_was_not_sealed_so_is_refused_and_changes_nothing(both: Both, spoil: str) -> None:
    before = both.exchange()
    content = both.server.file.read_bytes()
    spoilt = SPOILT[spoil](both.made())
    held, refused = both.taken(spoilt)
    assert held == {}
    assert "is refused" in refused[spoilt.maker]
    assert both.server.file.read_bytes() == content
    assert both.server.held() == {LAPTOP: (before,)}


def test_what_is_for_somebody_else_or_another_mesh_is_refused(both: Both, tmp_path: Path) -> None:
    sealed = both.made()
    eve = Own(VPN, SERVER, keys.ensure_key(VPN, tmp_path / "eve"))
    held, refused = preshared.take(eve, [sealed], tmp_path / "eve")
    assert (held, list(refused)) == ({}, [LAPTOP])
    home = InstanceName("home")
    (both.server.root / home).mkdir(0o700)
    (both.server.root / home / "private.key").write_bytes((both.server.root / VPN / "private.key").read_bytes())
    (both.server.root / home / "private.key").chmod(0o600)
    held, refused = preshared.take(replace(both.server.own, instance=home), [sealed], both.server.root)
    assert (held, list(refused)) == ({}, [LAPTOP])


def test_by_a_key_that_is_not_its_own_nothing_is_made_or_taken(both: Both) -> None:
    stranger = replace(both.laptop.own, public_key=both.server.own.public_key)
    with pytest.raises(MachineError, match="has no private key for"):
        preshared.make(stranger, {SERVER: both.server.own.public_key}, both.laptop.root)
    with pytest.raises(MachineError, match="shares a secret with everybody"):
        preshared.make(both.laptop.own, {SERVER: PublicKey(bytes(32))}, both.laptop.root)


@pytest.mark.parametrize(
    "content",
    [b"\xff\xfe", b"server1\n", b"server1 x used 0123456789abcdef AAAA\n", b"server1 1 odd 0123456789abcdef AAAA\n",
     b"ser ver 1 used 0123456789abcdef AAAA\n", b"server1 1 used 0123456789abcdef -\n"],
)  # fmt: skip
def test_a_broken_file_is_an_error_that_shows_nothing_of_it(both: Both, content: bytes) -> None:
    both.made()
    secret = both.laptop.file.read_text().split()[-1]
    both.laptop.file.write_bytes(both.laptop.file.read_bytes() + content)
    for act in (both.made, both.laptop.held):
        with pytest.raises(MachineError, match="not what Warren wrote here") as caught:
            act()
        assert secret not in str(caught.value)
        assert caught.value.__cause__ is None


def test_a_key_that_is_not_what_its_name_says_is_not_used(both: Both) -> None:
    sealed = both.made()
    text = both.laptop.file.read_text()
    both.laptop.file.write_text(text.replace(text.split()[-1], "A" * 43 + "="))
    with pytest.raises(MachineError, match="with server1 is broken"):
        preshared.find([sealed.fingerprint], both.laptop.root)


def test_a_file_that_others_can_read_is_refused(both: Both) -> None:
    both.made()
    both.laptop.file.chmod(0o640)
    with pytest.raises(MachineError, match="others have access: its mode is 0640"):
        both.laptop.held()


def test_what_was_cut_short_leaves_what_was_before(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    before = both.exchange()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MachineError, match="No space left"):
        both.made()
    monkeypatch.undo()
    assert both.laptop.held() == {SERVER: (before,)}
    assert [each.name for each in both.laptop.file.parent.iterdir() if each.name.startswith(".")] == []
