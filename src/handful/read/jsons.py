"""JSON arrays and JSON Lines: objects to rows, every value kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from handful.errors import BadInput
from handful.read.places import one_line, quoted
from handful.read.tables import Table, frame_of


def parse(text: str, place: str) -> Any:
    """A JSON document. Raises `BadInput` naming ``place`` when it is none, or an object in it has one key twice."""
    try:
        return json.loads(text, object_pairs_hook=_object)
    except _DoubledKeyError as error:
        raise BadInput(f"{place}: key {quoted(str(error))} is there twice") from error
    except json.JSONDecodeError as error:
        at = f"line {error.lineno} column {error.colno}" if "\n" in text else f"column {error.colno}"
        raise BadInput(f"{place} is not JSON: {one_line(error.msg)} at {at}") from error
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, thousands of brackets
        raise BadInput(f"{place} is not JSON that can be read: {one_line(error)}") from error


def json_table(text: str, name: str) -> Table:
    """An array of objects, one a row, or of strings, one text each; also ``{label: [texts]}``."""
    if not text.strip():
        raise BadInput(f"{name} holds nothing but blanks")
    value = parse(text, name)
    if isinstance(value, dict) and value and all(_is_texts(texts) for texts in value.values()):
        value = [{"text": text, "label": label} for label, texts in value.items() for text in texts]
    if not isinstance(value, list):
        raise BadInput(
            f"{name} holds {_kind(value)}; what is read is an array of objects, one a row, or an object that maps each "
            "label to a list of texts"
        )
    return _table(value, [f"{name} entry {i}" for i in range(1, len(value) + 1)], name)


def json_lines_table(text: str, name: str) -> Table:
    """One object a line; blank lines are no rows, but they are counted."""
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    where = [f"{name} line {number}" for number, _ in lines]
    return _table([parse(line, place) for (_, line), place in zip(lines, where, strict=True)], where, name)


def _table(values: list[Any], where: Sequence[str], name: str) -> Table:
    if values and all(isinstance(value, str) for value in values):
        values = [{"text": value} for value in values]
    for value, place in zip(values, where, strict=True):
        if not isinstance(value, dict):
            raise BadInput(f'{place} is {_kind(value)}, not an object such as {{"text": …, "label": …}}')
    names = dict.fromkeys(key for value in values for key in value)
    return Table(name, frame_of({key: [value.get(key) for value in values] for key in names}), tuple(where))


class _DoubledKeyError(ValueError):
    pass


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _DoubledKeyError(key)
        found[key] = value
    return found


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "an array", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
