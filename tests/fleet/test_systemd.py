"""Machines whose systemd runs the agent: installed over ssh, updated, within the unit's sandbox, rebooted, removed."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from fleet.fleets import FOLDER, OPERATOR, Fleet, all_pairs, fleet
from namespaces import wait_until

pytestmark = [pytest.mark.root, pytest.mark.lab, pytest.mark.slow]

BOOTED = ("server1", "laptop1")
MACHINES = (*BOOTED, "laptop2")
SOON_S = 20.0
TWO_CAPABILITIES = "CapBnd:\t0000000000003000"  # CAP_NET_ADMIN, CAP_NET_RAW: linux/capability.h
DROP_IN = "/etc/systemd/system/warren.service.d/test.conf"

# What uninstall has to leave as it was before install.
EVERYTHING = """\
find /etc /usr/local /run -xdev \\( -path '/run/systemd/*' -o -path /run/log \\) -prune -o -print | sort
ls /var/lib; ls /run/systemd/transient || true
systemctl list-units --all --plain --no-legend 'warren*'; systemctl list-unit-files --no-legend 'warren*' || true
ls /sys/class/net; ip -6 route; nft list ruleset; cat /etc/hosts
sysctl net.ipv6.conf.all.forwarding; pgrep -x wireguard-go || true
"""
# What the agent makes of a controller, as an operator would look at it.
MESH = "ip -br -6 address show dev vpn scope global; ip -6 route show table all | grep -v fe80; nft list ruleset; \
cat /etc/hosts /proc/sys/net/ipv6/conf/vpn/force_forwarding; wg show vpn allowed-ips | sort"


def inventory(mtu: int = 1420, more: str = "") -> str:
    return f"""\
meta.name = "fleet"

[machines]
server1 = {{}}
laptop1 = {{}}
laptop2 = {{}}

[instances.vpn]
module.name = "wireguard"
roles.controller.machines.server1.settings.endpoint = "vpn1.example.com"
roles.peer.machines.laptop1.settings.mtu = {mtu}
roles.peer.machines.laptop2 = {{}}
{more}"""


SECOND_INSTANCE = """
[instances.lan]
module.name = "wireguard"
roles.controller.machines.server1.settings = {endpoint = "vpn1.example.com", port = 51900}
roles.peer.machines.laptop1 = {}
"""


@pytest.fixture(scope="module")
def installed() -> Iterator[Fleet]:
    with fleet(inventory(), systemd=BOOTED) as made:
        made.write("/root/before", made.sh("laptop1", EVERYTHING))
        made.warren("machines", "install", "--tag", "all")
        made.start_agents(["laptop2"])
        made.warren("machines", "update")
        yield made


@pytest.fixture
def machines(installed: Fleet) -> Iterator[Fleet]:
    """The same, as they were whatever a test did to the inventory."""
    yield installed
    installed.write(f"{FOLDER}/warren.toml", inventory())
    installed.warren("machines", "update")


def is_well(machines: Fleet, machine: str) -> bool:
    said = machines.on(machine, "systemctl", "show", "--property=ActiveState,StatusText", "warren", code=None)
    return set(said.out.splitlines()) == {"ActiveState=active", "StatusText=as the documents say: vpn"}


def agent(machines: Fleet, machine: str) -> str:
    return machines.sh(machine, "systemctl show -P MainPID warren").strip()


def timers(machines: Fleet, machine: str) -> list[str]:
    """Those that would take the machine back."""
    lines = machines.sh(machine, "systemctl list-timers --all --no-legend 'warren*'").splitlines()
    return [word for line in lines for word in line.split() if word.endswith(".timer")]


def mtu(machines: Fleet, machine: str) -> int:
    return int(machines.sh(machine, "cat /sys/class/net/vpn/mtu"))


def said_since(machines: Fleet, machine: str, moment: str, *options: str) -> str:
    """What the agent and the operator's side said on the machine since then."""
    return machines.on(machine, "journalctl", "-q", "-t", "warren", "-o", "cat", f"--since={moment}", *options).out


def now(machines: Fleet, machine: str) -> str:
    return machines.sh(machine, "date +@%s.%6N").strip()


def handshakes(machines: Fleet, machine: str) -> list[str]:
    return sorted(machines.sh(machine, "wg show vpn latest-handshakes").splitlines())


