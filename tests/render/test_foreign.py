"""`warren render` as it is typed: files, stdout and stderr, exit codes, who may read what; and that no key leaks.

Folders in foreign/ are inventories and the files that come of them. After a change that is meant,
`ACCEPT_PLANS=1 pytest tests/render/test_foreign.py` writes them anew.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from render.foreign_fleet import VPN, fleet, private_key
from warren.errors import WarrenError
from warren.plan import hosts
from warren.wireguard.x25519 import public_key
from warren.workspace.folder import open_folder

CASES = sorted(path.parent for path in Path(__file__).parent.glob("foreign/*/warren.toml"))
TEXTS = ("wg-quick", "networkd", "nixos", "hosts")
TWO = """
[machines]
phone1.managed = false
server1 = {}
[instances.home]
module.name = "wireguard"
roles.controller.machines.server1.settings.endpoint = "vpn1.example.com"
roles.peer.machines.phone1 = {}
[instances.work]
module.name = "wireguard"
roles.controller.machines.server1.settings = { endpoint = "vpn1.example.com:51821", port = 51821 }
roles.peer.machines.phone1.settings.interface = "odd*name"
"""


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_files(case: Path, tmp_path: Path) -> None:
    operator = fleet(tmp_path, (case / "warren.toml").read_text())
    machines = open_folder(operator.inventory).inventory.machines.values()
    made = {
        f"{machine.name}.{kind}": operator.render(machine.name, kind)
        for machine in machines
        if not machine.managed
        for kind in TEXTS
    }
    if os.environ.get("ACCEPT_PLANS"):
        for path in case.iterdir():
            if path.name != "warren.toml":
                path.unlink()
        for name, text in made.items():
            (case / name).write_text(text)
    assert {path.name: path.read_text() for path in case.iterdir() if path.name != "warren.toml"} == made


def test_there_are_cases() -> None:
    assert len(CASES) >= 2


@pytest.mark.parametrize("kind", TEXTS)
def test_a_folder_gets_what_stdout_would(tmp_path: Path, kind: str) -> None:
    operator = fleet(tmp_path)
    shown, files = operator.render("server1", kind), operator.files("server1", kind)
    assert all(text in shown for text in files.values())
    assert len(shown) == sum(map(len, files.values())) + len(files) - 1  # an empty line between two


def test_who_may_read_the_files(tmp_path: Path) -> None:
    operator = fleet(tmp_path)
    before = os.umask(0o022)
    modes: dict[str, int] = {}
    for kind in TEXTS:
        operator.files("server1", kind)
        folder = tmp_path / f"server1.{kind}"
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        modes |= {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    os.umask(before)
    assert modes.pop("vpn.conf") == 0o600
    assert set(modes.values()) == {0o644}  # networkd and Nix read theirs as other users


def test_a_file_that_was_open_to_others_is_not_afterwards(tmp_path: Path) -> None:
    operator = fleet(tmp_path)
    target = tmp_path / "out" / "vpn.conf"
    target.parent.mkdir()
    target.write_text("old")
    target.chmod(0o644)
    with target.open() as reader:  # who has it open does not see the key either
        secret = private_key("laptop1").reveal_text()
        operator.render("laptop1", "wg-quick", "--private-key-file", "-", "--output", str(target.parent), stdin=secret)
        assert reader.read() == "old"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert secret in target.read_text()
    assert list(target.parent.iterdir()) == [target]


def test_the_key_is_said_nowhere_but_in_its_file(tmp_path: Path) -> None:
    operator = fleet(tmp_path)
    key_file = tmp_path / "laptop1.key"
    key_file.write_text(f"{private_key('laptop1').reveal_text()}\n")
    for kind, output in (("wg-quick", "out"), ("qr", "code.png"), ("qr", "code.conf")):
        words = ("--format", kind, "--private-key-file", str(key_file), "--output", str(tmp_path / output))
        result = operator.warren("render", "laptop1", *words)
        assert result.exit_code == 0
        assert private_key("laptop1").reveal_text() not in result.output
    assert private_key("laptop1").reveal_text() not in operator.render("laptop1", "wg-quick")


@pytest.mark.parametrize(
    ("words", "stdin", "code", "message"),
    [
        (("lapto1", "--format", "hosts"), "", 2, 'did you mean "laptop1"?'),
        (("laptop1", "--format", "openwrt"), "", 2, "Invalid value for '--format'"),
        (("laptop1", "--format", "hosts", "--instance", "vpm"), "", 2, "its instances: vpn"),
        (("laptop1", "--format", "qr"), "", 2, "--private-key-file FILE, or - for stdin"),
        (("laptop1", "--format", "nixos", "--private-key-file", "-"), "x", 2, "no private key in its files"),
        (("laptop1", "--format", "qr", "--private-key-file", "-"), "secret\n", 2, "not base64 (6 characters)"),
        (("laptop1", "--format", "qr", "--private-key-file", "-"), "schlüssel", 2, "stdin: this is not a private key"),
        (("laptop1", "--format", "qr", "--private-key-file", "none.key"), "", 2, "none.key: cannot be read: No such"),
        (
            ("laptop1", "--format", "hosts", "--output", "warren.toml"),
            "",
            2,
            "warren.toml: cannot be made: File exists",
        ),
        (
            ("laptop1", "--format", "hosts", "--output", "taken"),
            "",
            2,
            "taken/hosts: cannot be written: Is a directory",
        ),
    ],
)
def test_what_cannot_be(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    stdin: str,
    code: int,
    message: str,
) -> None:
    operator = fleet(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken" / "hosts").mkdir(parents=True)
    result = operator.warren("render", *words, stdin=stdin)
    assert result.stdout == ""
    if isinstance(result.exception, WarrenError):  # what `main` makes of it
        assert (result.exception.exit_code, message in str(result.exception)) == (code, True), str(result.exception)
    else:
        assert (result.exit_code, message in result.stderr) == (code, True), result.stderr
    assert sorted(path.name for path in (tmp_path / "taken").iterdir()) == ["hosts"]


@pytest.mark.parametrize("output", ["code.gif", "code", "."])
def test_only_known_pictures(tmp_path: Path, output: str) -> None:
    operator = fleet(tmp_path)
    words = ("--format", "qr", "--private-key-file", "-", "--output", str(tmp_path / output))
    result = operator.warren("render", "laptop1", *words, stdin=private_key("laptop1").reveal_text())
    assert isinstance(result.exception, WarrenError)
    assert "a file ending in .png, .svg or .conf" in str(result.exception)


def test_somebody_elses_key_is_noticed(tmp_path: Path) -> None:
    """With it the phone would be in nobody's configuration, and silent without a word."""
    other = private_key("laptop2")
    words = ("render", "laptop1", "--format", "qr", "--private-key-file", "-")
    result = fleet(tmp_path).warren(*words, stdin=other.reveal_text())
    assert isinstance(result.exception, WarrenError)
    assert result.exception.exit_code == 1
    mend = f"warren vars set laptop1 wireguard-keys-vpn/publickey {public_key(other).text}"
    assert mend in str(result.exception)
    assert other.reveal_text() not in str(result.exception)


