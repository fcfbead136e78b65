"""`docs/reference.md`, from the commands themselves and from the inventory's model: `make reference` writes it anew."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import click

from warren.cli import cli
from warren.inventory.json_schema import json_schema

_HEAD = """\
# Reference

Written from the program by `make reference`; a test fails when it is not current.

Data is on stdout, talk on stderr. Exit codes: 0 done, 1 the inventory or the vars are wrong, 2 usage, 3 changes pending
(`apply --check`), 4 a machine failed, 70 a bug in Warren.
"""

_WIDTH = 80

_SETTINGS = {
    "ControllerSettings": "roles.controller, settings",
    "PeerSettings": "roles.peer, settings",
    "Machine": "machines.NAME",
    "Deploy": "machines.NAME.deploy",
}


def reference() -> str:
    """The whole page, the same on every terminal."""
    os.environ["COLUMNS"] = str(_WIDTH)  # what argparse goes by
    return "\n".join([_HEAD, "## Settings", "", *_settings(), "## Commands", "", *_commands(cli, "warren")])


def _settings() -> Iterator[str]:
    definitions = json_schema()["$defs"]
    yield "Settings may stand at the role, at a tag of the role (`tags.NAME.settings`) and at a machine of the role"
    yield "(`machines.NAME.settings`); the nearer wins. The JSON Schema for editors is `warren schema`."
    yield ""
    for name, where in _SETTINGS.items():
        yield f"### {where}"
        yield ""
        yield from (f"* `{key}`: {text}" for key, text in _described(definitions[name]))
        yield ""


def _described(definition: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for key, option in definition["properties"].items():
        if text := option.get("description"):
            yield key, text


def _commands(command: click.Command, path: str) -> Iterator[str]:
    context = click.Context(
        command,
        info_name=path,
        terminal_width=_WIDTH,
        max_content_width=_WIDTH,
        help_option_names=cli.context_settings["help_option_names"],  # what commands inherit when they are called
    )
    yield f"### {path}"
    yield ""
    yield "```text"
    yield command.get_help(context)
    yield "```"
    yield ""
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None:
                yield from _commands(child, f"{path} {name}")
