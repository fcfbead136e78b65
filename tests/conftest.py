"""For every test: laws are checked without a clock, since these machines are shared; root's tests wait for root."""

import os

import pytest
from hypothesis import settings

settings.register_profile("warren", deadline=None)
settings.load_profile("warren")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what is marked `root` or `lab` where we are not root."""
    if os.geteuid() != 0 and (item.get_closest_marker("root") or item.get_closest_marker("lab")):
        pytest.skip("needs root: it makes namespaces, or changes owners")
