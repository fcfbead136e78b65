"""Machines whose keys are in the vault: installed, rotated, set up anew; and where their keys are seen on the way.

They have preshared keys as well, which a machine that is set up anew has lost.
"""

from __future__ import annotations

import sys
import time
from base64 import b64decode
from collections.abc import Iterator

import pytest

from fleet import fleets
from fleet.fleets import FOLDER, OPERATOR, Fleet, Said, all_pairs, fleet
from fleet.test_rotation import KEYS, device_keys, public_key, stage
from fleet.test_secrecy import CAPTURING_SSH, found, sampled

pytestmark = [pytest.mark.root, pytest.mark.lab]

HOST_KEY = "/etc/ssh/ssh_host_ed25519_key"
KEY = "/var/lib/warren/vpn/private.key"
IN_VAULT = ("laptop1", "server1")
MACHINES = ("laptop1", "laptop2", "server1")
PAIR = [("laptop1", "laptop2"), ("laptop2", "laptop1")]
PLAIN = """
[machines]
server1 = {}
laptop1.tags = ["laptop"]
laptop2.tags = ["laptop"]

[instances.vpn]
psk = true
module.name = "wireguard"
roles.controller.machines.server1.settings.endpoint = "vpn1.example.com"
roles.peer.tags = ["laptop"]
"""
WITH_VAULT = f"""{PLAIN}
roles.controller.machines.server1.settings.keys = "vault"
roles.peer.machines.laptop1.settings.keys = "vault"
"""


@pytest.fixture(scope="module")
def began_unix_s() -> float:
    return time.time() - 1


@pytest.fixture(scope="module")
def three(began_unix_s: float) -> Iterator[Fleet]:
    """Installed, but not updated yet. What passes through ssh is kept, and all processes are looked at meanwhile."""
    with fleet(PLAIN) as made:
        write_inventory(made, WITH_VAULT)
        made.write("/root/ssh", CAPTURING_SSH, mode=0o755)
        made.sh(OPERATOR, "mkdir /root/captured /root/said")
        for name in MACHINES:
            made.sh(
                name,
                f"cd /etc/ssh; for each in '' .pub; do cp -p fleet_host_key$each {HOST_KEY}$each; done",
            )
        with sampled(made):
            warren(made, "machines", "install", "--tag", "all")
            made.start_agents(MACHINES)
            warren(made, "machines", "update")
        assert made.failing(all_pairs(MACHINES)) == []
        yield made


def write_inventory(made: Fleet, text: str) -> None:
    operator = made.sh(OPERATOR, "cat /root/.ssh/id_ed25519.pub").strip()
    made.write(f"{FOLDER}/warren.toml", f'meta.recipients = ["{operator}"]\n{text}')


def warren(made: Fleet, *words: str, code: int = 0, **environment: str) -> Said:
    variables = [f"{name}={text}" for name, text in {"WARREN_SSH": "/root/ssh", **environment}.items()]
    said = made.on(OPERATOR, "env", *variables, sys.executable, "-m", "warren", *words, code=None)
    assert said.code == code, str(said)
    made.write(f"/root/said/{'-'.join(words).replace('/', '-')}-{time.monotonic_ns()}", said.out + said.err)
    return said


def assert_rotated(made: Fleet, machine: str, before: str | None, after: str | None) -> None:
    """The new key is the key, here and there, and nobody accepts the old one."""
    assert before != after
    files = [public_key(made, machine, file) for file in ("publickey", "nextkey", "formerkey")]
    assert files == [after, None, None]
    assert key_on(made, machine) == opened(made, machine) == after
    assert {name for name in MACHINES if before in device_keys(made, name)} == set()
    assert in_vault(made, machine) == ["privatekey/secret.age"]


def key_on(made: Fleet, machine: str) -> str:
    return made.sh(machine, f"wg pubkey < {KEY}").strip()


