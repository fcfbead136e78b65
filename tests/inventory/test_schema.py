"""The JSON Schema: current, valid, and of one mind with the reader."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from jsonschema import Draft202012Validator

from inventory_trees import Tree, trees
from warren.inventory.first import first_inventory
from warren.inventory.json_schema import json_schema, json_schema_text

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.toml"))
VALIDATOR = Draft202012Validator(json_schema())

# Folders of tests/errors whose mistake is one of shape, which the schema can see.
SHAPE = (
    "deploy-host-an-option",
    "deploy-port-outside",
    "endpoint-a-number",
    "endpoint-of-a-peer",
    "inventory-and-instances",
    "keys-neither",
    "inventory-name",
    "machine-name-too-long",
    "machine-name-with-dots",
    "machine-not-a-table",
    "managed-as-text",
    "managed-misspelled-and-a-number",
    "many-at-once",
    "module-as-text",
    "mtu-outside",
    "port-in-quotes",
    "port-of-peers",
    "port-outside",
    "port-true",
    "role-as-text",
    "role-machines-as-list",
    "role-tags-mixed",
    "setting-outside-settings",
    "tag-not-text",
    "tags-not-a-list",
    "unknown-deploy-key",
    "unknown-key",
    "unknown-role",
    "unknown-setting",
)


def tree_of(path: Path) -> Any:
    return tomllib.loads(path.read_text())


def test_the_schema_in_the_repository_is_current() -> None:
    """Write it anew with `warren schema > docs/schema/inventory.schema.json`."""
    assert (ROOT / "docs/schema/inventory.schema.json").read_text() == json_schema_text()


def test_it_is_a_schema() -> None:
    Draft202012Validator.check_schema(json_schema())


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_examples_are_valid(example: Path) -> None:
    VALIDATOR.validate(tree_of(example))


def test_the_first_inventory_is_valid() -> None:
    VALIDATOR.validate(tomllib.loads(first_inventory("burrow")))


@given(trees())
def test_what_reads_is_valid(tree: Tree) -> None:
    VALIDATOR.validate(tree)
    VALIDATOR.validate({"inventory": tree, "meta": {"name": "burrow"}})


@pytest.mark.parametrize("case", SHAPE)
def test_mistakes_of_shape_are_not_valid(case: str) -> None:
    assert not VALIDATOR.is_valid(tree_of(ROOT / "tests/errors" / case / "warren.toml"))


def test_instances_of_other_modules_may_hold_anything() -> None:
    VALIDATOR.validate({"instances": {"zt": {"module": {"name": "zerotier"}, "roles": {"moon": 3}}}})


def test_every_option_is_described() -> None:
    definitions = json.loads(json_schema_text())["$defs"]
    for name in ("ControllerSettings", "PeerSettings"):
        options = {
            key: option for key, option in definitions[name]["properties"].items() if key not in ("imports", "_file")
        }
        assert all("description" in option for option in options.values())