def test_one_of_several_instances(tmp_path: Path) -> None:
    operator = fleet(tmp_path, TWO)
    refused = operator.warren("render", "phone1", "--format", "hosts")
    assert isinstance(refused.exception, WarrenError)
    assert "--instance NAME; instances: home, work" in str(refused.exception)
    assert "phone1.home" in operator.render("phone1", "hosts", "--instance", "home")
    assert "phone1.work" in operator.render("phone1", "hosts", "--instance", "work")


@pytest.mark.parametrize("kind", ["wg-quick", "networkd", "nixos"])
def test_an_interface_that_others_do_not_take(tmp_path: Path, kind: str) -> None:
    refused = fleet(tmp_path, TWO).warren("render", "phone1", "--format", kind, "--instance", "work")
    assert isinstance(refused.exception, WarrenError)
    assert '"odd*name" cannot be written down as the name of an interface' in str(refused.exception)


def test_what_is_worth_saying_is_on_stderr(tmp_path: Path) -> None:
    operator = fleet(tmp_path, TWO)
    (tmp_path / "vars/per-machine/server1/wireguard-keys-home/publickey/value").unlink()
    result = operator.warren("render", "phone1", "--format", "wg-quick", "--instance", "home")
    assert result.stderr == "home: no key yet: server1 (warren vars generate)\n"
    assert "[Peer]" not in result.stdout
    result = operator.warren("render", "server1", "--format", "hosts", "--instance", "home")
    assert "server1 is managed by Warren" in result.stderr


def test_a_machine_without_a_role(tmp_path: Path) -> None:
    operator = fleet(tmp_path, TWO + "[machines.idle]\n")
    refused = operator.warren("render", "idle", "--format", "hosts")
    assert isinstance(refused.exception, WarrenError)
    assert "has no role" in str(refused.exception)


def test_the_block_is_the_one_that_warren_keeps(tmp_path: Path) -> None:
    """A machine that becomes managed one day: Warren finds its own block, and replaces it."""
    operator = fleet(tmp_path)
    lines = operator.desired("laptop1").hosts
    file = b"127.0.0.1 localhost\n" + operator.render("laptop1", "hosts").encode()
    assert hosts.block_lines(file, VPN) == tuple(map(str, lines))
    assert hosts.with_block(file, VPN, lines) == file
