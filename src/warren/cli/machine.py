"""Commands of the machine itself: `apply`, `down`, `agent`, `status`."""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

import click

from warren.agent import machine as this_machine
from warren.agent import run
from warren.agent.machine import Verdict
from warren.cli import EXIT_CHANGES_PENDING, EXIT_MACHINE_FAILED
from warren.errors import DocumentRefused, UsageError
from warren.host.machine import Host
from warren.names import InstanceName, MachineName, is_host_name
from warren.network.document import Document, decode
from warren.render.commands import log_lines
from warren.render.status import status_text, status_tree

LARGEST_DOCUMENT_BYTES = 64 * 1024 * 1024  # 10,000 machines are 1.5 MB

name_option = click.option(
    "--machine",
    "name",
    metavar="NAME",
    help="Which machine of the documents this is; else what was noted here, else the host name.",
)


@click.command()
@click.option(
    "--document",
    "files",
    multiple=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="A network document to follow from now on (repeatable); else those that the machine has.",
)
@click.option("--check", is_flag=True, help="Only say what would be done; exit code 3 if there is something.")
@name_option
def apply(files: tuple[Path, ...], check: bool, name: str | None) -> int:
    """Make this machine what its network documents say."""
    host = _host()
    me = _who_am_i(host, name)
    documents, refused = this_machine.read_documents(host)
    given: dict[InstanceName, bytes] = {}
    for document, content in map(_read, files):
        documents[document.instance], given[document.instance] = document, content
        refused.pop(document.instance, None)
    if not documents and not refused:
        raise UsageError(
            "this machine has no network document", where=str(host.state), mend="warren apply --document FILE"
        )
    verdicts = this_machine.check(host, me, documents) if check else this_machine.apply(host, me, documents, given)
    verdicts.update({instance: Verdict(error=error) for instance, error in refused.items()})
    return _report(verdicts, check)


@click.command()
@click.argument("instances", nargs=-1, required=True, metavar="INSTANCE...")
def down(instances: tuple[str, ...]) -> None:
    """Take instances off this machine, their documents included. Private keys stay."""
    host = _host()
    known = host.instances()
    for instance in instances:
        if instance not in known:
            raise UsageError(
                f'this machine has no instance "{instance}"',
                mend=f"it has: {', '.join(known)}" if known else "it has none",
            )
    for instance in instances:
        this_machine.take_down(host, InstanceName(instance))


@click.command()
@name_option
def agent(name: str | None) -> None:
    """Keep this machine as its network documents say, until stopped; the mesh stays up."""
    host = _host()
    run.run(host, _who_am_i(host, name))


@click.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@name_option
def status(as_json: bool, name: str | None) -> int:
    """What WireGuard says on this machine."""
    host = _host()
    statuses, refused = this_machine.status(host, _who_am_i(host, name))
    click.echo(json.dumps(status_tree(statuses), indent=2) if as_json else status_text(statuses), nl=as_json)
    return _report({instance: Verdict(error=error) for instance, error in refused.items()}, check=False)


def _host() -> Host:
    if os.geteuid() != 0:
        raise UsageError("this needs root: it speaks to the kernel's network configuration", mend="sudo warren …")
    # systemd's journal has times of its own.
    form = "%(message)s" if "JOURNAL_STREAM" in os.environ else "%(asctime)s %(message)s"
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format=form)
    return Host()


def _who_am_i(host: Host, given: str | None) -> MachineName:
    name = given or host.machine_name() or socket.gethostname().split(".")[0]
    if not is_host_name(name):
        raise UsageError(
            f"{name!r} is no machine's name", mend="say which machine of the inventory this is: --machine NAME"
        )
    return MachineName(name)


def _read(path: Path) -> tuple[Document, bytes]:
    try:
        with path.open("rb") as file:  # or a pipe: `… | warren apply --document /dev/stdin`
            content = file.read(LARGEST_DOCUMENT_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", mend="name the file of a network document") from None
    if len(content) > LARGEST_DOCUMENT_BYTES:
        raise UsageError(
            f"{path}: larger than {LARGEST_DOCUMENT_BYTES:,} bytes", mend="name the file of a network document"
        )
    try:
        return decode(content), content
    except DocumentRefused as refused:
        raise DocumentRefused(refused.what, where=str(path), mend=refused.mend) from None


def _report(verdicts: Mapping[InstanceName, Verdict], check: bool) -> int:
    waiting = failed = False
    for instance, verdict in sorted(verdicts.items()):
        if verdict.error is not None:
            failed = True
            click.echo(f"{instance}: {verdict.error}", err=True)
        elif check:
            waiting = waiting or bool(verdict.steps)
            for step in verdict.steps:
                click.echo("\n".join(log_lines(step, verdict.names)))
    return EXIT_MACHINE_FAILED if failed else EXIT_CHANGES_PENDING if waiting else 0
