"""What is known of a lab from outside: /run/warren/lab/<name>/, which says how to find it, and nothing of it.

lab.json     the processes, and where each machine is attached; replaced in one go
vars.json    the addresses and public keys of the lab, in place of the operator's vars folder
documents/   the network documents that its machines follow
files/       a mount point: inside the lab, the memory file system with its machines' disks

A folder whose lab is gone (killed, or its making interrupted) is no harm; the next `up` or `down` clears it.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from warren.errors import LabError, UsageError
from warren.lab.faults import HEALTHY, Faults
from warren.lab.place import Place
from warren.lab.process import Process
from warren.lab.underlay import Site
from warren.names import HOST_NAME_RULE, InstanceName, MachineName, is_host_name
from warren.network.document import Document, decode, encode
from warren.vars.generators import Variable

VERSION = 1
LABS = Path("/run/warren/lab")


@dataclass(frozen=True, slots=True)
class MachineState:
    """One machine. `init` None: it is dead."""

    site: Site
    init: Process | None = None
    faults: Faults = HEALTHY


@dataclass(frozen=True, slots=True)
class LabState:
    """One lab. `source` is the file that it was made from; `machines` are sorted by name."""

    name: str
    source: str
    holder: Process
    machines: Mapping[MachineName, MachineState] = field(default_factory=dict)
    endpoint_names: Mapping[str, MachineName] = field(default_factory=dict)
    has_ssh: bool = False

    @property
    def sites(self) -> dict[MachineName, Site]:
        return {name: machine.site for name, machine in self.machines.items()}

    def with_machines(self, machines: Iterable[MachineState]) -> LabState:
        changed = {machine.site.machine: machine for machine in machines}
        return replace(self, machines=dict(sorted({**self.machines, **changed}.items())))

    def without_machine(self, name: MachineName) -> LabState:
        return replace(self, machines={each: state for each, state in self.machines.items() if each != name})

    def machine(self, name: str) -> MachineState:
        """The machine's state; UsageError with the nearest name if there is none."""
        found = self.machines.get(MachineName(name))
        if found is None:
            from warren.inventory.wording import Nearest, quoted  # only when there is something to say

            raise UsageError(
                f'lab "{self.name}" has no machine {quoted(name)}', mend=Nearest().hint(name, self.machines, "Machines")
            )
        return found

    def place(self, name: str) -> Place | None:
        """Where the machine's programs run; None: it is dead."""
        init = self.machine(name).init
        return Place(name, init) if init and init.is_running() else None


