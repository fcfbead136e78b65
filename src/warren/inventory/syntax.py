"""Mistakes in the text itself, in words: what `tomllib` and `json` say is written for programmers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from warren.errors import Problem
from warren.inventory.findings import Place, problem


@dataclass(frozen=True, slots=True)
class Mistake:
    """`position` counts characters from 0; None: somewhere in the text."""

    position: int | None
    message: str
    mend: str
    width: int = 1


def problem_of(mistake: Mistake, text: str, file: str) -> Problem:
    place = Place() if mistake.position is None else _place(text, mistake.position, mistake.width)
    return problem(place, file, mistake.message, mistake.mend)


def _place(text: str, position: int, width: int) -> Place:
    start, line = _line(text, position)
    return Place(text.count("\n", 0, position) + 1, position - start + 1, width, line)


def _line(text: str, position: int) -> tuple[int, str]:
    """Where the line around a character begins, and the line."""
    start = text.rfind("\n", 0, position) + 1
    end = text.find("\n", position)
    return start, text[start : end if end >= 0 else len(text)].rstrip("\r")


def not_utf8(position: int) -> Mistake:
    return Mistake(position, "not UTF-8 text", "save the file as UTF-8")


def toml_mistake(text: str, said: str) -> Mistake:
    """What tomllib said, with its place: ` (at line 3, column 5)` or ` (at end of document)` at the end."""
    where = re.search(r" \(at (?:line (\d+), column (\d+)|end of document)\)$", said)
    position = _position(text, int(where[1]), int(where[2])) if where and where[1] else len(text.rstrip())
    said = said[: where.start()] if where else said
    if said.startswith("Invalid value"):
        return _not_a_value(text, position)
    if said.startswith("Invalid statement") and text.lstrip().startswith("{"):
        return Mistake(position, "this is JSON in a file that is called TOML", "let the file's name end in .json")
    message, mend = _words(_TOML, said)
    width = 1
    if said.startswith(_TWICE):  # tomllib is behind the statement by now
        start, line = _line(text, max(0, position - 1))
        position = start + len(line) - len(line.lstrip())
        width = len(line.split("=")[0].strip())
    if said.startswith("Invalid initial character") and text[position : position + 1] in _INLINE:
        message, mend = _INLINE[text[position]]
    return Mistake(position, message, mend, width)


def _position(text: str, line: int, column: int) -> int:
    start = 0
    for _ in range(line - 1):
        start = text.index("\n", start) + 1
    return start + column - 1


def _not_a_value(text: str, position: int) -> Mistake:
    start, line = _line(text, position)
    value = re.split(r"\s#|[,\]}]", line[position - start :])[0].strip()
    bare = value.strip("“”„‘’'`\";")
    if not bare:
        return Mistake(position, "a value is missing here", 'write one: "text", 51820, true, ["one", "two"] or {}')
    if bare.lower() in ("true", "false"):
        return Mistake(position, f"{value} is not a value", f"write {bare.lower()}", len(value))
    return Mistake(position, "this is not a value", f'text stands in quotes: "{bare}"', len(value))


_INLINE = {
    "\n": ("a table in { } ends on its line", "write all of it on one line, or as a [TABLE] of its own"),
    "\r": ("a table in { } ends on its line", "write all of it on one line, or as a [TABLE] of its own"),
    "}": ("a comma before the end", "remove the comma"),
}
_TWICE = ("Cannot declare", "Cannot overwrite", "Duplicate inline", "Cannot mutate", "Cannot redefine")

_TOML = {
    "Invalid statement": ("neither a key, nor a table, nor a comment", "write KEY = VALUE, [TABLE] or # COMMENT"),
    "Expected '='": ("a key needs = and a value", "write KEY = VALUE; keys with spaces stand in quotes"),
    "Expected newline": ("nothing may follow here", "one setting a line, without semicolon or comma at its end"),
    "Expected ']": ("the name of this table is not closed", "write [TABLE] on a line of its own"),
    "Cannot declare": ("this table stands twice", "put what both hold under one of them"),
    "Cannot overwrite": ("this key has a value already", "keep one of the two"),
    "Duplicate inline": ("this key has a value already", "keep one of the two"),
    "Cannot mutate": (
        "this adds to something that was complete: what stands in { } or [ ] cannot grow later",
        "write all of it in one place",
    ),
    "Cannot redefine": ("this adds to something that was complete", "write all of it in one place"),
    "Unterminated string": ("text that does not end", 'close the quotes: "'),
    'Expected "\'"': ("text that does not end", "close the quotes: '"),
    "Expected \"'''\"": ("text that does not end", "close the quotes: '''"),
    "Unescaped": ("a backslash in text", "write two of them: \\\\"),
    "Illegal character '\\n'": ("text that does not end on its line", 'close the quotes: "'),
    "Illegal character '\\r'": ("text that does not end on its line", 'close the quotes: "'),
    "Illegal character": ("a character that TOML does not allow", "remove it"),
    "Found invalid character": ("a character that TOML does not allow", "remove it"),
    "Unclosed array": ("this list is not closed, or a comma is missing", 'write ["one", "two"]'),
    "Unclosed inline table": ("this table is not closed on its line", "close it with }, or write it as a [TABLE]"),
    "Invalid initial character": ("a key is missing here", "keys are letters, digits, - and _; others stand in quotes"),
    "Escaped character": ("half of a UTF-16 pair is not a character", "write the character itself"),
    "Invalid hex": ("\\u needs four hexadecimal digits, \\U eight", "write the character itself"),
    "Invalid date": ("not a date", "text stands in quotes"),
}


def too_large_number(text: str) -> Mistake:
    """int() takes no more than some thousand digits: sys.get_int_max_str_digits."""
    number = re.search(r"\d{640,}", text)
    return Mistake(
        number and number.start(), "a number of thousands of digits", "write a smaller one, or text in quotes"
    )


def too_deep() -> Mistake:
    return Mistake(None, "nested too deeply", "write it flatter: an inventory has ten levels or so")


def json_mistake(text: str, position: int, said: str) -> Mistake:
    """What json said, and where."""
    if said == "NaN":
        return Mistake(position, "JSON has no such number", "write digits, or remove the key", len("NaN"))
    if text[:position].rstrip().endswith(",") and text[position : position + 1] in ("}", "]"):
        return Mistake(position, "a comma before the end", "remove the comma")
    if position >= len(text.rstrip()):
        return Mistake(
            len(text.rstrip()), "the file ends in the middle", "close what is open: } for objects, ] for lists"
        )
    message, mend = _words(_JSON, said)
    return Mistake(position, message, mend)


_JSON = {
    "Expecting property name": ("a key in double quotes is needed here", 'write "key": value; JSON has no comments'),
    "Expecting ':'": ("a key needs : and a value", 'write "key": value'),
    "Expecting ','": ("a comma is missing here", "write a comma behind what stands before this"),
    "Expecting value": ("this is not a value", 'text stands in double quotes: "like this"; JSON has no comments'),
    "Extra data": ("something follows the end of the object", "remove it; an inventory is one object"),
    "Unterminated string": ("text that does not end", 'close the quotes: "'),
    "Invalid control": ("text that does not end on its line", 'close the quotes: "'),
    "Invalid \\u": ("\\u needs four hexadecimal digits", "write the character itself"),
    "Invalid \\escape": ("a backslash in text", "write two of them: \\\\"),
}


def _words(table: Mapping[str, tuple[str, str]], said: str) -> tuple[str, str]:
    known = (words for start, words in table.items() if said.startswith(start))
    return next(known, (said[:1].lower() + said[1:], "look at the text before this place"))
