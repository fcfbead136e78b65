"""`warren vars` as it is typed: what stands on stdout, what is said on stderr, the exit code, the git commit."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from namespaces import in_namespace, sh
from strategies import public_key
from warren.cli import main
from warren.fleet.run import Run
from warren.names import InstanceName, MachineName
from warren.vars.generators import key_variable
from warren.workspace.folder import open_folder

INVENTORY = """
[instances.vpn]
module.name = "wireguard"
roles.controller.machines.server1.settings.endpoint = "vpn1.example.com"
roles.peer.machines.laptop1 = {}
roles.peer.machines.laptop2 = {}
"""
MERGED = "<<<<<<< HEAD\n{}\n=======\n{}\n>>>>>>> theirs\n"
KEYS = "wireguard-keys-vpn"
NETWORK = "wireguard-network-vpn"


class Said(NamedTuple):
    code: int
    out: str
    err: str


Warren = Callable[..., Said]


@pytest.fixture
def warren(
    tmp_path: Path, own_settings: None, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> Warren:
    """Run a command in a git repository with an inventory."""
    (tmp_path / "fleet").mkdir()
    monkeypatch.chdir(tmp_path / "fleet")
    Path("warren.toml").write_text(INVENTORY)
    subprocess.run(("git", "init", "--quiet"), check=True)

    def run(*arguments: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["warren", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capfdbinary.readouterr()
        assert isinstance(ended.value.code, int)
        return Said(ended.value.code, out.decode(), err.decode())

    return run


def commits() -> list[str]:
    done = subprocess.run(("git", "log", "--format=%s"), capture_output=True, text=True, check=False)
    return done.stdout.splitlines()


def value(machine: str, generator: str, file: str) -> Path:
    return Path("vars/per-machine") / machine / generator / file / "value"


def test_addresses_are_made_and_unreachable_machines_are_told_how(warren: Warren) -> None:
    said = warren("vars", "generate")
    assert said.code == 4
    assert said.out == ""
    *made, commit, server1, _, laptop2 = said.err.splitlines()
    assert made == [
        f"server1 {NETWORK}/prefix fdeb:f20c:7f:4000",
        f"laptop1 {NETWORK}/suffix bcd6:8f7f:3d6c:0097",
        f"laptop2 {NETWORK}/suffix {value('laptop2', NETWORK, 'suffix').read_text()}",
    ]
    assert commit.startswith("git commit ")
    assert server1.startswith("server1: no way to it from here; on it run `warren vars keygen vpn`, here ")
    assert f"`warren vars set laptop2 {KEYS}/publickey KEY`" in laptop2
    assert commits() == [f"vars: generate {NETWORK} for server1, laptop1, laptop2"]
    assert warren("vars", "generate", "--service", NETWORK) == (0, "", "nothing is missing\n")
    assert len(commits()) == 1


def test_without_commits(warren: Warren) -> None:
    assert "git commit" not in warren("vars", "generate", "--no-commit").err
    assert value("laptop1", NETWORK, "suffix").is_file()
    assert commits() == []


def test_the_seeds_command_with_names_that_are_wrong(warren: Warren) -> None:
    said = warren("vars", "generate", "--service", "wireguard-keys-vpm", "--regenerate", "--machine", "laptop1")
    assert said.code == 2
    assert f'did you mean "{KEYS}"?' in said.err
    assert warren("vars", "generate", "--generator", KEYS, "--machine", "laptop3").code == 2
    assert warren("vars", "generate", "--here", "laptop3").code == 2
    assert not Path("vars").exists()


def test_a_broken_inventory_stops_everything_but_looking(warren: Warren) -> None:
    warren("vars", "generate")
    Path("warren.toml").write_text("broken")
    before = commits()
    for command in (("generate",), ("check",), ("set", "laptop1", f"{NETWORK}/suffix", "1:2:3:4")):
        assert warren("vars", *command).code == 1
    assert commits() == before
    assert warren("vars", "get", "laptop1", f"{NETWORK}/suffix") == (0, "bcd6:8f7f:3d6c:0097", "")
    assert warren("vars", "list").code == 0


def test_get_prints_exactly_what_is_stored(warren: Warren) -> None:
    warren("vars", "set", "laptop1", f"{KEYS}/publickey", public_key("laptop1").text)
    said = warren("vars", "get", "laptop1", f"{KEYS}/publickey")
    assert said == (0, value("laptop1", KEYS, "publickey").read_text(), "")
    assert said.out.strip() == public_key("laptop1").text
    assert warren("vars", "get", "laptop2", f"{KEYS}/publickey").code == 1
    assert warren("vars", "get", "laptop2", KEYS).code == 2
    assert warren("vars", "get", "..", f"{KEYS}/publickey").code == 1


def test_list_shortens_keys_for_people_and_not_for_programs(warren: Warren) -> None:
    assert warren("vars", "list") == (0, "", "nothing is stored yet; warren vars generate\n")
    warren("vars", "set", "laptop1", f"{KEYS}/publickey", public_key("laptop1").text)
    warren("vars", "set", "laptop2", f"{NETWORK}/suffix", "1:2:3:4")
    said = warren("vars", "list")
    assert said.out.splitlines() == [
        "MACHINE   GENERATOR               FILE        VALUE",
        f"laptop1   wireguard-keys-vpn      publickey   {public_key('laptop1').text[:8]}…",
        "laptop2   wireguard-network-vpn   suffix      0001:0002:0003:0004",
    ]
    entry = {"machine": "laptop1", "generator": KEYS, "file": "publickey", "value": public_key("laptop1").text}
    assert json.loads(warren("vars", "list", "--json", "laptop1").out) == {"values": [entry]}
    assert warren("vars", "list", "laptop3").code == 2


def test_only_the_named_generators_and_machines_are_listed(warren: Warren) -> None:
    warren("vars", "generate")
    warren("vars", "set", "laptop1", f"{KEYS}/publickey", public_key("laptop1").text)

    def listed(*words: str) -> list[str]:
        found = json.loads(warren("vars", "list", "--json", *words).out)["values"]
        return [f"{each['machine']} {each['file']}" for each in found]

    assert listed("--service", KEYS) == ["laptop1 publickey"]
    assert listed("--generator", NETWORK, "--machine", "laptop1", "--machine", "server1") == [
        "laptop1 suffix",
        "server1 prefix",
    ]
    assert listed("server1", "--machine", "laptop1", "--service", NETWORK) == ["laptop1 suffix", "server1 prefix"]
    assert listed("--service", KEYS, "--machine", "laptop2") == []
    assert warren("vars", "list", "--service", "wireguard-key-vpn").code == 2
    assert warren("vars", "list", "--machine", "laptop3").code == 2


def test_programs_get_what_was_made_and_one_value(warren: Warren) -> None:
    said = warren("vars", "generate", "--json", "--machine", "laptop1")
    assert said.code == 4
    suffix = {"machine": "laptop1", "generator": NETWORK, "file": "suffix"}
    tree = json.loads(said.out)
    assert tree["written"] == [{**suffix, "value": "bcd6:8f7f:3d6c:0097"}]
    assert [(each["file"], each["problem"].partition(" from here")[0]) for each in tree["failed"]] == [
        ("publickey", "no way to it")
    ]
    assert tree["by_hand"] == []
    assert json.loads(warren("vars", "get", "laptop1", f"{NETWORK}/suffix", "--json").out) == tree["written"][0]


@pytest.mark.parametrize(
    ("machine", "what", "text", "code", "message"),
    [
        ("laptop1", f"{KEYS}/publickey", "half", 1, "not the base64 of 32 bytes"),
        ("laptop1", f"{KEYS}/publickey", public_key("laptop2").text, 1, 'taken: machine "laptop2"'),
        ("laptop1", f"{NETWORK}/suffix", "1:2:3", 1, "has 3 groups"),
        ("laptop1", f"{NETWORK}/suffix", "0:0:0:1", 1, "would cover the controllers' own ::1"),
        ("laptop1", f"{NETWORK}/suffix", "1:2:9:9", 1, 'taken: machine "laptop2"'),
        ("laptop1", f"{NETWORK}/prefix", "fd00:1:2:300", 2, f"it makes {NETWORK}/suffix"),
        ("server1", f"{NETWORK}/prefix", "fe80:1:2:300", 1, "is not in fd00::/8"),
        ("laptop3", f"{KEYS}/publickey", public_key("laptop3").text, 2, 'did you mean "laptop'),
        ("laptop1", "wireguard-keys-lan/publickey", public_key("x").text, 2, f'did you mean "{KEYS}"'),
        ("laptop1", "publickey", public_key("x").text, 2, "is no GENERATOR/FILE"),
    ],
)
def test_set_refuses_what_cannot_be_used(
    warren: Warren, machine: str, what: str, text: str, code: int, message: str
) -> None:
    warren("vars", "set", "laptop2", f"{KEYS}/publickey", public_key("laptop2").text)
    warren("vars", "set", "laptop2", f"{NETWORK}/suffix", "1:2:3:4")
    before = warren("vars", "list").out
    said = warren("vars", "set", machine, what, text)
    assert (said.code, said.out) == (code, "")
    assert message in said.err
    assert warren("vars", "list").out == before
    assert len(commits()) == 2


def test_set_takes_what_a_pipe_brings_and_commits_once(warren: Warren, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.write(writer, f"{public_key('laptop1').text}\n".encode())
    os.close(writer)
    with os.fdopen(reader) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert warren("vars", "set", "laptop1", f"{KEYS}/publickey").code == 0
    assert value("laptop1", KEYS, "publickey").read_text() == f"{public_key('laptop1').text}\n"
    assert commits() == [f"vars: set {KEYS} for laptop1"]
    again = warren("vars", "set", "laptop1", f"{KEYS}/publickey", public_key("laptop1").text)
    assert again == (0, "", f"laptop1 {KEYS}/publickey is that already\n")
    assert len(commits()) == 1


def test_check_is_silent_when_all_is_well(warren: Warren) -> None:
    said = warren("vars", "check")
    assert said.code == 1
    assert said.err.splitlines()[-1] == "mend: warren vars generate"
    assert said.err.count("missing: ") == 6
    warren("vars", "generate")
    for machine in ("server1", "laptop1", "laptop2"):
        warren("vars", "set", machine, f"{KEYS}/publickey", public_key(machine).text)
    assert warren("vars", "check") == (0, "", "")
    states = ("errors", "missing", "stale", "not_deployed", "different", "failed", "leftovers")
    assert json.loads(warren("vars", "check", "--json").out) == {state: [] for state in states}


def test_check_tells_errors_from_leftovers(warren: Warren) -> None:
    warren("vars", "generate", "--service", NETWORK)
    for machine in ("server1", "laptop1", "laptop2"):
        warren("vars", "set", machine, f"{KEYS}/publickey", public_key(machine).text)
    Path("warren.toml").write_text(INVENTORY.replace("roles.peer.machines.laptop2 = {}\n", ""))
    assert warren("vars", "check") == (
        0,
        "",
        f"left over: laptop2 {KEYS}/publickey\nleft over: laptop2 {NETWORK}/suffix\n",
    )
    value("laptop1", KEYS, "publickey").write_text("half")
    value("server1", NETWORK, "prefix").unlink()
    said = warren("vars", "check", "--json")
    assert said.code == 1
    tree = json.loads(said.out)
    assert [(error["file"], error["message"].partition(" (")[0]) for error in tree["errors"]] == [
        (f"vars/per-machine/laptop1/{KEYS}/publickey/value", "not the base64 of 32 bytes"),
        (f"vars/per-machine/server1/{NETWORK}/prefix/value", "missing"),
    ]
    assert all({"file", "line", "column", "message", "mend"} <= error.keys() for error in tree["errors"])
    assert {leftover["machine"] for leftover in tree["leftovers"]} == {"laptop2"}


def test_a_value_of_a_renamed_machine_is_kept_or_made_anew(warren: Warren) -> None:
    warren("vars", "generate", "--service", NETWORK)
    hash_file = value("laptop1", NETWORK, "suffix").parent.parent / ".validation-hash"
    hash_file.write_text("of another name")
    said = warren("vars", "check")
    assert said.code == 1
    keep = "warren vars set laptop1 wireguard-network-vpn/suffix bcd6:8f7f:3d6c:0097"
    assert f"stale: laptop1 {NETWORK}/suffix: it was not made for hostname" in said.err
    assert f"mend: to keep it: {keep}; for another one: " in said.err
    (error,) = [
        each for each in json.loads(warren("vars", "check", "--json").out)["errors"] if "stale" in each["message"]
    ]
    assert error["mend"].startswith("to keep it")
    assert warren(*keep.split()[1:]).code == 0
    assert "stale" not in warren("vars", "check").err
    assert "is that already" in warren(*keep.split()[1:]).err
    status = subprocess.run(("git", "status", "--porcelain", "vars"), capture_output=True, text=True, check=True)
    assert status.stdout == ""  # the hash is committed with its value


def test_the_inventory_may_be_elsewhere(warren: Warren, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = Path.cwd()
    monkeypatch.chdir(tmp_path)
    warren("--inventory", "fleet/warren.toml", "vars", "generate")
    assert (fleet / value("laptop1", NETWORK, "suffix")).is_file()
    (fleet / value("laptop1", NETWORK, "suffix")).write_text("half")
    said = warren("--inventory", "fleet/warren.toml", "vars", "check")
    assert said.err.startswith(f"fleet/vars/per-machine/laptop1/{NETWORK}/suffix/value: ")


@pytest.mark.parametrize("words", [("list",), ("get", "laptop1", f"{NETWORK}/suffix")])
@pytest.mark.parametrize("mistyped", ["waren.toml", "../fleet"])
def test_with_an_inventory_that_is_none_nothing_is_shown(warren: Warren, mistyped: str, words: tuple[str, ...]) -> None:
    warren("vars", "generate")
    said = warren("-f", mistyped, "vars", *words)
    assert (said.code, said.out) == (2, "")
    assert "cannot read it" in said.err


def test_keygen_needs_root_and_a_name(warren: Warren, monkeypatch: pytest.MonkeyPatch) -> None:
    assert warren("vars", "keygen", "../../etc").code == 2
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    said = warren("vars", "keygen", "vpn")
    assert (said.code, said.out) == (2, "")
    assert "sudo warren vars keygen vpn" in said.err


def test_an_interrupted_run_commits_what_it_stored(warren: Warren, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(instance: str, replace: bool) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr("warren.cli.vars._make_key", interrupt)
    said = warren("vars", "generate", "--here", "laptop1")
    assert (said.code, said.err.splitlines()[-1]) == (130, "interrupted")
    assert commits() == [f"vars: generate {NETWORK} for server1, laptop1, laptop2"]


@pytest.mark.root
def test_this_machine_makes_its_own_key(tmp_path: Path) -> None:
    """`generate` on laptop1 stores laptop1's key, of which `keygen` prints the same public half."""
    (tmp_path / "warren.toml").write_text(INVENTORY)
    first, second, third, stored, private = in_namespace(_generate_here, str(tmp_path))
    assert [first.code, second.code, third.code] == [4, 0, 0]
    assert f"laptop1 {KEYS}/publickey {stored[:8]}…" in first.err
    assert second.out == f"{stored}\n"
    assert third.out != second.out
    everything = "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())
    everything += "".join(said.out + said.err for said in (first, second, third))
    assert stored in everything
    assert private not in everything


