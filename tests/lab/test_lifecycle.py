"""Up, interrupted, changed, down: a lab leaves nothing behind and touches nothing that it did not make."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.labs import DEMO, HOME, WARREN, Computer, computer
from namespaces import sh, wait_until

pytestmark = [pytest.mark.root, pytest.mark.lab]

SMALL = """\
meta.name = "small"

[machines]
server1 = {}
laptop1 = {}

[instances.vpn]
module.name = "wireguard"
roles.controller.machines.server1.settings.endpoint = "vpn1.example.com"
roles.peer.machines.laptop1 = {}
"""


@pytest.fixture
def host() -> Iterator[Computer]:
    with computer() as made:
        yield made


# Kernel state that others change all the time.
MOVING = "^(kernel.random|kernel.ns_last_pid|kernel.pty|kernel.perf|fs.dentry|fs.file-nr|fs.inode|fs.quota)"


def picture() -> dict[str, str]:
    """All of this computer that a lab could touch, as text."""
    seen = {
        command: sh(command)
        for command in ("ip addr", "ip -6 route show table all", "ip route show table all", "ip rule", "ip -6 rule")
    }
    seen["links"] = sh("ip -br link")
    seen["nft"] = sh("nft list ruleset")
    seen["mounts"] = Path("/proc/self/mountinfo").read_text()
    seen["run"] = sh(f"find /run -path {HOME} -prune -o -print")
    seen["processes"] = "\n".join(sorted(processes()))
    seen["sysctls"] = sh(f"sysctl -a 2>/dev/null | grep -Ev '{MOVING}' | sort")
    return seen


def processes() -> list[str]:
    """Commands of the living, without this process and its children."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and entry.name != str(os.getpid()):
            try:
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if words:
                found.append(words)
    return found


def lab_processes(host: Computer) -> list[str]:
    """What runs of labs: `sleep` of the inits, agents, userspace WireGuards, an `up`."""
    mine = ("sleep ", "wireguard-go ", "warren")
    return [words for words in host.namespace.run(processes) if any(word in words for word in mine)]


def test_the_computer_is_as_before_and_already_while_the_lab_runs(host: Computer) -> None:
    host.namespace.sh(
        "ip link add mine type veth peer name other; ip addr add 198.18.0.9/24 dev mine; ip link set mine up"
    )
    host.namespace.sh("ip route add 203.0.113.0/24 dev mine; nft add table inet mine; sysctl -qw net.ipv4.ip_forward=0")
    host.namespace.sh("mount --make-rshared /")  # as systemd does
    before = host.namespace.run(picture)
    host.up(DEMO, "--ssh")
    host.warren("fault", "delay", "laptop1", "5ms")
    host.warren("fault", "loss", "laptop2", "5%")
    during = host.namespace.run(picture)
    for part in before.keys() - {"run", "processes"}:
        assert during[part] == before[part], part
    host.shell("server1", "echo changed > /etc/hosts; echo new > /root/new; mkdir /usr/new; rm /bin/ls")
    assert not Path("/usr/new").exists()
    host.warren("down")
    assert host.namespace.run(picture) == before


def test_a_machine_cannot_change_the_computers_own_sysctls(host: Computer) -> None:
    host.up(SMALL)
    result = host.warren("exec", "laptop1", "--", "sysctl", "-w", "vm.swappiness=1", code=1)
    assert "permission denied" in result.stderr
    host.warren("exec", "laptop1", "--", "sysctl", "-w", "net.ipv4.ip_forward=1")


def reached(host: Computer, stage: str) -> bool:
    """Whether the `up` in the background has come so far."""
    return f"{stage} …" in (host.folder / "output").read_text()


STAGES = ("machines", "keys", "documents", "mesh")


