"""Machines on which Warren does not run: `managed = false` in the inventory, and who makes their keys then."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from meshes import inventory, mesh
from strategies import public_key
from warren.cli import cli
from warren.errors import UsageError
from warren.inventory.model import Inventory
from warren.inventory.read import read
from warren.names import MachineName
from warren.vars.check import missing_by_hand
from warren.vars.generate import Selection, work
from warren.vars.generators import Variable
from warren.vars.store import Reading
from warren.workspace.nix import read_nix

PHONE1, LAPTOP1, SERVER1 = MachineName("phone1"), MachineName("laptop1"), MachineName("server1")
KEYS = "wireguard-keys-vpn"
PHONES_KEY = Variable(PHONE1, KEYS, "publickey")
TEXT = """
[machines]
server1 = {}
laptop1.managed = true
phone1.managed = false
[instances.vpn]
module.name = "wireguard"
roles.controller.machines.server1.settings.endpoint = "vpn1.example.com"
roles.peer.tags.all = {}
"""
MEND = f"(wg pubkey): warren vars set phone1 {KEYS}/publickey KEY"


@pytest.fixture
def fleet() -> Inventory:
    managed = inventory(mesh("server1", "laptop1 phone1"))
    machines = {name: replace(machine, managed=name != PHONE1) for name, machine in managed.machines.items()}
    return replace(managed, machines=machines)


def warren(folder: Path, *words: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(cli, ["-f", str(folder / "warren.toml"), *words], input=stdin, standalone_mode=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "warren.toml").write_text(TEXT.replace("roles.peer.tags.all", "roles.peer.machines.phone1"))
    return tmp_path


def test_machines_are_managed_unless_they_are_not() -> None:
    text = TEXT.replace("tags.all = {}", "machines = { laptop1 = {}, phone1 = {} }")
    machines = read(text, "toml", "warren.toml").machines
    assert {name: machine.managed for name, machine in machines.items()} == {
        LAPTOP1: True,
        PHONE1: False,
        SERVER1: True,
    }


@pytest.mark.skipif(
    shutil.which("nix-instantiate") is None, reason="nix-instantiate is not installed (Debian: nix-bin)"
)
@pytest.mark.parametrize("start", ["", "inventory."])
def test_clans_machines_too(tmp_path: Path, start: str) -> None:
    (tmp_path / "clan.nix").write_text(
        f"{{ {start}machines.phone1.managed = false; {start}machines.server1 = {{ }}; {start}instances.vpn = {{ "
        'module.name = "wireguard"; roles.controller.machines.server1.settings.endpoint = "vpn1.example.com"; '
        "roles.peer.machines.phone1 = { }; }; }"
    )
    machines = read_nix(tmp_path / "clan.nix", "clan.nix").machines
    assert (machines[PHONE1].managed, machines[SERVER1].managed) == (False, True)


def test_no_machine_is_asked_for_the_key(fleet: Inventory) -> None:
    first = work(fleet, {}, Selection())
    assert {request.variable.machine for request in first.keys} == {SERVER1, LAPTOP1}
    assert first.by_hand == (PHONES_KEY,)
    assert Variable(PHONE1, "wireguard-network-vpn", "suffix") in first.values  # its address follows from its name
    assert work(fleet, {PHONES_KEY: public_key("phone1").text}, Selection()).by_hand == ()


def test_a_new_key_is_not_made_in_silence(fleet: Inventory) -> None:
    """Of all machines' new keys, its own is told to be made; where it alone is meant, that is refused."""
    texts = {PHONES_KEY: public_key("phone1").text}
    assert work(fleet, texts, Selection(regenerate=True)).by_hand == (PHONES_KEY,)
    with pytest.raises(UsageError, match='machine "phone1" is not managed') as error:
        work(fleet, texts, Selection(machines=frozenset({PHONE1}), regenerate=True))
    assert MEND in str(error.value)
    network = frozenset({"wireguard-network-vpn"})
    assert not work(fleet, texts, Selection(network, frozenset({PHONE1}), regenerate=True)).by_hand


def test_only_its_missing_key_is_a_problem(fleet: Inventory) -> None:
    (problem,) = missing_by_hand(fleet, Reading({}))
    assert problem.file == PHONES_KEY.path
    assert (problem.message, MEND in problem.mend) == ('machine "phone1" is not managed and has no key', True)
    assert missing_by_hand(fleet, Reading({PHONES_KEY: public_key("phone1").text})) == ()


def test_from_a_missing_key_to_none(folder: Path) -> None:
    said = warren(folder, "check")
    assert said.return_value == 1
    assert said.stderr.endswith(f"{MEND}\n")
    (error,) = json.loads(warren(folder, "check", "--json").stdout)["errors"]
    assert error["file"].endswith(PHONES_KEY.path)
    said = warren(folder, "vars", "generate", "--no-commit", "--machine", "phone1")
    assert (said.return_value, said.stdout) == (0, "")
    assert said.stderr.splitlines()[1].startswith("phone1 is not managed: make its key (wg genkey), ")
    key = public_key("phone1").text
    assert warren(folder, "vars", "set", "phone1", f"{KEYS}/publickey", "--no-commit", stdin=key).exit_code == 0
    assert warren(folder, "check").return_value == 0
    said = warren(folder, "vars", "generate", "--no-commit", "--machine", "phone1")
    assert said.stderr == "nothing is missing\n"
