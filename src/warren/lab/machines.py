"""The lab's own parts: its internet, its machines, and the links between them."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from warren.errors import KernelError
from warren.lab.init import NewInit, start_init
from warren.lab.namespaces import MountFlag, Namespace, bind, enter, mount, unmount, unshare
from warren.lab.place import Place, call, results, start
from warren.lab.programs import ip_batch, load_rules
from warren.lab.root import Disk, enter_root
from warren.lab.underlay import (
    ROUTER_RULES,
    Site,
    Underlay,
    forwarding_rules,
    hosts_head,
    internet_links,
    machine_end,
    router_ends,
    with_hosts_head,
)
from warren.names import MachineName

_NO_DNS = "# a lab has no DNS: let lookups fail at once\nnameserver 127.0.0.1\noptions timeout:1 attempts:1\n"


def start_internet(lab: str, files: Path) -> NewInit[None]:
    """The lab's first process, whose network is the internet. Nothing of the lab lives outside of it."""
    return start_init(f"lab {lab}", None, _prepare_internet, files, environment={"WARREN_LAB": lab})


def _prepare_internet(files: Path) -> None:
    # What this computer unmounts goes from the lab too; what the lab mounts is never seen outside.
    mount("none", "/", flags=MountFlag.RECURSIVE | MountFlag.SLAVE)
    mount("proc", "/proc", "proc")
    mount("tmpfs", files, "tmpfs", options="mode=0700")
    _forward()
    ip_batch("link set lo up\n")


def _forward() -> None:
    """Route both families, and take packets from wherever they come: with a relay in the way, that differs."""
    for key in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
        Path("/proc/sys/net", key).write_text("1")
    for key in ("all", "default"):
        Path("/proc/sys/net/ipv4/conf", key, "rp_filter").write_text("0")


@dataclass(frozen=True, slots=True)
class Grounds:
    """Where a lab's machines are made: its internet, and the folder of their disks as it is called in there."""

    lab: str
    internet: Place
    files: Path

    @property
    def cables(self) -> Place:
        """The internet's network alone: there, processes are called as this process calls them."""
        return self.internet.only(Namespace.NET)

    def disk(self, machine: MachineName) -> Disk:
        return Disk(self.files / machine)

    def router(self, machine: MachineName) -> Path:
        """The network namespace of a machine's NAT router: a file, so that no process is needed to hold it."""
        return self.files / f"{machine}.router"

    def outside(self, path: Path) -> str:
        """A file of the lab as this process can open it."""
        return f"{self.internet.root}{path}"


def boot(grounds: Grounds, underlay: Underlay, names: Sequence[MachineName]) -> dict[MachineName, NewInit[None]]:
    """Start machines, new ones or dead ones, and attach them; they die with this process until told to `keep`."""
    heads = {name: hosts_head(underlay, name) for name in names}
    call(grounds.internet, _prepare_disks, [(grounds.disk(name), name, head) for name, head in heads.items()])
    inits = {
        name: start_init(
            name,
            grounds.internet,
            enter_root,
            name,
            grounds.disk(name),
            environment={"WARREN_LAB": grounds.lab, "WARREN_MACHINE": name},
        )
        for name in names
    }
    places = {name: init.place for name, init in inits.items()}
    _attach(grounds, [underlay.sites[name] for name in names], places)
    for init in inits.values():
        init.result()
    return inits


def halt(grounds: Grounds, site: Site, place: Place | None) -> None:
    """Everything on the machine dies at once, and its link and its router are gone; its disk stays."""
    if place:
        place.process.kill()
    call(grounds.cables, delete_links, [site.link])
    if site.behind_nat:
        call(grounds.internet, _remove_router, grounds.router(site.machine))


def erase(grounds: Grounds, machine: MachineName) -> None:
    call(grounds.internet, shutil.rmtree, grounds.disk(machine).folder)


def forward_ports(grounds: Grounds, underlay: Underlay) -> None:
    call(grounds.cables, load_rules, forwarding_rules(underlay.forwardings))


def _prepare_disks(disks: Iterable[tuple[Disk, MachineName, str]]) -> None:
    for disk, name, head in disks:
        if not disk.folder.exists():
            disk.create({"hostname": f"{name}\n", "resolv.conf": _NO_DNS})
        hosts = disk.etc / "hosts"
        hosts.write_text(with_hosts_head(hosts.read_text() if hosts.is_file() else "", head))


def _attach(grounds: Grounds, sites: Sequence[Site], places: Mapping[MachineName, Place]) -> None:
    networks = {name: f"/proc/{place.process.pid}/ns/net" for name, place in places.items()}
    natted = [site for site in sites if site.behind_nat]
    routers = {site.machine: grounds.outside(grounds.router(site.machine)) for site in natted}
    results([start(grounds.internet, _make_router, grounds.router(site.machine)) for site in natted])
    call(grounds.cables, _replace_links, sites, {**networks, **routers})
    for site in natted:
        router = router_ends(site, networks[site.machine])
        call(grounds.cables, _in_network, routers[site.machine], ip_batch, router)
    results([start(places[site.machine], ip_batch, machine_end(site)) for site in sites])


def _replace_links(sites: Sequence[Site], ends: Mapping[MachineName, str]) -> None:
    delete_links([site.link for site in sites])  # of an `up` that was killed
    ip_batch(internet_links(sites, ends))


def delete_links(names: Sequence[str]) -> None:
    """In the network that this process is in; those that are not there are passed over."""
    present = {name for _, name in socket.if_nameindex()}
    for name in names:
        if name in present:
            with suppress(KernelError):  # gone meanwhile, with the network at its other end
                ip_batch(f"link del {name}\n")


def _make_router(file: Path) -> None:
    """Make the network of a NAT router, and keep it at `file`."""
    _remove_router(file)  # of an `up` that was killed
    unshare(Namespace.NET)
    _forward()
    load_rules(ROUTER_RULES)
    file.touch()
    bind("/proc/self/ns/net", file)


def _remove_router(file: Path) -> None:
    if file.exists():
        with suppress(KernelError):  # not mounted: its making was cut short
            unmount(file)
        file.unlink()


def _in_network(file: str, function: Callable[..., None], *arguments: object) -> None:
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    enter(descriptor, Namespace.NET)
    os.close(descriptor)
    function(*arguments)
