"""50 machines over ssh: an update of all of them, and one with nothing to do, beside ansible-core and pyinfra.

The others push the two files that an update brings (document and signature) to the same machines, over the same ssh,
and restart one thing on each that got something new: the agent that reads them, and they wait until it is up, as
`systemctl restart` would. Besides, the same with /bin/true in place of the restart: what the pushing alone costs.
Both are set up as their own documentation says for speed: as many at once as there are machines, pipelining,
connections kept open, no facts gathered. They do not verify, plan or undo.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from fleet.fleets import AGENT_LOG, FOLDER, OPERATOR, Fleet, fleet

MACHINES = 50
RUNS = 3
PAUSE_S = 10.0  # agents that were restarted come to rest, before the next is measured
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
    - copy: { src: "{{ item }}", dest: "{{ folder }}/{{ item | basename }}" }
      loop: [/root/rival/network.json, /root/rival/network.json.sig]
      notify: restart
  handlers:
    - name: restart
      command: "{{ restart }}"
"""
_DEPLOY = """\
from pyinfra import host
from pyinfra.operations import files, server

pushed = [
    files.put(name=name, src=f"/root/rival/{name}", dest=f"{host.data.folder}/{name}")
    for name in ("network.json", "network.json.sig")
]
server.shell(name="restart", commands=[host.data.restart], _if=lambda: any(each.did_change() for each in pushed))
"""
_FOLDERS = tuple(f"/var/lib/rival{number}" for number in range(4))  # what one pushed is new to the next
_NOTHING, _RESTART = "/bin/true", "/root/restart-agent"
_RESTARTER = f"""\
#!/bin/sh
agent=$(pgrep -o -f 'warren agent$') && kill "$agent"
while kill -0 "$agent" 2>/dev/null; do sleep 0.02; done
setsid /usr/local/bin/warren agent >>{AGENT_LOG} 2>&1 </dev/null &
until [ -S /run/warren/agent.sock ]; do sleep 0.02; done
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
        ways: dict[str, Callable[[Fleet], object]] = {
            "warren": _warren,
            "ansible-core": partial(_ansible, _FOLDERS[0], _RESTART),
            "pyinfra": partial(_pyinfra, _FOLDERS[1], _RESTART),
            "ansible-core, no restart": partial(_ansible, _FOLDERS[2], _NOTHING),
            "pyinfra, no restart": partial(_pyinfra, _FOLDERS[3], _NOTHING),
        }
        changed: dict[str, list[float]] = {name: [] for name in ways}
        idle: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(RUNS):  # by turns, so that what else this computer does falls on all of them
            _change(made, number)
            for name, way in ways.items():
                changed[name].append(_seconds(way, made))
                idle[name].append(_seconds(way, made))
                time.sleep(PAUSE_S)
                print(
                    f"    run {number + 1} {name}: {changed[name][-1]:.1f} s, {idle[name][-1]:.1f} s", file=sys.stderr
                )
            for folder in _FOLDERS:
                _check_pushed(folder, made)
        print(f"  {MACHINES} machines; medians of {RUNS}; installed in {installed_s:.1f} s")
        for title, measured in (("all changed", changed), ("nothing to do", idle)):
            yardstick = statistics.median(measured["warren"])
            for name, seconds in measured.items():
                median = statistics.median(seconds)
                print(f"    {title:<14}{name:<26}{median:8.2f} s{median / yardstick:8.1f} x warren", flush=True)


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


def _ansible(folder: str, restart: str, made: Fleet) -> None:
    words = "ANSIBLE_CONFIG=/root/rival/ansible.cfg ANSIBLE_LOCALHOST_WARNING=False"
    given = f"-e folder={folder} -e restart={restart}"
    made.sh(OPERATOR, f"cd /root/rival; {words} {RIVALS}/bin/ansible-playbook -i hosts {given} playbook.yml")


def _pyinfra(folder: str, restart: str, made: Fleet) -> None:
    given = f"--data folder={folder} --data restart={restart} --parallel {MACHINES}"
    made.sh(OPERATOR, f"cd /root/rival; {RIVALS}/bin/pyinfra -y --ssh-user root {given} hosts.py deploy.py")


def _check_pushed(folder: str, made: Fleet) -> None:
    pushed, last = made.sh(OPERATOR, "cat /root/rival/network.json"), _PEERS[-1]
    assert made.sh(last, f"cat {folder}/network.json") == pushed, f"{folder}: {last} was not brought the files"


def _prepare_rivals(made: Fleet) -> None:
    names = (*_CONTROLLERS, *_PEERS)
    made.write("/root/rival/ansible.cfg", _ANSIBLE_CONFIGURATION)
    made.write("/root/rival/playbook.yml", _PLAYBOOK)
    made.write("/root/rival/hosts", "".join(f"{name}\n" for name in names))
    made.write("/root/rival/hosts.py", f"hosts = {list(names)!r}\n")
    made.write("/root/rival/deploy.py", _DEPLOY)
    for name in names:
        made.write(_RESTART, _RESTARTER, name)
        made.sh(name, f"mkdir -p {' '.join(_FOLDERS)}; chmod 755 {_RESTART}")


def _make_rivals() -> None:
    """An environment of their own, made the first time: nobody else needs them."""
    if (RIVALS / "locked").exists() and (RIVALS / "locked").read_text() == _LOCK.read_text():
        return
    print(f"installing {_LOCK.name} into {RIVALS}", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(RIVALS)], check=True)
    pip = [str(RIVALS / "bin/python"), "-m", "pip", "-qq", "--disable-pip-version-check", "install"]
    subprocess.run([*pip, "--require-hashes", "-r", str(_LOCK)], check=True)
    (RIVALS / "locked").write_text(_LOCK.read_text())