@pytest.mark.parametrize(
    ("number", "stage"),
    [
        *((signal.SIGKILL, stage) for stage in STAGES),
        *((signal.SIGINT, stage) for stage in STAGES),
        (signal.SIGTERM, "mesh"),
    ],
)
def test_an_interrupted_up_leaves_no_process_and_down_clears_the_rest(
    host: Computer, number: signal.Signals, stage: str
) -> None:
    before = host.namespace.run(picture)
    pid = host.start("up", host.file("demo.toml", DEMO))
    wait_until(lambda: reached(host, stage), 20, stage)
    host.namespace.run(os.kill, pid, number)
    wait_until(lambda: not lab_processes(host), 10, "the end of all processes")
    if number == signal.SIGINT:
        assert (host.folder / "output").read_text().endswith("interrupted\n")
        assert not host.namespace.run(Path("/run/warren").exists)
    else:
        host.warren("down", "--name", "demo")
    assert host.namespace.run(picture) == before


def test_up_clears_what_an_interrupted_up_left(host: Computer) -> None:
    pid = host.start("up", host.file("small.toml", SMALL))
    wait_until(lambda: reached(host, "keys"), 20)
    host.namespace.sh(f"kill -9 {pid}")
    assert "2 of 2 pairs answer" in host.up(SMALL).stdout


def holder(host: Computer, lab: str) -> int:
    return int(host.namespace.sh(f"grep -A1 holder /run/warren/lab/{lab}/lab.json").split('"pid": ')[1].split(",")[0])


def test_a_killed_lab_is_all_gone_and_said_to_be(host: Computer) -> None:
    before = host.namespace.run(picture)
    host.up(SMALL)
    host.namespace.sh(f"kill -9 {holder(host, 'small')}")
    wait_until(lambda: not lab_processes(host))
    assert host.warren("status", "--name", "small", code=4).stderr.startswith('lab "small" is not running\n')
    assert host.warren("exec", "laptop1", "true", code=2).stderr == "no lab is running\nmend: warren lab up\n"
    assert host.warren("list").stdout == ""
    host.warren("down", "--name", "small")
    assert host.namespace.run(picture) == before
    assert host.warren("down", "--name", "small", code=2).stderr.startswith('there is no lab "small"')


def test_labs_side_by_side(host: Computer) -> None:
    file = host.file("small.toml", SMALL)
    host.warren("up", file)
    host.warren("up", file, "--name", "other")
    host.warren("fault", "kill", "laptop1", "--name", "other")
    assert "2 of 2 pairs answer" in host.warren("status", "--name", "small").stdout
    assert "0 of 2 pairs answer" in host.warren("status", "--name", "other", "--wait", "0.5", code=4).stdout
    listed = host.warren("list").stdout.splitlines()
    assert [line.split()[0] for line in listed] == ["other", "small"]
    assert all(file in line and "2 machines" in line for line in listed)
    ambiguous = host.warren("status", code=2).stderr
    assert ambiguous == "there are several labs: other, small\nmend: say which one: --name NAME\n"
    host.warren("down", "--name", "other")
    assert "2 of 2 pairs answer" in host.warren("status").stdout


def test_the_lab_of_the_inventory_here_is_meant_where_several_run(host: Computer) -> None:
    host.warren("up", host.file("small.toml", SMALL))
    host.up(SMALL, "--name", "here")
    assert "laptop1" in host.warren("exec", "laptop1", "hostname").stdout
    host.warren("fault", "kill", "laptop1")
    assert "0 of 2" in host.warren("status", "--name", "here", "--wait", "0.2", code=4).stdout
    assert "2 of 2" in host.warren("status", "--name", "small").stdout


def test_another_file_does_not_take_over_a_lab_that_runs(host: Computer) -> None:
    file = host.file("small.toml", SMALL)
    host.warren("up", file)
    result = host.warren("up", host.file("else.toml", SMALL), code=4)
    assert result.stderr.splitlines()[-2:] == [
        f'lab "small" is running, made from {file}',
        "mend: choose another name with --name, or take it down first: warren lab down",
    ]


def test_two_cannot_change_a_lab_at_once(host: Computer) -> None:
    host.start("up", host.file("demo.toml", DEMO))
    wait_until(lambda: reached(host, "machines"), 20)
    assert "another warren is changing lab demo now" in host.warren("down", "--name", "demo", code=4).stderr
    wait_until(lambda: "20 of 20 pairs answer" in (host.folder / "output").read_text(), 30)
    wait_until(lambda: not any("warren lab up" in words for words in host.namespace.run(processes)))
    host.warren("down")


