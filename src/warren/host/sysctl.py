"""This machine's sysctls, and the memory of global switches: what they were before an instance needed them otherwise.

The memory is one file in /run, written before the switch is touched; a reboot forgets it together with the switches.
It names every instance that needs them, and the last one to leave puts back what nobody else has changed since.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from warren.errors import KernelError, MachineError
from warren.host import files
from warren.names import InstanceName, InterfaceName
from warren.plan import forwarding
from warren.plan.steps import SetSysctl

MEMORY = Path("/run/warren/sysctls.json")

_ROOT = Path("/proc/sys")
_INTERFACES = _ROOT / "net/ipv6/conf"


def observe(interface: InterfaceName) -> dict[str, str]:
    """What `plan.forwarding` decides by, as far as this kernel has it."""
    values = _read_all(forwarding.relevant(interface))
    with suppress(FileNotFoundError):  # a kernel without IPv6
        interfaces = [each.name for each in _INTERFACES.iterdir()]
        values |= _read_all(forwarding.relevant_for_whole_machine(interfaces))
    return values


def before(instance: InstanceName, memory: Path = MEMORY) -> dict[str, str]:
    """The global switches as they were, if this instance needed them otherwise; else nothing."""
    noted = _parse(files.read(memory), memory)
    return {key: change.before for key, change in noted.changes.items()} if instance in noted.instances else {}


def perform(step: SetSysctl, memory: Path = MEMORY) -> None:
    """Set the sysctl; with `remember`, its value before is on record first."""
    if not step.remember:
        _set(step.key, step.value)
        return
    files.make_folder(memory.parent, mode=0o755)
    with files.edit(memory) as file:
        noted = _parse(file.content, memory)
        now = _read(step.key)
        known = noted.changes.get(step.key)
        change = _Change(known.before if known else now, step.value)
        noted = _Memory(noted.instances | {step.instance}, {**noted.changes, step.key: change})
        file.replace(_encode(noted))
        _set(step.key, step.value)


def restore(instance: InstanceName, memory: Path = MEMORY) -> None:
    """Put the global switches back as they were before Warren, unless another instance needs them."""
    if not memory.parent.is_dir():
        return
    with files.edit(memory) as file:
        noted = _parse(file.content, memory)
        others = noted.instances - {instance}
        if others:
            file.replace(_encode(_Memory(others, noted.changes)))
            return
        forced = _forced()
        for key, value in _to_restore(noted.changes).items():
            _set(key, value)
        for key in forced - _forced():  # the kernel turned them off along with the whole machine's switch
            _set(key, "1")
        file.remove()
    with suppress(OSError):  # something else is in it
        memory.parent.rmdir()


def _forced() -> set[str]:
    """The interfaces that forward by themselves, as keys."""
    interfaces = [each.name for each in _INTERFACES.iterdir()] if _INTERFACES.is_dir() else []
    values = _read_all(forwarding.key(interface, "force_forwarding") for interface in interfaces)
    return {key for key, value in values.items() if value == "1"}


@dataclass(frozen=True, slots=True)
class _Change:
    before: str
    made: str


@dataclass(frozen=True, slots=True)
class _Memory:
    instances: frozenset[str]
    changes: Mapping[str, _Change]


def _parse(content: bytes | None, memory: Path) -> _Memory:
    if content is None:
        return _Memory(frozenset(), {})
    try:
        tree = json.loads(content)
        changes = {str(key): _Change(str(each["before"]), str(each["made"])) for key, each in tree["changes"].items()}
        return _Memory(frozenset(map(str, tree["instances"])), changes)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise MachineError(
            "this is not what Warren wrote here: what the switches were is not known",
            where=str(memory),
            mend=f"set net.ipv6.conf.all.forwarding by hand as it should be without Warren, then: rm {memory}",
        ) from None


def _encode(memory: _Memory) -> bytes:
    changes = {key: {"before": change.before, "made": change.made} for key, change in memory.changes.items()}
    return json.dumps({"instances": sorted(memory.instances), "changes": changes}, indent=1).encode() + b"\n"


def _to_restore(changes: Mapping[str, _Change]) -> dict[str, str]:
    """What is still as Warren made it. The machine's own switch comes first: turning it sets others along with it."""
    now = _read_all(changes)
    still_ours = {key: change.before for key, change in changes.items() if now.get(key) == change.made}
    return dict(sorted(still_ours.items(), key=lambda each: each[0] != forwarding.ALL_FORWARDING))


def _read_all(keys: Iterable[str]) -> dict[str, str]:
    """Those that there are: interfaces come and go."""
    values = {}
    for key in keys:
        with suppress(FileNotFoundError):
            values[key] = _path(key).read_text().strip()
    return values


def _read(key: str) -> str:
    with _explained(f"sysctl {key}"):
        return _path(key).read_text().strip()


def _set(key: str, value: str) -> None:
    """Write it if it is another: 1 written over 1 in all.forwarding would delete default routes as well."""
    if _read(key) == value:
        return
    command = f"sysctl -w {key}={value}"
    with _explained(command):
        _path(key).write_text(value)
    found = _read(key)
    if found != value:
        raise KernelError(f"asked {value}, found {found} after it", command=command)


def _path(key: str) -> Path:
    return _ROOT.joinpath(*(part.replace("/", ".") for part in key.split(".")))


@contextmanager
def _explained(command: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        code = error.errno or 0
        raise KernelError(os.strerror(code), command=command, mend=_MENDS.get(code, ""), code=code) from error


_MENDS = {
    errno.ENOENT: "this kernel has no such switch, or no such interface; is IPv6 switched off (ipv6.disable=1)?",
    errno.EACCES: "run this as root",
    errno.EPERM: "run this as root, with the capability CAP_NET_ADMIN",
    errno.EROFS: "/proc/sys is read-only here (a container?): set it from outside, or give the container the right to",
}
