"""What `handful list` and `handful cache` print."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from handful.cli.layout import count, facts, table
from handful.cli.terminal import show
from handful.cli.text import visible


def show_list(what: str, rows: Sequence[Mapping[str, Any]], cited: bool) -> None:
    """Print a list; of one paper that is cited, its BibTeX entry."""
    if cited:
        for line in str(rows[0]["bibtex"]).splitlines():
            sys.stdout.write(f"{visible(line) if line.strip() == line else '  ' + visible(line)}\n")
    else:
        columns, cells = {"heads": _heads, "encoders": _encoders, "papers": _papers, "recipes": _recipes}[what](rows)
        show(table(columns, cells, limit=200))
        if what == "papers":
            show("", f"{_tally(rows)}; handful list papers --cite KEY prints the BibTeX entry of one")


def show_cache(found: Mapping[str, Any]) -> None:
    """Print where the cache is and what it holds, or what was freed."""
    sizes = {"bytes": "Holds", "limit": "At most", "freed": "Freed"}
    rows: list[tuple[str, list[str]]] = [("Cache", [visible(found["path"])])]
    rows += [(name, [_size(found[key])]) for key, name in sizes.items() if key in found]
    if "rows" in found:
        rows.append(("Items", [f"{found['rows']:,}"]))
    if found.get("problem"):
        rows.append(("Problem", [visible(found["problem"])]))
    show(facts(rows))


def _heads(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    return ["head", "what it is", "papers"], [
        [row["key"], row["summary"], ", ".join(map(str, row.get("papers") or []))] for row in rows
    ]


def _recipes(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    from handful.tune.recipes import typed

    return ["recipe", "what it is", "settings"], [
        [row["key"], row["summary"], ", ".join(typed(row["settings"]))] for row in rows
    ]


def _encoders(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    return ["encoder", "reads", "here", "licence", "what it is"], [
        [
            row["name"],
            row["modality"],
            "yes" if row["installed"] else "no",
            row["licence"] or "",
            row["summary"],
        ]
        for row in rows
    ]


def _papers(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    return ["number", "key", "room", "year", "state", "title"], [
        [f"{row['number']:03d}", row["key"], row["room"], str(row["year"] or ""), row["state"], row["title"]]
        for row in rows
    ]


def _tally(rows: Sequence[Mapping[str, Any]]) -> str:
    works, partly = (sum(row["state"] == state for row in rows) for state in ("works", "partly"))
    return f"{count(len(rows), 'paper')}: {works} work here, {partly} partly, the others are planned"


def _size(n: int) -> str:
    return f"{n / 2**20:,.1f} MiB"
