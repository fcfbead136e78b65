"""The systemd unit, as systemd's own checks see it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest

UNIT = files("warren.fleet").joinpath("warren.service").read_text()
MOST_EXPOSURE = 3.0  # of 10, as `systemd-analyze security` counts

# CI installs it, and must not pass without it.
is_missing = not shutil.which("systemd-analyze") and "CI" not in os.environ
needs_analyze = pytest.mark.skipif(is_missing, reason="systemd-analyze is not installed")


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with a program that is there: where Warren is not installed, `verify` would only say that."""
    file = tmp_path / "warren.service"
    file.write_text(UNIT.replace("/usr/local/bin/warren", "/bin/true"))
    return file


@needs_analyze
def test_systemd_finds_nothing_wrong_with_it(unit: Path) -> None:
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@needs_analyze
def test_that_would_be_seen(unit: Path) -> None:
    unit.write_text(unit.read_text().replace("NoNewPrivileges=yes", "NoNewPrivilege=yes"))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True)
    assert "NoNewPrivilege" in done.stderr


@needs_analyze
def test_its_sandbox_is_tight(unit: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)], capture_output=True, text=True
    )
    found = re.search(r"Overall exposure level for warren.service: ([\d.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    assert float(found[1]) <= MOST_EXPOSURE
