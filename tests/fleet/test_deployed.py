"""Which values machines have, as the record knows and as machines say; nobody is suspected without a reason."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fleet.fleets import FOLDER, OPERATOR, Fleet, installed_fleet
from strategies import public_key
from warren.cli import cli
from warren.errors import MachineError
from warren.fleet.deployed import Deployment, Different, HeldKeys, comparable, compare
from warren.fleet.plans import own_values, wanted
from warren.fleet.preshared import preshared_lines
from warren.fleet.record import Record
from warren.names import InstanceName, MachineName
from warren.vars.generate import Selection, carry_out, work
from warren.vars.generators import Variable, generators
from warren.workspace.folder import Folder, open_folder

INVENTORY = """
[machines]
server1 = {}
laptop1 = {}
laptop2 = {}
phone1.managed = false
old1.expires = "2020-01-01"
[instances.vpn]
module.name = "wireguard"
roles.controller.machines.server1.settings.endpoint = "vpn1.example.com"
roles.peer.machines = { laptop1 = {}, laptop2 = {}, phone1 = {}, old1 = {} }
"""
VPN = InstanceName("vpn")
LAPTOP1 = MachineName("laptop1")
KEYS, NETWORK = "wireguard-keys-vpn", "wireguard-network-vpn"
KEY = Variable(LAPTOP1, KEYS, "publickey")
SUFFIX = Variable(LAPTOP1, NETWORK, "suffix")
OTHER = public_key("other")


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Everything is generated."""
    (tmp_path / "warren.toml").write_text(INVENTORY)
    made = open_folder(tmp_path / "warren.toml")
    carry_out(work(made.inventory, {}, Selection()), made.store, [], lambda *_: None)
    keys = generators(made.inventory)[KEYS].variables
    made.store.write({each: public_key(each.machine).text for each in keys})
    return reopened(made)


def reopened(folder: Folder) -> Folder:
    return open_folder(folder.inventory_file)


def confirm(folder: Folder, *machines: str, with_values: bool = True) -> None:
    """What an update notes."""
    record = Record(folder.store)
    documents = {name: record.with_serial(each) for name, each in folder.documents.items()}
    record.publish(documents.values())
    for name in map(MachineName, machines):
        values = {VPN: own_values(documents[VPN], name)} if with_values else None
        record.acknowledge(name, {VPN: wanted(documents)[name, VPN]}, values)


def compared(folder: Folder, **held: HeldKeys | MachineError) -> Deployment:
    folder = reopened(folder)
    return compare(folder, comparable(folder), {MachineName(name): keys for name, keys in held.items()})


def test_before_the_first_update_nobody_is_late(folder: Folder) -> None:
    assert compared(folder) == Deployment()


def test_who_was_never_brought_a_value_and_whom_nobody_brings_any(folder: Folder) -> None:
    confirm(folder, "server1", "laptop2")
    assert compared(folder) == Deployment(not_deployed=(SUFFIX, KEY))
    confirm(folder, "laptop1")
    assert compared(folder) == Deployment()


def test_a_record_without_values_suspects_nobody(folder: Folder) -> None:
    confirm(folder, "server1", "laptop1", "laptop2", with_values=False)
    folder.store.write({KEY: OTHER.text})
    assert compared(folder) == Deployment()


def test_values_that_were_not_said_are_not_known_any_more(folder: Folder) -> None:
    """As of a machine that joined with another key: what it confirmed before is no reason to suspect it."""
    confirm(folder, "server1", "laptop1", "laptop2")
    folder.store.write({KEY: OTHER.text})
    gone = Record(folder.store).acknowledge(LAPTOP1, {VPN: "fetches"})
    assert [variable.file for variable in gone] == ["plan", "values"]
    assert compared(folder) == Deployment()


def test_an_address_that_was_changed_is_not_deployed_however_it_is_written(folder: Folder) -> None:
    confirm(folder, "server1", "laptop1", "laptop2")
    text = folder.texts[SUFFIX]
    folder.store.write({SUFFIX: text.upper()})
    assert compared(folder) == Deployment()
    folder.store.write({SUFFIX: "1:2:3:4"})
    assert compared(folder) == Deployment(not_deployed=(SUFFIX,))


