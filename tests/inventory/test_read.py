"""What an inventory means: machines, tags, roles, settings, modules."""

import json
from typing import Any

import pytest

from warren.errors import InventoryError
from warren.inventory.model import Deploy, Inventory
from warren.inventory.read import read
from warren.names import InstanceName, MachineName
from warren.wireguard.endpoint import Endpoint

VPN = InstanceName("vpn")
SERVER1, SERVER2, LAPTOP1 = MachineName("server1"), MachineName("server2"), MachineName("laptop1")

MACHINES = """
[machines]
server1 = {}
server2 = {}
laptop1.tags = ["laptop"]
laptop2.tags = ["laptop"]
"""
CONTROLLER = """
[instances.vpn]
module.name = "wireguard"
roles.controller.machines.server1.settings.endpoint = "vpn1.example.com"
"""


def toml(text: str) -> Inventory:
    return read(text, "toml", "warren.toml")


def of_json(tree: dict[str, Any]) -> Inventory:
    return read(json.dumps(tree), "json", "inventory.json")


def messages(text: str) -> list[str]:
    with pytest.raises(InventoryError) as error:
        toml(text)
    return [problem.message for problem in error.value.problems]


def test_without_a_table_the_machines_are_those_that_the_roles_name() -> None:
    inventory = toml(CONTROLLER + "roles.peer.machines.laptop1 = {}")
    assert list(inventory.machines) == ["laptop1", "server1"]


def test_an_empty_table_of_machines_is_a_table() -> None:
    assert messages("machines = {}\n" + CONTROLLER) == ['there is no machine "server1"']


def test_the_only_controller_is_everybodys() -> None:
    inventory = toml(CONTROLLER + "roles.peer.machines.laptop1 = {}")
    assert inventory.instances[VPN].peers[LAPTOP1].controller == SERVER1


def test_tags_are_a_table_or_a_list() -> None:
    table = toml(MACHINES + CONTROLLER + "roles.peer.tags.laptop = {}")
    assert list(table.instances[VPN].peers) == ["laptop1", "laptop2"]
    assert toml(MACHINES + CONTROLLER + 'roles.peer.tags = ["laptop"]') == table


def test_every_machine_has_the_tag_all() -> None:
    text = 'roles.controller.tags.all = {}\nroles.controller.settings.endpoint = "192.0.2.1"'
    inventory = toml(f'[machines]\nserver1 = {{}}\n[instances.vpn]\nmodule.name = "wireguard"\n{text}')
    assert list(inventory.instances[VPN].controllers) == ["server1"]
    assert inventory.machines[SERVER1].tags == {"all"}


def test_the_table_of_tags_adds_to_those_of_the_machines() -> None:
    inventory = toml('tags.office = ["laptop1"]\n' + MACHINES + CONTROLLER + 'roles.peer.tags = ["office"]')
    assert list(inventory.instances[VPN].peers) == ["laptop1"]
    assert inventory.machines[LAPTOP1].tags == {"all", "laptop", "office"}


def test_a_machine_by_name_and_by_tag_has_the_settings_of_both() -> None:
    inventory = toml(
        MACHINES
        + CONTROLLER
        + "roles.peer.tags.laptop.settings.mtu = 1400\nroles.peer.settings.mtu = 1300\n"
        + 'roles.peer.machines.laptop1.settings.interface = "wg0"'
    )
    laptop = inventory.instances[VPN].peers[LAPTOP1]
    assert (laptop.mtu_bytes, laptop.interface) == (1400, "wg0")


def test_the_machines_own_setting_decides_between_tags_that_disagree() -> None:
    text = (
        MACHINES + CONTROLLER + "roles.peer.tags.laptop.settings.mtu = 1400\nroles.peer.tags.fast.settings.mtu = 9000\n"
    )
    text = 'tags.fast = ["laptop1"]\n' + text
    assert messages(text) == ['tags "laptop" and "fast" set mtu differently, and "laptop1" has both']
    inventory = toml(text + "roles.peer.machines.laptop1.settings.mtu = 1280")
    assert inventory.instances[VPN].peers[LAPTOP1].mtu_bytes == 1280