def test_install_starts_the_agent_and_update_the_mesh(machines: Fleet) -> None:
    for machine in BOOTED:
        assert machines.sh(machine, "systemctl is-active warren; systemctl is-enabled warren") == "active\nenabled\n"
        wait_until(lambda machine=machine: is_well(machines, machine), SOON_S, "the agent's word")  # type: ignore[misc]
        assert machines.sh(machine, "systemctl --failed --no-legend") == ""
        assert timers(machines, machine) == [], "the update was confirmed"
    assert machines.failing(all_pairs(MACHINES)) == []


def test_a_restart_of_the_agent_does_not_touch_the_mesh(machines: Fleet) -> None:
    before = {machine: handshakes(machines, machine) for machine in BOOTED}
    machines.spawn("laptop1", ["ping", "-6", "-q", "-c", "100", "-i", "0.02", "laptop2.vpn"], "/var/log/ping.log")
    for machine in BOOTED:
        machines.sh(machine, "systemctl restart warren")
    wait_until(lambda: "packets transmitted" in machines.sh("laptop1", "cat /var/log/ping.log"), SOON_S, "the pings")
    assert "100 received, 0% packet loss" in machines.sh("laptop1", "cat /var/log/ping.log")
    assert {machine: handshakes(machines, machine) for machine in BOOTED} == before


def test_within_its_sandbox_the_agent_makes_all_of_a_controller_anew(machines: Fleet) -> None:
    status = machines.sh("server1", f"cat /proc/{agent(machines, 'server1')}/status")
    for line in (TWO_CAPABILITIES, "NoNewPrivs:\t1", "Seccomp:\t2"):
        assert line in status
    before = machines.sh("server1", MESH)
    machines.sh(
        "server1",
        "ip link delete vpn; nft delete table inet warren-vpn; sed -i '/warren/,$d' /etc/hosts; "
        "ip -6 route delete unreachable $(ip -6 route show proto 87 | cut -d ' ' -f 2)",
    )
    wait_until(lambda: machines.on("server1", "sh", "-c", MESH, code=None).out == before, SOON_S, "the mesh")
    assert "/warren.service" in machines.sh("server1", "cat /proc/$(pidof wireguard-go)/cgroup")
    machines.sh("server1", "sysctl -q net.ipv6.conf.vpn.force_forwarding=0; nft delete table inet warren-vpn")
    wait_until(lambda: machines.on("server1", "sh", "-c", MESH, code=None).out == before, SOON_S, "the mesh again")
    assert machines.failing(all_pairs(MACHINES)) == []


@pytest.mark.parametrize(
    ("start", "listing", "end"),
    [
        ("ufw allow 22/tcp; ufw --force enable", "ufw status", "ufw --force reset"),
        ("systemctl start firewalld", "firewall-cmd --list-all", "systemctl stop firewalld"),
    ],
    ids=["ufw", "firewalld"],
)
def test_within_its_sandbox_the_agent_asks_other_firewalls(machines: Fleet, start: str, listing: str, end: str) -> None:
    machines.sh("server1", start)
    try:
        wait_until(lambda: "51820/udp" in machines.sh("server1", listing), SOON_S, "the open port")
        wait_until(lambda: " vpn" in machines.sh("server1", listing), SOON_S, "what lets the mesh through")
        machines.sh("server1", "ip link delete vpn")  # what would be let in as known has to be let in as new
        wait_until(lambda: is_well(machines, "server1"), SOON_S, "the agent's word")
        assert machines.failing(all_pairs(MACHINES)) == []
    finally:
        machines.sh("server1", end)
        wait_until(lambda: is_well(machines, "server1"), SOON_S, "the agent's word")


