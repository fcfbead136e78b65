"""What is slow to import is imported when it is needed, and no earlier."""

import subprocess
import sys

SLOW = {"pydantic", "tree_sitter", "tree_sitter_toml", "tree_sitter_json", "difflib"}
GOOD = '[instances.wireguard]\nroles.controller.machines.a.settings.endpoint = "a.example.com"\n'


def imported(code: str) -> set[str]:
    """Which of the slow ones a fresh interpreter has after this."""
    program = f"{code}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return SLOW & set(done.stdout.split())


def test_knowing_how_to_read_costs_nothing() -> None:
    assert imported("import warren.workspace.source, warren.inventory.model, warren.cli.check") == set()


def test_a_good_inventory_needs_no_places() -> None:
    code = f"from warren.inventory.read import read\nread({GOOD!r}, 'toml', 'warren.toml')"
    assert imported(code) == {"pydantic"}
