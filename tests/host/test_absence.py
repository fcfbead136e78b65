"""A controller asks to be left: an operator's word holds, an update's ends by itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from warren.host import absence, trial
from warren.host.trial import Trial, Tried
from warren.names import InstanceName, InterfaceName, MachineName

VPN = InstanceName("vpn")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(trial, "_BOOT", tmp_path / "run/boot")
    (tmp_path / "vpn").mkdir()
    return tmp_path


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    for module in (absence, trial):
        monkeypatch.setattr(module, "now_s", lambda: now[0])
    return now


def tried(root: Path, name: str = "vpn") -> None:
    instances = {InstanceName(name): Tried(InterfaceName(name), True)}
    trial.write(Trial("token", MachineName("server1"), instances, 60.0, None), root)


def test_an_operators_word_holds_until_the_opposite_is_said(root: Path, clock: list[float]) -> None:
    assert not absence.is_asked(VPN, root)
    absence.ask(VPN, True, root)
    clock[0] += 1e9
    assert absence.is_asked(VPN, root)
    absence.ask(VPN, False, root)
    absence.ask(VPN, False, root)
    assert not absence.is_asked(VPN, root)


def test_an_updates_word_ends_by_itself(root: Path, clock: list[float]) -> None:
    assert absence.begin_update(VPN, root)
    assert absence.is_asked(VPN, root)
    clock[0] += absence.BEGIN_WITHIN_S + 1
    assert not absence.is_asked(VPN, root)


def test_it_lasts_as_long_as_the_trial_that_came_of_it(root: Path, clock: list[float]) -> None:
    absence.begin_update(VPN, root)
    tried(root, "other")
    clock[0] += absence.BEGIN_WITHIN_S + 1
    assert not absence.is_asked(VPN, root)
    tried(root)
    assert absence.is_asked(VPN, root)
    trial.end(root)
    assert not absence.is_asked(VPN, root)


def test_it_does_not_outlive_a_reboot(root: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    absence.begin_update(VPN, root)
    monkeypatch.setattr(trial, "this_boot", lambda: "another")
    assert not absence.is_asked(VPN, root)


def test_an_update_leaves_an_operators_word_alone(root: Path, clock: list[float]) -> None:
    absence.ask(VPN, True, root)
    assert not absence.begin_update(VPN, root)
    absence.end_update(VPN, root)
    assert absence.is_asked(VPN, root)


def test_an_operators_word_takes_the_place_of_an_updates(root: Path, clock: list[float]) -> None:
    absence.begin_update(VPN, root)
    absence.ask(VPN, True, root)
    absence.end_update(VPN, root)
    clock[0] += absence.BEGIN_WITHIN_S + 1
    assert absence.is_asked(VPN, root)


def test_what_nobody_wrote_is_no_word(root: Path, clock: list[float]) -> None:
    (root / "vpn/draining").write_bytes(f"{trial.this_boot()} soon \xff".encode("latin-1"))
    assert not absence.is_asked(VPN, root)
