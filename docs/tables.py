"""Fills the generated parts of the pages while the site is built, so that they cannot be out of date.

A line ``<!-- heads -->``, ``<!-- papers -->`` or ``<!-- help: fit -->`` in a page becomes the table of heads, the
tables of papers, or the help of a command.
"""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

from handful.papers import Paper, papers

MARKER = re.compile(r"(?m)^<!-- (heads|papers|help)(?:: (\w+))? -->$")
ROOMS = ("adapt", "tune", "pretrain", "curate", "generate", "retrieve", "locate", "extract", "compress")
ROOMS += ("evaluate", "ship", "engine")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by MkDocs for every page."""
    return MARKER.sub(lambda match: _WRITERS[match[1]](match[2]), markdown)


def _heads(_: str | None) -> str:
    from handful.commands.listing import list_

    rows = [(f"`{r['key']}`", _plain(r["summary"]), _needs(r["needs"]), _numbers(r["papers"])) for r in list_("heads")]
    return _table(("Key", "What it does", "Needs", "Papers"), rows)


def _papers(_: str | None) -> str:
    pages = []
    for room in ROOMS:
        here = [p for p in papers() if p.room == room]
        rows = [(f"{p.number:03d}", f"`{p.key}`", _title(p), str(p.year or ""), _state(p)) for p in here]
        pages.append(f"## {room}\n\n{_table(('No.', 'Key', 'Paper', 'Year', 'State'), rows)}")
    return "\n\n".join(pages)


def _help(command: str | None) -> str:
    program = f"from handful.cli import main; main([{command!r}, '--help'])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return f"```text\n{done.stdout.strip()}\n```"


_WRITERS = {"heads": _heads, "papers": _papers, "help": _help}


def _needs(needs: dict[str, Any]) -> str:
    return ", ".join(name.replace("_", " ") for name, value in needs.items() if value is True)


def _numbers(numbers: list[int]) -> str:
    return ", ".join(f"{n:03d}" for n in numbers)


def _title(p: Paper) -> str:
    title = _plain(p.title)
    return f"[{title}](https://arxiv.org/abs/{p.arxiv})" if p.arxiv else title


def _state(p: Paper) -> str:
    if p.state == "planned":
        return f"planned: {_plain(p.reason)}"
    parts = ", ".join(part.name for part in p.working)
    return f"**works**: {parts}" if p.state == "works" else f"**works**: {parts}; the rest {_plain(p.reason)}"


def _plain(text: str) -> str:
    """Markdown and HTML signs as themselves; double backticks of docstrings as code."""
    text = re.sub(r"([\\*_\[\]<>|#])", r"\\\1", text)
    return text.replace("``", "`")


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
