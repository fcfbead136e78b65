"""What the commands of `warren vars` have in common."""

from __future__ import annotations

import click

json_option = click.option("--json", "as_json", is_flag=True, help="For programs.")
machines_option = click.option(
    "--machine", "machines", multiple=True, metavar="MACHINE", help="Only this machine (repeatable)."
)
services_option = click.option(
    "--service",
    "--generator",
    "services",
    multiple=True,
    metavar="NAME",
    help="Only this generator, such as wireguard-keys-vpn (repeatable).",
)
commit_option = click.option(
    "--commit/--no-commit", "commits", default=True, help="Commit what was written, if this is a git repository."
)
