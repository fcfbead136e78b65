"""The command line: one module per group of commands; each parses, calls, prints, and returns an exit code.

Commands are imported when they are called, so that `warren --version` and completion cost no more than click.
"""

from __future__ import annotations

import importlib
import sys
import traceback

import click

import warren
from warren.errors import WarrenError

EXIT_CHANGES_PENDING = 3
EXIT_MACHINE_FAILED = 4
EXIT_OUR_BUG = 70  # EX_SOFTWARE, sysexits.h

# name -> (module below warren.cli, attribute, help)
COMMANDS = {
    "init": ("check", "init", "Write a first warren.toml."),
    "check": ("check", "check", "Check the inventory and the vars; silent when all is well."),
    "show": ("inventory", "show", "Addresses, roles and names of every machine."),
    "document": ("inventory", "document", "A mesh as one document, for its machines to follow."),
    "schema": ("check", "schema", "The JSON Schema of the inventory, for editors."),
    "topology": ("inventory", "topology", "The mesh as a picture."),
    "plan": ("plan", "plan", "What a machine would become, as commands."),
    "render": ("render", "render", "What a machine without Warren needs, as files for other programs."),
    "vars": ("vars", "vars_group", "Generated values: keys and addresses."),
    "machines": ("machines", "machines", "Install Warren on machines over ssh, update them, remove them."),
    "controllers": ("controllers", "controllers", "Controllers: drained before maintenance, used again after it."),
    "apply": ("machine", "apply", "Make this machine what its documents say."),
    "down": ("machine", "down", "Take an instance off this machine; leave nothing behind."),
    "agent": ("machine", "agent", "Keep this machine as its documents say."),
    "join": ("machine", "join", "Come into a mesh by an invitation, where no ssh reaches this machine."),
    "status": ("status", "status", "Sessions, handshakes, bytes, who is out of date: here, or on all machines."),
    "machine": ("machine", "machine", "What the operator's side calls on this machine over ssh."),
    "lab": ("lab", "lab", "A real mesh made of namespaces, on this machine."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command = getattr(importlib.import_module(f"warren.cli.{module}"), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(warren.__version__, prog_name="warren", message="%(prog)s %(version)s")
@click.option(
    "-f",
    "--inventory",
    "inventory_file",
    envvar="WARREN_INVENTORY",
    type=click.Path(),
    metavar="FILE",
    help="The inventory; else the first warren.toml, clan.nix or inventory.json going up from here.",
)
@click.pass_context
def cli(context: click.Context, inventory_file: str | None) -> None:
    """A declarative WireGuard mesh: one file in, every machine reaching every other by name."""
    context.obj = inventory_file


def main() -> None:
    """Run the command; the only place that turns exceptions into exit codes."""
    try:
        sys.exit(cli(standalone_mode=False) or 0)
    except WarrenError as error:
        click.echo(f"{error}", err=True)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.exceptions.Abort):
        click.echo("interrupted", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (OSError, UnicodeEncodeError) as error:  # of the system: a full disk behind stdout, a folder that is gone
        click.echo(f"{error}", err=True)
        sys.exit(EXIT_MACHINE_FAILED)
    except Exception:
        traceback.print_exc()
        click.echo("This is a bug in Warren: the lines above say where.", err=True)
        sys.exit(EXIT_OUR_BUG)
