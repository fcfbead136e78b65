"""The logic of takeover in a simulation: whatever happens to a mesh, it is well again within the bound.

More of it: WARREN_SIMULATIONS=5000 make test ARGS=tests/redundancy; one run again: WARREN_SEED=17.
"""

import os
from collections.abc import Callable, Iterable

import pytest

from redundancy.scenarios import LawBroken, Run
from warren.plan import health, ledger, reachability
from warren.plan.signals import Word

QUICK, MORE = 6, 24
SHARES = 4  # so that several processes take part


def run_all(seeds: Iterable[int]) -> None:
    for seed in seeds:
        Run(seed).go()


def simulate(seeds: Iterable[int]) -> None:
    for seed in seeds:
        try:
            run_all([seed])
        except LawBroken as error:
            pytest.fail(f"WARREN_SEED={seed} shows it again:\n{error}", pytrace=False)


def test_a_mesh_is_well_again_whatever_happens() -> None:
    simulate([int(os.environ["WARREN_SEED"])] if "WARREN_SEED" in os.environ else range(QUICK))


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("share", range(SHARES))
def test_many_meshes_are_well_again_whatever_happens(share: int) -> None:
    many = int(os.environ.get("WARREN_SIMULATIONS", MORE))
    simulate(range(QUICK + share, QUICK + many, SHARES))


@pytest.mark.parametrize(
    ("module", "name", "instead"),
    [
        (reachability.Reachability, "shared_with", lambda self, peer: self.usable),
        (ledger, "answer", lambda held, peer, now_s: Word(held.draining, is_whole=True)),
        (health, "hold_s", lambda *_: 1e9),
        (reachability, "carrier", lambda owner, _, usable: owner),
    ],
    ids=["others' losses do not count", "controllers tell nothing", "nobody comes back", "nobody takes over"],
)
def test_the_laws_can_fail(
    module: object, name: str, instead: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a mistake in the logic, a seed that passes does so no more."""
    monkeypatch.setattr(module, name, instead)
    with pytest.raises(LawBroken):
        run_all(range(QUICK))
