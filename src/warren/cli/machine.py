"""Commands of the machine itself, `apply`, `down`, `agent`: what the machine's side has for them runs."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout, suppress

import click

from warren.agent.main import main


class MachineCommand(click.Command):
    """A command that hands over its arguments as they are, `--help` among them."""

    def __init__(self, name: str, text: str, run: Callable[[Sequence[str]], int] = main) -> None:
        super().__init__(
            name,
            callback=lambda arguments: run([name, *arguments]),
            params=[click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED)],
            context_settings={"ignore_unknown_options": True},
            add_help_option=False,
            help=text,
        )

    def get_help(self, ctx: click.Context) -> str:
        with redirect_stdout(io.StringIO()) as text, suppress(SystemExit):
            main([self.name or "", "--help"])
        return text.getvalue()


apply = MachineCommand("apply", "Make this machine what its network documents say.")
down = MachineCommand("down", "Take instances off this machine, their documents included. Private keys stay.")
agent = MachineCommand("agent", "Keep this machine as its network documents say, until stopped; the mesh stays up.")
machine = MachineCommand("machine", "What the operator's side calls on this machine over ssh; JSON in and out.")


def _main_with_archive(words: Sequence[str]) -> int:
    """What is left on a machine that joins is the archive, which a package has to make first."""
    from warren.agent import installation
    from warren.fleet.bundle import bundle

    installation.made = bundle
    return main(words)


join = MachineCommand("join", "Come into a mesh by an invitation, with the line that it has.", _main_with_archive)
