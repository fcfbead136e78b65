"""Commands of the machine's side that have to do with documents and invitations inside the tunnel."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping

from warren.agent import fetch, join
from warren.agent.machine import who_am_i
from warren.errors import UsageError
from warren.host import guestbook
from warren.host.machine import Host
from warren.names import HOST_NAME_RULE, InstanceName, is_host_name
from warren.plan.line import LONGEST, decode


def _fetch(host: Host, given: argparse.Namespace) -> Mapping[str, object]:
    me = who_am_i(host, given.name)
    return {"followed": fetch.fetch(host, me, _instance(given), fetch.parse_said(given.said))}


def _guests(host: Host, given: argparse.Namespace) -> Mapping[str, object]:
    return {**guestbook.tree(guestbook.read(_instance(given), host.state))}


def _join(host: Host, given: argparse.Namespace) -> None:
    read = sys.stdin.readline if sys.stdin.isatty() else sys.stdin.read
    join.command(host, decode(read(LONGEST) if given.line == "-" else given.line), dry_run=given.dry_run)


def _instance(given: argparse.Namespace) -> InstanceName:
    (name,) = given.instances
    if not is_host_name(name):
        raise UsageError(f"{name!r} is no instance's name: {HOST_NAME_RULE}")
    return InstanceName(name)


COMMANDS: Mapping[str, Callable[[Host, argparse.Namespace], Mapping[str, object] | None]] = {
    "fetch": _fetch,
    "guests": _guests,
    "join": _join,
}
