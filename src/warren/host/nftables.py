"""The instance's nftables table in this machine's kernel, through the `nft` program.

What it listed holds for as long as the kernel counts no change of any table: it is asked each time, by netlink, which
takes a hundredth of a start of `nft`. Layouts: linux/netfilter/nfnetlink.h, nf_tables.h.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from warren.errors import KernelError
from warren.host.netlink import NetlinkSocket, attributes
from warren.names import InstanceName
from warren.plan import firewall
from warren.plan.desired import Firewall

T = TypeVar("T")

TIMEOUT_S = 30.0  # a ruleset of 10,000 elements takes 0.1 s

Count: TypeAlias = tuple[object, ...]
"""Equal as long as no table changed."""

_NETLINK_NETFILTER = 12
_GET_TABLE, _GET_GENERATION = 10 << 8 | 1, 10 << 8 | 16  # NFNL_SUBSYS_NFTABLES, NFT_MSG_…
_HEADER = struct.Struct("=BBH")  # family (0: any), version, resource: struct nfgenmsg
_GENERATION = 1  # NFTA_GEN_ID
_NETWORK = Path("/proc/self/ns/net")

_listed: dict[tuple[str, ...], tuple[Count, subprocess.CompletedProcess[str]]] = {}


def list_table(instance: InstanceName) -> str | None:
    """The table as `firewall.canonical` text; None: there is none."""
    result = _list("list", "table", firewall.FAMILY, firewall.table_name(instance))
    if result.returncode and "No such file or directory" in result.stderr:
        return None
    return _read(result, firewall.canonical)


def objects(*words: str) -> list[dict[str, Any]]:
    """What `nft -j WORDS` prints: objects of one member each, `table`, `chain`, `rule` …"""
    return _read(_list(*words), lambda found: [each for each in found if isinstance(each, dict)])


def load_table(instance: InstanceName, wanted: Firewall) -> None:
    """Make the table what `wanted` says, in one transaction: after an error it is as it was."""
    _check(_run(["-j", "-f", "-"], firewall.transaction(instance, wanted)))


def drop_table(instance: InstanceName) -> None:
    """Remove the table; none is fine."""
    _check(_run(["-j", "-f", "-"], firewall.transaction(instance, None)))


def change_count() -> Count | None:
    """What changes with every change of any table; None: this kernel does not say.

    The tables beside the count: one that ends with the process that owns it is not counted.
    """
    header = _HEADER.pack(0, 0, 0)
    try:
        with NetlinkSocket(_NETLINK_NETFILTER) as netlink:
            answers = netlink.request(_GET_GENERATION, header, command="nft monitor")
            tables = netlink.dump(_GET_TABLE, header, command="nft list tables")
        # Beside the number the kernel says who asks.
        numbers = [attributes(each, _HEADER.size).get(_GENERATION) for each in answers]
        return _NETWORK.stat().st_ino, *numbers, *tables
    except (KernelError, OSError):
        return None


def _list(*words: str) -> subprocess.CompletedProcess[str]:
    count = change_count()
    known = _listed.get(words)
    if count is not None and known is not None and known[0] == count:
        return known[1]
    result = _run(["-j", *words])
    if count is not None and count == change_count():  # else it may be of either time
        _listed[words] = (count, result)
    return result


def _read(result: subprocess.CompletedProcess[str], read: Callable[[Any], T]) -> T:
    _check(result)
    try:
        return read(json.loads(result.stdout)["nftables"])
    except (ValueError, KeyError, TypeError, AttributeError):
        raise KernelError("its answer cannot be read", command=" ".join(result.args)) from None


def program_environment() -> dict[str, str]:
    """Not every PATH that reaches us has the sbin folders; and errors are recognized by their English words."""
    return {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin", "LC_ALL": "C"}


def _run(arguments: list[str], given: str = "") -> subprocess.CompletedProcess[str]:
    environment = program_environment()
    command = ["nft", *arguments]
    try:
        return subprocess.run(
            command, input=given, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except FileNotFoundError:
        raise KernelError(
            "there is no such program",
            command="nft",
            mend="install nftables: apt install nftables, dnf install nftables",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise KernelError(f"cannot be run: {error}", command=" ".join(command)) from None
    except subprocess.TimeoutExpired:
        raise KernelError(f"no answer in {TIMEOUT_S:.0f} s", command=" ".join(command)) from None


def _check(result: subprocess.CompletedProcess[str]) -> None:
    if result.returncode:
        words = result.stderr.strip() or f"exit code {result.returncode}"
        mend = "run this as root" if "Operation not permitted" in words else ""
        raise KernelError(words, command=" ".join(result.args), mend=mend)
