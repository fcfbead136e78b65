"""`warren vars fix` loses nothing: what somebody uses stays, what is doubtful is left, any part of a run is no harm."""

import json
import subprocess
from collections.abc import Mapping
from hashlib import sha256
from itertools import count
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from meshes import inventory, mesh
from strategies import inventories, public_key
from vars.test_store import killed_before_change, tree
from warren.cli import cli
from warren.fleet.plans import own_values, wanted
from warren.fleet.record import Record
from warren.inventory.model import Inventory
from warren.names import InstanceName, MachineName
from warren.vars.check import Scope, examine
from warren.vars.fix import repair, unused, works
from warren.vars.generate import Selection, work
from warren.vars.generators import Validation, Variable, canonical, generators
from warren.vars.store import Reading, Store
from warren.workspace.folder import Folder, open_folder

VPN = inventory(mesh("gw26 server1", "laptop1 laptop2"))
NETWORK, KEYS = "wireguard-network-vpn", "wireguard-keys-vpn"
EVERYTHING = Scope()


def variable(machine: str, file: str) -> Variable:
    return Variable(MachineName(machine), KEYS if file.endswith("key") else NETWORK, file)


SUFFIX, KEY = variable("laptop1", "suffix"), variable("laptop1", "publickey")
PREFIX = variable("gw26", "prefix")


def made(fleet: Inventory) -> Reading:
    """Everything."""
    values = work(fleet, {}, Selection())
    keys = [each for each in generators(fleet).values() if each.kind.value == "keys"]
    texts = {each: public_key(each.machine, each.generator).text for generator in keys for each in generator.variables}
    return Reading({**values.values, **texts}, (), values.hashes)


def mended(fleet: Inventory, reading: Reading, remembered: Mapping[Variable, str] | None = None) -> Reading:
    """What is stored after a run."""
    after = repair(fleet, reading, EVERYTHING, remembered or {}).applied_to(reading)
    texts, hashes = dict(after.texts), dict(after.hashes)
    for each in works(fleet, after, EVERYTHING):
        texts |= each.values
        hashes |= each.hashes
        texts |= {request.variable: public_key(request.variable.machine, "new").text for request in each.keys}
    return Reading(texts, reading.problems, hashes)


def meaning(variable: Variable, text: str) -> str | None:
    try:
        return canonical(variable.file, text)
    except ValueError:
        return None


def damaged(data: st.DataObject, reading: Reading) -> Reading:
    """Half texts, other texts, no texts, other hashes, no hashes; roles that were others once."""
    texts, hashes = dict(reading.texts), dict(reading.hashes)
    for each in data.draw(st.sets(st.sampled_from(sorted(texts)))):
        match data.draw(st.sampled_from(["half", "gone", "other", "role"])):
            case "half":
                texts[each] = texts[each][: data.draw(st.integers(0, len(texts[each])))]
            case "gone":
                del texts[each]
            case "role" if each.generator.startswith("wireguard-network"):
                other = "suffix" if each.file == "prefix" else "prefix"
                texts[each._replace(file=other)] = texts.pop(each)
            case _:
                texts[each] = data.draw(st.sampled_from([*reading.texts.values(), "fd00:1", "fd00:1:2::", "::", ""]))
    for validation in data.draw(st.sets(st.sampled_from(sorted(hashes)))) if hashes else ():
        hashes[validation] = data.draw(st.text(max_size=3))
    return Reading(texts, (), hashes)


@given(inventories(), st.data())
def test_no_value_that_can_be_read_comes_to_mean_another_one(fleet: Inventory, data: st.DataObject) -> None:
    before = damaged(data, made(fleet))
    after = mended(fleet, before)
    for each, text in before.texts.items():
        if meaning(each, text) is not None:
            assert meaning(each, after.texts[each]) == meaning(each, text)
    assert {each.file for each in examine(fleet, after).problems} <= {
        each.file for each in examine(fleet, before).problems
    }


@given(inventories(), st.data())
def test_a_second_run_has_nothing_to_do(fleet: Inventory, data: st.DataObject) -> None:
    after = mended(fleet, damaged(data, made(fleet)))
    again = repair(fleet, after, EVERYTHING, {})
    assert (again.texts, again.hashes) == ({}, {})
    assert [(each.values, each.keys) for each in works(fleet, after, EVERYTHING) if each.values or each.keys] == []


@given(inventories(), st.data())
def test_what_machines_confirmed_brings_everything_back(fleet: Inventory, data: st.DataObject) -> None:
    """Half of any text is gone: with the record, nothing is lost."""
    whole = made(fleet)
    halves = data.draw(st.sets(st.sampled_from(sorted(whole.texts))))
    broken = Reading({each: "half" if each in halves else text for each, text in whole.texts.items()}, (), whole.hashes)
    assert mended(fleet, broken, whole.texts) == whole