class LabFolder:
    """The folder of one lab, which may or may not exist."""

    def __init__(self, name: str) -> None:
        if not is_host_name(name):
            raise UsageError(f"{name!r} is no name for a lab: {HOST_NAME_RULE}", mend="give it one with --name")
        self.name = name
        self.path = LABS / name

    @property
    def files(self) -> Path:
        return self.path / "files"

    def read(self) -> LabState | None:
        """The lab, if it is running."""
        path = self.path / "lab.json"
        try:
            tree = json.loads(path.read_bytes())
            if tree["version"] != VERSION:
                raise LabError(
                    f"lab {self.name} was made by another version of warren",
                    mend=f"take it down with that version, or kill process {tree['holder']['pid']}",
                )
            state = _decode(tree)
        except FileNotFoundError:
            return None
        except PermissionError:
            raise LabError(f"lab {self.name} is root's", mend="run this as root") from None
        except (ValueError, KeyError, TypeError) as error:
            raise LabError(
                f"this cannot be read ({error!r})",
                where=str(path),
                mend=f"find the lab's first process with `grep -l WARREN_LAB={self.name} /proc/*/environ`, kill it, "
                f"and remove {self.path}",
            ) from None
        return state if state.holder.is_running() else None

    def write(self, state: LabState) -> None:
        self._replace("lab.json", json.dumps(_encode(state), indent=1).encode())

    def read_vars(self) -> dict[Variable, str]:
        try:
            rows = json.loads((self.path / "vars.json").read_bytes())
        except FileNotFoundError:
            return {}
        return {Variable(MachineName(machine), generator, file): text for machine, generator, file, text in rows}

    def write_vars(self, texts: Mapping[Variable, str]) -> None:
        self._replace("vars.json", json.dumps([[*variable, text] for variable, text in texts.items()]).encode())

    def read_documents(self) -> dict[InstanceName, Document]:
        documents = [decode(path.read_bytes()) for path in sorted((self.path / "documents").glob("*.json"))]
        return {document.instance: document for document in documents}

    def write_documents(self, documents: Mapping[InstanceName, Document]) -> None:
        folder = self.path / "documents"
        folder.mkdir(exist_ok=True)
        for path in folder.iterdir():
            if path.stem not in documents:
                path.unlink()
        for name, document in documents.items():
            self._replace(f"documents/{name}.json", encode(document))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep others from changing the lab; the folder is made, and removed again if nothing came of it."""
        descriptor = self._lock()
        try:
            yield
        finally:
            if not (self.path / "lab.json").exists():
                self.remove()
            os.close(descriptor)

    def clear(self) -> None:
        """Remove what is left in the folder of a lab that is gone."""
        for each in self.path.iterdir():
            if each.is_dir():
                shutil.rmtree(each)
            else:
                each.unlink()

    def remove(self) -> None:
        """Remove the folder of a lab that is gone, and those above it if they are empty."""
        shutil.rmtree(self.path, ignore_errors=True)
        for folder in (LABS, LABS.parent):
            with suppress(OSError):  # not empty, or in use: others' labs, or this computer's own agent
                folder.rmdir()

    def _lock(self) -> int:
        while True:
            try:
                self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
                descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
            except FileNotFoundError:
                continue  # `down` removes it at this very moment
            except PermissionError:
                raise LabError(f"{self.path} cannot be written", mend="run this as root") from None
            except OSError as error:
                raise LabError(f"{self.path} cannot be made: {error.strerror}") from None
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(descriptor).st_ino == self.path.stat().st_ino:
                    return descriptor
            except FileNotFoundError:
                pass
            except BlockingIOError:
                os.close(descriptor)
                raise LabError(
                    f"another warren is changing lab {self.name} now", mend="wait for it, or end it"
                ) from None
            os.close(descriptor)

    def _replace(self, name: str, content: bytes) -> None:
        path = self.path / name
        new = path.with_name(f".{path.name}.new")
        try:
            new.write_bytes(content)
            new.replace(path)
        except OSError as error:
            mend = "make room there" if error.errno == errno.ENOSPC else ""
            raise LabError(f"{path} cannot be written: {error.strerror}", mend=mend) from None


def all_labs() -> list[str]:
    """Names of labs that have a folder, sorted."""
    return sorted(each.name for each in LABS.iterdir() if each.is_dir()) if LABS.is_dir() else []


def _encode(state: LabState) -> dict[str, Any]:
    return {
        "version": VERSION,
        "name": state.name,
        "source": state.source,
        "holder": asdict(state.holder),
        "machines": {
            name: {
                "number": machine.site.number,
                "addresses": [str(address) for address in machine.site.addresses],
                "behind_nat": machine.site.behind_nat,
                "init": asdict(machine.init) if machine.init else None,
                "faults": asdict(machine.faults),
            }
            for name, machine in state.machines.items()
        },
        "endpoint_names": dict(state.endpoint_names),
        "has_ssh": state.has_ssh,
    }


def _decode(tree: Mapping[str, Any]) -> LabState:
    machines = {}
    for name, entry in tree["machines"].items():
        site = Site(MachineName(name), entry["number"], tuple(map(ip_address, entry["addresses"])), entry["behind_nat"])
        machines[MachineName(name)] = MachineState(
            site,
            Process(**entry["init"]) if entry["init"] else None,
            Faults(**entry["faults"]),
        )
    return LabState(
        tree["name"],
        tree["source"],
        Process(**tree["holder"]),
        machines,
        tree["endpoint_names"],
        tree["has_ssh"],
    )
