"""A controller's bookkeeping: whom it tells what, and when it asks all to move."""

from __future__ import annotations

from meshes import inventory, mesh
from strategies import public_key
from warren.names import InstanceName, MachineName
from warren.network.document import Document
from warren.network.resolve import resolve
from warren.network.stored import Stored
from warren.plan import ledger, redundancy
from warren.plan.health import TUNING
from warren.plan.ledger import Ledger, Saying
from warren.plan.signals import NOTHING_LOST, Report, Word

VPN = InstanceName("vpn")
ME, OTHER = MachineName("server1"), MachineName("server2")
PEERS = [MachineName(f"laptop{number}") for number in range(1, 60)]
ONE, TWO, THREE = PEERS[:3]
LOST_ME = Report(frozenset({ME}))
STEADY = Report(frozenset({ME}), frozenset({ME}))
LOST_OTHER = Report(frozenset({OTHER}))


def hearing(*reports: Report, at_s: float = 0.0) -> Ledger:
    found = Ledger(ME)
    for name, report in zip(PEERS, reports, strict=False):
        found = ledger.reported(found, name, report, at_s)
    return found


def until(
    held: Ledger, end_s: float, now_s: float = 0.0, peers: int | None = None
) -> tuple[Ledger, list[tuple[float, Saying]]]:
    """All that is said up to then, by asking only when it says that it is due."""
    said: list[tuple[float, Saying]] = []
    for _ in range(1000):
        held, now = ledger.sayings(held, now_s, peers=len(held.heard) if peers is None else peers)
        said += [(now_s, each) for each in now]
        due_s = max(now_s, ledger.due_s(held))
        if due_s > end_s:
            return held, said
        now_s = due_s if due_s > now_s else now_s + 1e-6
    raise AssertionError("it is always due again")


def test_nothing_is_said_while_nobody_lost_anything() -> None:
    held = hearing(NOTHING_LOST, NOTHING_LOST)
    assert ledger.due_s(held) == float("inf")
    assert until(held, 1000)[1] == []
    assert ledger.answer(held, ONE, 1.0) == Word(is_whole=True)


def test_a_loss_is_told_to_those_who_still_use_what_was_lost_and_to_nobody_else() -> None:
    _, said = until(hearing(NOTHING_LOST, LOST_OTHER, LOST_OTHER), 10)
    assert said
    assert {name for _, each in said for name in each.to} == {ONE}
    assert {one.peer for _, each in said for one in each.word.said} == {TWO, THREE}
    assert len(said) == ledger.NEWS_TIMES  # a datagram may be lost
    assert said[0][0] <= ledger.NEWS_PAUSE_S


def test_what_was_told_is_taken_back_when_it_is_over() -> None:
    held, _ = until(hearing(NOTHING_LOST, LOST_OTHER), 10)
    held = ledger.reported(held, TWO, NOTHING_LOST, 20)
    _, said = until(held, 30, 20)
    assert [(one.peer, one.lost) for one in said[0][1].word.said] == [(TWO, frozenset())]
    assert ledger.answer(held, ONE, 30).said == ()


def test_an_answer_says_how_old_a_report_is_and_is_whole_only_if_it_has_all() -> None:
    held = ledger.reported(hearing(NOTHING_LOST), TWO, LOST_OTHER, 5.0)
    word = ledger.answer(held, ONE, 8.0)
    assert [(each.peer, each.lost, each.age_s) for each in word.said] == [(TWO, frozenset({OTHER}), 3.0)]
    assert word.is_whole
    many = Ledger(ME)
    for number in range(ledger.MOST_SAID + 2):
        many = ledger.reported(many, MachineName(f"desk{number}"), LOST_OTHER, 0.0)
    word = ledger.answer(ledger.reported(many, ONE, NOTHING_LOST, 0.0), ONE, 1.0)
    assert (len(word.said), word.is_whole) == (ledger.MOST_SAID, False)


def test_a_drain_is_told_to_all_with_one_moment_that_does_not_shift() -> None:
    held = ledger.drain(hearing(NOTHING_LOST, NOTHING_LOST, at_s=100.0), True, 100.0)
    held, said = until(held, 200, 100.0)
    assert len(said) == ledger.MOVE_TIMES
    moments = [at_s + (each.word.move_in_s or 0.0) for at_s, each in said]
    assert max(moments) - min(moments) < 1e-6
    assert abs(moments[0] - 100.0 - TUNING.move_lead_s) < 1e-6
    assert all(set(each.to) == {ONE, TWO} and each.word.draining for _, each in said)
    assert ledger.answer(held, ONE, 200.0) == Word(draining=True, is_whole=True)  # whoever comes later hears it, too


