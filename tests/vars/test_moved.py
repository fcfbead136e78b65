"""Keys that are not where the inventory wants them any more: `keys` was changed, and nobody made another key yet."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from strategies import public_key
from warren.cli import cli
from warren.names import MachineName
from warren.vars.check import Stale
from warren.vars.generate import Selection, carry_out, work
from warren.vars.generators import Variable
from warren.workspace.folder import Folder, open_folder

RECIPIENT = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"  # from age's README
KEYS = "wireguard-keys-vpn"
INVENTORY = """
meta.recipients = ["RECIPIENT"]
[machines]
server1 = {}
laptop1 = {}
phone1.managed = false
[instances.vpn]
module.name = "wireguard"
roles.controller.machines.server1.settings.endpoint = "vpn1.example.com"
roles.peer.machines.laptop1 = {}
roles.peer.machines.phone1 = {}
""".replace("RECIPIENT", RECIPIENT)
IN_VAULT = ('roles.peer.machines.laptop1.settings.keys = "vault"', 'roles.peer.machines.phone1.settings.keys = "vault"')


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return put(tmp_path, *IN_VAULT)


def put(path: Path, *in_vault: str) -> Folder:
    text = INVENTORY
    for line in in_vault:
        text = text.replace(f"{line.partition('.settings')[0]} = {{}}", line)
    (path / "warren.toml").write_text(text)
    return open_folder(path / "warren.toml")


def make(folder: Folder, regenerate: bool = False) -> Folder:
    """As generate does; server1 and laptop1 have keys of their own."""
    todo = work(folder.inventory, folder.texts, Selection(regenerate=regenerate))
    carry_out(todo, folder.store, [], lambda *_: None, folder.vault)
    for request in todo.keys:
        folder.store.write({request.variable: public_key(request.variable.machine).text})
    return open_folder(folder.inventory_file)


def stale(folder: Folder) -> dict[str, Stale]:
    return {each.variable.machine: each for each in folder.findings.stale}


def test_a_key_of_the_vault_that_shall_be_the_machines_alone(folder: Folder) -> None:
    made = make(folder)
    assert (made.findings.stale, made.findings.problems) == ((), ())
    out = put(folder.path, *IN_VAULT[1:])
    assert stale(out).keys() == {"laptop1"}
    assert out.findings.problems == ()  # it is in use, and not left over
    assert stale(out)["laptop1"].reason.startswith("the vault has its private half")
    update = f"warren vars generate --service {KEYS} --regenerate --machine laptop1, then warren machines update"
    assert stale(out)["laptop1"].mend == update
    none = put(folder.path)
    assert stale(none).keys() == {"laptop1", "phone1"}
    assert "wg genkey" in stale(none)["phone1"].mend
    said = CliRunner().invoke(cli, ["-f", str(none.inventory_file), "vars", "check"], standalone_mode=False)
    assert said.return_value == 1
    assert f"stale: laptop1 {KEYS}/publickey: the vault has" in said.stderr
    after = make(none, regenerate=True)
    assert "laptop1" not in stale(after)


def test_a_key_of_a_machine_that_shall_be_in_the_vault(tmp_path: Path) -> None:
    outside = put(tmp_path)
    make(outside)
    phone = Variable(MachineName("phone1"), KEYS, "publickey")
    outside.store.write({phone: public_key("phone1").text})
    assert put(tmp_path).findings.stale == ()
    inside = put(tmp_path, *IN_VAULT)
    assert stale(inside).keys() == {"laptop1", "phone1"}
    assert inside.findings.problems == ()
    assert {each.reason for each in stale(inside).values()} == {
        "it was not made here, and the inventory says that the vault has it"
    }
    assert make(inside, regenerate=True).findings.stale == ()


def test_a_secret_of_another_key_is_not_its_private_half(folder: Folder) -> None:
    made = make(folder)
    made.store.write({Variable(MachineName("laptop1"), KEYS, "publickey"): public_key("laptop1").text})
    assert put(folder.path, *IN_VAULT[1:]).findings.stale == ()