def test_the_domain_is_one_for_the_instance() -> None:
    inventory = toml(CONTROLLER + 'roles.peer.settings.domain = "vpn.internal"\nroles.peer.machines.laptop1 = {}')
    assert inventory.instances[VPN].domain == "vpn.internal"
    assert toml(CONTROLLER).instances[VPN].domain == "vpn"


@pytest.mark.parametrize(
    ("endpoint", "port", "expected"),
    [
        ("vpn.example.com", None, Endpoint("vpn.example.com", 51820)),
        ("vpn.example.com", 4500, Endpoint("vpn.example.com", 4500)),
        ("vpn.example.com:443", 4500, Endpoint("vpn.example.com", 443)),
        ("2001:db8::1", 4500, Endpoint("2001:db8::1", 4500)),
        ("[2001:db8::1]:443", None, Endpoint("2001:db8::1", 443)),
    ],
)
def test_the_endpoints_port_is_the_listen_port_unless_written(
    endpoint: str, port: int | None, expected: Endpoint
) -> None:
    settings = {"endpoint": endpoint, **({"port": port} if port else {})}
    roles = {"controller": {"machines": {"server1": {"settings": settings}}}}
    controller = of_json({"instances": {"vpn": {"module": {"name": "wireguard"}, "roles": roles}}})
    found = controller.instances[VPN].controllers[SERVER1]
    assert (found.endpoint, found.port) == (expected, port or 51820)


def test_how_a_machine_is_reached() -> None:
    inventory = toml(
        'machines.server1.deploy = { host = "root@192.0.2.1", port = 2222, via = "jump.example.com" }\n'
        'machines.server2.deploy.targetHost = "root@192.0.2.2"\n' + CONTROLLER
    )
    assert inventory.machines[SERVER1].deploy == Deploy("root@192.0.2.1", 2222, "jump.example.com")
    assert inventory.machines[SERVER2].deploy == Deploy("root@192.0.2.2")


def test_instances_of_other_modules_are_skipped_with_a_line_each() -> None:
    inventory = toml(
        CONTROLLER
        + """
[instances.zerotier]
roles.moon.machines.whoever = { settings.x = [{ y = 1 }] }
[instances.users]
module = { name = "users", input = "clan-core" }
"""
    )
    assert list(inventory.instances) == ["vpn"]
    assert inventory.notes == (
        'instance "zerotier" is skipped: it has no module.name',
        'instance "users" is skipped: its module is "users"',
    )


def test_an_instance_called_wireguard_needs_no_module() -> None:
    text = 'instances.wireguard.roles.controller.machines.server1.settings.endpoint = "192.0.2.1"'
    assert list(toml(text).instances) == ["wireguard"]


def test_the_name_is_of_the_inventory_or_of_the_clan_around_it() -> None:
    tree = {
        "instances": {"wireguard": {"roles": {"controller": {"machines": {"a": {"settings": {"endpoint": "a.b"}}}}}}}
    }
    assert of_json(tree).name == "warren"
    assert of_json({**tree, "meta": {"name": "inner"}}).name == "inner"
    assert of_json({"inventory": tree, "meta": {"name": "outer"}}).name == "outer"
    assert of_json({"inventory": {**tree, "meta": {"name": "inner"}}, "meta": {"name": "outer"}}).name == "inner"


def test_a_byte_order_mark_and_other_line_ends_are_no_mistakes() -> None:
    assert toml("\ufeff" + CONTROLLER.replace("\n", "\r\n")) == toml(CONTROLLER)


def evaluated(**settings: Any) -> dict[str, Any]:
    """Settings as clan prints them when it has evaluated them."""
    return {"imports": [{"_file": "clan.nix, via option inventory", "imports": [settings]}]}