def test_the_same_drain_again_changes_nothing() -> None:
    held = ledger.drain(hearing(NOTHING_LOST), True, 1.0)
    assert ledger.drain(held, True, 2.0) is held


def test_it_is_left_when_all_who_report_said_so_and_the_silent_are_not_waited_for() -> None:
    held = ledger.drain(hearing(NOTHING_LOST, LOST_ME), True, 0.0)
    assert not ledger.is_left(held, 1.0)
    assert ledger.is_left(ledger.reported(held, ONE, LOST_ME, 1.0), 1.0)
    held = ledger.reported(held, TWO, LOST_ME, 2 * TUNING.report_s)
    assert ledger.is_left(held, 2 * TUNING.report_s)


def test_all_are_called_back_at_once_when_all_found_it_steady() -> None:
    held, said = until(hearing(STEADY, STEADY), 0.5, 0.0)
    assert [each.word.draining for _, each in said] == [False] * len(said) != []
    assert said[0][1].word.move_in_s == TUNING.move_lead_s
    assert held.move is None


def test_they_are_not_waited_for_longer_than_that() -> None:
    _, said = until(hearing(STEADY, LOST_ME), 0.9 * TUNING.together_s)
    assert not any(each.word.move_in_s is not None for _, each in said)
    _, said = until(hearing(STEADY, LOST_ME), 2 * TUNING.together_s)
    first = next(at_s for at_s, each in said if each.word.move_in_s is not None)
    assert abs(first - TUNING.together_s) < 0.01


def test_whoever_is_heard_first_does_not_come_back_alone() -> None:
    """After a restart of the controller, the others are a moment slower."""
    _, said = until(hearing(STEADY), 0.9 * TUNING.together_s, peers=2)
    assert not any(each.word.move_in_s is not None for _, each in said)
    _, said = until(hearing(STEADY), 2 * TUNING.together_s, peers=2)
    assert any(each.word.move_in_s is not None for _, each in said)


def test_one_that_drains_calls_nobody_back() -> None:
    held, _ = until(ledger.drain(hearing(STEADY, STEADY), True, 0.0), 10)
    _, said = until(held, 100, 10)
    assert said == []


def test_moves_have_a_pause_between_them() -> None:
    held, _ = until(ledger.drain(hearing(NOTHING_LOST), True, 0.0), 10.0)
    held, _ = until(ledger.drain(ledger.reported(held, ONE, STEADY, 10.0), False, 10.0), 10.5, 10.0)
    _, said = until(ledger.reported(held, ONE, STEADY, 10.5), 10.0 + ledger.PAUSE_BETWEEN_MOVES_S, 10.5)
    assert not any(each.word.move_in_s is not None for _, each in said)


def test_who_is_silent_for_long_is_forgotten() -> None:
    held = ledger.reported(hearing(NOTHING_LOST, LOST_OTHER), ONE, NOTHING_LOST, TUNING.forget_s + 1)
    held, _ = ledger.sayings(held, TUNING.forget_s + 1, peers=2)
    assert set(held.heard) == {ONE}
    assert ledger.answer(held, ONE, TUNING.forget_s + 1).said == ()


def test_renewals_are_not_made_again_and_again() -> None:
    held = hearing(Report(renew=True), NOTHING_LOST)
    assert ledger.wants_renewal(held, ONE, 0.0)
    assert not ledger.wants_renewal(held, TWO, 0.0)
    held = ledger.reported(ledger.renewed(held, ONE, 0.0), ONE, Report(renew=True), 1.0)
    assert not ledger.wants_renewal(held, ONE, 1.0)
    assert ledger.wants_renewal(held, ONE, ledger.RENEWAL_PAUSE_S + 0.1)


def test_reports_are_stretched_in_a_large_mesh_for_as_long_as_it_is_large() -> None:
    def document(peers: int) -> Document:
        names = [f"laptop{number}" for number in range(peers)]
        stored = Stored(public_keys={MachineName(name): public_key(name).text for name in ("server1", *names)})
        return resolve(inventory(mesh("server1", " ".join(names))), {VPN: stored})[VPN]

    small, large = document(2), document(1500)
    state = redundancy.begin(small, ME, None, 0.0)
    assert (state.tuning.report_s, state.tuning.forget_s) == (10.0, 35.0)
    state = redundancy.adopt(state, large, 1.0)
    assert (state.tuning.report_s, state.tuning.forget_s) == (15.0, 52.5)
    assert redundancy.adopt(state, small, 2.0).tuning.report_s == 10.0
