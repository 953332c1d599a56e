"""What `handful evaluate` prints: every metric with its interval, the classes, the confusions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from handful.cli import show_trust
from handful.cli.layout import NAMES, count, facts, measure, short, strong, table
from handful.cli.terminal import show

if TYPE_CHECKING:
    from handful.evaluate import Assessment

CLASSES, PAIRS = 30, 5  # how many are shown


def show_assessment(assessment: Assessment) -> None:
    """Print an assessment."""
    found = assessment.as_dict()
    groups = "" if found["groups"] is None else f" in {count(found['groups'], 'group')}"
    lines = {name: measure(name, found[name]) for name in NAMES}
    show(
        strong(f"{count(found['n'], 'labelled item')}{groups}, {len(found['classes'])} classes"),
        "",
        facts([(NAMES[k], [strong(line) if k == "accuracy" else line]) for k, line in lines.items()]),
        "",
    )
    if assessment.generalised is not None:
        u, s, h = (f"{100 * share:.1f} %" for share in assessment.generalised)
        show(f"Classes without examples {u}, those with examples {s}, harmonic mean {h} (mean over classes)", "")
    verdicts = [show_trust.verdict(verdict.passed, verdict.sentence) for verdict in assessment.verdicts]
    if verdicts:
        show(*verdicts, "")
    rows = sorted((c for c in found["per_class"] if c["n"]), key=lambda c: c["recall"]["value"])
    cells = [(c["class"], f"{c['n']:,}", *(short(k, c[k]) for k in ("recall", "precision"))) for c in rows]
    show(table(["class, weakest first", "items", "found", "right when named"], cells[:CLASSES], right=[1]))
    if len(rows) > CLASSES:
        show(f"and {len(rows) - CLASSES} more; --json lists all")
    if found["confused"]:
        pairs = [(p["true"], p["predicted"], f"{p['n']:,}", short("rate", p["rate"])) for p in found["confused"]]
        show("", table(["taken", "for", "times", "of the class"], pairs[:PAIRS], right=[2]))