def _generate_here(folder: str) -> tuple[Said, Said, Said, str, str]:
    sh("mount -t tmpfs tmpfs /var/lib")
    os.chdir(folder)
    first = _run("vars", "generate", "--here", "laptop1")
    stored = (Path(folder) / value("laptop1", KEYS, "publickey")).read_text().strip()
    private = Path("/var/lib/warren/vpn/private.key").read_text().strip()
    return first, _run("vars", "keygen", "vpn"), _run("vars", "keygen", "vpn", "--regenerate"), stored, private


def _run(*arguments: str) -> Said:
    program = "from warren.cli import main; main()"
    done = subprocess.run((sys.executable, "-c", program, *arguments), capture_output=True, text=True, check=False)
    return Said(done.returncode, done.stdout, done.stderr)


@pytest.mark.root
def test_two_runs_at_once_do_not_mix(tmp_path: Path) -> None:
    """Both work on one fleet; every key is stored once, and the second finds nothing missing."""
    (tmp_path / "warren.toml").write_text(INVENTORY)
    outcomes = in_namespace(_generate_twice, str(tmp_path))
    assert sorted(said.code for said in outcomes) == [4, 4]
    made = [line for said in outcomes for line in said.err.splitlines() if f"laptop1 {KEYS}/publickey " in line]
    assert len(made) == 1


