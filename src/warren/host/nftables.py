"""The instance's nftables table in this machine's kernel, through the `nft` program."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from typing import Any, TypeVar

from warren.errors import KernelError
from warren.names import InstanceName
from warren.plan import firewall
from warren.plan.desired import Firewall

T = TypeVar("T")

TIMEOUT_S = 30.0  # a ruleset of 10,000 elements takes 0.1 s


def list_table(instance: InstanceName) -> str | None:
    """The table as `firewall.canonical` text; None: there is none."""
    arguments = ["-j", "list", "table", firewall.FAMILY, firewall.table_name(instance)]
    result = _run(arguments)
    if result.returncode and "No such file or directory" in result.stderr:
        return None
    return _read(result, firewall.canonical)


def objects(*words: str) -> list[dict[str, Any]]:
    """What `nft -j WORDS` prints: objects of one member each, `table`, `chain`, `rule` …"""
    return _read(_run(["-j", *words]), lambda found: [each for each in found if isinstance(each, dict)])


def load_table(instance: InstanceName, wanted: Firewall) -> None:
    """Make the table what `wanted` says, in one transaction: after an error it is as it was."""
    _check(_run(["-j", "-f", "-"], firewall.transaction(instance, wanted)))


def drop_table(instance: InstanceName) -> None:
    """Remove the table; none is fine."""
    _check(_run(["-j", "-f", "-"], firewall.transaction(instance, None)))


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
