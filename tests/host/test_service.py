"""What systemd's journal gets: a priority for each line, and only where it is the journal that reads them."""

from __future__ import annotations

import logging
import os
import subprocess
import sys

import pytest

from warren.host.service import JournalFormatter

SAY = "from warren.host import service; service.complain('one\\ntwo')"


@pytest.mark.parametrize(
    ("level", "priority"), [(logging.DEBUG, 7), (logging.INFO, 6), (logging.WARNING, 4), (logging.ERROR, 3)]
)
def test_each_line_has_its_priority(level: int, priority: int) -> None:
    record = logging.LogRecord("warren", level, "", 0, "%s\ntwo", ("one",), None)
    assert JournalFormatter().format(record) == f"<{priority}>one\n<{priority}>two"


@pytest.mark.parametrize(("is_own", "said"), [(True, b"<3>one\n<3>two\n"), (False, b"one\ntwo\n")])
def test_only_the_journals_own_end_counts(is_own: bool, said: bytes) -> None:
    """A shell that systemd started has the variable as well, and a terminal."""
    reader, writer = os.pipe()
    status = os.fstat(writer)
    stream = f"{status.st_dev}:{status.st_ino + (not is_own)}"
    with os.fdopen(reader, "rb") as heard:
        with os.fdopen(writer, "wb") as stderr:
            environment = {**os.environ, "JOURNAL_STREAM": stream}
            subprocess.run([sys.executable, "-c", SAY], env=environment, stderr=stderr, check=True)
        assert heard.read() == said
