"""The quick key exchange: only where the user's configuration allows it, and where nothing else uses the connection."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from warren.fleet.ssh import Target, arguments, without_warnings
from warren.fleet.ssh_exchange import QUICK, quick_exchange
from warren.names import MachineName


def asked(folder: Path, configuration: str, *more: str) -> str:
    """What this computer's ssh says of a machine, with this configuration."""
    file = folder / "config"
    file.write_text(configuration)
    words = arguments(Target(MachineName("m"), "root@m"), [], new_connection=False)
    return subprocess.run(
        ["ssh", "-F", str(file), *more, "-G", *words], capture_output=True, text=True, check=True
    ).stdout


def algorithms(said: str) -> list[str]:
    return next(line.split()[1].split(",") for line in said.splitlines() if line.startswith("kexalgorithms"))


def test_it_goes_before_the_others_and_ssh_agrees(tmp_path: Path) -> None:
    usual = asked(tmp_path, "")
    options = quick_exchange(usual, new_connection=False)
    moved = algorithms(asked(tmp_path, "", *options))
    if algorithms(usual)[0] == QUICK:
        assert options == ()
    else:
        assert moved[0] == QUICK
    assert [each for each in moved if each != QUICK] == [each for each in algorithms(usual) if each != QUICK]


def test_the_order_of_the_user_is_kept_behind_it(tmp_path: Path) -> None:
    said = asked(tmp_path, f"KexAlgorithms ecdh-sha2-nistp521,diffie-hellman-group16-sha512,{QUICK}\n")
    expected = f"KexAlgorithms={QUICK},ecdh-sha2-nistp521,diffie-hellman-group16-sha512"
    assert quick_exchange(said, new_connection=False) == ("-o", expected)


@pytest.mark.parametrize(
    "configuration",
    [
        "KexAlgorithms sntrup761x25519-sha512@openssh.com",
        f"KexAlgorithms -{QUICK}",
        f"KexAlgorithms {QUICK}",
        "ForwardAgent yes",
        "ForwardAgent $SSH_AUTH_SOCK",
        "ForwardX11 yes",
        "GSSAPIDelegateCredentials yes",
        "LocalForward 8080 localhost:80",
        "RemoteForward 8080 localhost:80",
        "DynamicForward 1080",
        "SetEnv TOKEN=secret",
        "SendEnv LANG TOKEN",
        "Tunnel yes",
    ],
)
@pytest.mark.parametrize("new_connection", [False, True])
def test_the_order_stays_where_it_matters(configuration: str, new_connection: bool, tmp_path: Path) -> None:
    said = asked(tmp_path, f"{configuration}\n")
    assert quick_exchange(said, new_connection=new_connection) == ()


def test_a_connection_that_others_use_later_keeps_its_order(tmp_path: Path) -> None:
    said = asked(tmp_path, "ControlMaster auto\nControlPath ~/.ssh/%C\n")
    assert quick_exchange(said, new_connection=False) == ()
    assert quick_exchange(said, new_connection=True)


@pytest.mark.parametrize("said", ["", "usage: ssh …\n", "kexalgorithms\n"])
def test_a_program_that_says_nothing_of_it(said: str) -> None:
    assert quick_exchange(said, new_connection=True) == ()


def test_the_variables_of_the_locale_are_no_secret(tmp_path: Path) -> None:
    assert quick_exchange(asked(tmp_path, "SendEnv LANG LC_*\n"), new_connection=False)


def test_remarks_on_the_exchange_are_no_error() -> None:
    """As OpenSSH 10.1 has them."""
    said = (
        "** WARNING: connection is not using a post-quantum key exchange algorithm.\r\n"
        '** This session may be vulnerable to "store now, decrypt later" attacks.\r\n'
        "** The server may need to be upgraded. See https://openssh.com/pq.html\r\n"
        "sudo: a password is required\n"
    )
    assert without_warnings(said) == "sudo: a password is required\n"
