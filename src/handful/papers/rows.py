"""From the rows of a ``papers.toml`` to `Paper` records; every mistake is named with its place."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from typing import Any

from handful.errors import HandfulError, nearest
from handful.papers.record import KINDS, Paper, Part, Reference


def parse(text: str, where: str) -> list[Paper]:
    """The papers of one list; ``where`` stands in the error messages.

    Raises:
        HandfulError: the text is not TOML, or a field is unknown, missing, of the wrong kind, or contradicts another.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise HandfulError(f"{where}: {error}") from error
    _only(table, {"paper"}, where)
    rows = table.get("paper", [])
    return [_paper(row, f"{where}, paper {row.get('number', f'at place {i + 1}')}") for i, row in enumerate(rows)]


def _paper(row: Mapping[str, Any], where: str) -> Paper:
    _only(row, {*Paper.__dataclass_fields__, "part"} - {"parts"}, where)
    room = _text(row, "room", where)
    made = Paper(
        number=_required(_number(row, "number", where), "number", where),
        key=_text(row, "key", where),
        aliases=_texts(row, "aliases", where),
        title=_text(row, "title", where),
        authors=_texts(row, "authors", where),
        year=_number(row, "year", where),
        arxiv=_optional(row, "arxiv", where),
        room=room,
        kind=_text(row, "kind", where),
        sheet=_optional(row, "sheet", where),
        reference=_reference(row.get("reference"), f"{where}, reference"),
        assumptions=_texts(row, "assumptions", where),
        needs=_texts(row, "needs", where),
        reason=_optional(row, "reason", where) or "",
        parts=tuple(_part(r, room, where) for r in row.get("part", ())),
    )
    _check_parts(made, where)
    _check_words(made, where)
    return made


def _part(row: Mapping[str, Any], room: str, where: str) -> Part:
    name = _text(row, "name", f"{where}, part")
    where = f"{where}, part {name!r}"
    _only(row, set(Part.__dataclass_fields__), where)
    entry, state = _optional(row, "entry", where), _text(row, "state", where)
    if state == "planned":
        return Part(name, _optional(row, "room", where) or room, entry, "planned")
    if state != "works":
        raise HandfulError(f"{where}: state is 'works' or 'planned', not {state!r}")
    if not re.fullmatch(r"[\w.]+:[\w.]+", entry or ""):
        raise HandfulError(f"{where}: a part that works has an entry 'module:attribute', not {entry!r}")
    return Part(name, _optional(row, "room", where) or room, entry, "works")


def _reference(row: Mapping[str, Any] | None, where: str) -> Reference | None:
    if row is None:
        return None
    _only(row, set(Reference.__dataclass_fields__), where)
    return Reference(_text(row, "repo", where), _optional(row, "commit", where), _optional(row, "licence", where))


def _check_parts(made: Paper, where: str) -> None:
    if not made.parts:
        raise HandfulError(f"{where}: it has no [[paper.part]]")
    if len({part.name for part in made.parts}) < len(made.parts):
        raise HandfulError(f"{where}: two parts have the same name")
    if (made.state == "works") == bool(made.reason):
        raise HandfulError(f"{where}: a reason stands exactly where a part is planned")


def _check_words(made: Paper, where: str) -> None:
    if not set(made.kind.split(" + ")) <= set(KINDS):
        raise HandfulError(f"{where}: kind {made.kind!r} is made of: {', '.join(KINDS)}")
    if any(name.isdecimal() for name in made.names):
        raise HandfulError(f"{where}: a key or alias is not a number")
    if made.arxiv is not None:
        stamp = re.fullmatch(r"(\d\d)(0[1-9]|1[0-2])\.\d{4,5}", made.arxiv)
        if not stamp:
            raise HandfulError(f"{where}: arxiv {made.arxiv!r} is not like 1703.05175")
        if made.year != 2000 + int(stamp[1]):
            raise HandfulError(f"{where}: year {made.year} is not that of arXiv {made.arxiv}")


def _only(row: Mapping[str, Any], known: set[str], where: str) -> None:
    for name in row:
        if name not in known:
            raise HandfulError(f"{where}: unknown field {name!r}{nearest(name, known)}")


def _required(value: Any, name: str, where: str) -> Any:
    if value is None:
        raise HandfulError(f"{where}: {name} is missing")
    return value


def _optional(row: Mapping[str, Any], name: str, where: str) -> str | None:
    value = row.get(name)
    if value is not None and not (isinstance(value, str) and value.strip()):
        raise HandfulError(f"{where}: {name} is text or absent, not {value!r}")
    return value


def _text(row: Mapping[str, Any], name: str, where: str) -> str:
    return str(_required(_optional(row, name, where), name, where))


def _texts(row: Mapping[str, Any], name: str, where: str) -> tuple[str, ...]:
    value = row.get(name, [])
    if not isinstance(value, list) or not all(isinstance(v, str) and v.strip() for v in value):
        raise HandfulError(f"{where}: {name} is a list of texts or absent, not {value!r}")
    return tuple(value)


def _number(row: Mapping[str, Any], name: str, where: str) -> int | None:
    value = row.get(name)
    if value is not None and (type(value) is not int or value < 1):
        raise HandfulError(f"{where}: {name} is a whole number above 0, not {value!r}")
    return value
