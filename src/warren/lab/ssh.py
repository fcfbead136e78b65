"""A real sshd on the machines of a lab, for `ssh` by name from one to another.

Each machine makes one key: it is its host key, and what its users show elsewhere. All machines know all of them, so
no connection asks a question.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

from warren.errors import LabError
from warren.lab.place import Place, call, results, spawn, start
from warren.lab.programs import environment, find
from warren.names import MachineName
from warren.network.document import Document

LOG = "/var/log/sshd.log"

_KEY = Path("/etc/ssh/lab_key")
_SERVER = Path("/etc/ssh/lab_sshd_config")
_FRIENDS = Path("/etc/ssh/lab_authorized_keys")
_KNOWN_HOSTS = Path("/etc/ssh/ssh_known_hosts")
_CLIENT = Path("/etc/ssh/ssh_config.d/lab.conf")

_SERVER_TEXT = f"""\
HostKey {_KEY}
AuthorizedKeysFile {_FRIENDS}
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
PidFile /run/sshd.pid
Subsystem sftp internal-sftp
"""


def prepare(places: Mapping[MachineName, Place], documents: Iterable[Document]) -> None:
    """Have each machine make its key, and make it known on all of them by the names of the mesh."""
    if find("sshd") is None:
        raise LabError("the program sshd is missing", mend="apt install openssh-server")
    keys = dict(zip(places, results([start(place, _make_key) for place in places.values()]), strict=True))
    names = {name: [f"{name}.{each.domain}" for each in documents if each.entry(name)] for name in keys}
    known = "".join(f"{','.join(names[name])} {key}\n" for name, key in keys.items() if names[name])
    friends = "".join(f"{key} {name}\n" for name, key in keys.items())
    results([start(place, _write_files, known, friends) for place in places.values()])


def start_server(lab: str, machine: MachineName, place: Place) -> None:
    program = find("sshd")
    assert program  # `prepare` looked for it
    call(place, Path("/run/sshd").mkdir)  # /run is new each time the machine starts
    spawn(place, [program, "-D", "-e", "-f", str(_SERVER)], environment(lab, machine), log=LOG)


def _make_key() -> str:
    if not _KEY.exists():
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(_KEY)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return " ".join(_KEY.with_suffix(".pub").read_text().split()[:2])


def _write_files(known_hosts: str, friends: str) -> None:
    _CLIENT.parent.mkdir(exist_ok=True)
    _KNOWN_HOSTS.write_text(known_hosts)
    _FRIENDS.write_text(friends)
    _SERVER.write_text(_SERVER_TEXT)
    _CLIENT.write_text(f"IdentityFile {_KEY}\n")
