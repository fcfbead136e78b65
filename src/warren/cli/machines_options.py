"""Options that several commands of the fleet have."""

from __future__ import annotations

import click

PARALLEL = 32

commit_option = click.option(
    "--commit/--no-commit", "commits", default=True, help="Commit what was written, if this is a git repository."
)
sign_key_option = click.option(
    "--sign-key",
    metavar="FILE",
    help="The ssh key to sign documents with; else WARREN_SIGN_KEY, git's user.signingkey, your own ssh key.",
)
parallel_option = click.option(
    "--parallel",
    default=PARALLEL,
    show_default=True,
    metavar="N",
    type=click.IntRange(min=1),
    help="So many at once.",
)
instance_option = click.option("--instance", metavar="NAME", help="Which mesh, where the machine is in several.")
