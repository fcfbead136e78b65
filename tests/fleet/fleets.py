"""Fleets for tests: lab machines without Warren, each with an sshd of its own, and the operator's own machine.

Some may have a systemd of their own that starts what runs there (see booted.py).

Everything happens on a computer that is a namespace, which nothing outlives (see namespaces.py). The operator types
`warren …` on the machine `operator`, with a home, ssh keys and known hosts that are nobody else's.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fleet import booted
from namespaces import Namespace, wait_until
from warren.inventory.model import Inventory, Machine
from warren.inventory.read import read
from warren.lab import machines
from warren.lab.lab import Lab, changing, find_lab
from warren.lab.limits import make_room
from warren.lab.place import Place, call, spawn
from warren.lab.programs import environment
from warren.lab.state import LabFolder, LabState, MachineState
from warren.lab.underlay import design
from warren.names import MachineName

LAB = "fleet"
OPERATOR = "operator"
HOME = Path("/root")
FOLDER = "/root/fleet"
AGENT_LOG = "/var/log/warren-agent.log"
SSHD_LOG = "/var/log/sshd.log"
_COMPUTER = Path("/").stat().st_dev  # where the tests run
SOURCE = Path(__file__).parent.parent.parent / "src"

_HOST_KEY = Path("/etc/ssh/fleet_host_key")
_SSHD = Path("/etc/ssh/fleet_sshd_config")
_SSHD_TEXT = f"""\
HostKey {_HOST_KEY}
PermitRootLogin prohibit-password
Subsystem sftp internal-sftp
PasswordAuthentication no
KbdInteractiveAuthentication no
PidFile /run/sshd.pid
MaxStartups 100
"""


# Fails like ssh without a network, but only when a change is to be confirmed.
_UNCONFIRMED_SSH = """\
#!/bin/sh
case "$*" in *" machine confirm "*) echo "ssh: connect to host: Connection timed out" >&2; exit 255 ;; esac
exec ssh "$@"
"""
_IMPATIENT_UPDATE = """\
import sys
from warren.cli import main
from warren.fleet import machine_side, update
machine_side.CONFIRM_WITHIN_S = float(sys.argv.pop())
update._LAST_CONFIRM_S = 2.0
main()
"""


@dataclass(frozen=True)
class Said:
    """What a command said, and how it ended."""

    code: int
    out: str
    err: str

    def __str__(self) -> str:
        return f"ended with {self.code}\n{self.out}{self.err}"


class Fleet:
    """The machines of an inventory, and the operator's."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace

    def boot(self, text: str, systemd: Sequence[str] = (), group: str = "", behind_nat: Sequence[str] = ()) -> None:
        """Make machines for the inventory, which the operator has; they have nothing of Warren.

        `systemd`: those that have it, below the control group.
        """
        self._namespace.run(_boot, text, systemd, group, behind_nat)
        self.write(f"{FOLDER}/warren.toml", text)

    def join(self, text: str) -> None:
        """Make the machines that the inventory has and that are not there yet."""
        self._namespace.run(_join, text)
        self.write(f"{FOLDER}/warren.toml", text)

    def write(self, path: str, text: str, machine: str = OPERATOR, mode: int = 0o644) -> None:
        self._namespace.run(_call, machine, _write, path, text, mode)

    def warren(self, *words: str, code: int = 0) -> Said:
        """What the operator types, which must end with `code`."""
        said = self.on(OPERATOR, sys.executable, "-m", "warren", *words, code=None)
        assert said.code == code, f"warren {shlex.join(words)} {said}"
        return said

    def update_unconfirmed(self, confirm_within_s: float) -> Said:
        """An update that brings its change, cannot confirm it, and so fails."""
        self.write("/root/unconfirmed-ssh", _UNCONFIRMED_SSH, mode=0o755)
        words = ("machines", "update", str(confirm_within_s))
        program = ("env", "WARREN_SSH=/root/unconfirmed-ssh", sys.executable, "-c", _IMPATIENT_UPDATE)
        return self.on(OPERATOR, *program, *words, code=4)

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """On the computer that all the machines are on."""
        return self._namespace.run(function, *arguments)

    def on(self, machine: str, *command: str, code: int | None = 0) -> Said:
        """A command on a machine, as root and as if typed there."""
        said: Said = self._namespace.run(_call, machine, _run, command, MachineName(machine))
        assert code is None or said.code == code, f"{machine}: {shlex.join(command)} {said}"
        return said

    def sh(self, machine: str, script: str, code: int | None = 0) -> str:
        return self.on(machine, "sh", "-ec", script, code=code).out

    def spawn(self, machine: str, command: Sequence[str], log: str) -> None:
        """A process that goes on by itself."""
        self._namespace.run(_spawn, machine, list(command), log)

    def start_agents(self, names: Iterable[str]) -> None:
        """What the machines' own init would do."""
        for name in names:
            self.spawn(name, ["/usr/local/bin/warren", "agent"], AGENT_LOG)

    def kill(self, machine: str) -> None:
        """Everything on it dies at once; its disk stays."""
        self._namespace.run(_kill, machine)

    def revive(self, machine: str) -> None:
        if not self._namespace.run(_revive, machine):
            self.start_agents([machine])

    def reboot(self, machine: str) -> None:
        """As one does with systemd; returns when all has started again."""
        self._namespace.run(_reboot, machine)

    def failing(self, pairs: Iterable[tuple[str, str]], domain: str = "vpn") -> list[tuple[str, str]]:
        """Those of the pairs of which the first does not come to reach the second by its mesh name."""
        pairs = list(pairs)
        script = "\n".join(
            f"(ping -6 -c 1 -w 30 -i 0.5 {target}.{domain} > /dev/null 2>&1 || echo {target}) &"
            for target in {b for _, b in pairs}
        )
        found = []
        for source in sorted({a for a, _ in pairs}):
            silent = self.sh(source, f"{script}\nwait").split()
            found += [(a, b) for a, b in pairs if a == source and b in silent]
        return found


