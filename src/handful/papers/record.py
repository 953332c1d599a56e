"""What is known of one paper, and how to cite it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

KINDS = ("method", "study", "benchmark", "data", "model", "survey", "pipeline")


@dataclass(frozen=True)
class Reference:
    """Code the authors (or, failing that, others) published.

    Attributes:
        repo: ``owner/name`` on GitHub.
        commit: what was read, where that matters.
        licence: as the repository states it; ``"none"`` when it states none, so that nothing may be taken from it.
    """

    repo: str
    commit: str | None = None
    licence: str | None = None


@dataclass(frozen=True)
class Part:
    """One piece of a paper.

    Attributes:
        name: unique within the paper.
        room: where it lives or will live.
        entry: ``module:attribute`` of the public object; a part that works has one.
        state: whether it is there.
    """

    name: str
    room: str
    entry: str | None
    state: Literal["works", "planned"]


@dataclass(frozen=True)
class Paper:
    """One published system.

    Attributes:
        number: 1 to 203 for the systems the library is built around, above for others.
        key: short unique name; ``aliases`` are as good.
        year: of the first public version.
        room: its home.
        kind: one or several of `KINDS`, joined by ``" + "``.
        sheet: name of the sheet that describes it.
        reference: published code.
        assumptions: what the paper leaves open and how it was decided here.
        needs: side information without which it cannot run, in the words of `handful.protocols.Needs`.
        reason: what is missing; empty when nothing is.
        parts: the paper works when all of them do.
    """

    number: int
    key: str
    aliases: tuple[str, ...]
    title: str
    authors: tuple[str, ...]
    year: int | None
    arxiv: str | None
    room: str
    kind: str
    sheet: str | None
    reference: Reference | None
    assumptions: tuple[str, ...]
    needs: tuple[str, ...]
    reason: str
    parts: tuple[Part, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Key and aliases."""
        return (self.key, *self.aliases)

    @property
    def working(self) -> tuple[Part, ...]:
        """The parts that work."""
        return tuple(part for part in self.parts if part.state == "works")

    @property
    def state(self) -> Literal["works", "partly", "planned"]:
        """``works`` when every part does, ``partly`` when some do."""
        return "works" if len(self.working) == len(self.parts) else "partly" if self.working else "planned"

    def as_dict(self) -> dict[str, Any]:
        """Everything as JSON-able values, ``state`` included."""
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in vars(self).items()}
        plain["reference"] = None if self.reference is None else dict(vars(self.reference))
        plain["parts"] = [dict(vars(part)) for part in self.parts]
        return {**plain, "state": self.state}


def bibtex(of: Paper) -> str:
    """A BibTeX entry; what is not known is left out."""
    fields = {
        "title": f"{{{_latex(of.title)}}}",
        "author": _latex(" and ".join(of.authors)),
        "year": str(of.year or ""),
        "eprint": of.arxiv or "",
        "archiveprefix": "arXiv" if of.arxiv else "",
        "url": f"https://arxiv.org/abs/{of.arxiv}" if of.arxiv else "",
    }
    lines = [f"  {name:<13} = {{{value}}}," for name, value in fields.items() if value]
    return "\n".join([f"@misc{{{of.key},", *lines, "}"])


def _latex(text: str) -> str:
    return re.sub(r"([&%#_$])", r"\\\1", text).replace("^", r"\^{}")
