"""50 machines over ssh: an update of all of them, and one with nothing to do, beside ansible-core and pyinfra.

The others push the two files that an update brings (document and signature) to the same machines, over the same ssh,
and run one command on each that got something new. Both are set up as their own documentation says for speed: as many
at once as there are machines, pipelining, connections kept open, no facts gathered. They do not verify, plan or undo.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from fleet.fleets import FOLDER, OPERATOR, Fleet, fleet

MACHINES = 50
RUNS = 3
RIVALS = Path(__file__).parent.parent / ".cache/rivals"
_LOCK = Path(__file__).with_name("rivals.lock")

_CONTROLLERS = ("server1", "server2")
_PEERS = tuple(f"laptop{number}" for number in range(1, MACHINES - 1))

_ANSIBLE_CONFIGURATION = f"""\
[defaults]
forks = {MACHINES}
gathering = explicit
interpreter_python = /usr/bin/python3
[ssh_connection]
pipelining = True
ssh_args = -o ControlMaster=auto -o ControlPersist=60s
"""
_PLAYBOOK = """\
- hosts: all
  tasks:
    - copy: { src: "{{ item }}", dest: "/var/lib/rival/{{ item | basename }}" }
      loop: [/root/rival/network.json, /root/rival/network.json.sig]
      notify: restart
  handlers:
    - name: restart
      command: /bin/true
"""
_DEPLOY = """\
from pyinfra.operations import files, server

pushed = [
    files.put(name=name, src=f"/root/rival/{name}", dest=f"/var/lib/rival/{name}")
    for name in ("network.json", "network.json.sig")
]
server.shell(name="restart", commands=["/bin/true"], _if=lambda: any(each.did_change() for each in pushed))
"""


def run() -> None:
    """Print the table."""
    _make_rivals()
    with fleet(_inventory(1420)) as made:
        began = time.perf_counter()
        made.warren("machines", "install", "--tag", "all")
        installed_s = time.perf_counter() - began
        made.start_agents((*_CONTROLLERS, *_PEERS))
        made.warren("machines", "update")
        _prepare_rivals(made)
        ways: dict[str, Callable[[Fleet], object]] = {"warren": _warren, "ansible-core": _ansible, "pyinfra": _pyinfra}
        changed: dict[str, list[float]] = {name: [] for name in ways}
        idle: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(RUNS):  # by turns, so that what else this computer does falls on all of them
            _change(made, number)
            for name, way in ways.items():
                changed[name].append(_seconds(way, made))
                idle[name].append(_seconds(way, made))
                print(
                    f"    run {number + 1} {name}: {changed[name][-1]:.1f} s, {idle[name][-1]:.1f} s", file=sys.stderr
                )
        print(f"  {MACHINES} machines; medians of {RUNS}; installed in {installed_s:.1f} s")
        for title, measured in (("all changed", changed), ("nothing to do", idle)):
            yardstick = statistics.median(measured["warren"])
            for name, seconds in measured.items():
                median = statistics.median(seconds)
                print(f"    {title:<14}{name:<14}{median:8.2f} s{median / yardstick:8.1f} x warren", flush=True)


def _inventory(mtu: int) -> str:
    peers = "".join(f'{name}.tags = ["laptop"]\n' for name in _PEERS)
    return f"""\
[machines]
server1 = {{}}
server2 = {{}}
{peers}
[instances.vpn]
module.name = "wireguard"
roles.controller.settings.mtu = {mtu}
roles.controller.machines.server1.settings.endpoint = "vpn1.example.com"
roles.controller.machines.server2.settings.endpoint = "vpn2.example.com"
roles.peer.tags.laptop.settings = {{ controller = "server1", mtu = {mtu} }}
"""


def _change(made: Fleet, number: int) -> None:
    """What every machine has to be brought, in files of the same size for all three."""
    made.write(f"{FOLDER}/warren.toml", _inventory(1400 - number))
    for name in ("network.json", "network.json.sig"):
        content = made.sh("laptop1", f"cat /var/lib/warren/vpn/{name}")
        made.write(f"/root/rival/{name}", f"{content.rstrip()}{number}\n")


def _seconds(way: Callable[[Fleet], object], made: Fleet) -> float:
    began = time.perf_counter()
    way(made)
    return time.perf_counter() - began


def _warren(made: Fleet) -> None:
    made.warren("machines", "update", "--parallel", str(MACHINES))


def _ansible(made: Fleet) -> None:
    words = "ANSIBLE_CONFIG=/root/rival/ansible.cfg ANSIBLE_LOCALHOST_WARNING=False"
    command = f"{RIVALS}/bin/ansible-playbook -i /root/rival/hosts /root/rival/playbook.yml"
    made.sh(OPERATOR, f"cd /root/rival; {words} {command}")


def _pyinfra(made: Fleet) -> None:
    command = f"{RIVALS}/bin/pyinfra -y --ssh-user root --parallel {MACHINES} hosts.py deploy.py"
    made.sh(OPERATOR, f"cd /root/rival; {command}")


def _prepare_rivals(made: Fleet) -> None:
    names = (*_CONTROLLERS, *_PEERS)
    made.write("/root/rival/ansible.cfg", _ANSIBLE_CONFIGURATION)
    made.write("/root/rival/playbook.yml", _PLAYBOOK)
    made.write("/root/rival/hosts", "".join(f"{name}\n" for name in names))
    made.write("/root/rival/hosts.py", f"hosts = {list(names)!r}\n")
    made.write("/root/rival/deploy.py", _DEPLOY)
    for name in names:
        made.sh(name, "mkdir -p /var/lib/rival")


def _make_rivals() -> None:
    """An environment of their own, made the first time: nobody else needs them."""
    if (RIVALS / "locked").exists() and (RIVALS / "locked").read_text() == _LOCK.read_text():
        return
    print(f"installing {_LOCK.name} into {RIVALS}", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(RIVALS)], check=True)
    pip = [str(RIVALS / "bin/python"), "-m", "pip", "-qq", "--disable-pip-version-check", "install"]
    subprocess.run([*pip, "--require-hashes", "-r", str(_LOCK)], check=True)
    (RIVALS / "locked").write_text(_LOCK.read_text())