def _generate_twice(folder: str) -> list[Said]:
    sh("mount -t tmpfs tmpfs /var/lib")
    os.chdir(folder)
    program = "from warren.cli import main; main()"
    command = (sys.executable, "-c", program, "vars", "generate", "--here", "laptop1")
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    return [Said(process.wait(), *map(str, process.communicate())) for process in running]


def test_a_key_that_is_set_takes_the_place_of_what_was_staged(warren: Warren) -> None:
    warren("vars", "set", "laptop1", f"{KEYS}/publickey", public_key("old").text)
    staged = value("laptop1", KEYS, "nextkey")
    staged.parent.mkdir()
    staged.write_text(public_key("next").text)
    subprocess.run(("git", "add", "vars"), check=True)
    assert warren("vars", "set", "laptop1", f"{KEYS}/publickey", public_key("new").text).code == 0
    assert not staged.exists()
    assert subprocess.run(("git", "status", "--short", "vars"), capture_output=True, check=True).stdout == b""


def test_revoking_what_a_merge_left_revokes_both_keys(warren: Warren) -> None:
    keys = [public_key(name).text for name in ("ours", "theirs")]
    warren("vars", "set", "laptop1", f"{KEYS}/publickey", keys[0])
    place = value("laptop1", KEYS, "publickey")
    place.write_text(MERGED.format(*keys))
    revoked, preshared = value("laptop1", KEYS, "revoked"), value("laptop1", "wireguard-psk-vpn", "fingerprints")
    earlier = [public_key(name).text for name in ("his", "hers")]
    for each, lines in ((revoked, earlier), (preshared, [f"server1 {'0' * 16}", f"server1 {'1' * 16}"])):
        each.parent.mkdir(parents=True)
        each.write_text(MERGED.format(*lines))
    assert warren("machines", "revoke", "laptop1").code == 0
    assert sorted(revoked.read_text().split()) == sorted([*keys, *earlier])
    assert not place.exists()


