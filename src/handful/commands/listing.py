"""`handful list`: what there is."""

from __future__ import annotations

from typing import Any, Literal, get_args

from handful.errors import BadInput, nearest
from handful.papers import bibtex, paper, papers

What = Literal["heads", "encoders", "papers", "recipes"]


def list_(what: What, *, cite: str | None = None) -> list[dict[str, Any]]:
    """The heads, the encoders, the papers or the recipes there are, one dict each, every value fit for JSON.

    Args:
        what: ``"heads"``: key, summary, needs, numbers of their papers; ``"encoders"``: name, modality, dim, licence,
            source, installed, summary; ``"papers"``: the fields of `handful.papers.Paper`; ``"recipes"``: key,
            summary, settings.
        cite: key or number of a paper; only that paper is listed, with its ``bibtex``.

    Raises:
        BadInput: there is no such list or no such paper, or ``cite`` is given for something else than papers.
    """
    if what not in get_args(What):
        raise BadInput(f"cannot list {what!r}{nearest(what, get_args(What))}")
    if cite is not None:
        if what != "papers":
            raise BadInput(f"--cite names a paper: handful list papers --cite {cite}")
        found = paper(cite)
        return [{**found.as_dict(), "bibtex": bibtex(found)}]
    if what == "papers":
        return [p.as_dict() for p in papers()]
    if what == "encoders":
        from handful.encode import list_encoders

        return list(list_encoders())
    if what == "recipes":
        from handful.tune.recipes import list_recipes

        return list_recipes()
    return _heads()


def _heads() -> list[dict[str, Any]]:
    from handful.adapt import HEADS, list_heads

    entries = dict.fromkeys((part.entry, p.number) for p in papers() for part in p.working)
    return [
        {
            **row,
            "needs": {k: list(v) if isinstance(v, tuple) else v for k, v in row["needs"].items()},
            "papers": [number for entry, number in entries if entry == HEADS.get(row["key"])],
        }
        for row in list_heads()
    ]
