"""Which controller is asked for a newer document, and what is passed over after it failed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from warren.names import MachineName
from warren.plan import fetching
from warren.plan.fetching import CONTROLLER_PAUSE_S, DOCUMENT_PAUSE_S, NO_FAILURES, Failures

ONE, TWO = MachineName("server1"), MachineName("server2")
NOW_S = 1_000_000.0

said = st.dictionaries(st.sampled_from((ONE, TWO)), st.integers(0, 20))


def test_who_has_the_newest_is_asked_first_and_who_has_nothing_newer_is_not_asked() -> None:
    assert fetching.candidates({ONE: 8, TWO: 9}, 7, NO_FAILURES, NOW_S) == (TWO, ONE)
    assert fetching.candidates({ONE: 7, TWO: 6}, 7, NO_FAILURES, NOW_S) == ()


def test_a_controller_that_failed_rests_and_others_are_asked_meanwhile() -> None:
    failed = fetching.controller_failed(NO_FAILURES, TWO, 2**50, "not signed", NOW_S)
    assert fetching.candidates({ONE: 8, TWO: 2**50}, 7, failed, NOW_S + 1) == (ONE,)
    later = fetching.candidates({ONE: 8, TWO: 2**50}, 7, failed, NOW_S + CONTROLLER_PAUSE_S[0] + 1)
    assert later == (TWO, ONE)


def test_a_document_that_failed_rests_wherever_it_comes_from_and_a_newer_one_does_not() -> None:
    failed = fetching.document_failed(NO_FAILURES, 8, "abc", "no controller answers", NOW_S)
    assert fetching.candidates({ONE: 8, TWO: 8}, 7, failed, NOW_S + 1) == ()
    assert fetching.candidates({ONE: 9, TWO: 8}, 7, failed, NOW_S + 1) == (ONE,)
    assert fetching.is_too_soon(failed, "abc", NOW_S + 1)
    assert not fetching.is_too_soon(failed, "def", NOW_S + 1)
    assert not fetching.is_too_soon(failed, "abc", NOW_S + DOCUMENT_PAUSE_S[0] + 1)


def test_each_failure_doubles_the_pause_up_to_the_longest() -> None:
    failures, pauses = NO_FAILURES, []
    for _ in range(12):
        failures = fetching.document_failed(failures, 8, "abc", "", NOW_S)
        assert failures.document is not None
        pauses.append(failures.document.until_unix_s - NOW_S)
    assert pauses[:3] == [300.0, 600.0, 1200.0]
    assert pauses[-1] == DOCUMENT_PAUSE_S[1]


def test_a_clock_that_is_set_back_by_a_year_does_not_make_the_pause_a_year() -> None:
    failed = fetching.document_failed(NO_FAILURES, 8, "abc", "", NOW_S)
    assert fetching.candidates({ONE: 8}, 7, failed, NOW_S - 365 * 86400) == (ONE,)


@given(said, st.integers(0, 20), st.floats(NOW_S, NOW_S + 40_000))
def test_what_is_written_is_read_and_junk_is_nothing(serials: dict[MachineName, int], own: int, at_s: float) -> None:
    failures = Failures()
    for name, serial in serials.items():
        failures = fetching.controller_failed(failures, name, serial, "it refuses: no", at_s)
        failures = fetching.document_failed(failures, serial, f"{serial}", "", at_s)
    assert fetching.decode(fetching.encode(failures)) == failures
    for name in fetching.candidates(serials, own, failures, at_s):
        assert serials[name] > own


@given(st.binary(max_size=200))
def test_what_is_no_record_is_an_empty_one(content: bytes) -> None:
    assert fetching.decode(content) == NO_FAILURES
    assert fetching.decode(b'{"controllers": {"a": 3}, "document": 4}') == NO_FAILURES