def test_a_key_that_the_machine_never_confirmed_is_another_one_there(folder: Folder) -> None:
    confirm(folder, "server1", "laptop1", "laptop2")
    folder.store.write({KEY: OTHER.text})
    (different,) = compared(folder).different
    assert different == Different(KEY, public_key("laptop1").text, False)
    assert different.reason == f"the machine had {public_key('laptop1').text[:8]}… when it was updated last"
    assert different.mend.startswith("warren vars check --ask --machine laptop1 ")


def test_the_phases_of_a_rotation_are_no_difference(folder: Folder) -> None:
    """Staged, switched and not yet there, switched there, done."""
    confirm(folder, "server1", "laptop1", "laptop2")
    old, new = public_key("laptop1"), public_key("laptop1", "next")
    staged, former = KEY._replace(file="nextkey"), KEY._replace(file="formerkey")
    folder.store.write({staged: new.text})
    assert compared(folder, laptop1={VPN: [old, new]}) == Deployment()
    folder.store.write({former: old.text, KEY: new.text})
    folder.store.delete([staged])
    assert compared(folder) == compared(folder, laptop1={VPN: [old, new]}) == Deployment(not_deployed=(KEY,))
    confirm(reopened(folder), "laptop1")
    assert compared(folder, laptop1={VPN: [new]}) == Deployment()
    folder.store.delete([former])
    assert compared(folder, laptop1={VPN: [new]}) == Deployment()


def test_what_a_machine_says_counts_more_than_what_it_confirmed(folder: Folder) -> None:
    confirm(folder, "server1", "laptop1", "laptop2")
    own = public_key("laptop1")
    assert compared(folder, laptop1={VPN: [own]}) == Deployment()
    (different,) = compared(folder, laptop1={VPN: [OTHER, public_key("next")]}).different
    assert different == Different(KEY, OTHER.text, True)
    assert f"warren vars set laptop1 {KEYS}/publickey {OTHER.text}" in different.mend
    nothing: tuple[HeldKeys, ...] = ({VPN: []}, {})
    for held in nothing:
        (different,) = compared(folder, laptop1=held).different
        assert different.reason == "the machine has no key"
        assert different.mend.startswith(f"warren vars generate --service {KEYS} --regenerate --at-once --machine")
    folder.store.write({KEY: OTHER.text})  # as `vars set` stores what it said
    assert compared(folder, laptop1={VPN: [OTHER]}) == Deployment(not_deployed=(KEY,))


def test_a_machine_is_asked_before_anything_was_published_too(folder: Folder) -> None:
    assert compared(folder, laptop1={VPN: [OTHER]}).different == (Different(KEY, OTHER.text, True),)


def test_who_does_not_answer_is_told_and_judged_by_the_record(folder: Folder) -> None:
    confirm(folder, "server1", "laptop2")
    found = compared(folder, laptop1=MachineError("no route", where="laptop1"))
    assert found == Deployment((SUFFIX, KEY), failed={LAPTOP1: "laptop1: no route"})


def test_what_is_revoked_broken_or_missing_is_not_compared(folder: Folder) -> None:
    confirm(folder, "server1", "laptop2")
    folder.store.write({SUFFIX: "half", KEY: "half"})
    assert compared(folder) == Deployment()
    folder.store.delete([KEY])
    folder.store.write({KEY._replace(file="revoked"): public_key("laptop1").text, SUFFIX: "1:2:3:4"})
    assert compared(folder) == Deployment()


def test_whatever_the_record_holds_is_no_crash(folder: Folder) -> None:
    confirm(folder, "server1", "laptop1", "laptop2")
    noted = folder.path / "vars/per-machine/laptop1/wireguard-document-vpn/values/value"
    for text in ("", "publickey", "\n\n", "publickey  \nsuffix", "x" * 999):
        noted.write_text(text)
        assert compared(folder) == Deployment(not_deployed=(SUFFIX, KEY))