@pytest.mark.parametrize("fate", ["systemctl stop warren", "kill -KILL $(systemctl show -P MainPID warren)"])
def test_a_timer_takes_back_what_nobody_confirms(machines: Fleet, fate: str) -> None:
    """Also with nobody else there who would."""
    moment = now(machines, "laptop1")
    machines.write(f"{FOLDER}/warren.toml", inventory(mtu=1300))
    machines.update_unconfirmed(confirm_within_s=5)
    assert len(timers(machines, "laptop1")) == 1
    assert mtu(machines, "laptop1") == 1300
    machines.sh("laptop1", fate)
    wait_until(lambda: mtu(machines, "laptop1") == 1420, SOON_S, "the way back")
    wait_until(lambda: timers(machines, "laptop1") == [], SOON_S, "the timer's end")
    wait_until(
        lambda: "nobody confirmed it within 5 s" in said_since(machines, "laptop1", moment), SOON_S, "the reason"
    )
    assert machines.sh("laptop1", "systemctl list-units --all --plain --no-legend 'warren-restore*'") == ""
    machines.sh("laptop1", "systemctl start warren")
    assert machines.failing(all_pairs(MACHINES)) == []


def test_the_agent_takes_back_a_whole_instance_where_the_timer_is_gone(machines: Fleet) -> None:
    """In its sandbox, and a userspace WireGuard that has more rights than itself, for it was started over ssh."""
    machines.write(f"{FOLDER}/warren.toml", inventory(more=SECOND_INSTANCE))
    machines.update_unconfirmed(confirm_within_s=3)
    machines.sh("laptop1", "test -e /sys/class/net/lan; systemctl stop 'warren-restore-*.timer'")
    # It looks at once when it starts, and after half a minute otherwise.
    machines.sh("laptop1", "sleep 3; systemctl restart warren")
    wait_until(lambda: is_well(machines, "laptop1"), SOON_S, "the agent's word")
    assert machines.sh("laptop1", "ls /sys/class/net; pgrep -xa wireguard-go | cut -d ' ' -f 2-") == (
        "eth0\nlo\nvpn\n/usr/bin/wireguard-go -f vpn\n"
    )


def test_a_reboot_before_the_confirmation_goes_back(machines: Fleet) -> None:
    machines.write(f"{FOLDER}/warren.toml", inventory(mtu=1300))
    machines.update_unconfirmed(confirm_within_s=300)
    machines.reboot("laptop1")
    wait_until(lambda: is_well(machines, "laptop1"), SOON_S, "the agent's word")
    assert mtu(machines, "laptop1") == 1420
    assert timers(machines, "laptop1") == []
    assert "the machine was restarted before anybody confirmed" in machines.sh("laptop1", "journalctl -b -u warren")


def test_the_journal_tells_an_operator_what_is_wrong(machines: Fleet) -> None:
    moment = now(machines, "server1")
    document = "/var/lib/warren/vpn/network.json"
    machines.sh("server1", f"cp -a {document} /root/kept; echo '{{}}' > {document}")
    wait_until(lambda: said_since(machines, "server1", moment, "-p", "err"), SOON_S, "the error")
    assert said_since(machines, "server1", moment, "-p", "err") == (
        f"vpn: {document}: the document: 'version' is missing\n"
    )
    assert machines.sh("server1", "systemctl show -P StatusText warren") == "not as the documents say: vpn\n"
    machines.sh("server1", f"cp -a /root/kept {document}")
    wait_until(lambda: is_well(machines, "server1"), SOON_S, "the agent's word")
    assert said_since(machines, "server1", moment).endswith("vpn: as the document says\n")


def test_an_agent_that_hangs_is_started_anew(machines: Fleet) -> None:
    machines.write(DROP_IN, "[Service]\nWatchdogSec=2\nRestartSec=100ms\n", "laptop1")
    machines.sh("laptop1", "systemctl daemon-reload; systemctl restart warren")
    hanging = agent(machines, "laptop1")
    before = handshakes(machines, "laptop1")
    machines.sh("laptop1", f"kill -STOP {hanging}")
    wait_until(lambda: agent(machines, "laptop1") not in ("0", hanging), SOON_S, "another agent")
    wait_until(lambda: is_well(machines, "laptop1"), SOON_S, "its word")
    assert "Watchdog timeout" in machines.sh("laptop1", "journalctl -b -u warren")
    assert handshakes(machines, "laptop1") == before
    machines.sh("laptop1", f"rm -r $(dirname {DROP_IN}); systemctl daemon-reload; systemctl restart warren")


