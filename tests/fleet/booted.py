"""Machines of a fleet that run a whole systemd: `systemd-nspawn --boot` within a lab machine, on its network and disk.

Everything of it is a process in the lab machine's pid namespace, and ends with it. Only its control groups would stay:
they are below one that `control_group` makes, and removes when the test has ended, however it ended.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from namespaces import wait_until
from warren.errors import LabError
from warren.lab.namespaces import bind, mount, unmount
from warren.lab.place import Place, call, spawn
from warren.lab.process import Process
from warren.lab.programs import environment
from warren.lab.root import STATE_FOLDER
from warren.names import MachineName

CONSOLE = "/var/log/console.log"

_BOOTED = Path("/run/booted")  # on the computer that the machines are made on: a file for each
_ROOT = Path("/run/root")
_REBOOT = 133  # how nspawn ends with --keep-unit: whoever keeps the unit starts it anew
_UNITS = Path("/etc/systemd/system")
_CONTROL_GROUPS = Path("/sys/fs/cgroup")

# What the kernel of a container cannot give, or what nobody looks at; only takes time.
_MASKED = (
    "console-getty.service",
    "getty.target",
    "systemd-binfmt.service",
    "systemd-firstboot.service",
    "systemd-hwdb-update.service",
    "systemd-journal-catalog-update.service",
    "systemd-journal-flush.service",
    "systemd-machine-id-commit.service",
    "systemd-pstore.service",
    "systemd-random-seed.service",
    "systemd-sysctl.service",
    "systemd-sysusers.service",
    "systemd-tmpfiles-clean.timer",
    "systemd-update-done.service",
    "systemd-update-utmp.service",
)
_SSHD = """\
[Unit]
Description=The operator's way in
After=network.target

[Service]
Type=notify
RuntimeDirectory=sshd
ExecStart=/usr/sbin/sshd -D -f /etc/ssh/fleet_sshd_config
KillMode=process

[Install]
WantedBy=multi-user.target
"""

# Runs beside the test, in a mount namespace of its own: the group is there as long as somebody holds the other end.
_KEEP_GROUP = """\
mount -t cgroup2 cgroup2 /sys/fs/cgroup && mkdir /sys/fs/cgroup/$1 && echo made || exit
read -r nothing
for try in $(seq 300); do
    find /sys/fs/cgroup/$1 -depth -type d -exec rmdir {} + 2> /dev/null && exit
    sleep 0.1
done
exit 1
"""


@contextmanager
def control_group() -> Iterator[str]:
    """A control group for all of a fleet's machines; its name."""
    if not shutil.which("systemd-nspawn"):
        pytest.skip("systemd-nspawn is not installed")
    name = f"warren-test-{os.getpid()}"
    with subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", _KEEP_GROUP, "sh", name],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
    ) as keeper:  # fmt: skip
        assert keeper.stdout
        if keeper.stdout.readline() != "made\n":
            pytest.skip("no control groups (version 2) can be made here")
        yield name
    assert keeper.returncode == 0, "control groups are left, or processes in them"


def prepare(place: Place, group: str) -> None:
    """Let this lab machine have systemd, from its first `start` on."""
    _BOOTED.mkdir(exist_ok=True)
    (_BOOTED / place.name).write_text(group)
    call(place, _write_units)


def start(place: Place) -> None:
    """Switch it on; returns when ssh can be had."""
    name = place.name
    call(place, _mount_root, (_BOOTED / name).read_text())
    command = [
        "systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit", "--settings=no", "--link-journal=no",
        f"--machine={name}", f"--directory={_ROOT}", "--network-namespace-path=/proc/1/ns/net", "--capability=all",
        "--bind=/dev/net/tun", "--resolv-conf=off", "--timezone=off", "--console=pipe",
    ]  # fmt: skip
    group = f"{_CONTROL_GROUPS}/{(_BOOTED / name).read_text()}/{name}"
    variables = {
        **environment("", MachineName(name)),
        "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
        "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network",  # /proc/sys/net, as on a real machine; no more of it
    }
    script = f'echo $$ > {group}/cgroup.procs; while "$@"; [ $? -eq {_REBOOT} ]; do :; done'
    spawn(place, ["sh", "-c", script, "sh", *command], variables, log=CONSOLE)
    wait_until(lambda: is_up(place), timeout_s=60, what=f"systemd of {name}")


def is_up(place: Place) -> bool:
    """Whether all that starts with it has started."""
    within = inside(place)
    try:
        return within is not place and call(within, _is_up)
    except LabError:  # it went away in the middle: it starts anew
        return False


def has_systemd(place: Place) -> bool:
    """Whether it is one of those, running or not."""
    return (_BOOTED / place.name).exists()


def reboot(place: Place) -> None:
    """From within, as a user does; returns when all has started again."""
    before = inside(place)
    call(before, subprocess.run, ["systemctl", "reboot"])
    wait_until(lambda: inside(place).process != before.process and is_up(place), 60, f"{place.name} again")


def inside(place: Place) -> Place:
    """Where the machine's processes are: within its systemd, if it has one that runs."""
    if not has_systemd(place):
        return place
    leader = _leader(place.process.pid)
    return Place(place.name, leader) if leader else place


def _leader(init: int) -> Process | None:
    """The process that is number 1 on the same network and in another pid namespace."""
    own = Path(f"/proc/{init}/ns")
    network, processes = (own / "net").readlink(), (own / "pid").readlink()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status = (folder / "status").read_text()
            if status.partition("NSpid:")[2].split("\n")[0].split()[-1] != "1":
                continue
            if (folder / "ns/net").readlink() != network or (folder / "ns/pid").readlink() == processes:
                continue
            if "systemd" not in (folder / "comm").read_text():
                continue
            descriptor = os.pidfd_open(int(folder.name))
        except (OSError, IndexError):
            continue
        process = Process.behind(descriptor)
        os.close(descriptor)
        return process
    return None


# On the machine


def _write_units() -> None:
    """This computer's own units are not the machine's; it starts what systemd itself brings, and sshd."""
    shutil.rmtree(_UNITS, ignore_errors=True)
    _UNITS.mkdir()
    for name in _MASKED:
        (_UNITS / name).symlink_to("/dev/null")
    (_UNITS / "default.target").symlink_to("/lib/systemd/system/multi-user.target")
    (_UNITS / "fleet-sshd.service").write_text(_SSHD)
    wants = _UNITS / "multi-user.target.wants"
    wants.mkdir()
    (wants / "fleet-sshd.service").symlink_to("../fleet-sshd.service")
    Path("/etc/machine-id").unlink(missing_ok=True)
    Path("/etc/machine-id").write_text(f"{os.urandom(16).hex()}\n")
    Path("/etc/fstab").write_text("")


def _is_up() -> bool:
    done = subprocess.run(["systemctl", "is-system-running"], capture_output=True, text=True, check=False)
    return done.stdout.strip() in ("running", "degraded")


def _mount_root(group: str) -> None:
    unmount(STATE_FOLDER)  # the lab's, in whose place it has one of its own that can be removed
    with suppress(OSError):
        STATE_FOLDER.rmdir()
    _ROOT.mkdir()
    bind("/", _ROOT)
    mount("cgroup2", _CONTROL_GROUPS, "cgroup2")
    (_CONTROL_GROUPS / group / os.uname().nodename).mkdir(exist_ok=True)
