"""Fills the generated parts of the pages while the site is built, so that they cannot be out of date.

A line of its own in a page becomes:

    <!-- heads -->, <!-- papers -->   the table of heads, the tables of papers
    <!-- recipes -->                  the table of recipes
    <!-- command: fit -->             what a command is for, its arguments and options
    <!-- numbers: trust -->           a table of ``docs/results.py``
    <!-- which: names -->             what ``docs/which.py`` says of a group of heads
    <!-- file: SECURITY.md -->        a file beside the folder of pages
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from results import numbers, table  # beside this file: MkDocs looks there when it loads a hook
from which import which

from handful.papers import Paper, papers

MARKER = re.compile(r"(?m)^<!-- (heads|papers|recipes|command|numbers|which|file)(?:: ([\w.]+(?: \w+)?))? -->$")
ROOT = Path(__file__).parents[1]
ROOMS = ("adapt", "tune", "pretrain", "curate", "generate", "retrieve", "locate", "extract", "compress")
ROOMS += ("evaluate", "ship", "engine")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by MkDocs for every page."""
    return MARKER.sub(lambda match: _WRITERS[match[1]](match[2]), markdown)


def _heads(_: str | None) -> str:
    from handful.commands.listing import list_

    rows = [(f"`{r['key']}`", _plain(r["summary"]), _needs(r["needs"]), _numbers(r["papers"])) for r in list_("heads")]
    return table(("Key", "What it does", "Needs", "Papers"), rows)


def _recipes(_: str | None) -> str:
    from handful.commands.listing import list_
    from handful.tune.recipes import typed

    rows = [
        (f"`{r['key']}`", _plain(r["summary"]), ", ".join(f"`{one}`" for one in typed(r["settings"])))
        for r in list_("recipes")
    ]
    return table(("Key", "What it does", "Settings"), rows)


def _papers(_: str | None) -> str:
    pages = []
    for room in ROOMS:
        here = [p for p in papers() if p.room == room]
        rows = [(f"{p.number:03d}", f"`{p.key}`", _title(p), str(p.year or ""), _state(p)) for p in here]
        pages.append(f"## {room}\n\n{table(('No.', 'Key', 'Paper', 'Year', 'State'), rows)}")
    return "\n\n".join(pages)


def _command(name: str | None) -> str:
    import typer

    from handful.cli.app import app

    group: Any = typer.main.get_command(app)
    command = group
    for part in str(name).split():
        command = command.commands[part]
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option"]
    usage = " ".join(["handful", str(name), *(p.metavar + "…" * (p.nargs < 0) for p in arguments), "[OPTIONS]"])
    parts = [_sentences(command.help), f"```text\n{usage}\n```"]
    if arguments:
        parts.append(table(("Argument", "What it is"), [(f"`{p.metavar}`", _plain(p.help)) for p in arguments]))
    rows = [(_written(p), _plain(p.help), _default(p)) for p in options]
    return "\n\n".join([*parts, table(("Option", "What it does", "Default"), rows)])


def _written(option: Any) -> str:
    """How an option is written, its value beside its first name."""
    names = [*option.opts, *option.secondary_opts]
    value = f" {option.metavar}" if option.metavar else ""
    return ", ".join([f"`{names[0]}{value}`", *(f"`{name}`" for name in names[1:])])


def _default(option: Any) -> str:
    """The value an option has when it is not given, where there is one."""
    if option.required:
        return "required"
    if option.is_flag or option.default is None:
        return ""
    value = option.default
    return ", ".join(f"`{each}`" for each in (value if isinstance(value, list | tuple) else [value]))


def _sentences(text: str) -> str:
    """Paragraphs of a help text, each on one line."""
    return "\n\n".join(_plain(" ".join(part.split())) for part in text.split("\n\n"))


def _file(name: str | None) -> str:
    """A file beside the pages, its links as they lead from a page."""
    return (ROOT / str(name)).read_text(encoding="utf-8").replace("](docs/", "](")


_WRITERS = {
    "heads": _heads,
    "papers": _papers,
    "recipes": _recipes,
    "command": _command,
    "numbers": lambda name: numbers(str(name)),
    "which": lambda group: which(str(group)),
    "file": _file,
}


def _needs(needs: dict[str, Any]) -> str:
    words = [name.replace("_", " ") for name, value in needs.items() if value is True]
    return ", ".join([*words, *(f"`{view}`" for view in needs["views"])])


def _numbers(found: list[int]) -> str:
    return ", ".join(f"{n:03d}" for n in found)


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
    parts = re.split(r"(`+[^`]+`+)", text)
    parts[::2] = [re.sub(r"([\\*_\[\]<>|#])", r"\\\1", part) for part in parts[::2]]
    return "".join(parts).replace("``", "`")
