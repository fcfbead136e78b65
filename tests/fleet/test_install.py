"""Installing and uninstalling over ssh: what is checked, what each refusal says, and that it leaves nothing behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fleet.fleets import FOLDER, OPERATOR, Fleet, fleet
from namespaces import wait_until
from warren.fleet import bootstrap
from warren.fleet.bundle import bundle

pytestmark = [pytest.mark.root, pytest.mark.lab]

# One machine for each way to fail, so that none is in another one's way.
BARE = (
    "bare",
    "crowded",
    "dead",
    "guest",
    "old",
    "poor",
    "stranger",
    "twin",
    "unknown",
)
INVENTORY = """\
meta.name = "fleet"

[machines]
server1 = {}
behind.deploy.via = "root@server1"
bare = {}
crowded = {}
dead = {}
guest.deploy.host = "guest@guest"
nowhere = {}
old = {}
phone.managed = false
poor = {}
stranger = {}
twin.deploy.host = "server1"
unknown = {}

[instances.vpn]
module.name = "wireguard"
roles.controller.machines.server1.settings.endpoint = "vpn1.example.com"
roles.peer.tags.all = {}
"""
EVERYTHING = "find /usr/local/bin /usr/local/lib /etc /var/lib /run -maxdepth 3 | sort"


@pytest.fixture(scope="module")
def machines() -> Iterator[Fleet]:
    text = INVENTORY.replace(
        "roles.peer.tags.all = {}",
        "".join(f"roles.peer.machines.{name} = {{}}\n" for name in (*BARE, "behind", "nowhere", "phone")),
    )
    with fleet(text) as made:
        made.warren("machines", "install", "server1")
        yield made


def refusal(machines: Fleet, name: str, *options: str) -> str:
    """What install says; nothing may be left of it on the machine."""
    said = machines.warren("machines", "install", name, *options, code=4)
    assert machines.sh(OPERATOR, f"find vars/per-machine/{name} -name publickey || true") == ""
    return said.err


def nothing_is_installed(machines: Fleet, name: str) -> bool:
    places = "/usr/local/lib/warren /usr/local/bin/warren /etc/warren /var/lib/warren"
    return machines.sh(name, f"find {places} -type f 2> /dev/null || true") == ""


def test_a_machine_whose_host_key_is_not_known(machines: Fleet) -> None:
    machines.sh(OPERATOR, "sed -i '/^unknown /d' /root/.ssh/known_hosts")
    assert refusal(machines, "unknown") == (
        "unknown: unknown: its host key is not known here\n"
        "mend: connect once by hand and compare the key that is shown: ssh unknown\n"
    )
    assert nothing_is_installed(machines, "unknown")


def test_a_machine_with_another_host_key_than_before(machines: Fleet) -> None:
    machines.sh(
        OPERATOR, "cd /root/.ssh; sed -i \"s|^stranger .*|stranger $(cut -d' ' -f1,2 id_ed25519.pub)|\" known_hosts"
    )
    said = refusal(machines, "stranger")
    assert said.startswith("stranger: stranger: its host key is not the one that is known here")
    assert "ssh-keygen -R stranger" in said
    assert nothing_is_installed(machines, "stranger")


def test_a_user_who_may_not_be_root(machines: Fleet) -> None:
    machines.sh("guest", "useradd -m -p '*' guest && mkdir ~guest/.ssh && cp ~/.ssh/authorized_keys ~guest/.ssh")
    assert refusal(machines, "guest") == (
        "guest: this needs root there, and sudo without a password is not to be had\n"
        "mend: let deploy.host be root@…, or allow the user of guest@guest NOPASSWD in sudoers\n"
    )
    assert nothing_is_installed(machines, "guest")


def test_a_python_that_is_too_old(machines: Fleet) -> None:
    fake = '#!/bin/sh\ncase "$*" in *sys.exit*) exit 1 ;; *) echo 3.9.2 ;; esac\n'
    for name in ("python3", "python3.11", "python3.12", "python3.13", "python3.14"):
        machines.write(f"/usr/local/bin/{name}", fake, "old", 0o755)
    assert refusal(machines, "old") == (
        "old: Warren needs Python 3.11 or later, and the machine has 3.9.2\n"
        "mend: have its distribution's package installed: warren machines install old --install-packages\n"
    )
    assert nothing_is_installed(machines, "old")
    # A newer one beside the distribution's own is enough, and is the one that runs Warren.
    machines.sh("old", "rm /usr/local/bin/python3.11")
    machines.warren("machines", "install", "old")
    assert "/usr/bin/python3.11 -I" in machines.sh("old", "cat /usr/local/bin/warren")


def test_a_full_disk(machines: Fleet) -> None:
    machines.sh("crowded", "mkdir /usr/local/lib/warren && mount -t tmpfs -o size=40k none /usr/local/lib/warren")
    assert refusal(machines, "crowded") == (
        "crowded: nothing was installed: /usr/local/lib/warren/warren.pyz: No space left on device\n"
        "mend: make room there, or make the folder writable\n"
    )
    assert nothing_is_installed(machines, "crowded")


def test_a_disk_that_gets_full_leaves_the_installed_warren_as_it_was(machines: Fleet) -> None:
    """Another machine's disk: it has Warren, and no room for a second one beside it."""
    size = len(bootstrap.compiled(bundle())) * 3 // 2  # for one and a half
    folder = "/usr/local/lib/warren"
    machines.sh("crowded", f"umount {folder} && mount -t tmpfs -o size={size} none {folder}")
    machines.warren("machines", "install", "crowded")
    before = machines.sh("crowded", "cd /usr/local/lib/warren; find . -type f | xargs sha256sum")
    said = machines.warren("machines", "install", "crowded", code=4)
    assert "No space left on device" in said.err
    assert machines.sh("crowded", "cd /usr/local/lib/warren; find . -type f | xargs sha256sum") == before
    assert "warren 0" in machines.sh("crowded", "warren --version")


