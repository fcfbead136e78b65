"""A real mesh of a few namespaces, each peer wired to the one controller: for what needs packets, and no whole lab.

with Wired(mesh("server1", "laptop1")) as machines:
    machines.follow()
    machines["laptop1"].sh("ping -c 1 server1.vpn")
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from types import TracebackType

from namespaces import Namespace
from operators import machine_in
from warren.agent import machine as this_machine
from warren.host import keys
from warren.host.machine import Host
from warren.inventory.model import Instance, Inventory, Machine
from warren.names import InstanceName, MachineName
from warren.network.document import Document, encode
from warren.network.resolve import resolve
from warren.network.stored import Stored
from warren.wireguard.endpoint import Endpoint


class Wired:
    """`instance` has one controller, `hub`; every peer has a cable to it: 198.51.100.<n>, the hub is .1 of each."""

    def __init__(self, instance: Instance) -> None:
        self.hub, *more = instance.controllers
        assert not more
        self._instance = instance
        self._stack = ExitStack()
        self._namespaces: dict[MachineName, Namespace] = {}
        self._serial = 0

    def __enter__(self) -> Wired:
        for name in self._instance.members:
            self._namespaces[name] = self._stack.enter_context(Namespace())
            machine_in(self._namespaces[name])
        for number, name in enumerate(self._instance.peers):
            ends = f"198.51.100.{4 * number + 1}/30", f"198.51.100.{4 * number + 2}/30"
            self[self.hub].connect(self[name], *ends, names=(f"to-{name}", "eth0"))
            self[name].sh(f"ip route add default via {ends[0].split('/')[0]}")
        return self

    def __getitem__(self, name: str) -> Namespace:
        return self._namespaces[MachineName(name)]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def document(self, **settings: object) -> Document:
        """The mesh's document now, with these settings of the hub."""
        self._serial += 1
        hub = replace(self._instance.controllers[self.hub], **settings)  # type: ignore[arg-type]
        hub = replace(hub, endpoint=Endpoint("198.51.100.1", hub.port))
        instance = replace(self._instance, controllers={self.hub: hub})
        texts = {name: namespace.run(_key, instance.name) for name, namespace in self._namespaces.items()}
        whole = Inventory("wired", {name: Machine(name) for name in texts}, {instance.name: instance})
        return resolve(whole, {instance.name: Stored(public_keys=texts)}, self._serial)[instance.name]

    def follow(self, **settings: object) -> Document:
        """Bring all machines to the mesh, the hub first; the hub's settings can be others than before."""
        document = self.document(**settings)
        for name in (self.hub, *self._instance.peers):
            self._namespaces[name].run(follow, name, document)
        return document


def _key(instance: InstanceName) -> str:
    return keys.ensure_key(instance).text


def follow(name: MachineName, document: Document) -> None:
    """Have this machine follow the document; an error is raised."""
    host = Host()
    verdict = this_machine.follow(host, name, {document.instance: encode(document)})[document.instance]
    if verdict.error is not None:
        raise verdict.error
