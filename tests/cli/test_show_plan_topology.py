"""`warren show`, `plan` and `topology` as a person or a program meets them: stdout, stderr, exit code."""

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parent.parent.parent
BURROW = ROOT / "examples" / "burrow.toml"
TWO_INSTANCES = ROOT / "examples" / "two-instances.toml"
BROKEN = """
[machines]
server1.tags = []
[instances.vpn]
module.name = "wireguard"
roles.controller.machines.server1 = {}
"""


def warren(*arguments: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from warren.cli import main; main()", *arguments]
    clean = {key: value for key, value in os.environ.items() if not key.startswith("WARREN_")}
    return subprocess.run(command, cwd=cwd, env=clean | environment, capture_output=True, text=True, check=False)


def on(inventory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return warren("--inventory", str(inventory), *arguments)


def test_show_finds_the_inventory_from_below_and_by_the_environment(tmp_path: Path) -> None:
    (tmp_path / "warren.toml").write_text(BURROW.read_text())
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    expected = on(BURROW, "show").stdout
    assert "laptop1.vpn" in expected
    assert warren("show", cwd=below).stdout == expected
    assert warren("show", cwd=Path("/"), WARREN_INVENTORY=str(tmp_path / "warren.toml")).stdout == expected


def test_show_cuts_nothing_in_a_narrow_pipe() -> None:
    wide, narrow = on(BURROW, "show"), warren("--inventory", str(BURROW), "show", COLUMNS="40", TERM="dumb")
    assert narrow.stdout == wide.stdout
    assert "…" not in narrow.stdout
    assert "\x1b" not in narrow.stdout


def test_show_json_needs_no_keys() -> None:
    result = on(BURROW, "show", "--json")
    assert (result.returncode, result.stderr) == (0, "")
    vpn = json.loads(result.stdout)["instances"]["vpn"]
    assert {name: each["role"] for name, each in vpn["machines"].items()} == {
        "server1": "controller",
        "server2": "controller",
        "laptop1": "peer",
        "laptop2": "peer",
        "phone1": "peer",
    }
    assert vpn["machines"]["phone1"]["controller"] == "server2"


def test_instances_of_other_modules_are_mentioned_on_stderr_only(tmp_path: Path) -> None:
    inventory = tmp_path / "warren.toml"
    inventory.write_text(BURROW.read_text() + '\n[instances.other]\nmodule.name = "borgbackup"\n')
    result = on(inventory, "show", "--json")
    assert result.returncode == 0
    assert "borgbackup" in result.stderr
    assert list(json.loads(result.stdout)["instances"]) == ["vpn"]


@pytest.mark.parametrize("command", [["show"], ["plan"], ["plan", "server1"], ["topology"]])
def test_a_broken_inventory_prints_nothing_but_its_errors(command: list[str], tmp_path: Path) -> None:
    inventory = tmp_path / "warren.toml"
    inventory.write_text(BROKEN)
    result = on(inventory, *command)
    assert result.returncode == 1
    assert result.stdout == ""
    assert "has no endpoint" in result.stderr


def test_plan_says_whose_keys_are_missing_and_plans_the_rest() -> None:
    result = on(BURROW, "plan", "laptop1", "--json")
    assert result.returncode == 0
    assert result.stderr == "vpn: no key yet: server1, server2, laptop1 and 2 more (warren vars generate)\n"
    vpn = json.loads(result.stdout)["instances"]["vpn"]
    assert vpn["public_key"] is None
    assert [(peer["machine"], peer["public_key"]) for peer in vpn["peers"]] == [("server1", None), ("server2", None)]


def test_a_script_leaves_out_what_needs_a_missing_key() -> None:
    lines = on(BURROW, "plan", "laptop1").stdout.splitlines()
    about_keys = [line for line in lines if "wg set vpn peer" in line]
    assert len(about_keys) == 2
    assert all(line.startswith("# wg set vpn peer (not made yet) endpoint ") for line in about_keys)


def test_plan_of_all_machines() -> None:
    result = on(TWO_INSTANCES, "plan")
    assert result.returncode == 0
    rows = [line.split() for line in result.stdout.splitlines()]
    assert rows[0] == ["MACHINE", "INSTANCE", "ROLE", "ADDRESSES", "WIREGUARD", "PEERS", "NAMES", "KEY"]
    assert ["hub", "home", "controller", "1", "4", "5", "not", "yet"] in rows
    assert ["laptop", "work", "peer", "2", "2", "3", "not", "yet"] in rows
    tree = json.loads(on(TWO_INSTANCES, "plan", "--json").stdout)
    assert tree["machines"]["laptop"]["instances"]["work"] == {
        "role": "peer",
        "addresses": 2,
        "peers": 2,
        "hosts": 3,
        "has_key": False,
    }


def test_plan_of_a_machine_that_is_not_there() -> None:
    result = on(BURROW, "plan", "laptpo1")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith('there is no machine "laptpo1"\nmend: did you mean "laptop1"?')


def test_plan_of_a_machine_without_a_role(tmp_path: Path) -> None:
    inventory = tmp_path / "warren.toml"
    inventory.write_text(BURROW.read_text().replace("[machines]\n", "[machines]\nidle.tags = []\n"))
    result = on(inventory, "plan", "idle", "--json")
    assert result.returncode == 0
    assert 'machine "idle" has no role in any instance' in result.stderr
    assert json.loads(result.stdout) == {"machine": "idle", "instances": {}}


@pytest.mark.parametrize(
    ("kind", "start"), [("text", "vpn   fdeb"), ("mermaid", "graph TB\n"), ("dot", 'graph "vpn" {'), ("svg", "<svg ")]
)
def test_topology_formats(kind: str, start: str) -> None:
    result = on(BURROW, "topology", "--format", kind)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith(start)
    for name in ("server1", "server2", "laptop1", "laptop2", "phone1"):
        assert name in result.stdout


def test_a_tree_shows_all_instances_and_a_picture_one() -> None:
    tree = on(TWO_INSTANCES, "topology")
    assert [line.split()[0] for line in tree.stdout.splitlines() if line[:1].isalpha()] == ["home", "work"]
    refused = on(TWO_INSTANCES, "topology", "--format", "svg")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "--instance NAME; instances: home, work" in refused.stderr
    chosen = on(TWO_INSTANCES, "topology", "--format", "svg", "--instance", "work")
    assert ElementTree.fromstring(chosen.stdout).tag.endswith("svg")


def test_topology_of_an_instance_that_is_not_there() -> None:
    result = on(TWO_INSTANCES, "topology", "--instance", "wrok")
    assert (result.returncode, result.stdout) == (2, "")
    assert 'did you mean "work"? Instances: home, work' in result.stderr


def test_the_picture_in_the_readme_is_current() -> None:
    """To mend: warren --inventory examples/burrow.toml topology --format svg > docs/images/burrow.svg"""
    assert (ROOT / "docs" / "images" / "burrow.svg").read_text() == on(BURROW, "topology", "--format", "svg").stdout