def test_only_what_changed_is_written_into_the_record(folder: Folder) -> None:
    record = Record(folder.store)
    values = {VPN: own_values(folder.documents[VPN], LAPTOP1)}
    first = record.acknowledge(LAPTOP1, {VPN: "1"}, values)
    assert [variable.file for variable in first] == ["plan", "values"]
    assert [variable.file for variable in record.acknowledge(LAPTOP1, {VPN: "2"}, values)] == ["plan"]
    assert record.confirmed_values() == {(LAPTOP1, VPN): values[VPN]}


# As a command


def warren(folder: Folder, *words: str) -> Result:
    return CliRunner().invoke(cli, ["-f", str(folder.inventory_file), "vars", "check", *words], standalone_mode=False)


def test_each_state_has_its_exit_code_and_its_list(folder: Folder) -> None:
    assert (warren(folder).return_value, warren(folder).stderr) == (0, "")
    confirm(folder, "server1", "laptop2")
    said = warren(folder)
    assert said.return_value == 3
    assert said.stderr == (f"not deployed: {SUFFIX}\nnot deployed: {KEY}\nmend: warren machines update laptop1\n")
    tree = json.loads(warren(folder, "--json").stdout)
    assert tree["errors"] == tree["missing"] == tree["different"] == []
    assert tree["not_deployed"][0] == {**SUFFIX._asdict(), "mend": "warren machines update laptop1"}
    confirm(folder, "laptop1")
    folder.store.write({KEY: OTHER.text})
    assert warren(folder).return_value == 1
    (different,) = json.loads(warren(folder, "--json").stdout)["different"]
    assert (different["there"], different["asked"]) == (public_key("laptop1").text, False)
    assert [error["message"] for error in json.loads(warren(folder, "--json").stdout)["errors"]] == [
        different["reason"]
    ]


def test_whom_ssh_does_not_reach_is_not_asked(folder: Folder) -> None:
    folder.inventory_file.write_text(INVENTORY.replace("laptop1 = {}", "laptop1.deploy.pull = true", 1))
    said = warren(folder, "--ask", "--machine", "laptop1")
    assert (said.return_value, said.stderr) == (0, "")


def test_of_preshared_keys_that_no_update_makes_none_is_promised(folder: Folder) -> None:
    text = INVENTORY.replace('"wireguard"', '"wireguard"\npsk = true')
    folder.inventory_file.write_text(text)
    record = Record(folder.store)
    record.publish([record.with_serial(each) for each in reopened(folder).documents.values()])
    assert preshared_lines(reopened(folder)) == ["vpn: 2 pairs without a preshared key (warren machines update)"]
    folder.inventory_file.write_text(text.replace("laptop1 = {}", "laptop1.deploy.pull = true", 1))
    record.acknowledge(LAPTOP1, {VPN: wanted(reopened(folder).documents)[LAPTOP1, VPN]})
    assert preshared_lines(reopened(folder)) == [
        "vpn: 1 pair without a preshared key (warren machines update)",
        "vpn: no preshared keys with laptop1: not visited over ssh (deploy.pull)",
    ]


def test_only_what_is_asked_for(folder: Folder) -> None:
    confirm(folder, "server1", "laptop2")
    folder.store.delete([Variable(MachineName("laptop2"), KEYS, "publickey")])
    folder.store.write({Variable(MachineName("server1"), NETWORK, "prefix"): "half"})
    (folder.path / Variable(MachineName("server1"), KEYS, "publickey").path).write_bytes(b"\xff")
    codes = {
        ("--machine", "laptop1"): 3,
        ("--machine", "laptop2"): 1,
        ("--machine", "laptop2", "--service", NETWORK): 0,
        ("--machine", "laptop2", "--machine", "laptop1", "--generator", NETWORK): 3,
        ("--machine", "server1"): 1,
        ("--service", KEYS, "--machine", "phone1"): 0,
        ("--service", KEYS): 1,
    }
    assert {words: warren(folder, *words).return_value for words in codes} == codes
    assert "server1" not in warren(folder, "--machine", "laptop1").stderr
    for words, hint in ((("--machine", "laptop3"), "laptop"), (("--service", "wireguard-key-vpn"), KEYS)):
        refused = warren(folder, *words)
        assert getattr(refused.exception, "exit_code", None) == 2
        assert f'did you mean "{hint}' in str(refused.exception)


