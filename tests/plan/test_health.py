"""Laws of health: what is called dead, what is not, and how long the way back is."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warren.plan import health
from warren.plan.health import JITTER, TUNING, Health, Probe, Verdict

RTT_S = 0.001


class Watched:
    """One controller under watch, in virtual time. `answers(kind, now_s)`: whether that probe is answered."""

    def __init__(self, seed: int = 0, rtt_s: float = RTT_S) -> None:
        self.random = Random(seed)
        self.health = health.begin(Probe.THROUGH, 0.0)
        self.now_s = 0.0
        self.rtt_s = rtt_s
        self.number = 0
        self.waiting: list[tuple[float, Probe, int]] = []
        self.verdicts: list[tuple[float, Verdict]] = []

    def run(self, for_s: float, answers: object, pace_s: float = TUNING.in_use_s) -> None:
        assert callable(answers)
        end_s = self.now_s + for_s
        while self.now_s < end_s:
            due_s = health.next_round_s(self.health, pace_s, self.random.uniform(-1, 1), self.now_s)
            due_s = min(
                [due_s, health.next_judgement_s(self.health, self.now_s), *(at_s for at_s, _, _ in self.waiting)]
            )
            self.now_s = min(end_s, max(due_s, self.now_s + 0.001))
            for at_s, kind, number in [each for each in self.waiting if each[0] <= self.now_s]:
                self.waiting.remove((at_s, kind, number))
                self._is(health.answered(self.health, kind, number, at_s))
            self._is(health.judged(self.health, self.now_s))
            if health.wants_renewal(self.health, self.now_s):
                self.health = health.renewed(self.health, self.now_s, 0.0)
            if health.next_round_s(self.health, pace_s, 0.0, self.now_s) <= self.now_s:
                self._send(answers)

    def _send(self, answers: object) -> None:
        assert callable(answers)
        self.number = (self.number + 1) % 0x10000
        kinds = health.kinds(self.health)
        self.health = health.sent(self.health, self.number, self.now_s)
        self.waiting += [(self.now_s + self.rtt_s, kind, self.number) for kind in kinds if answers(kind, self.now_s)]

    def _is(self, new: Health) -> None:
        if new.verdict is not self.health.verdict:
            self.verdicts.append((self.now_s, new.verdict))
        self.health = new


def always(kind: Probe, now_s: float) -> bool:
    return True


def never(kind: Probe, now_s: float) -> bool:
    return False


def only_echo(kind: Probe, now_s: float) -> bool:
    return kind is Probe.ECHO


@given(st.integers(0, 2**32), st.floats(0, 1), st.sampled_from((0.0005, 0.02, 0.06)))
def test_a_death_in_use_is_noticed_within_the_bound(seed: int, phase_s: float, rtt_s: float) -> None:
    watched = Watched(seed, rtt_s)
    watched.run(5 + phase_s, always)
    died_s = watched.now_s
    watched.run(3, never)
    ((noticed_s, verdict),) = watched.verdicts
    assert verdict is Verdict.SILENT
    assert noticed_s - died_s <= TUNING.noticed_in_use_s + rtt_s + 0.05


@given(st.integers(0, 2**32), st.floats(0, 3))
def test_a_death_at_rest_is_noticed_within_the_bound(seed: int, phase_s: float) -> None:
    watched = Watched(seed)
    watched.run(20 + phase_s, always, TUNING.at_rest_s)
    died_s = watched.now_s
    watched.run(10, never, TUNING.at_rest_s)
    assert watched.verdicts[0][0] - died_s <= TUNING.noticed_s


@pytest.mark.parametrize("loss", [0.05, 0.2])
def test_loss_is_not_death(loss: float) -> None:
    """An hour of it in use."""
    watched = Watched(7)
    watched.run(3600, lambda kind, now_s: watched.random.random() >= loss)
    assert watched.verdicts == []


def test_loss_is_not_death_at_rest_either() -> None:
    watched = Watched(8)
    watched.run(12 * 3600, lambda kind, now_s: watched.random.random() >= 0.2, TUNING.at_rest_s)
    assert watched.verdicts == []


@given(st.integers(0, 2**32))
def test_one_that_answers_and_forwards_nothing_is_found_out(seed: int) -> None:
    watched = Watched(seed)
    watched.run(5, always)
    watched.run(2, only_echo)
    assert [verdict for _, verdict in watched.verdicts] == [Verdict.NOT_FORWARDING]
    assert watched.verdicts[0][0] - 5 <= 1.0
    watched.run(5, never)
    assert watched.verdicts[1][1] is Verdict.SILENT
    watched.run(5, always)
    assert watched.health.is_up


def test_one_that_never_forwards_again_is_found_out_once() -> None:
    """Asked rarely after a while, and still no reason to begin its session anew."""
    watched = Watched(1)
    watched.run(5, always)
    watched.run(1800, only_echo, TUNING.at_rest_s)
    assert [verdict for _, verdict in watched.verdicts] == [Verdict.NOT_FORWARDING]
    assert watched.health.renewals == 0


@settings(max_examples=20)
@given(st.integers(0, 2**32), st.integers(1, 8))
def test_the_way_back_takes_longer_with_each_flap(seed: int, flaps: int) -> None:
    watched = Watched(seed)
    watched.run(5, always)
    for flap in range(flaps):
        watched.run(1, never)
        assert watched.health.verdict is Verdict.SILENT
        back_s = watched.now_s
        while not watched.health.is_up:
            watched.run(0.5, always)
        held_s = min(TUNING.longest_hold_s, TUNING.hold_s * 2**flap)
        assert held_s <= watched.now_s - back_s <= held_s + 1


@settings(max_examples=15)
@given(st.integers(0, 2**32))
def test_quiet_times_make_up_for_flaps(seed: int) -> None:
    watched = Watched(seed)
    for _ in range(4):
        watched.run(2, never)
        watched.run(40, always)
    assert watched.health.flaps > 1
    watched.run(20 * TUNING.forget_flap_s, always, TUNING.at_rest_s)
    watched.run(10, never)
    assert watched.health.flaps == 1


def test_answers_that_come_and_go_are_not_steady() -> None:
    watched = Watched(3)
    watched.run(5, always)
    watched.run(2, never)
    watched.run(120, lambda kind, now_s: now_s % 3 < 1)
    assert [verdict for _, verdict in watched.verdicts][:1] == [Verdict.SILENT]
    assert not watched.health.is_up


@given(st.integers(0, 2**32), st.sampled_from((2.0, 60.0, 3600.0, 30 * 86400.0)))
def test_what_happened_while_we_slept_is_no_verdict(seed: int, slept_s: float) -> None:
    watched = Watched(seed)
    watched.run(5, always)
    watched.waiting.clear()
    watched.now_s += slept_s
    watched.health = health.woken(watched.health, watched.now_s)
    assert health.judged(watched.health, watched.now_s).is_up
    watched.run(5, always)
    assert watched.verdicts == []


@given(st.integers(0, 2**32))
def test_one_that_died_while_we_slept_is_found_out(seed: int) -> None:
    watched = Watched(seed)
    watched.run(5, always)
    watched.waiting.clear()
    watched.now_s += 3600
    watched.health = health.woken(watched.health, watched.now_s)
    woke_s = watched.now_s
    watched.run(5, never)
    ((noticed_s, verdict),) = watched.verdicts
    assert verdict is Verdict.SILENT
    assert noticed_s - woke_s <= TUNING.grace_s + TUNING.noticed_in_use_s


def test_a_clock_that_stands_still_decides_nothing() -> None:
    watched = Watched()
    watched.run(5, always)
    state = health.sent(watched.health, 60000, watched.now_s)
    for _ in range(1000):
        state = health.judged(state, watched.now_s)
    assert state.is_up
    assert not state.doubted


def test_an_answer_that_nobody_asked_for_proves_nothing() -> None:
    watched = Watched()
    watched.run(5, always)
    watched.run(1, never)
    before = watched.health
    assert health.answered(before, Probe.THROUGH, 65000, watched.now_s) is before


@settings(max_examples=30)
@given(st.integers(0, 2**32))
def test_a_silent_controller_is_called_about_once_a_second_and_later_less_often(seed: int) -> None:
    watched = Watched(seed)
    watched.run(5, always)
    watched.run(TUNING.patient_s, never)
    early = watched.health.renewals
    assert 0.7 * TUNING.patient_s <= early <= 1.3 * TUNING.patient_s
    watched.run(100, never)
    assert watched.health.renewals - early <= 100 / TUNING.patient_renewal_s * (1 + JITTER) + 2


def test_numbers_may_wrap() -> None:
    watched = Watched()
    watched.number = 0xFFF0
    watched.run(30, always)
    assert watched.number < 0xFFF0
    assert watched.verdicts == []
    assert len(watched.health.rounds) <= 1
