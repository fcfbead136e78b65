"""What agents say to each other: it comes through as it was, fits into a datagram, and nothing breaks the reader."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plan.test_plan import document
from strategies import documents
from warren.errors import SignalRefused
from warren.names import MachineName
from warren.network.document import Document
from warren.plan.signals import (
    LONGEST_BYTES,
    Directory,
    Report,
    Said,
    Word,
    decode_report,
    decode_word,
    encode_report,
    encode_word,
    in_datagrams,
)

MESH = document("server1 server2 server3", " ".join(f"laptop{number}" for number in range(120)))
DIRECTORY = Directory.of(MESH)
milliseconds = st.integers(0, 10_000).map(lambda number: number / 1000)


@st.composite
def losses(draw: st.DrawFn, of: Document) -> tuple[frozenset[MachineName], frozenset[MachineName]]:
    lost = draw(st.frozensets(st.sampled_from(sorted(of.controllers))))
    return lost, draw(st.frozensets(st.sampled_from(sorted(lost)))) if lost else frozenset()


@st.composite
def words(draw: st.DrawFn, of: Document, most: int) -> Word:
    peers = draw(st.lists(st.sampled_from(sorted(of.peers)), max_size=most, unique=True)) if of.peers else []
    said = [Said(peer, *draw(losses(of)), draw(milliseconds)) for peer in peers]
    return Word(draw(st.booleans()), draw(st.none() | milliseconds), tuple(said), draw(st.booleans()))


@given(documents(), st.data())
def test_what_is_reported_is_read(of: Document, data: st.DataObject) -> None:
    report = Report(*data.draw(losses(of)), data.draw(st.booleans()))
    directory = Directory.of(of)
    content = encode_report(report, directory)
    assert len(content) <= LONGEST_BYTES
    assert decode_report(content, directory) == report


@given(documents(), st.data())
def test_a_word_is_read(of: Document, data: st.DataObject) -> None:
    directory = Directory.of(of)
    word = data.draw(words(of, 9))
    assert decode_word(encode_word(word, directory), directory) == word


@given(words(MESH, 120))
def test_a_long_word_comes_in_datagrams(word: Word) -> None:
    parts = list(in_datagrams(word, DIRECTORY))
    contents = [encode_word(part, DIRECTORY) for part in parts]
    assert all(len(content) <= LONGEST_BYTES for content in contents)
    read = [decode_word(content, DIRECTORY) for content in contents]
    assert [said for each in read for said in each.said] == list(word.said)
    assert {(each.draining, each.move_in_s) for each in read} == {(word.draining, word.move_in_s)}
    assert all(each.is_whole == (word.is_whole and len(read) == 1) for each in read)


def test_a_report_of_very_many_controllers_fits() -> None:
    large = document(" ".join(f"server{number}" for number in range(150)))
    everything = frozenset(large.controllers)
    assert len(encode_report(Report(everything, everything, renew=True), Directory.of(large))) <= LONGEST_BYTES


def test_whoever_is_not_known_is_left_out() -> None:
    """Documents are not everywhere at once."""
    small = Directory.of(document("server1", "laptop1"))
    word = Word(said=tuple(Said(MachineName(f"laptop{n}"), frozenset(MESH.controllers)) for n in (1, 2)))
    assert decode_word(encode_word(word, DIRECTORY), small).said == (
        Said(MachineName("laptop1"), frozenset({MachineName("server1")})),
    )


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.sampled_from(["lost", "0387"]),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=12,
)
keys = st.sampled_from(["warren", "lost", "steady", "renew", "draining", "move_ms", "said", "whole", "more"])


@given(
    st.one_of(
        st.binary(max_size=1400),
        json_values.map(lambda value: json.dumps(value).encode()),
        st.dictionaries(keys, json_values, max_size=6).map(lambda tree: json.dumps({"warren": 1} | tree).encode()),
    )
)
def test_whatever_comes_in_is_read_or_refused(content: bytes) -> None:
    for decode in (decode_report, decode_word):
        with contextlib.suppress(SignalRefused):  # and nothing else
            decode(content, DIRECTORY)


@given(words(MESH, 20), st.data())
def test_a_signal_that_was_damaged_is_read_or_refused(word: Word, data: st.DataObject) -> None:
    content = bytearray(encode_word(word, DIRECTORY))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(SignalRefused):
        decode_word(bytes(content[: data.draw(st.integers(0, len(content)))]), DIRECTORY)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xff", "not JSON"),
        (b"[" * 1100, "not JSON"),
        (b" " * 1201, "1201 bytes long"),
        (b"[]", "not an object"),
        (b'{"warren":true,"said":[]}', "of another version"),
        (b'{"warren":2,"said":[]}', "of another version"),
        (b'{"warren":1}', "without 'said'"),
        (b'{"warren":1,"said":[["bcd68f7f",0,[]]]}', "not a list of 4 to 4"),
        (b'{"warren":1,"said":[["bcd68f7f",-1,[],[]]]}', "not a time of 0 to 600 seconds"),
        (b'{"warren":1,"said":[],"move_ms":10001}', "not a time of 0 to 10 seconds"),
        (b'{"warren":1,"said":[],"move_ms":1.5}', "not a time of 0 to 10 seconds"),
        (b'{"warren":1,"said":[],"draining":false}', "not true"),
        (b'{"warren":1,"said":[],"x":1}', "'x' is not known here"),
    ],
)
def test_what_is_no_word_says_why(content: bytes, words: str) -> None:
    with pytest.raises(SignalRefused) as refused:
        decode_word(content, DIRECTORY)
    assert words in str(refused.value)
