"""One inventory, however it is written; and the nearer setting wins."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from inventory_trees import STYLES, Style, Tree, to_toml, trees
from warren.inventory.model import PeerMachine
from warren.inventory.read import read


@given(trees(), st.sampled_from(STYLES), st.booleans())
def test_toml_and_json_of_one_tree_read_alike(tree: Tree, style: Style, wrapped: bool) -> None:
    written = {"inventory": tree} if wrapped else tree
    from_json = read(json.dumps(written), "json", "inventory.json")
    assert read(to_toml(written, style), "toml", "warren.toml") == from_json
    assert read(json.dumps(written, ensure_ascii=False, indent=2), "json", "inventory.json") == from_json


@given(trees())
def test_the_nearer_setting_wins(tree: Tree) -> None:
    inventory = read(json.dumps(tree), "json", "inventory.json")
    for name, instance in inventory.instances.items():
        role = tree["instances"][name]["roles"]["peer"]
        for peer in instance.peers.values():
            tags = tree.get("machines", {}).get(peer.name, {}).get("tags", [])
            entries = [role["machines"].get(peer.name, {}), *(role.get("tags", {}).get(tag, {}) for tag in tags), role]
            expected = PeerMachine(
                peer.name,
                _first(entries, "controller", None),
                _first(entries, "interface", name),
                _first(entries, "mtu", None),
            )
            assert peer == expected


def _first(entries: list[Tree], option: str, default: Any) -> Any:
    return next((entry["settings"][option] for entry in entries if option in entry.get("settings", {})), default)


@given(trees())
def test_everybody_is_in_the_inventory_and_in_order(tree: Tree) -> None:
    inventory = read(json.dumps(tree), "json", "inventory.json")
    assert list(inventory.machines) == sorted(inventory.machines)
    assert list(inventory.instances) == sorted(tree["instances"])
    for instance in inventory.instances.values():
        assert list(instance.controllers) == sorted(instance.controllers)
        assert list(instance.peers) == sorted(instance.peers)
        assert not instance.controllers.keys() & instance.peers.keys()
        assert instance.members.keys() <= inventory.machines.keys()
        assert {peer.controller for peer in instance.peers.values()} <= instance.controllers.keys()