def in_vault(made: Fleet, machine: str) -> list[str]:
    folder = f"{FOLDER}/vars/per-machine/{machine}/{KEYS}"
    return sorted(made.sh(OPERATOR, f"cd {folder}; ls -d */secret.age 2> /dev/null || :").split())


def opened(made: Fleet, machine: str, file: str = "privatekey") -> str:
    """What the machine itself reads from the operator's folder, with its host key and age's own program."""
    text = made.sh(OPERATOR, f"cat {FOLDER}/vars/per-machine/{machine}/{KEYS}/{file}/secret.age")
    made.write("/run/secret.age", text, machine)
    return made.sh(machine, f"age -d -i {HOST_KEY} /run/secret.age | wg pubkey").strip()


def test_a_machine_has_the_key_of_the_vault_and_can_open_it_itself(three: Fleet) -> None:
    for name in IN_VAULT:
        assert key_on(three, name) == public_key(three, name) == opened(three, name)
        assert three.sh(name, f"stat -c %a {KEY} /var/lib/warren/vpn").split() == ["600", "700"]
        assert three.sh(name, "ls /var/lib/warren/vpn | grep private").split() == ["private.key"]
    assert in_vault(three, "laptop2") == []
    assert warren(three, "vars", "check").err == ""
    assert three.sh(OPERATOR, f"git -C {FOLDER} status --short vars") == ""


def test_the_key_passes_through_the_stdin_of_one_command_and_nothing_else(three: Fleet, began_unix_s: float) -> None:
    keys = {b64decode(three.sh(name, f"cat {KEY}")) for name in IN_VAULT}
    folder = f"git -C {FOLDER} cat-file --batch-all-objects --batch"
    three.sh(OPERATOR, f"{folder} > /root/captured/objects; test -s /root/captured/objects")
    places = ("/root/fleet", "/root/captured", "/root/said", "/root/.ssh", "/run", "/tmp", "/var", "/etc")
    seen = found(three, OPERATOR, keys, began_unix_s, *places)
    assert seen
    assert {path.rpartition(".")[2] for path in seen} == {"in"}
    for path in seen:
        words = three.sh(OPERATOR, f"cat {path.removesuffix('in')}words")
        assert "machine keep --machine" in words
        assert "KexAlgorithms" not in words  # the quick exchange is for what is public
    for name in MACHINES:
        assert found(three, name, keys, began_unix_s, *places, "/usr/local/bin", "/usr/local/lib/warren") == []
    assert "machine keep" in three.sh(OPERATOR, "cat /root/captured/processes").replace("\0", " ")


def test_its_key_is_rotated_like_any_other(three: Fleet) -> None:
    before = {name: public_key(three, name) for name in IN_VAULT}
    stage(three, *IN_VAULT)
    staged = {name: public_key(three, name, "nextkey") for name in IN_VAULT}
    for name in IN_VAULT:
        assert in_vault(three, name) == ["nextprivatekey/secret.age", "privatekey/secret.age"]
        assert opened(three, name, "nextprivatekey") == staged[name]
    warren(three, "machines", "update")
    for name in IN_VAULT:
        assert_rotated(three, name, before[name], staged[name])
    assert warren(three, "vars", "check").err == ""
    assert three.failing(all_pairs(MACHINES)) == []


def test_a_key_that_is_replaced_at_once_comes_with_the_next_update(three: Fleet) -> None:
    before = public_key(three, "laptop1")
    warren(three, "vars", "generate", "--service", KEYS, "--regenerate", "--at-once", "--machine", "laptop1")
    said = warren(three, "vars", "check", "--ask", "--machine", "laptop1", code=1)
    assert "mend: warren vars upload laptop1, then warren machines update" in said.err
    said = warren(three, "vars", "upload", "laptop1")
    assert "laptop1: has its key of vpn already, or waits for the next update" in said.err
    assert key_on(three, "laptop1") == before  # the one that is in use is not touched
    warren(three, "machines", "update")
    assert key_on(three, "laptop1") == public_key(three, "laptop1") != before
    assert three.failing(PAIR) == []