@contextmanager
def fleet(text: str, systemd: Sequence[str] = (), behind_nat: Sequence[str] = ()) -> Iterator[Fleet]:
    with booted.control_group() if systemd else nullcontext("") as group, Namespace() as namespace:
        made = Fleet(namespace)
        made.boot(text, systemd, group, behind_nat)
        yield made


@contextmanager
def installed_fleet(text: str, machines: Sequence[str]) -> Iterator[Fleet]:
    """The same, installed and updated once as a user would, with agents."""
    with fleet(text) as made:
        made.warren("machines", "install", "--tag", "all")
        made.start_agents(machines)
        made.warren("machines", "update")
        yield made


def all_pairs(names: Iterable[str]) -> list[tuple[str, str]]:
    names = sorted(names)
    return [(a, b) for a in names for b in names if a != b]


# On the computer that the labs are made on


def _inventory(text: str) -> Inventory:
    """With the operator's own machine, which is in no mesh."""
    inventory = read(text, "toml", "warren.toml")
    name = MachineName(OPERATOR)
    return replace(inventory, machines={**inventory.machines, name: Machine(name)})


def _boot(text: str, systemd: Sequence[str], group: str, behind_nat: Sequence[str]) -> None:
    inventory = _inventory(text)
    make_room(len(inventory.machines))
    folder = LabFolder(LAB)
    with folder.locked():
        folder.clear()
        folder.files.mkdir()
        holder = machines.start_internet(LAB, folder.files)
        lab = Lab(folder, LabState(LAB, "a test", holder.place.process))
        holder.result()
        _add_machines(lab, inventory, behind_nat)
        holder.keep()
    _call(OPERATOR, _make_operator)
    for machine in systemd:
        booted.prepare(find_lab(LAB).places()[MachineName(machine)], group)
    _join(text)


def _join(text: str) -> None:
    with changing(LAB) as lab:
        _add_machines(lab, _inventory(text))
        places = lab.places()
        hosts = {name: str(machine.site.addresses[0]) for name, machine in lab.state.machines.items()}
        friend = call(places[MachineName(OPERATOR)], Path("/root/.ssh/id_ed25519.pub").read_text)
        known = {}
        for name, place in places.items():
            known[name] = call(place, _make_machine, friend)
            if not call(booted.inside(place), Path("/run/sshd").exists):
                _start(place, name)
        call(places[MachineName(OPERATOR)], _know, hosts, known)