@pytest.mark.parametrize(
    ("text", "becomes"),
    [
        ("fd28:387a", "doubtful"),  # of another instance, or half of it
        ("LOST", "WHOLE"),
        ("LOST::", "WHOLE"),
        ("LOST::/56", "WHOLE"),
        ("WHOLE::/56", "WHOLE"),
        ("WHOLE", None),
        ("fdeb:f20c:7f", "doubtful"),  # half of server1's fdeb:f20c:7f:4000
        ("fdeb:f20c:7f::/56", "fdeb:f20c:7f:0"),  # as it was chosen by hand, in full
        ("fdeb:f20c:7F:4000", None),
    ],
)
def test_prefixes_are_made_whole_where_there_is_no_doubt(text: str, becomes: str | None) -> None:
    """gw26 is one of those whose prefix ends with a zero group, which texts of clan repositories lost."""
    whole = made(VPN).texts[PREFIX]
    assert whole.endswith(":0")
    text = text.replace("LOST", whole.removesuffix(":0")).replace("WHOLE", whole)
    reading = Reading({**made(VPN).texts, PREFIX: text}, (), made(VPN).hashes)
    found = repair(VPN, reading, EVERYTHING, {})
    if becomes == "doubtful":
        assert found.texts == {}
        (problem,) = found.doubtful
        assert "is it half of another one?" in problem.message
        assert f"warren vars set gw26 {NETWORK}/prefix {canonical('prefix', text)};" in problem.mend
    else:
        assert found.texts == ({PREFIX: becomes.replace("WHOLE", whole)} if becomes else {})
        assert found.doubtful == ()


def test_a_hash_is_put_right_only_where_the_value_would_be_the_same() -> None:
    reading = made(VPN)
    hashes = {each: sha256(b'{"hostname":"old"}').hexdigest() for each in reading.hashes}
    by_hand = Reading({**reading.texts, SUFFIX: "1:2:3:4"}, (), hashes)
    found = repair(VPN, by_hand, EVERYTHING, {})
    assert found.texts == {}
    assert found.hashes == {each: text for each, text in reading.hashes.items() if each.machine != "laptop1"}
    (left,) = examine(VPN, found.applied_to(by_hand)).stale
    assert left.variable == SUFFIX
    assert "to keep it: warren vars set laptop1" in left.mend


def test_what_is_missing_is_made_though_something_else_is_broken() -> None:
    reading = made(VPN)
    texts = {**reading.texts, SUFFIX: "half"}
    del texts[KEY]
    (keys,) = works(VPN, Reading(texts, (), reading.hashes), EVERYTHING)
    assert [request.variable for request in keys.keys] == [KEY]
    del texts[variable("laptop2", "suffix")]
    assert [each.values for each in works(VPN, Reading(texts), EVERYTHING)] == [{}]  # or it might give a taken one
    only = Scope(frozenset({NETWORK}), frozenset({"laptop1"}))
    assert works(VPN, Reading(texts), only) == []


def test_what_is_left_over_goes_with_its_hash_and_no_other() -> None:
    reading = made(inventory(mesh("gw26 server1", "laptop1 laptop2 old1")))
    role = variable("laptop1", "prefix")
    reading = Reading({**reading.texts, role: "fdeb:f20c:7f:4100"}, (), reading.hashes)
    gone, hashes = unused(VPN, reading, EVERYTHING)
    assert sorted(gone) == sorted([role, variable("old1", "suffix"), variable("old1", "publickey")])
    assert hashes == [Validation(MachineName("old1"), NETWORK)]
    assert unused(VPN, reading, Scope(machines=frozenset({"laptop1"}))) == ([role], [])


# As a command


INVENTORY = """
[instances.vpn]
module.name = "wireguard"
roles.controller.machines.gw26.settings.endpoint = "vpn1.example.com"
roles.peer.machines = { laptop1 = {}, laptop2 = {} }
"""


@pytest.fixture
def folder(tmp_path: Path, own_settings: None) -> Folder:
    """A git repository in which all is well, but that a machine left."""
    path = tmp_path / "fleet"
    path.mkdir()
    (path / "warren.toml").write_text(INVENTORY.replace("laptop2 = {}", "laptop2 = {}, old1 = {}"))
    opened = open_folder(path / "warren.toml")
    reading = made(opened.inventory)
    opened.store.write({**reading.texts, **reading.hashes})
    (path / "warren.toml").write_text(INVENTORY)
    git(path, "init", "--quiet")
    git(path, "add", "--all")
    git(path, "commit", "--quiet", "--message=all")
    return open_folder(path / "warren.toml")


def git(path: Path, *words: str) -> str:
    return subprocess.run(("git", "-C", str(path), *words), capture_output=True, text=True, check=True).stdout


def warren(folder: Folder, *words: str) -> Result:
    return CliRunner().invoke(cli, ["-f", str(folder.inventory_file), "vars", *words], standalone_mode=False)