@pytest.mark.parametrize("machine", BOOTED)
def test_after_a_reboot_the_mesh_comes_up_by_itself(machines: Fleet, machine: str) -> None:
    machines.reboot(machine)
    assert machines.failing(all_pairs(MACHINES)) == []
    assert machines.sh(machine, "systemctl is-active warren; systemctl --failed --no-legend") == "active\n"


def test_after_a_power_cut_too(machines: Fleet) -> None:
    for machine in BOOTED:
        machines.kill(machine)
    for machine in BOOTED:
        machines.revive(machine)
    assert machines.failing(all_pairs(MACHINES)) == []


def test_nothing_that_was_said_so_far_is_a_traceback(machines: Fleet) -> None:
    for machine in BOOTED:
        said = machines.sh(machine, "journalctl --merge -t warren -o cat")
        assert "as the document says" in said
        assert "Traceback" not in said


def test_uninstall_waits_for_the_end_of_an_update(machines: Fleet) -> None:
    machines.write(f"{FOLDER}/warren.toml", inventory(mtu=1300))
    machines.update_unconfirmed(confirm_within_s=300)
    said = machines.warren("machines", "uninstall", "laptop1", code=4)
    assert "laptop1: it is still installed there: laptop1: vpn: an update waits to be confirmed" in said.err
    restore = said.err.rpartition("or ")[2].splitlines()[0]
    assert machines.sh("laptop1", "systemctl is-active warren; systemctl is-enabled warren") == "active\nenabled\n"
    machines.sh("laptop1", restore)
    assert mtu(machines, "laptop1") == 1420
    wait_until(lambda: timers(machines, "laptop1") == [], SOON_S, "the timer's end")


def test_uninstall_leaves_nothing_behind(machines: Fleet) -> None:
    machines.warren("machines", "uninstall", "laptop1")
    assert machines.sh("laptop1", EVERYTHING) == machines.sh(OPERATOR, "cat /root/before")
    machines.warren("machines", "install", "laptop1")


def test_one_with_nothing_but_the_archive_joins_and_fetches_from_then_on(machines: Fleet) -> None:
    """Nobody can log in to it, and nobody starts anything there but `join`."""
    machines.warren("machines", "uninstall", "laptop1")
    machines.sh("laptop1", "systemctl disable --now fleet-sshd")
    try:
        pulls = inventory().replace("laptop1 = {}", "laptop1.deploy.pull = true")
        machines.write(f"{FOLDER}/warren.toml", pulls)
        archive = machines.sh("laptop2", "base64 /usr/local/lib/warren/warren.pyz")
        machines.write("/root/archive", archive, "laptop1")
        invited = machines.warren("machines", "invite", "laptop1", "--json").out
        machines.write("/root/line", json.loads(invited)["invitations"]["laptop1"]["line"], "laptop1", 0o600)
        join = "base64 -d archive > warren.pyz; python3 warren.pyz join - < line; echo $? > joined"
        machines.spawn("laptop1", ["sh", "-c", f"cd /root; {join}"], "/var/log/join.log")
        wait_until(
            lambda: "waits for the operator" in machines.sh("laptop1", "cat /var/log/join.log"), SOON_S, "the key"
        )
        machines.warren("machines", "accept", "laptop1")
        wait_until(lambda: machines.on("laptop1", "cat", "/root/joined", code=None).out == "0\n", SOON_S, "the end")
        assert 'is "laptop1" in "vpn"' in machines.sh("laptop1", "cat /var/log/join.log")
        assert machines.sh("laptop1", "systemctl is-active warren; systemctl is-enabled warren") == "active\nenabled\n"
        wait_until(lambda: is_well(machines, "laptop1"), SOON_S, "the agent's word")

        machines.reboot("laptop1")
        assert machines.failing(all_pairs(MACHINES)) == []
        machines.write(f"{FOLDER}/warren.toml", pulls.replace("1420", "1300"))
        said = machines.warren("machines", "update", "--json")
        assert json.loads(said.out)["machines"]["laptop1"]["state"] == "done", said
        assert mtu(machines, "laptop1") == 1300
        assert timers(machines, "laptop1") == [], "it confirmed that itself"
        assert machines.sh("laptop1", "systemctl --failed --no-legend; ls /sys/class/net") == "eth0\nlo\nvpn\n"
    finally:
        machines.sh("laptop1", "systemctl enable --now fleet-sshd")
