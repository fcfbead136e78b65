"""Text -> tree of tables, or the place where the text is not TOML or not JSON."""

from __future__ import annotations

import json
import re
import tomllib
from typing import Any, Literal, TypeAlias

from warren.errors import InventoryError, Problem
from warren.inventory import syntax
from warren.inventory.findings import Finding, Locate, Path, problem, problems
from warren.inventory.syntax import Mistake
from warren.inventory.wording import quoted

Format: TypeAlias = Literal["toml", "json"]

_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
_JSON_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|-?Infinity|NaN')


def parse(text: str, file_format: Format, file: str, locate: Locate) -> dict[str, Any]:
    """The tree; InventoryError where the text is not what it should be."""
    try:
        text.encode()
        tree = tomllib.loads(text) if file_format == "toml" else _load_json(text)
    except UnicodeEncodeError as error:
        raise _error(text, file, syntax.not_utf8(error.start)) from None
    except tomllib.TOMLDecodeError as error:
        raise _error(text, file, syntax.toml_mistake(text, str(error))) from None
    except json.JSONDecodeError as error:
        raise _error(text, file, syntax.json_mistake(text, error.pos, error.msg)) from None
    except _RepeatedKey:
        raise InventoryError(_repeated_keys(text, file)) from None
    except RecursionError:
        raise _error(text, file, syntax.too_deep()) from None
    except ValueError:
        raise _error(text, file, syntax.too_large_number(text)) from None
    if not isinstance(tree, dict):
        mistake = Mistake(0, "an inventory is an object", 'write {"instances": {…}}')
        raise _error(text, file, mistake)
    if file_format == "json" and _SURROGATE_ESCAPE.search(text) and (findings := _lone_surrogates(tree)):
        raise InventoryError(problems(findings, file, locate))
    return tree


def _error(text: str, file: str, mistake: Mistake) -> InventoryError:
    return InventoryError((syntax.problem_of(mistake, text, file),))


class _RepeatedKey(Exception):
    """A key stands twice in one object of the JSON; json itself would keep the last."""


def _load_json(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_object, parse_constant=lambda name: _no_number(text, name))


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree = dict(pairs)
    if len(tree) != len(pairs):
        raise _RepeatedKey
    return tree


def _no_number(text: str, name: str) -> object:
    position = next(token.start() for token in _JSON_TOKEN.finditer(text) if token[0] == name)
    raise json.JSONDecodeError("NaN", text, position)


def _repeated_keys(text: str, file: str) -> tuple[Problem, ...]:
    from warren.inventory.positions import repeated_json_keys

    return tuple(
        problem(place, file, f"{quoted(key)} stands twice in this object", "keep one of the two")
        for key, place in repeated_json_keys(text)
    )


def _lone_surrogates(tree: Any) -> list[Finding]:
    """Text that is no Unicode: half of a UTF-16 pair."""
    findings = []
    left: list[tuple[Path, Any]] = [((), tree)]
    while left:
        path, value = left.pop()
        if isinstance(value, dict):
            left.extend(((*path, key), child) for key, child in value.items())
        elif isinstance(value, list):
            left.extend(((*path, index), child) for index, child in enumerate(value))
        texts = [value, path[-1]] if path else []
        if any(isinstance(text, str) and not text.isascii() and _is_broken(text) for text in texts):
            findings.append(Finding(path, "half of a UTF-16 pair is not a character", "write the character itself"))
    return findings


def _is_broken(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)
