"""Forking for a machine of the lab."""

from __future__ import annotations

import subprocess
import sys

INTERRUPTED_AT_FORK = """
import os, signal
from warren.lab.place import _plain_fork
os.register_at_fork(before=lambda: os.kill(os.getpid(), signal.SIGINT))
try:
    if _plain_fork() == 0:
        os._exit(0)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_an_interrupt_in_the_middle_of_a_fork_is_not_lost() -> None:
    done = subprocess.run((sys.executable, "-c", INTERRUPTED_AT_FORK), capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "interrupted\n", "")
