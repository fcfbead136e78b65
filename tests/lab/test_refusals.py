"""What a lab cannot be made from, or on: one clear error, and everything as before."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.labs import WARREN, Computer, computer
from namespaces import drop_root
from warren.errors import LabError
from warren.lab.limits import check_computer

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


def refused(host: Computer, *words: str, code: int, text: str = SMALL) -> str:
    """What `up` says that must fail; nothing of it may stay."""
    result = host.warren("up", host.file("small.toml", text), *words, code=code)
    assert result.stdout == ""
    assert host.namespace.sh("find /run -name '*lab*'") == ""
    assert "sleep 21" not in host.run("ps", "ax").stdout
    return result.stderr.removeprefix("machines …\n")


def test_not_root(host: Computer) -> None:
    def as_nobody() -> str:
        drop_root()
        with pytest.raises(LabError) as caught:
            check_computer()
        return str(caught.value)

    assert host.namespace.run(as_nobody) == "a lab needs root: it makes namespaces and mounts\nmend: sudo warren lab …"


@pytest.mark.parametrize("name", ["two words", "../up", "-x", "a" * 64, "ä"])
def test_a_name_that_is_none(host: Computer, name: str) -> None:
    assert "is no name for a lab: letters, digits" in refused(host, f"--name={name}", code=2)


def test_an_inventory_with_mistakes(host: Computer) -> None:
    said = refused(host, code=1, text=SMALL.replace("endpoint", "enpoint"))
    assert "small.toml:7" in said
    assert "enpoint" in said


def test_nat_where_it_cannot_be(host: Computer) -> None:
    assert refused(host, "--nat", "server1", code=2).startswith('"server1" cannot be behind NAT')
    said = refused(host, "--nat", "lapto1", code=2)
    assert said == 'there is no machine "lapto1"\nmend: did you mean "laptop1"? Machines: laptop1, server1\n'


def test_a_program_that_is_missing(host: Computer) -> None:
    host.namespace.sh("touch /run/none; for name in $(which -a nft); do mount --bind /run/none $name; done")
    said = refused(host, code=4)
    assert said == "programs are missing, of these packages: nftables\nmend: apt install nftables\n"


def test_no_tun_device(host: Computer) -> None:
    host.namespace.sh("mount -t tmpfs none /dev/net")
    assert refused(host, code=4) == "/dev/net/tun is missing, which wireguard-go needs\nmend: modprobe tun\n"


def test_too_few_inotify_instances(host: Computer) -> None:
    host.namespace.sh("echo 3 > /run/limit; mount --bind /run/limit /proc/sys/fs/inotify/max_user_instances")
    said = refused(host, code=4)
    assert said.startswith(
        "2 machines need 4 inotify instances; of the 3 that this computer allows each user 0 are taken\n"
    )
    assert "mend: sysctl fs.inotify.max_user_instances=" in said


def test_too_few_open_files(host: Computer) -> None:
    file = host.file("small.toml", SMALL)
    result = host.run("sh", "-c", f"ulimit -n 90; exec {' '.join(WARREN)} lab up {file}")
    assert result.returncode == 4
    assert result.stderr == "2 machines need 108 open files, 90 are allowed\nmend: ulimit -Hn 108\n"


def test_a_full_disk(host: Computer) -> None:
    host.namespace.sh("mkdir -p /run/warren/lab && mount -t tmpfs -o size=4k none /run/warren/lab")
    host.namespace.sh("head -c 4096 /dev/zero > /run/warren/lab/full")
    result = host.warren("up", host.file("small.toml", SMALL), code=4)
    assert "cannot be written: No space left on device\nmend: make room there" in result.stderr
    assert host.namespace.sh("ls /run/warren/lab") == "full\n"


def test_a_read_only_run(host: Computer) -> None:
    host.namespace.sh("mkdir -p /run/warren && mount -t tmpfs -o ro none /run/warren")
    assert refused(host, code=4) == "/run/warren/lab/small cannot be made: Read-only file system\n"


def test_a_lab_json_that_nobody_can_read(host: Computer) -> None:
    file = host.file("small.toml", SMALL)
    host.warren("up", file)
    host.namespace.sh("echo '{\"version\": 1}' > /run/warren/lab/small/lab.json")
    said = host.warren("status", "--name", "small", code=4).stderr
    assert said.startswith("/run/warren/lab/small/lab.json: this cannot be read")
    # What it says to do works.
    host.namespace.sh("kill -9 $(grep -l WARREN_LAB=small /proc/*/environ | cut -d/ -f3) || true")
    host.namespace.sh("rm -r /run/warren/lab/small")
    host.warren("up", file)


def test_down_of_what_is_not_there(host: Computer) -> None:
    assert host.warren("down", code=2).stderr == "no lab is running\nmend: warren lab up\n"
    said = host.warren("down", "--name", "small", code=2).stderr
    assert said == 'there is no lab "small"\nmend: see what runs: warren lab list\n'


def test_commands_for_a_lab_that_does_not_run(host: Computer) -> None:
    for words in (("status",), ("exec", "a", "true"), ("fault", "kill", "a")):
        name = ("--name", "small")
        words = (*words[:2], *name, *words[2:]) if words[0] == "exec" else (*words, *name)
        result = host.warren(*words, code=4)
        assert result.stderr == 'lab "small" is not running\nmend: warren lab up\n'
    assert host.namespace.sh("find /run -name '*lab*'") == ""
