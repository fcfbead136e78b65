"""What ssh says, as the hop that failed and why; the texts are those of OpenSSH 9.2."""

from __future__ import annotations

import subprocess
import sys

import pytest

from warren.fleet.ssh import Target, arguments, remote_command
from warren.fleet.ssh_problems import explain
from warren.names import MachineName

CLOSED = "kex_exchange_identification: Connection closed by remote host\nConnection closed by UNKNOWN port 65535\n"
NO_NAME = "Could not resolve hostname m: Name or service not known"


@pytest.mark.parametrize(
    ("said", "via", "hop", "what"),
    [
        ("root@m: Permission denied (publickey).\n", "", "m", "accepts none of your keys"),
        ("root@m: Permission denied (publickey).\n", "j", "m from j", "accepts none of your keys"),
        (f"u@j: Permission denied (publickey).\n{CLOSED}", "u@j", "jump host j", "accepts none of your keys"),
        (f"Host key verification failed.\n{CLOSED}", "a,u@j", "jump host j", "host key is not known"),
        ("Host key verification failed.\n", "j", "m from j", "host key is not known"),
        (
            "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.\n",
            "",
            "m",
            "not the one",
        ),
        (f"ssh: {NO_NAME}\n", "", "m", "no such host name"),
        (f"ssh: {NO_NAME}\n{CLOSED}", "j", "jump host j", "no such host name"),
        ("ssh: connect to host m port 22: Connection refused\n", "", "m", "nothing listens"),
        (
            f"channel 0: open failed: connect failed: Connection refused\nstdio forwarding failed\n{CLOSED}",
            "j",
            "m from j",
            "nothing listens",
        ),
        ("ssh: connect to host m port 22: Connection timed out\n", "", "m", "does not answer"),
        ("Connection reset by 192.0.2.1 port 22\n", "", "m", "closed the connection"),
        ("Bad configuration option: foo\n", "", "m", "ssh says: Bad configuration option: foo"),
        ("", "", "m", "without a word"),
    ],
)
def test_explain(said: str, via: str, hop: str, what: str) -> None:
    problem = explain(said, "root@m", via, "ssh root@m")
    assert problem.hop == hop
    assert what in problem.what
    assert problem.mend


def test_every_option_is_one_that_ssh_knows() -> None:
    """`ssh -G` reads what ssh would and connects to nobody."""
    target = Target(MachineName("m"), "root@m", 2222, "a,u@j:23")
    words = arguments(target, ["true"], True)
    done = subprocess.run(["ssh", "-G", "-F", "none", *words], capture_output=True, text=True, check=True)
    for line in ("port 2222", "batchmode yes", "controlmaster false", "hostname m", "user root"):
        assert line in done.stdout.splitlines()
    assert "-J a -W '[%h]:%p' -- ssh://u@j:23" in done.stdout.replace("[%h]:%p", "'[%h]:%p'").replace("''", "'")


@pytest.mark.parametrize("words", [["printf", "%s|", "a b", "it's", '"$x"', "a\nb", "*"], ["printf", "%s|", ""]])
def test_words_reach_the_program_as_they_are(words: list[str]) -> None:
    """Through the login shell of the other side, and the one that becomes root."""
    if sys.platform != "linux":
        pytest.skip("runs the command here")
    script = remote_command(words).replace("sudo -n", "env")  # whoever runs the tests
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True)
    assert done.stdout == "".join(f"{word}|" for word in words[2:])
