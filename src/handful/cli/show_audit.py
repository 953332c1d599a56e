"""What `handful audit` prints: a verdict a line, then the groups, the lowest accuracy first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from handful.cli.layout import CELL, count, facts, short, strong, table
from handful.cli.terminal import show
from handful.cli.text import visible

if TYPE_CHECKING:
    from rich.text import Text

    from handful.evaluate.audit import Audit, Finding

GROUPS = 10  # of a column, how many are shown
WORDS = {"ok": "ok", "problem": "PROBLEM", "unknown": "cannot say"}
COLOURS = {"ok": "green", "problem": "red", "unknown": "yellow"}


def show_audit(audit: Audit) -> None:
    """Print an audit."""
    found = audit.as_dict()
    units = "" if found["units"] is None else f" in {count(found['units'], 'group')}"
    many = len(audit.problems)
    verdict = f"{count(many, 'problem')} found" if many else "no problem found"
    show(strong(f"{verdict} on {count(found['n'], 'labelled item')}{units}"), "")
    show(facts([(visible(f.check, CELL), [_line(f)]) for f in audit.findings]))
    for column in found["gaps"]:
        _show_groups(column)
    show("", "--json lists everything")


def _line(finding: Finding) -> Text:
    from rich.text import Text

    word = WORDS[finding.verdict]
    return Text.assemble((word, COLOURS[finding.verdict]), ": ", visible(finding.sentence, 12 * CELL))


def _show_groups(found: Mapping[str, Any]) -> None:
    rows = [
        (g["name"], f"{g['n']:,}", short("accuracy", g["accuracy"]), _points(g["gap"]), f"{g['p']:.2g}")
        for g in found["groups"][:GROUPS]
    ]
    if rows:
        columns = [found["column"], "items", "accuracy", "against the rest, points", "p, corrected"]
        show("", table(columns, rows, right=[1, 4]))
    if len(found["groups"]) > GROUPS:
        show(f"and {len(found['groups']) - GROUPS:,} more; --json lists all")


def _points(gap: Mapping[str, float]) -> str:
    value, low, high = (100 * gap[key] for key in ("value", "low", "high"))
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"