def test_missing_programs_and_having_them_installed(machines: Fleet) -> None:
    """The distribution's mirror is far away: a program of its package manager's name stands for it."""
    machines.sh("poor", "cp /usr/sbin/nft /root/nft; rm /usr/sbin/nft /usr/bin/wg")
    assert refusal(machines, "poor") == (
        "poor: the machine lacks nftables wireguard-tools\n"
        "mend: have its distribution's packages installed: warren machines install poor --install-packages\n"
    )
    machines.write("/usr/local/bin/apt-get", "#!/bin/sh\necho 'no network' >&2\nexit 100\n", "poor", 0o755)
    said = refusal(machines, "poor", "--install-packages")
    assert said.startswith("poor: the packages cannot be installed: nftables wireguard-tools\nno network\n")
    assert nothing_is_installed(machines, "poor")
    script = '#!/bin/sh\necho "$@" >> /root/asked\ncp /root/nft /usr/sbin/nft\ncp /bin/true /usr/bin/wg\n'
    machines.write("/usr/local/bin/apt-get", script, "poor", 0o755)
    machines.warren("machines", "install", "poor", "--install-packages")
    asked = machines.sh("poor", "cat /root/asked")
    assert "install -y --no-install-recommends nftables wireguard-tools" in asked
    assert not nothing_is_installed(machines, "poor")


def test_two_machines_of_the_inventory_on_one_computer(machines: Fleet) -> None:
    said = refusal(machines, "twin")
    assert said.startswith('twin: this computer is machine "server1" already\nmend: see whether deploy.host')
    assert machines.sh("server1", "cat /var/lib/warren/machine.name") == "server1\n"


def test_a_machine_that_is_not_there(machines: Fleet) -> None:
    machines.kill("dead")
    said = refusal(machines, "dead")
    assert said.startswith("dead: dead: ")
    assert "is it running?" in said
    machines.sh(OPERATOR, "sed '/ nowhere /d' /etc/hosts > /root/hosts; cat /root/hosts > /etc/hosts")
    said = refusal(machines, "nowhere")
    assert "nowhere: nowhere: there is no such host name" in said


def test_a_machine_behind_another_one(machines: Fleet) -> None:
    """Which hop failed, and why; then both are in order."""
    assert refusal(machines, "behind").startswith("behind: behind from server1: the jump host does not know its name")
    address = machines.sh(OPERATOR, "awk '$2 == \"behind\" {print $1}' /etc/hosts").strip()
    machines.sh("server1", f"echo {address} behind >> /etc/hosts")
    machines.sh(OPERATOR, "cd /root/.ssh; cp known_hosts kept; sed -i '/^server1 /d' known_hosts")
    assert refusal(machines, "behind") == (
        "behind: jump host server1: its host key is not known here\n"
        "mend: connect once by hand and compare the key that is shown: ssh root@server1\n"
    )
    machines.sh(OPERATOR, "cd /root/.ssh; mv kept known_hosts")
    machines.warren("machines", "install", "behind")
    assert "behind" in machines.sh("behind", "cat /var/lib/warren/machine.name")


def test_a_machine_that_warren_does_not_run_on(machines: Fleet) -> None:
    said = machines.warren("machines", "install", "phone", code=2)
    assert 'machine "phone" is not managed' in said.err
    assert "warren render phone" in said.err


def test_ssh_itself_is_missing(machines: Fleet) -> None:
    said = machines.on(
        OPERATOR,
        "env",
        "WARREN_SSH=/nonexistent/ssh",
        "sh",
        "-c",
        f"cd {FOLDER}; exec {_warren()} machines install bare",
        code=2,
    )
    assert "/nonexistent/ssh cannot be started: No such file or directory" in said.err


def test_without_a_key_to_sign_with_nothing_is_begun(machines: Fleet) -> None:
    said = machines.warren("machines", "install", "bare", "--sign-key", "/nonexistent", code=2)
    assert "--sign-key: /nonexistent is no ssh key" in said.err
    assert nothing_is_installed(machines, "bare")


def test_uninstall_undoes_all_of_it(machines: Fleet) -> None:
    """Files, links, tables and processes are what they were before install; the vars keep the address alone."""
    state = "ip -br link; nft list tables; cat /etc/hosts; ls /proc/sys/net/ipv6/conf"
    files, before = machines.sh("bare", EVERYTHING), machines.sh("bare", state)
    machines.warren("machines", "install", "bare")
    machines.warren("machines", "update", "bare", "server1")
    machines.start_agents(["bare"])
    wait_until(lambda: "agent of bare" in machines.sh("bare", "cat /var/log/warren-agent.log"), what="its agent")
    assert "vpn" in machines.sh("bare", state)
    said = machines.warren("machines", "uninstall", "bare")
    assert "bare: uninstalled, taken down: vpn" in said.err
    assert "out of date: bare" in said.err
    assert machines.sh("bare", EVERYTHING).replace("/var/lib/warren\n", "") == files.replace("/var/lib/warren\n", "")
    assert machines.sh("bare", state) == before
    wait_until(lambda: "warren" not in machines.sh("bare", "ps -e -o args"), what="the end of its agent")
    assert machines.sh(OPERATOR, "find vars/per-machine/bare -name value").count("\n") == 1
    # Once more: nothing is there, and that is fine.
    assert "bare: uninstalled\n" in machines.warren("machines", "uninstall", "bare").err


def _warren() -> str:
    import sys

    return f"{sys.executable} -m warren"
