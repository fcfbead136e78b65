"""Preshared keys that a program says: what it is told, what it may say, and when it is not run at all."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from namespaces import in_namespace, wait_until
from warren.errors import MachineError
from warren.host import preshared_command
from warren.names import InstanceName, MachineName
from warren.wireguard.keys import PresharedKey

pytestmark = pytest.mark.root

FOLDER = Path("/run/psk-commands")  # below folders that are root's alone, on a computer of the test's own
KEY = PresharedKey(bytes(range(1, 33)))


def program(script: str, mode: int = 0o755) -> Path:
    FOLDER.parent.chmod(0o755)  # the computer's own memory file system, which anybody may write to
    FOLDER.mkdir(mode=0o755, exist_ok=True)
    place = FOLDER / "says"
    place.write_text(f"#!/bin/sh\n{script}\n")
    place.chmod(mode)
    return place


def ask(timeout_s: float = 10.0) -> PresharedKey | None:
    vpn, me, other = InstanceName("vpn"), MachineName("laptop1"), MachineName("server1")
    return preshared_command.ask("says", vpn, me, other, FOLDER, timeout_s)


def problem(timeout_s: float = 10.0) -> str:
    with pytest.raises(MachineError) as caught:
        ask(timeout_s)
    return str(caught.value)


def sleeping() -> list[str]:
    """Programs of that name that have not ended."""
    found = [each.read_text() for each in Path("/proc").glob("[0-9]*/stat")]
    return [each for each in found if "(sleep)" in each and ") Z" not in each]


def test_it_is_told_which_pair_and_says_the_key() -> None:
    def check() -> None:
        said = "$WARREN_INSTANCE $WARREN_MACHINE $WARREN_OTHER $(pwd) ${HOME-none} $PATH"
        program(f'echo "{said}" > /run/told; cat > /run/stdin; echo {KEY.reveal_text()}')
        os.environ["SECRET"] = "mine"
        assert ask() == KEY
        assert Path("/run/told").read_text().split()[:5] == ["vpn", "laptop1", "server1", "/", "none"]
        assert Path("/run/stdin").read_text() == ""
        program(f"printf {KEY.reveal_text()}")
        assert ask() == KEY
        program("true")
        assert ask() is None
        program("echo")
        assert ask() is None

    in_namespace(check)


def test_what_is_no_key_is_refused_and_not_shown() -> None:
    def check() -> None:
        for text in (KEY.reveal_text()[:-1], f"{KEY.reveal_text()}x", KEY.reveal().hex(), "A" * 43 + "=", "\\\\377"):
            program(f"printf '{text}'")
            said = problem()
            assert "what it printed is no key" in said
            assert text[:20] not in said
        program(f"echo {KEY.reveal_text()}; exit 3")
        assert "it ended with 3" in problem()
        program(f"echo {KEY.reveal_text()} >&2; exit 1")
        assert KEY.reveal_text() not in problem()
        program("cat /dev/zero")
        assert "printed more than 256 bytes" in problem()

    in_namespace(check)


def test_one_that_does_not_end_is_ended_with_all_that_it_started() -> None:
    def check() -> None:
        for script in (
            f"echo {KEY.reveal_text()}; sleep 1000",
            f"echo {KEY.reveal_text()}; sleep 1000 & exit",  # which holds stdout
            "trap '' TERM; sleep 1000 & wait",
            f"echo {KEY.reveal_text()}; exec > /dev/null; sleep 1000",
        ):
            program(script)
            began_s = time.monotonic()
            assert "did not end in time" in problem(timeout_s=0.5)
            assert time.monotonic() - began_s < 5
            wait_until(lambda: not sleeping(), what="its end")

    in_namespace(check)


def _open_program() -> None:
    (FOLDER / "says").chmod(0o775)


def _others_program() -> None:
    os.chown(FOLDER / "says", 1, 0)


def _open_folder() -> None:
    FOLDER.chmod(0o777)


def _others_folder() -> None:
    os.chown(FOLDER, 1, 0)


def _link_to_an_open_place() -> None:
    place = Path("/run/open")
    place.mkdir()
    (FOLDER / "says").rename(place / "says")
    place.chmod(0o777)
    (FOLDER / "says").symlink_to(place / "says")


@pytest.mark.parametrize(
    "spoil", [_open_program, _others_program, _open_folder, _others_folder, _link_to_an_open_place]
)
def test_what_others_than_root_could_exchange_is_not_run(spoil: Callable[[], None]) -> None:
    def check() -> None:
        program(f"touch /run/was-run; echo {KEY.reveal_text()}")
        spoil()
        assert "others than root can write" in problem()
        assert not Path("/run/was-run").exists()

    in_namespace(check)


def test_one_that_is_not_there_or_no_program() -> None:
    def check() -> None:
        program("true", mode=0o644)
        assert "this is no program" in problem()
        (FOLDER / "says").unlink()
        assert "there is no such program" in problem()
        program("true", mode=0o644)
        assert "this is no program" in problem()
        (FOLDER / "says").unlink()
        (FOLDER / "says").mkdir()
        assert "this is no program" in problem()
        (FOLDER / "says").rmdir()
        (FOLDER / "says").write_bytes(b"\x7fno program")
        (FOLDER / "says").chmod(0o755)
        assert "cannot be started" in problem()

    in_namespace(check)