def test_a_machine_that_is_set_up_anew_gets_the_same_key_back(three: Fleet) -> None:
    before = public_key(three, "laptop1")
    three.sh("laptop1", "rm -rf /var/lib/warren/* /etc/warren /usr/local/lib/warren /usr/local/bin/warren")
    three.sh("laptop1", f"rm {HOST_KEY}*; ssh-keygen -q -t ed25519 -N '' -C '' -f {HOST_KEY}")
    three.kill("laptop1")
    three.run(fleets._revive, "laptop1")
    said = warren(three, "machines", "install", "laptop1")
    assert "laptop1: has its key of vpn\n" in said.err
    three.start_agents(["laptop1"])
    warren(three, "machines", "update")
    assert key_on(three, "laptop1") == public_key(three, "laptop1") == before
    assert opened(three, "laptop1") == before  # with the host key that it has now
    assert three.failing(all_pairs(MACHINES)) == []
    assert warren(three, "vars", "check").err == ""


def test_without_an_identity_it_is_said_what_is_missing(three: Fleet) -> None:
    three.sh(OPERATOR, "ssh-keygen -q -t ed25519 -N '' -f /root/stranger")
    said = warren(three, "vars", "upload", code=4, WARREN_IDENTITY="/root/stranger")
    assert said.err.count("none of your identities opens it") == len(IN_VAULT)
    said = warren(three, "vars", "upload", code=2, WARREN_IDENTITY="/root/nobody")
    assert "/root/nobody: cannot be read" in said.err
    stage(three, "laptop1")
    said = warren(three, "machines", "update", code=4, WARREN_IDENTITY="/root/stranger")
    assert "laptop1: its key stays in the vault" in said.err
    assert "the document has key" in said.err
    warren(three, "machines", "update")
    assert key_on(three, "laptop1") == public_key(three, "laptop1")
    assert three.failing(PAIR) == []


def test_a_machine_comes_to_the_vault_and_leaves_it_by_rotation(three: Fleet) -> None:
    try:
        write_inventory(three, f'{WITH_VAULT}roles.peer.machines.laptop2.settings.keys = "vault"\n')
        said = warren(three, "vars", "check", code=1)
        assert f"stale: laptop2 {KEYS}/publickey: it was not made here, and the inventory says" in said.err
        before = public_key(three, "laptop2")
        stage(three, "laptop2")
        staged = public_key(three, "laptop2", "nextkey")
        warren(three, "machines", "update")
        assert_rotated(three, "laptop2", before, staged)
        assert warren(three, "vars", "check").err == ""
    finally:
        write_inventory(three, WITH_VAULT)
    stage(three, "laptop2")
    warren(three, "machines", "update")
    assert key_on(three, "laptop2") == public_key(three, "laptop2") != staged
    said = warren(three, "vars", "check", code=1)
    assert "left over: nothing uses the key" in said.err
    three.sh(OPERATOR, f"cd {FOLDER}; git rm -qr vars/per-machine/laptop2/{KEYS}/privatekey; git commit -qm removed")
    assert warren(three, "vars", "check").err == ""


def test_who_is_revoked_has_nothing_in_the_vault(three: Fleet) -> None:
    warren(three, "machines", "revoke", "laptop1")
    assert three.sh(OPERATOR, f"find {FOLDER}/vars -path '*laptop1*' -name secret.age") == ""
    assert three.sh(OPERATOR, f"git -C {FOLDER} status --short vars") == ""
    said = warren(three, "vars", "generate", "--regenerate", "--service", KEYS, "--machine", "laptop1")
    assert f"laptop1 {KEYS}/publickey" in said.err
    said = warren(three, "machines", "update")
    assert "preshared keys: both ends of 1 pair hold one to come" in said.err
    assert "no private key" not in said.err
    assert "without a preshared key" not in said.err
    assert key_on(three, "laptop1") == public_key(three, "laptop1")
    assert three.failing(PAIR) == []
