"""inotify: what changed in a folder, and whether anybody waits for it."""

from __future__ import annotations

import select
from pathlib import Path

import pytest

from warren.host import trial
from warren.host.watch import FolderWatch


@pytest.mark.parametrize(
    ("name", "is_awaited"),
    [
        ("network.json", True),
        ("network.json.sig", True),
        ("private.key.next", True),
        ("draining", True),
        ("vpn", True),
        ("trial.json", False),
        ("restored.json", False),
        ("network.json.confirmed", False),
        (".network.json.warren-new", False),
        (".hosts.warren-undo", False),
    ],
)
def test_bookkeeping_is_not_waited_for(name: str, is_awaited: bool, tmp_path: Path) -> None:
    with FolderWatch(trial.is_bookkeeping) as watch:
        watch.watch([tmp_path])
        (tmp_path / name).write_text("")
        assert _is_readable(watch)
        assert watch.drain() == is_awaited
        assert not _is_readable(watch)
        assert not watch.drain()


def test_one_that_is_waited_for_among_many_is_seen(tmp_path: Path) -> None:
    """Through a document's way there: written beside it, then renamed."""
    with FolderWatch(trial.is_bookkeeping) as watch:
        watch.watch([tmp_path])
        for number in range(100):
            (tmp_path / f".{number}.warren-new").write_text("")
        new = tmp_path / ".network.json.warren-new"
        new.write_text("")
        new.rename(tmp_path / "network.json")
        (tmp_path / "trial.json").write_text("")
        assert watch.drain()


def test_a_folder_that_goes_is_seen(tmp_path: Path) -> None:
    (tmp_path / "vpn").mkdir()
    with FolderWatch(trial.is_bookkeeping) as watch:
        watch.watch([tmp_path, tmp_path / "vpn"])
        (tmp_path / "vpn").rmdir()
        assert watch.drain()


def _is_readable(watch: FolderWatch) -> bool:
    return bool(select.select([watch], [], [], 0)[0])
