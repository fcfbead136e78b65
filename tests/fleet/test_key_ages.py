"""How old a key is: git knows, from before anybody asked; where there is no git, its file does."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from strategies import public_key
from warren.fleet.key_ages import DAY_S, key_ages_s, too_old, too_old_lines
from warren.names import InstanceName, MachineName
from warren.vars.generators import Variable
from warren.workspace.folder import Folder, open_folder

INVENTORY = """\
meta.max_key_age_days = 90

[machines]
server1 = {}
laptop1 = {}
phone1.managed = false

[instances.vpn]
module.name = "wireguard"
roles.controller.machines.server1.settings.endpoint = "vpn1.example.com"
roles.peer.machines.laptop1 = {}
roles.peer.machines.phone1 = {}
"""
NOW_S = 1_800_000_000
VPN = InstanceName("vpn")


def git(folder: Path, *words: str, at_unix_s: float = NOW_S) -> None:
    at = f"{at_unix_s:.0f} +0000"
    environment = {**os.environ, "GIT_AUTHOR_DATE": at, "GIT_COMMITTER_DATE": at, "GIT_CONFIG_GLOBAL": os.devnull}
    identity = ("-c", "user.name=Olga", "-c", "user.email=olga@example.com")
    subprocess.run(("git", *identity, *words), cwd=folder, env=environment, check=True, capture_output=True)


def store(folder: Path, machine: str, file: str = "publickey", salt: str = "") -> None:
    variable = Variable(MachineName(machine), "wireguard-keys-vpn", file)
    open_folder(folder / "warren.toml").store.write({variable: public_key(machine, salt).text})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Deeper than the repository, as in a clan's."""
    folder = tmp_path / "fleet"
    folder.mkdir()
    (folder / "warren.toml").write_text(INVENTORY)
    for machine in ("server1", "laptop1", "phone1"):
        store(folder, machine)
    return folder


def committed(folder: Path, days_ago: float, message: str = "keys") -> None:
    git(folder, "add", "-A", at_unix_s=NOW_S)
    git(folder, "commit", "-m", message, at_unix_s=NOW_S - days_ago * DAY_S)


def ages_days(folder: Path) -> dict[str, float]:
    ages = key_ages_s(opened(folder), NOW_S)
    return {machine: age_s / DAY_S for (machine, _), age_s in ages.items()}


def opened(folder: Path) -> Folder:
    return open_folder(folder / "warren.toml")


def test_a_key_is_as_old_as_its_last_change_in_git(folder: Path) -> None:
    git(folder.parent, "init", "-q")
    committed(folder, 200)
    store(folder, "laptop1", salt="second")
    committed(folder, 30)
    assert ages_days(folder) == {"server1": 200, "laptop1": 30}
    assert too_old(opened(folder), NOW_S) == {VPN: ["server1"]}
    assert too_old(opened(folder), NOW_S, 10 * DAY_S) == {VPN: ["server1", "laptop1"]}
    assert too_old_lines(opened(folder), NOW_S) == ["keys older than 90 days in vpn: server1 (warren vars rotate)"]


def test_without_git_a_key_is_as_old_as_its_file(folder: Path) -> None:
    path = folder / "vars/per-machine/laptop1/wireguard-keys-vpn/publickey/value"
    os.utime(path, (NOW_S, NOW_S - 100 * DAY_S))
    assert ages_days(folder)["laptop1"] == 100


def test_a_key_that_is_on_its_way_is_left_alone(folder: Path) -> None:
    git(folder.parent, "init", "-q")
    committed(folder, 200)
    store(folder, "server1", "nextkey", "next")
    store(folder, "laptop1", "formerkey", "former")
    assert ages_days(folder) == {}


def test_without_a_limit_no_key_is_too_old(folder: Path) -> None:
    git(folder.parent, "init", "-q")
    committed(folder, 2000)
    (folder / "warren.toml").write_text(INVENTORY.replace("meta.max_key_age_days = 90\n", ""))
    assert too_old(opened(folder), NOW_S) == {}