# On machines


FLEET = """
[machines.server1]
deploy.host = "root@server1"
[machines.laptop1]
[machines.laptop2]
[instances.vpn]
module.name = "wireguard"
roles.controller.machines.server1.settings.endpoint = "server1"
roles.peer.machines = { laptop1 = {}, laptop2 = {} }
"""


@pytest.fixture(scope="module")
def three() -> Iterator[Fleet]:
    with installed_fleet(FLEET, ("server1", "laptop1", "laptop2")) as made:
        yield made


@pytest.mark.root
@pytest.mark.lab
def test_machines_are_asked_and_nothing_is_changed_there(three: Fleet) -> None:
    assert three.warren("vars", "check", "--ask").err == ""
    assert three.sh(OPERATOR, f"git -C {FOLDER} status --porcelain vars") == ""
    vars_key = three.warren("vars", "get", "laptop1", f"{KEYS}/publickey").out

    # A machine that was given a key by hand.
    new = three.sh("laptop1", "warren machine keygen vpn --replace")
    held = three.sh("laptop1", "wg pubkey < /var/lib/warren/vpn/private.key").strip()
    assert held in new
    before = three.sh("laptop1", "find /var/lib/warren -type f -exec sha256sum {} + | sort")
    said = three.warren("vars", "check", "--ask", code=1)
    assert f"different: {KEY}: the machine has {held[:8]}…" in said.err
    assert three.warren("vars", "check").err == ""  # nobody was asked, and it had confirmed that
    (different,) = json.loads(three.warren("vars", "check", "--ask", "--json", code=1).out)["different"]
    assert (different["machine"], different["there"], different["asked"]) == ("laptop1", held, True)
    assert three.warren("vars", "check", "--ask", "--machine", "laptop2").err == ""
    assert three.sh("laptop1", "find /var/lib/warren -type f -exec sha256sum {} + | sort") == before

    # What the mend says mends it.
    three.warren("vars", "set", "laptop1", f"{KEYS}/publickey", held)
    assert f"not deployed: {KEY}" in three.warren("vars", "check", "--ask", code=3).err
    three.warren("machines", "update")
    assert three.warren("vars", "check", "--ask").err == ""
    assert three.warren("vars", "get", "laptop1", f"{KEYS}/publickey").out != vars_key
    assert three.failing([("laptop1", "laptop2"), ("laptop2", "laptop1")]) == []


@pytest.mark.root
@pytest.mark.lab
def test_a_machine_without_its_key_and_one_that_does_not_answer(three: Fleet) -> None:
    three.sh("laptop2", "mv /var/lib/warren/vpn/private.key /root/")
    said = three.warren("vars", "check", "--ask", "--machine", "laptop2", code=1)
    assert "the machine has no key" in said.err
    assert not three.sh("laptop2", "ls /var/lib/warren/vpn | grep private || true")
    three.sh("laptop2", "mv /root/private.key /var/lib/warren/vpn/; chmod 644 /var/lib/warren/vpn/private.key")
    said = three.warren("vars", "check", "--ask", "--machine", "laptop2", code=4)
    assert "others have access" in said.err
    three.sh("laptop2", "chmod 600 /var/lib/warren/vpn/private.key")
    three.kill("laptop2")
    tree = json.loads(three.warren("vars", "check", "--ask", "--json", code=4).out)
    assert [each["machine"] for each in tree["failed"]] == ["laptop2"]
    assert tree["errors"] == []
    three.revive("laptop2")