def test_of_half_a_key_nothing_is_revoked(warren: Warren) -> None:
    place = value("laptop1", KEYS, "publickey")
    place.parent.mkdir(parents=True)
    place.write_text("p4n/dk8jLs9q")
    said = warren("machines", "revoke", "laptop1")
    assert (said.code, "nothing is revoked" in said.err) == (1, True)
    assert place.read_text() == "p4n/dk8jLs9q"


def test_rotate_says_whose_old_keys_stay(warren: Warren) -> None:
    warren("vars", "set", "laptop1", f"{KEYS}/publickey", public_key("old").text)
    said = warren("vars", "rotate", "--all")
    assert (said.code, said.err) == (0, "vpn: laptop1 left as it is: no published document is followed there\n")


def test_who_waited_for_another_run_goes_by_what_that_one_left(warren: Warren) -> None:
    warren("vars", "generate")
    run = Run(open_folder(Path("warren.toml")), lambda _: None)
    before = dict(run.folder.texts)
    warren("vars", "set", "laptop1", f"{KEYS}/publickey", public_key("new").text)
    with run.locked("remove", commits=False):
        assert run.folder.texts.keys() - before.keys() == {key_variable(MachineName("laptop1"), InstanceName("vpn"))}


def test_revoking_withdraws_an_invitation_that_is_open(warren: Warren) -> None:
    """The line is on the stolen machine."""
    warren("vars", "generate")
    line = value("laptop1", KEYS, "invitations")
    line.parent.mkdir(parents=True)
    line.write_text(f"{public_key('one-time').text} 4102444800 open\n")
    for _ in range(2):
        said = warren("machines", "revoke", "laptop1")
        assert line.read_text() == f"{public_key('one-time').text} 4102444800 withdrawn\n"
    assert said.code == 2
    assert commits()[0] == f"vars: revoke {KEYS} for laptop1"
