"""The list of papers behind the code: which there are, where each one lives, and what of it works.

Every room holds a ``papers.toml``. Another package joins with an entry point in the group ``handful.papers`` whose
value is the name of a package that holds one. What is not certain (an author, a date) is absent there, not guessed.

>>> from handful.papers import bibtex, paper
>>> paper("prototypes").title
'Prototypical Networks for Few-shot Learning'
>>> paper("092").state
'partly'
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib import metadata, resources

from handful.errors import BadInput, HandfulError, nearest
from handful.papers.record import Paper, Part, Reference, bibtex
from handful.papers.rows import parse

__all__ = ["Paper", "Part", "Reference", "bibtex", "paper", "papers"]

FILE = "papers.toml"
GROUP = "handful.papers"


@cache
def papers() -> tuple[Paper, ...]:
    """All papers by number.

    Raises:
        HandfulError: a list is not as it should be; the message names the file, the paper and the field.
    """
    found: list[Paper] = []
    for where, text in _lists():
        found += parse(text, where)
    found.sort(key=lambda p: p.number)
    refuse_twins(found)
    return tuple(found)


def paper(which: str | int) -> Paper:
    """The paper with this key, alias or number (``92``, ``"92"`` and ``"092"`` alike).

    Raises:
        BadInput: there is none; the nearest name is suggested.
    """
    name = str(which)
    for p in papers():
        if name in p.names or (name.isdecimal() and int(name) == p.number):
            return p
    raise BadInput(f"unknown paper {name!r}{nearest(name, [n for p in papers() for n in p.names])}")


def refuse_twins(found: list[Paper]) -> None:
    """Raise `HandfulError` when two papers share a number, a key or an alias."""
    seen: dict[str, Paper] = {}
    for p in found:
        for name in (str(p.number), *p.names):
            if name in seen:
                raise HandfulError(f"papers {seen[name].number} and {p.number} share the name {name!r}")
            seen[name] = p


def _lists() -> Iterator[tuple[str, str]]:
    """Name and text of every list: the rooms' own, then those of other packages."""
    for room in sorted(resources.files("handful").iterdir(), key=lambda r: r.name):
        if room.is_dir() and (file := room / FILE).is_file():
            yield f"handful/{room.name}/{FILE}", file.read_text(encoding="utf-8")
    for point in sorted(metadata.entry_points(group=GROUP), key=lambda p: p.name):
        yield f"{point.value}/{FILE}", (resources.files(point.value) / FILE).read_text(encoding="utf-8")
