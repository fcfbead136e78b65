"""Who is visited, in what order and how many at once: laws, on a clock that only counts."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from warren.fleet.rollout import Limits, roll_out, waves
from warren.names import MachineName

machines = st.lists(st.integers(0, 99).map(lambda i: MachineName(f"m{i}")), unique=True, max_size=12)
limits = st.builds(Limits, st.integers(1, 5), st.integers(0, 4), st.one_of(st.none(), st.integers(0, 4)))


class Machines:
    """Machines that answer when all who can be visited at once are waiting."""

    def __init__(self, broken: set[MachineName]) -> None:
        self.broken = broken
        self.visited: list[MachineName] = []
        self.at_once = self.most_at_once = 0

    async def visit(self, machine: MachineName) -> bool:
        self.visited.append(machine)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        for _ in range(hash(machine) % 5):
            await asyncio.sleep(0)
        self.at_once -= 1
        return machine not in self.broken


@given(machines, limits, st.sets(st.integers(0, 11)))
def test_everybody_is_visited_once_or_said_to_be_left(
    names: list[MachineName], limits: Limits, broken: set[int]
) -> None:
    fleet = Machines({name for i, name in enumerate(names) if i in broken})
    left = asyncio.run(roll_out(names, limits, fleet.visit))
    assert sorted(fleet.visited + left) == sorted(names)
    assert fleet.most_at_once <= limits.parallel
    if not fleet.broken:
        assert not left


@given(machines, limits, st.sets(st.integers(0, 11)))
def test_after_a_canary_that_failed_nobody_else_is_begun(
    names: list[MachineName], limits: Limits, broken: set[int]
) -> None:
    fleet = Machines({name for i, name in enumerate(names) if i in broken})
    asyncio.run(roll_out(names, replace(limits, max_failures=None), fleet.visit))
    canaries = names[: limits.canaries]
    if fleet.broken.intersection(canaries):
        assert sorted(fleet.visited) == sorted(canaries)
    else:
        assert sorted(fleet.visited) == sorted(names)


@given(machines, limits, st.sets(st.integers(0, 11)), st.integers(0, 4))
def test_no_more_than_those_under_way_are_begun_after_too_many_failures(
    names: list[MachineName], limits: Limits, broken: set[int], most: int
) -> None:
    fleet = Machines({name for i, name in enumerate(names) if i in broken})
    asyncio.run(roll_out(names, replace(limits, canaries=0, max_failures=most), fleet.visit))
    assert len(fleet.broken.intersection(fleet.visited)) <= most + limits.parallel


def test_a_slow_machine_holds_up_nobody() -> None:
    """It is released only when all others were visited; two at once are enough for that."""

    async def run() -> list[MachineName]:
        names = [MachineName(f"m{i}") for i in range(20)]
        others = set(names[1:])
        through = asyncio.Event()

        async def visit(machine: MachineName) -> bool:
            others.discard(machine)
            if not others:
                through.set()
            if machine == names[0]:
                await through.wait()
            return True

        return await asyncio.wait_for(roll_out(names, Limits(parallel=2), visit), 10)

    assert asyncio.run(run()) == []


def test_waves() -> None:
    names = [MachineName(name) for name in "abc"]
    assert waves(names, 0) == [["a", "b", "c"]]
    assert waves(names, 1) == [["a"], ["b", "c"]]
    assert waves(names, 5) == [["a", "b", "c"]]
    assert waves([], 2) == []