def spoil(folder: Folder) -> None:
    """One of each."""
    instance = InstanceName("vpn")
    record = Record(folder.store)
    documents = folder.documents
    record.publish(record.with_serial(each) for each in documents.values())
    for name in folder.inventory.machines:
        plans = {instance: wanted(documents)[name, instance]}
        record.acknowledge(name, plans, {instance: own_values(documents[instance], name)})
    texts = {PREFIX: folder.texts[PREFIX].removesuffix(":0"), SUFFIX: "bcd6:8f"}
    folder.store.write({**texts, variable("laptop2", "publickey"): "juK7P"})
    folder.store.write({Validation(MachineName("laptop2"), NETWORK): ""})


def test_all_that_can_be_is_mended_in_one_commit(folder: Folder) -> None:
    good = tree(folder.path / "vars")
    spoil(folder)
    git(folder.path, "add", "--all")
    git(folder.path, "commit", "--quiet", "--message=spoilt")
    spoilt = tree(folder.path / "vars")
    said = warren(folder, "fix", "--dry-run")
    assert said.return_value == 3
    assert said.stderr.splitlines()[0] == f"would be done: {PREFIX} {folder.texts[PREFIX]}"
    assert tree(folder.path / "vars") == spoilt
    said = warren(folder, "fix")
    assert said.return_value == 0, said.stderr
    assert f"laptop2 {NETWORK}/suffix: it is what is made for this machine, and noted as that\n" in said.stderr
    after = tree(folder.path / "vars")
    assert {path: after[path] for path in good} == good
    assert git(folder.path, "log", "--format=%s").splitlines()[0].startswith("vars: fix ")
    assert len(git(folder.path, "log", "--format=%s").splitlines()) == 3
    assert git(folder.path, "status", "--porcelain") == ""
    again = warren(folder, "fix")
    assert (again.return_value, "git commit" in again.stderr) == (0, False)
    assert tree(folder.path / "vars") == after


def test_what_is_left_over_goes_only_when_it_is_asked_for(folder: Folder) -> None:
    before = tree(folder.path / "vars")
    assert warren(folder, "fix").return_value == 0
    assert tree(folder.path / "vars") == before
    secret = folder.path / "vars/per-machine/old1" / KEYS / "privatekey/secret"
    secret.parent.mkdir(parents=True)
    secret.write_text("sealed")
    said = warren(folder, "fix", "--leftovers", "--json")
    assert said.return_value == 0
    assert [each["machine"] for each in json.loads(said.stdout)["removed"]] == ["old1", "old1"]
    left = [path for path in tree(folder.path / "vars") if "old1" in path]
    assert left == [f"per-machine/old1/{KEYS}/privatekey/secret"]
    assert git(folder.path, "status", "--porcelain", "--untracked-files=no") == ""


def test_what_it_will_not_touch_is_said_with_the_command(folder: Folder) -> None:
    folder.store.write({SUFFIX: "half", PREFIX: "fdeb:f20c:7f", KEY: "half"})
    before = tree(folder.path / "vars")
    said = warren(folder, "fix")
    assert said.return_value == 1
    assert tree(folder.path / "vars") == before
    assert "is it half of another one?" in said.stderr
    assert f"{SUFFIX.path}: 'half' has 1 groups" in said.stderr
    assert f"mend: warren vars generate --service {KEYS} --regenerate --machine laptop1" in said.stderr
    (doubtful,) = json.loads(warren(folder, "fix", "--json").stdout)["doubtful"]
    assert doubtful["mend"].startswith("if it means fdeb:f20c:7f:0: warren vars set gw26")


def test_only_what_is_named_is_mended(folder: Folder) -> None:
    spoil(folder)
    assert warren(folder, "fix", "--machine", "laptop1").return_value == 0
    assert (folder.path / SUFFIX.path).read_text() != "bcd6:8f"
    assert (folder.path / PREFIX.path).read_text().count(":") == 2
    assert warren(folder, "fix", "--service", KEYS).return_value == 0
    assert (folder.path / PREFIX.path).read_text().count(":") == 2
    assert warren(folder, "fix", "--machine", "laptop3").exception is not None


def test_a_run_that_is_killed_anywhere_is_finished_by_the_next(folder: Folder, tmp_path: Path) -> None:
    spoil(folder)
    spoilt = tmp_path / "spoilt"
    subprocess.run(("cp", "-a", folder.path, spoilt), check=True)
    assert warren(folder, "fix", "--leftovers", "--no-commit").return_value == 0
    mended = files(folder.path / "vars")
    for calls in count():
        subprocess.run(("rm", "-r", folder.path), check=True)
        subprocess.run(("cp", "-a", spoilt, folder.path), check=True)
        was_killed = killed_before_change(calls, lambda: _raise(warren(folder, "fix", "--leftovers", "--no-commit")))
        reading = Store(folder.path).read()
        assert reading.problems == ()
        assert warren(folder, "fix", "--leftovers", "--no-commit").return_value == 0
        assert files(folder.path / "vars") == mended
        if not was_killed:
            break
    assert calls > 8


def files(path: Path) -> dict[str, str]:
    """Without folders that a killed run left empty, which git does not know."""
    return {name: text for name, text in tree(path).items() if text != "empty folder"}


def _raise(said: Result) -> None:
    assert said.return_value == 0, said
