"""Machines on which Warren does not run: their inventory, their keys, and what `warren render` says of them."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from click.testing import CliRunner, Result

from namespaces import Namespace
from warren.cli import cli
from warren.host.machine import Host
from warren.names import InstanceName, MachineName
from warren.network.stored import PUBLIC_KEY_FILE, keys_generator, value_path
from warren.plan.desired import Desired, Observed
from warren.plan.diff import diff
from warren.plan.plan import plan
from warren.plan.steps import SetSysctl, Step, WriteHosts
from warren.wireguard.keys import PrivateKey
from warren.wireguard.x25519 import public_key
from warren.workspace.folder import open_folder

INVENTORY = """\
[machines]
server1.managed = false
laptop1.managed = false
laptop2.managed = false

[instances.vpn]
module.name = "wireguard"
roles.controller.machines.server1.settings.endpoint = "fd99::1"
roles.peer.machines.laptop1 = {}
roles.peer.machines.laptop2.settings.mtu = 1380
"""
VPN = InstanceName("vpn")


@dataclass(frozen=True, slots=True)
class Fleet:
    """The operator's folder."""

    folder: Path

    @property
    def inventory(self) -> Path:
        return self.folder / "warren.toml"

    def warren(self, *words: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(cli, ["--inventory", str(self.inventory), *words], input=stdin)

    def render(self, machine: str, kind: str, *options: str, stdin: str | None = None) -> str:
        result = self.warren("render", machine, "--format", kind, *options, stdin=stdin)
        assert result.exit_code == 0, f"{result.stderr}{result.exception!r}"
        return result.stdout

    def files(self, machine: str, kind: str) -> dict[str, str]:
        """What lies in a folder that was written, by name."""
        folder = self.folder / f"{machine}.{kind}"
        self.render(machine, kind, "--output", str(folder))
        return {path.name: path.read_text() for path in folder.iterdir()}

    def desired(self, machine: str) -> Desired:
        return plan(open_folder(self.inventory).documents[VPN], MachineName(machine))


def fleet(folder: Path, inventory: str = INVENTORY) -> Fleet:
    """The folder, with every machine's public key in its vars."""
    folder.mkdir(exist_ok=True)
    found = Fleet(folder)
    found.inventory.write_text(inventory)
    for name, instance in open_folder(found.inventory).inventory.instances.items():
        for machine in instance.members:
            path = folder / value_path(machine, keys_generator(name), PUBLIC_KEY_FILE)
            path.parent.mkdir(parents=True)
            path.write_text(f"{public_key(private_key(machine)).text}\n")
    return found


def private_key(machine: str) -> PrivateKey:
    """It follows from the name, so that nobody takes it for a secret."""
    return PrivateKey(sha256(f"private {machine}".encode()).digest())


def wire(server: Namespace, *others: Namespace) -> None:
    """Cables from the server to the others, which all reach it at the endpoint that the inventory says."""
    server.sh("ip address add fd99::1/128 dev lo nodad")
    for number, other in enumerate(others, 1):
        here, there = f"fd99:{number}::1", f"fd99:{number}::2"
        server.connect(other, f"{here}/64", f"{there}/64", (f"eth{number}", "eth0"))
        other.sh(f"ip -6 route add fd99::1/128 via {here}")


def own_files(machine: Namespace, name: str) -> None:
    """Folders and a hosts file of its own; its key where wg-quick's files look for it."""
    machine.sh(
        "for each in /etc/wireguard /etc/systemd/network /var/lib; do\n"
        "  [ ! -d $each ] || mount -t tmpfs tmpfs $each; done\n"  # networkd's is missing where systemd is
        "echo '::1 localhost' > /run/hosts; mount --bind /run/hosts /etc/hosts\n"
        f"umask 077; echo {private_key(name).reveal_text()} > /etc/wireguard/vpn.key"
    )


def wg_quick_up(machine: Namespace, text: str) -> None:
    write(machine, "/etc/wireguard/vpn.conf", text)
    log = "/run/wg-quick.log"
    machine.sh(f"chmod 600 /etc/wireguard/vpn.conf; wg-quick up vpn 2>{log} || {{ cat {log}; exit 1; }}")


def left_to_do(machine: Namespace, desired: Desired) -> tuple[Step, ...]:
    """What `warren apply` would still change there, but for the names, and for noting that a sysctl was set already."""

    def is_change(step: Step, observed: Observed) -> bool:
        if isinstance(step, SetSysctl):
            return observed.sysctls.get(step.key) != step.value
        return not isinstance(step, WriteHosts)

    def look() -> tuple[Step, ...]:
        observed = Host().observe(desired.instance, desired.interface, frozenset())
        return tuple(step for step in diff(observed, desired) if is_change(step, observed))

    return machine.run(look)


def write(machine: Namespace, path: str, text: str) -> None:
    machine.run(Path.write_text, Path(path), text)