def handshakes(host: Computer, machine: str, lab: str) -> dict[str, str]:
    lines = host.on(machine, "wg", "show", "vpn", "latest-handshakes", lab=lab).splitlines()
    return dict(line.split() for line in lines)


def test_up_makes_a_running_lab_what_its_file_says_now(host: Computer) -> None:
    host.up(DEMO)
    key = host.on("laptop1", "wg", "show", "vpn", "public-key")
    first = host.on("laptop1", "cat", "/etc/hosts")
    sessions = handshakes(host, "server1", "demo")
    host.warren("fault", "kill", "laptop2")
    host.warren("fault", "cut", "laptop1")

    changed = DEMO.replace('laptop3.tags = ["laptop"]\n', 'tablet.tags = ["laptop"]\n')
    result = host.up(changed)
    assert "20 of 20 pairs answer" in result.stdout
    assert "tablet" in result.stdout
    assert "laptop3" not in result.stdout
    assert host.on("laptop1", "wg", "show", "vpn", "public-key") == key
    again = handshakes(host, "server1", "demo")
    assert again[key.strip()] == sessions[key.strip()], "a machine that did not change keeps its session"
    lines = host.on("laptop1", "cat", "/etc/hosts")
    assert "tablet.vpn" in lines
    assert "laptop3.vpn" not in lines
    address = re.compile(r"(\S+) laptop1.vpn")
    assert address.findall(lines) == address.findall(first)
    host.warren("exec", "laptop3", "true", code=2)


def test_up_again_changes_nothing(host: Computer) -> None:
    host.up(SMALL)
    sessions = handshakes(host, "server1", "small")
    pids = sorted(host.namespace.run(processes))
    assert "2 of 2 pairs answer" in host.up(SMALL).stdout
    assert handshakes(host, "server1", "small") == sessions
    assert sorted(host.namespace.run(processes)) == pids


def test_a_killed_change_leaves_the_lab_running_and_the_next_up_finishes_it(host: Computer) -> None:
    file = host.file("warren.toml", DEMO)
    host.warren("up", file)
    host.file("warren.toml", DEMO.replace("laptop3.tags", "tablet.tags"))
    for stage in STAGES[:3]:
        pid = host.start("up", file)
        wait_until(lambda: reached(host, stage), 20, stage)  # noqa: B023 - called before the loop goes on
        host.namespace.sh(f"kill -9 {pid}")
        wait_until(lambda: not any("lab up" in words for words in host.namespace.run(processes)))
        assert host.on("server1", "hostname") == "server1\n"
    assert "20 of 20 pairs answer" in host.warren("up", file).stdout


def test_a_machine_that_moves_keeps_its_disk(host: Computer) -> None:
    host.up(DEMO)
    key = host.on("laptop3", "wg", "show", "vpn", "public-key")
    assert "20 of 20 pairs answer" in host.up(DEMO, "--no-nat").stdout
    assert not any(machine["behind_nat"] for machine in host.status()["machines"].values())
    assert host.on("laptop3", "wg", "show", "vpn", "public-key") == key
    moved = DEMO.replace('"vpn1.example.com"', '"203.0.113.5"')
    assert "20 of 20 pairs answer" in host.up(moved, "--nat", "laptop1", "--nat", "laptop2").stdout
    machines = host.status()["machines"]
    assert machines["server1"]["underlay"][0] == "203.0.113.5"
    assert [name for name, machine in machines.items() if machine["behind_nat"]] == ["laptop1", "laptop2"]


ODD = """\
meta.name = "odd"

[machines]
a = {}
b = {}
c = {}

[instances.one]
module.name = "wireguard"
roles.controller.machines.a.settings = { endpoint = "203.0.113.5:443" }
roles.controller.machines.b.settings = { endpoint = "[2001:db8:b::1]:51999", port = 51999 }
roles.peer.machines.c.settings.controller = "b"

[instances.two]
module.name = "wireguard"
roles.controller.machines.b.settings = { endpoint = "two.example.com:53", port = 5353, domain = "second.example" }
roles.peer.machines.a = {}
roles.peer.machines.c = {}
"""


