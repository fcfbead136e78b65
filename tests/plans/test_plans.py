"""Each folder beside this file is an inventory and what Warren makes of it; adding a folder adds a test.

    warren.toml            the inventory
    vars.json              optional: instance -> "prefixes", "suffixes", "public_keys" -> machine -> text, null for none
    show.json, show.txt    what `warren show` prints
    MACHINE.json, .sh      what `warren plan MACHINE` prints

Public keys that vars.json does not give are the SHA-256 of the machine's name. After a change that is meant,
`ACCEPT_PLANS=1 pytest tests/plans` writes the files anew: read the difference against design, section 4, line by line.
"""

import json
import os
import shutil
from ipaddress import IPv6Network
from pathlib import Path

import pytest
from click.testing import CliRunner

from strategies import public_key
from warren.cli import cli
from warren.inventory.model import Inventory
from warren.names import InstanceName, MachineName
from warren.network.stored import (
    PREFIX_FILE,
    PUBLIC_KEY_FILE,
    SUFFIX_FILE,
    keys_generator,
    network_generator,
    value_path,
)
from warren.workspace.source import load_inventory

CASES = sorted(path.parent for path in Path(__file__).parent.glob("*/warren.toml"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_plan(case: Path, tmp_path: Path) -> None:
    made = texts(operators_folder(case, tmp_path))
    if os.environ.get("ACCEPT_PLANS"):
        for path in case.iterdir():
            if path.name not in ("warren.toml", "vars.json"):
                path.unlink()
        for name, text in made.items():
            (case / name).write_text(text)
    expected = {path.name: path.read_text() for path in case.iterdir() if path.name not in ("warren.toml", "vars.json")}
    assert set(made) == set(expected)
    for name, text in made.items():
        assert text == expected[name], name


def test_there_are_cases() -> None:
    assert len(CASES) >= 6


def operators_folder(case: Path, folder: Path) -> Path:
    """The inventory with its vars as files, in `folder`; returns the inventory."""
    shutil.copy(case / "warren.toml", folder)
    inventory = load_inventory(folder / "warren.toml")
    stored = case / "vars.json"
    given = json.loads(stored.read_text()) if stored.exists() else {}
    for path, text in values(inventory, given).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return folder / "warren.toml"


def values(inventory: Inventory, given: dict[InstanceName, dict[str, dict[MachineName, str | None]]]) -> dict[str, str]:
    """Paths and contents of the vars."""
    found: dict[str, str | None] = {}
    for name, instance in inventory.instances.items():
        its = given.get(name, {})
        public_keys = {machine: public_key(machine).text for machine in instance.members} | its.get("public_keys", {})
        for generator, file, texts in (
            (network_generator(name), PREFIX_FILE, its.get("prefixes", {})),
            (network_generator(name), SUFFIX_FILE, its.get("suffixes", {})),
            (keys_generator(name), PUBLIC_KEY_FILE, public_keys),
        ):
            found |= {value_path(machine, generator, file): text for machine, text in texts.items()}
    return {path: text for path, text in found.items() if text is not None}


def texts(inventory: Path) -> dict[str, str]:
    """What the commands print, by the names of the files that hold it."""
    made = {"show.json": warren(inventory, "show", "--json"), "show.txt": warren(inventory, "show")}
    for machine in load_inventory(inventory).machines:
        made[f"{machine}.json"] = warren(inventory, "plan", machine, "--json")
        made[f"{machine}.sh"] = warren(inventory, "plan", machine)
    return made


def warren(inventory: Path, *arguments: str) -> str:
    result = CliRunner().invoke(cli, ["--inventory", str(inventory), *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_is_expected_follows_the_design(case: Path) -> None:
    """Against an accepted mistake: design, section 4, in other words than the planner's."""
    for instance, mesh in json.loads((case / "show.json").read_text())["instances"].items():
        machines = mesh["machines"]
        subnets = {name: IPv6Network(each["subnet"]) for name, each in machines.items() if each["role"] == "controller"}
        for name, each in machines.items():
            plan = json.loads((case / f"{name}.json").read_text())["instances"][instance]
            is_controller = name in subnets
            own = {f"{each['address']}/40"} if is_controller else {f"{a}/56" for a in each["addresses"].values()}
            assert set(plan["addresses"]) == own
            others = machines.keys() if is_controller else subnets.keys()
            assert {peer["machine"] for peer in plan["peers"]} == others - {name}
            for peer in plan["peers"]:
                other = machines[peer["machine"]]
                if other["role"] == "peer":
                    wanted = {str(IPv6Network((a, 96), strict=False)) for a in other["addresses"].values()}
                else:
                    wanted = {other["subnet"]} | (set() if is_controller else {f"{other['address']}/128"})
                    wanted |= set(other.get("routes", ()))
                assert set(peer["allowed_ips"]) == wanted
                assert peer["endpoint"] == other.get("endpoint")
                assert peer["persistent_keepalive"] == 25
            assert {"type": "unreachable", "destination": mesh["base"]} in plan["routes"]
            behind = {(owner, route) for owner in subnets for route in machines[owner].get("routes", ())}
            led = {each["destination"] for each in plan["routes"] if each["type"] == "unicast"}
            assert led == {str(IPv6Network(a, strict=False)) for a in own} | {
                route for owner, route in behind if owner != name
            }
            assert set(plan["firewall"].get("forward_to", ())) == {route for owner, route in behind if owner == name}
            assert plan["forwarding"] is is_controller
            assert plan["firewall"]["forward_within"] == (plan["interface"] if is_controller else None)
            assert plan["firewall"]["open_udp_port"] == plan["listen_port"]
            assert (plan["listen_port"] is not None) is is_controller
            assert {line["name"]: line["address"] for line in plan["hosts"]} == {
                other["name"]: other.get("address") or other["addresses"][other["controller"]]
                for other in machines.values()
            }
