"""Where keys and values stand in a TOML or JSON text.

The parsers of the standard library keep no places; tree-sitter does. This module is imported, and the text read a
second time, only when there is something to show.
"""

from __future__ import annotations

import json
import re
import tomllib
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import tree_sitter_json
import tree_sitter_toml
from tree_sitter import Language, Node, Parser

from warren.inventory.findings import Finding, Path, Place

_Span: TypeAlias = tuple[int, int]
"""The first byte, and the one after the last."""


@dataclass(slots=True)
class _Spans:
    """Where the wanted keys and values stand, as a tree of paths: what is not wanted is not looked at."""

    below: dict[str | int, _Spans] = field(default_factory=dict)
    key: _Span | None = None
    value: _Span | None = None

    def want(self, path: Path) -> None:
        spans = self
        for key in path:
            spans = spans.below.setdefault(key, _Spans())

    def of(self, path: Path, at_key: bool) -> _Span | None:
        """The span of the path, or of the nearest table above it that the text names."""
        spans, found = self, None
        for key in path:
            spans = spans.below[key]
            found = spans.key or spans.value or found
        return found if at_key else spans.value or found


def places_in_toml(text: str, findings: Sequence[Finding]) -> list[Place]:
    return _places(text, findings, _toml_spans)


def places_in_json(text: str, findings: Sequence[Finding]) -> list[Place]:
    return _places(text, findings, _json_spans)


def repeated_json_keys(text: str) -> list[tuple[str, Place]]:
    """Every key that stands in its object for the second time or more."""
    keys, spans = [], []
    left = [_json_root(text.encode())]
    while left:
        node = left.pop()
        seen = set()
        for child in node.named_children:
            left.append(child)
            if node.type == "object" and child.type == "pair":
                key, span = _json_key(child)
                if key in seen:
                    keys.append(key)
                    spans.append(span)
                seen.add(key)
    return sorted(zip(keys, _resolved(text, spans), strict=True), key=lambda item: (item[1].line, item[1].column))


def _places(text: str, findings: Sequence[Finding], find: Callable[[bytes, _Spans], None]) -> list[Place]:
    root = _Spans()
    for finding in findings:
        root.want(finding.path)
    find(text.encode(), root)
    return _resolved(text, [root.of(finding.path, finding.at_key) for finding in findings])


def _resolved(text: str, spans: Sequence[_Span | None]) -> list[Place]:
    """Bytes to lines, columns and characters."""
    known = [span for span in spans if span is not None]
    characters = _characters(text, sorted({offset for span in known for offset in span}))
    starts = [0, *(index + 1 for index, character in enumerate(text) if character == "\n")]
    lines: dict[int, str] = {}  # one text for all findings of a line: some files are a single long one
    places = []
    for span in spans:
        if span is None:
            places.append(Place())
            continue
        start, end = characters[span[0]], characters[span[1]]
        line = bisect_right(starts, start)
        if line not in lines:
            line_end = starts[line] - 1 if line < len(starts) else len(text)
            lines[line] = text[starts[line - 1] : line_end].rstrip("\r")
        column = start - starts[line - 1] + 1
        width = min(end - start, len(lines[line]) - column + 1)
        places.append(Place(line, column, max(1, width), lines[line]))
    return places


def _characters(text: str, offsets: Sequence[int]) -> dict[int, int]:
    """Byte offsets, in rising order, as character offsets."""
    if text.isascii():
        return {offset: offset for offset in offsets}
    data, last, count = text.encode(), 0, 0
    characters = {}
    for offset in offsets:
        count += len(data[last:offset].decode())
        characters[offset] = count
        last = offset
    return characters


def _toml_spans(data: bytes, root: _Spans) -> None:
    document = Parser(Language(tree_sitter_toml.language())).parse(data).root_node
    for node in document.named_children:
        if node.type == "pair":
            _toml_pair(node, root)
        elif node.type == "table":
            header, *pairs = _without_comments(node)
            if spans := _toml_key(header, root):
                for pair in pairs:
                    _toml_pair(pair, spans)
        elif node.type == "table_array_element":  # nothing in an inventory is one: only its name is ever wanted
            _toml_key(_without_comments(node)[0], root)


def _toml_pair(pair: Node, spans: _Spans) -> None:
    key, value = _key_and_value(pair)
    if found := _toml_key(key, spans):
        _toml_value(value, found)


def _key_and_value(pair: Node) -> tuple[Node, Node]:
    first, *_, last = _without_comments(pair)
    return first, last


def _toml_key(node: Node, spans: _Spans) -> _Spans | None:
    """The spans below a key, which is noted in each of its parts; None where nothing is wanted."""
    for part in _toml_key_parts(node):
        below = spans.below.get(_toml_name(part))
        if below is None:
            return None
        spans = below
        spans.key = spans.key or _span(part)
    return spans


def _toml_key_parts(node: Node) -> list[Node]:
    """`a.b.c` comes as ((a b) c)."""
    parts = []
    while node.type == "dotted_key":
        node, last = node.named_children
        parts.append(last)
    return [node, *reversed(parts)]


def _toml_name(node: Node) -> str:
    text = (node.text or b"").decode()
    if node.type == "bare_key":
        return text
    return next(iter(tomllib.loads(f"{text} = 1")), "")


def _toml_value(node: Node, spans: _Spans) -> None:
    left = [(node, spans)]
    while left:
        node, spans = left.pop()
        spans.value = spans.value or _span(node)
        if not spans.below:
            continue
        if node.type == "inline_table":
            for pair in _without_comments(node):
                key, value = _key_and_value(pair)
                if below := _toml_key(key, spans):
                    left.append((value, below))
        elif node.type == "array":
            left.extend(_items(spans, _without_comments(node)))


def _json_spans(data: bytes, root: _Spans) -> None:
    left = [(_json_root(data), root)]
    while left:
        node, spans = left.pop()
        spans.value = _span(node)
        if not spans.below:
            continue
        if node.type == "object":
            for pair in node.named_children:
                key, span = _json_key(pair)
                if below := spans.below.get(key):
                    below.key = span
                    left.append((pair.named_children[1], below))
        elif node.type == "array":
            left.extend(_items(spans, node.named_children))


def _json_root(data: bytes) -> Node:
    # tree-sitter-json 0.24 stumbles over the plus of an exponent; a zero in its place moves nothing.
    data = re.sub(rb'("(?:[^"\\]|\\.)*")|([eE])\+', lambda match: match[1] or match[2] + b"0", data)
    document = Parser(Language(tree_sitter_json.language())).parse(data).root_node
    return document.named_children[0]


def _json_key(pair: Node) -> tuple[str, _Span]:
    node = pair.named_children[0]
    return str(json.loads(node.text or b'""')), _span(node)


def _items(spans: _Spans, nodes: Iterable[Node]) -> Iterator[tuple[Node, _Spans]]:
    return ((node, spans.below[index]) for index, node in enumerate(nodes) if index in spans.below)


def _without_comments(node: Node) -> list[Node]:
    return [child for child in node.named_children if child.type != "comment"]


def _span(node: Node) -> _Span:
    return node.start_byte, node.end_byte