def _add_machines(lab: Lab, inventory: Inventory, behind_nat: Sequence[str] = ()) -> None:
    numbers = {name: machine.site.number for name, machine in lab.state.machines.items()}
    hidden = {name for name, machine in lab.state.machines.items() if machine.site.behind_nat}
    underlay = design(inventory, hidden | set(map(MachineName, behind_nat)), numbers)
    new = [MachineState(site) for name, site in underlay.sites.items() if name not in lab.state.machines]
    state = lab.state.with_machines(new)
    lab.remember(LabState(state.name, state.source, state.holder, state.machines, dict(underlay.names)))
    lab.boot([machine.site.machine for machine in new])
    machines.forward_ports(lab.grounds, underlay)


def _call(machine: str, function, *arguments):  # type: ignore[no-untyped-def]  # a fork: any function, any value
    return call(_place(machine), function, *arguments)


def _place(machine: str) -> Place:
    return booted.inside(find_lab(LAB).places()[MachineName(machine)])


def _spawn(machine: str, command: list[str], log: str) -> None:
    spawn(_place(machine), command, _variables(MachineName(machine)), log=log)


def _kill(machine: str) -> None:
    with changing(LAB) as lab:
        lab.kill(machine)


def _revive(machine: str) -> bool:
    """Whether it starts what runs there by itself."""
    name = MachineName(machine)
    with changing(LAB) as lab:
        lab.boot([name])
        _start(lab.places()[name], name)
        return booted.has_systemd(lab.places()[name])


def _reboot(machine: str) -> None:
    booted.reboot(find_lab(LAB).places()[MachineName(machine)])


def _start(place: Place, name: MachineName) -> None:
    if booted.has_systemd(place):
        booted.start(place)
    else:
        _start_sshd(place, name)


def _start_sshd(place: Place, name: MachineName) -> None:
    call(place, Path("/run/sshd").mkdir)
    spawn(place, ["/usr/sbin/sshd", "-D", "-e", "-f", str(_SSHD)], environment(LAB, name), log=SSHD_LOG)
    wait_until(lambda: call(place, _listens), what=f"sshd of {name}")


# On a machine


def _listens() -> bool:
    return ":0016 " in Path("/proc/net/tcp").read_text()


def _make_operator() -> None:
    for each in (ssh := _ssh_folder()).iterdir():
        each.unlink()
    _keygen(ssh / "id_ed25519")
    (HOME / ".gitconfig").write_text("[user]\nname = Olga\nemail = olga@example.com\n")
    Path(FOLDER).mkdir()
    subprocess.run(["git", "init", "-q", FOLDER], check=True)


def _ssh_folder() -> Path:
    """Of the lab machine's own; what the computer that runs the tests has in its is seen there, and not touched."""
    assert Path("/").stat().st_dev != _COMPUTER, "this would be the computer's own"
    ssh = HOME / ".ssh"
    ssh.mkdir(mode=0o700, exist_ok=True)
    return ssh


def _make_machine(friend: str) -> str:
    """A machine that the operator may log in to; its host key."""
    if not _HOST_KEY.exists():
        _keygen(_HOST_KEY)
        _SSHD.write_text(_SSHD_TEXT)
        (_ssh_folder() / "authorized_keys").write_text(friend)
        (HOME / ".bashrc").write_text("")
    return " ".join(_HOST_KEY.with_suffix(".pub").read_text().split()[:2])


def _know(hosts: dict[str, str], keys: dict[str, str]) -> None:
    """The operator knows the machines, by name and by key."""
    path = Path("/etc/hosts")
    kept = [line for line in path.read_text().splitlines() if not line.endswith("# fleet")]
    path.write_text("\n".join([*kept, *(f"{address} {name} # fleet" for name, address in hosts.items())]) + "\n")
    Path("/root/.ssh/known_hosts").write_text("".join(f"{name} {key}\n" for name, key in keys.items()))


def _keygen(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)], check=True)


def _write(path: str, text: str, mode: int) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)
    Path(path).chmod(mode)


def _run(command: Sequence[str], machine: MachineName) -> Said:
    folder = FOLDER if machine == OPERATOR else "/root"
    done = subprocess.run(
        command,
        cwd=folder,
        env=_variables(machine),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=110,
    )
    return Said(done.returncode, done.stdout, done.stderr)


def _variables(machine: MachineName) -> dict[str, str]:
    """The operator's machine alone has this project; the others have what is brought to them."""
    return {**environment(LAB, machine), **({"PYTHONPATH": str(SOURCE)} if machine == OPERATOR else {})}