def test_literal_endpoints_forwarded_ports_and_machines_in_two_instances(host: Computer) -> None:
    host.up(ODD, "--nat", "c")
    status = host.status()
    assert len(status["pairs"]) == 12
    assert all(pair["ok"] for pair in status["pairs"])
    assert status["machines"]["a"]["roles"] == {"one": "controller", "two": "peer"}
    names = {pair["name"] for pair in status["pairs"]}
    assert {"a.one", "a.second.example"} <= names or {"a.one", "a.two"} <= names
    assert "203.0.113.5:443" in host.on("c", "wg", "show", "one", "endpoints", lab="odd")
    assert "listening port: 51820" in host.on("a", "wg", "show", "one", lab="odd")


def test_a_machine_that_leaves_an_instance_has_nothing_of_it(host: Computer) -> None:
    host.up(ODD)
    host.up(ODD.replace("roles.peer.machines.a = {}\n", ""))
    assert host.on("a", "ls", "/sys/class/net", lab="odd").split() == ["eth0", "lo", "one"]


def test_the_operators_stored_addresses_are_honoured_and_nothing_of_his_is_touched(host: Computer) -> None:
    stored = host.folder / "vars/per-machine/laptop1/wireguard-network-vpn/suffix"
    key = host.folder / "vars/per-machine/laptop1/wireguard-keys-vpn/publickey"
    for folder, text in ((stored, "1234:5678:9abc:def0"), (key, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n")):
        folder.mkdir(parents=True)
        (folder / "value").write_text(text)
    before = files(host.folder)
    host.up(SMALL)
    assert ":1234:5678:9abc:def0/56" in host.on("laptop1", "ip", "addr", "show", "dev", "vpn", lab="small")
    assert host.on("laptop1", "wg", "show", "vpn", "public-key", lab="small") != key.joinpath("value").read_text()
    after = files(host.folder)
    after.pop(host.folder / "warren.toml")
    assert after == before


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_lone_controller_is_a_lab_too(host: Computer) -> None:
    lone = SMALL.replace("laptop1 = {}\n", "").replace("roles.peer.machines.", "")
    assert "up in" in host.up(lone).stderr
    assert host.warren("status").stdout.startswith("server1   198.18.0.2, 2001:db8::2\n")


def test_without_an_inventory_a_small_mesh_comes_up(host: Computer) -> None:
    result = host.warren("up")
    assert "no inventory here: this is a small mesh to play with\n" in result.stderr
    assert "20 of 20 pairs answer" in result.stdout
    assert "behind NAT: laptop3\n" in result.stderr


def test_what_a_person_reads(host: Computer) -> None:
    result = host.up(SMALL)
    parts = r"machines [\d.]+, keys [\d.]+, documents [\d.]+, mesh [\d.]+"
    assert re.search(rf"^up in \d+\.\d\d s \({parts}\)$", result.stderr, re.MULTILINE)
    lines = result.stderr.splitlines()
    assert [line.split(" --name")[0].strip() for line in lines[-3:]] == [
        "try: warren lab exec laptop1",
        "warren lab fault kill laptop1",
        "warren lab down",
    ]
    assert "\x1b" not in result.stdout + result.stderr
    ping = lines[-3].split("try: warren lab ")[1].split()
    assert " 0% packet loss" in host.warren(*ping).stdout


def test_pairs_that_never_answer_are_named_and_the_lab_stays(host: Computer) -> None:
    """A machine whose agent cannot work: nobody waits for it for ever, and one can look."""
    host.up(SMALL)
    host.shell("laptop1", "kill $(pgrep -f '[w]arren agent'); warren down vpn", lab="small")
    result = host.warren("up", str(HOME / "warren.toml"), "--wait", "1", code=4)
    assert "laptop1   –         FAILS" in result.stdout
    assert "0 of 2 pairs answer" in result.stdout
    assert "NOT ALL UP in" in result.stderr
    assert host.on("laptop1", "hostname", lab="small") == "laptop1\n"


def test_a_terminal_sees_progress_and_colour(host: Computer) -> None:
    file = host.file("small.toml", SMALL)
    words = " ".join([*WARREN, "lab", "up", file])
    seen = host.run("script", "-qec", words, "/dev/null").stdout
    assert "\x1b[" in seen
    assert "2 of 2 pairs" in seen
