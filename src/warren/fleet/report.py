"""What became of an update, as text for people and as a tree for programs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from warren.fleet.update import Outcome, State
from warren.names import InstanceName, MachineName
from warren.render.show import number_of

_MOST_STEPS = 12  # a machine that is new has one for each address and each peer


def outcome_lines(outcome: Outcome, *, every_step: bool) -> list[str]:
    """One machine: the commands that it carried out, or what went wrong."""
    if outcome.problem:
        return [f"{outcome.machine}: {outcome.state.value}", *_indented(outcome.problem.splitlines())]
    lines = []
    for instance, steps in outcome.steps.items():
        shown = steps if every_step or len(steps) <= _MOST_STEPS else steps[:_MOST_STEPS]
        change = number_of(len(steps), "change") if steps else "nothing to change"
        lines += [f"{outcome.machine}: {outcome.state.value}: {instance}: {change}", *_indented(shown)]
        if len(shown) < len(steps):
            lines.append(f"  … and {len(steps) - len(shown):,} more (--json has all)")
    return [*(lines or [f"{outcome.machine}: {outcome.state.value}"]), *map(_note, outcome.notes)]


def _note(text: str) -> str:
    return f"  to be done by hand: {text}"


def _indented(lines: Iterable[str]) -> list[str]:
    return [f"  {line}" for line in lines]


def summary(outcomes: Iterable[Outcome], up_to_date: int, seconds: float) -> str:
    """The last line."""
    counts: dict[State, int] = {}
    for outcome in outcomes:
        counts[outcome.state] = counts.get(outcome.state, 0) + 1
    parts = [f"{counts[state]:,} {state.value}" for state in State if state in counts]
    if up_to_date:
        parts.append(f"{up_to_date:,} were up to date")
    return f"{', '.join(parts) or 'nothing to do'} in {seconds:.1f} s"


def tree(
    outcomes: Iterable[Outcome],
    up_to_date: Iterable[MachineName],
    without_key: Iterable[MachineName],
    out_of_date: Mapping[MachineName, Iterable[InstanceName]],
) -> dict[str, object]:
    """What `warren machines update --json` prints. `out_of_date`: afterwards, of all machines."""
    return {
        "machines": {
            outcome.machine: {
                "state": outcome.state.name.lower().replace("_", "-"),
                "instances": {name: list(steps) for name, steps in outcome.steps.items()},
                "problem": outcome.problem or None,
                "notes": list(outcome.notes),
            }
            for outcome in sorted(outcomes, key=lambda each: each.machine)
        },
        "up_to_date": sorted(up_to_date),
        "without_key": sorted(without_key),
        "out_of_date": {machine: sorted(instances) for machine, instances in sorted(out_of_date.items())},
    }
