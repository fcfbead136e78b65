"""The JSON Schema of the inventory, for editors: written from the model that checks it."""

from __future__ import annotations

import json
from typing import Any

from warren.inventory.modules import MODULES
from warren.inventory.schema import TREE

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema_text() -> str:
    """The schema as it stands in docs/schema/inventory.schema.json."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def json_schema() -> dict[str, Any]:
    tree = TREE.json_schema()
    definitions = {name: _tidied(definition) for name, definition in tree.pop("$defs").items()}
    definitions["Tree"] = _tidied(tree)
    names = definitions["Tree"]["properties"]["instances"]["patternProperties"]
    for pattern in names:
        names[pattern] = _INSTANCE
    return {
        "$schema": _DIALECT,
        "title": "Warren inventory",
        "type": "object",
        # The tree of a whole clan has the inventory in a table of its own.
        "if": {"required": ["inventory"]},
        "then": {
            "properties": {"inventory": {"$ref": "#/$defs/Tree"}, "meta": {"$ref": "#/$defs/Meta"}},
            "additionalProperties": False,
        },
        "else": {"$ref": "#/$defs/Tree"},
        "$defs": definitions,
    }


_INSTANCE = {
    "type": "object",
    "properties": {
        "module": {
            "type": "object",
            "properties": {"name": {"type": "string", "description": "`wireguard` makes it a mesh of Warren."}},
        }
    },
    # Instances of other modules may hold anything.
    "if": {
        "properties": {"module": {"properties": {"name": {"enum": list(MODULES)}}, "required": ["name"]}},
        "required": ["module"],
    },
    "then": {"$ref": "#/$defs/Instance"},
}


def _tidied(node: Any) -> Any:
    """Without generated titles (they repeat the key), and with names that hold for every key of a table."""
    if isinstance(node, list):
        return [_tidied(item) for item in node]
    if not isinstance(node, dict):
        return node
    tidied = {key: _tidied(value) for key, value in node.items() if key != "title" or not isinstance(value, str)}
    if "patternProperties" in tidied:
        (pattern,) = tidied["patternProperties"]
        tidied["propertyNames"]["pattern"] = pattern
        tidied["additionalProperties"] = False
    return tidied
