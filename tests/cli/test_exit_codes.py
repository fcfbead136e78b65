"""How a command ends is a number that scripts rely on, and a bug of ours is told from everything else."""

from __future__ import annotations

import sys
from typing import NoReturn

import pytest

import warren.cli
from warren.agent import main as machine_side
from warren.errors import MachineError, UsageError

BUG = "This is a bug in Warren: the lines above say where.\n"


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (UsageError("no such thing"), 2, "no such thing\n"),
        (MachineError("it does not answer"), 4, "it does not answer\n"),
        (OSError(28, "No space left on device"), 4, "[Errno 28] No space left on device\n"),
        (KeyboardInterrupt(), 130, "\ninterrupted\n"),
    ],
    ids=["usage", "machine", "system", "interrupted"],
)
def test_what_is_not_our_fault(
    error: BaseException, code: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended(error, monkeypatch) == code
    assert capsys.readouterr() == ("", said)


def test_a_bug_of_ours(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(ZeroDivisionError("a slip"), monkeypatch) == 70
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Traceback (most recent call last):\n")
    assert err.endswith(f"ZeroDivisionError: a slip\n{BUG}")


def test_a_bug_of_ours_on_a_machine(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(machine_side, "_facts", raising(ZeroDivisionError("a slip")))
    monkeypatch.setattr(machine_side, "_parser", machine_side._parser.__wrapped__)  # not one that was made before
    assert machine_side.main(["machine", "facts"]) == 70
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith(f"ZeroDivisionError: a slip\n{BUG}")


def ended(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> object:
    """The exit code of a command that raises it."""
    monkeypatch.setattr(sys, "argv", ["warren", "schema"])
    monkeypatch.setattr(warren.cli.cli, "invoke", raising(error))
    with pytest.raises(SystemExit) as exit_:
        warren.cli.main()
    return exit_.value.code


def raising(error: BaseException):  # type: ignore[no-untyped-def]  # whatever it is called with
    def function(*_: object, **__: object) -> NoReturn:
        raise error

    return function
