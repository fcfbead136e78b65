"""For every test: laws are checked without a clock, since these machines are shared; root's tests wait for root."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("warren", deadline=None)
settings.load_profile("warren")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what is marked `root` or `lab` where we are not root."""
    if os.geteuid() != 0 and (item.get_closest_marker("root") or item.get_closest_marker("lab")):
        pytest.skip("needs root: it makes namespaces, or changes owners")


@pytest.fixture
def own_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Git has a user's name, and neither git nor Warren anything of this computer's settings."""
    for name in [name for name in os.environ if name.startswith(("GIT_", "WARREN_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    (tmp_path / "gitconfig").write_text("[user]\nname = Ann\nemail = ann@example.com\n")