def test_what_nix_eval_prints_of_a_clan_inventory() -> None:
    """The shape of `nix eval --json .#clanInternals.inventoryClass.inventory`, meaningless keys and all."""
    machine = {"description": None, "icon": None, "installedAt": None, "machineClass": "nixos"}
    deploy = {"buildHost": None, "forwardAgent": None, "targetHost": None}
    tree = {
        "instances": {
            "vpn": {
                "module": {"input": "clan-core", "name": "wireguard"},
                "roles": {
                    "controller": {
                        "extraModules": [],
                        "machines": {"server1": {"settings": evaluated(endpoint="vpn1.example.com", domain=None)}},
                        "settings": evaluated(port=4500),
                        "tags": {},
                    },
                    "peer": {
                        "extraModules": ["modules/x.nix"],
                        "machines": {},
                        "settings": evaluated(),
                        "tags": {"laptop": {"settings": evaluated()}},
                    },
                },
            },
            "users": {
                "module": {"input": None, "name": "users"},
                "roles": {"default": {"settings": evaluated(user="x")}},
            },
        },
        "machines": {
            "laptop1": {**machine, "name": "laptop1", "deploy": deploy, "tags": ["all", "laptop", "nixos"]},
            "server1": {
                **machine,
                "name": "server1",
                "deploy": {**deploy, "targetHost": "root@vpn1.example.com"},
                "tags": ["all", "nixos"],
            },
        },
        "meta": {"description": None, "domain": "clan", "icon": None, "name": "burrow", "tld": None},
        "modules": {},
        "tags": {"all": ["laptop1", "server1"], "darwin": [], "nixos": ["laptop1", "server1"]},
        "services": {},
        "assertions": [],
    }
    inventory = of_json(tree)
    assert inventory.instances[VPN].controllers[SERVER1].endpoint == Endpoint("vpn1.example.com", 4500)
    assert inventory.instances[VPN].peers[LAPTOP1].controller == SERVER1
    assert inventory.machines[SERVER1].deploy == Deploy("root@vpn1.example.com")
    assert inventory.machines[LAPTOP1].tags == {"all", "laptop", "nixos"}


def test_what_is_broken_is_not_missing_as_well() -> None:
    text = """
[instances.vpn]
module.name = "wireguard"
roles.controler.machines.server1.settings.endpoint = "vpn1.example.com"
roles.peer.machines.laptop1.settings.controller = "server1"
"""
    assert messages(text) == ['unknown key "controler" in instances.vpn.roles']


def test_mistakes_of_shape_and_of_meaning_come_together() -> None:
    text = (
        MACHINES.replace("server2 = {}", "server2.tag = []")
        + CONTROLLER
        + "roles.peer.machines.laptop3.settings.mtu = 1\n"
    )
    assert messages(text) == [
        'unknown key "tag" in machines.server2',
        'there is no machine "laptop3"',
        "mtu 1 is outside 1280–65535",
    ]


def test_five_thousand_mistakes_do_not_take_minutes() -> None:
    """Suggestions compare names with names: without a limit, this would take an hour."""
    machines = "".join(f"laptop{i:05d} = {{}}\n" for i in range(5000))
    roles = "".join(f"roles.peer.machines.loptop{i:05d} = {{}}\n" for i in range(5000))
    found = messages(f"[machines]\nserver1 = {{}}\n{machines}{CONTROLLER}{roles}")
    assert len(found) == 5000


def test_a_port_that_is_taken_is_found_although_the_endpoint_is_missing() -> None:
    text = CONTROLLER + '[instances.backup]\nmodule.name = "wireguard"\nroles.controller.machines.server1 = {}\n'
    assert messages(text) == [
        'controller "server1" has no endpoint',
        'machine "server1" listens on UDP port 51820 in instances "vpn" and "backup"',
    ]
