"""The report: a model's card as one HTML page that stands alone.

The page loads nothing and runs nothing: its policy is ``default-src 'none'`` with the hash of its one style sheet. All
text that comes from data is escaped, with control and reordering characters spelt out.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from handful.files import whole_file
from handful.ship.report_views import Measure, confused_pairs, matrix, measures, reliability, weakest_first
from handful.ship.shown import plain, share, visible

_POLICY = "default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
_FIRST = {"accuracy": "accuracy", "balanced": "balanced_accuracy", "macro-f1": "macro_f1", "log-loss": "log_loss"}
_SHARES = ("accuracy", "balanced", "balanced_accuracy", "macro-f1", "macro_f1")
_SCORES = (*_SHARES, "log-loss", "log_loss", "score")


def write_report(card: Mapping[str, Any], path: str | Path) -> None:
    """Write the page whole or not at all. Raises `HandfulError` when the disk refuses."""
    page = render(card).encode()
    with whole_file(path) as file:
        file.write(page)


def render(card: Mapping[str, Any]) -> str:
    """The page of a card (`handful.commands.card`); the same card gives the same page. Parts it lacks are left out."""
    task, metric = card.get("task") or {}, card.get("metric") or "accuracy"
    quoted, second = _assessed(card)
    template = _environment().get_template("report.html.j2")
    return template.render(
        css=_css(),
        policy=_POLICY.format(digest=_digest(_css())),
        card=card,
        task=task,
        title=_title(task),
        counts=_counts(task.get("classes") or ()),
        first=_FIRST.get(metric, "accuracy"),
        quoted=quoted,
        second=second,
        why_not=(card.get("estimate") or {}).get("method") or "no estimate was made",
        head=card.get("head") or {},
        encoder=card.get("encoder") or {},
        class_text=card.get("class_text"),
        candidates=_candidates(card.get("candidates") or ()),
        seconds=card.get("seconds") or {},
    )


@dataclass(frozen=True)
class Assessed:
    """An assessment and where it comes from; ``measured`` on items kept apart, else estimated by resampling."""

    assessment: Mapping[str, Any]
    basis: str
    measured: bool

    @property
    def n(self) -> int:
        """How many items were judged."""
        return int(self.assessment.get("n") or 0)

    @property
    def measures(self) -> dict[str, Measure]:
        """See `report_views.measures`."""
        return measures(self.assessment)


def _assessed(card: Mapping[str, Any]) -> tuple[Assessed | None, Assessed | None]:
    """What is quoted, and what stands beside it: a test on items kept apart comes before the estimate."""
    test, estimate = card.get("test") or {}, card.get("estimate") or {}
    found = []
    if test.get("assessment"):
        found.append(Assessed(test["assessment"], f"measured on {test.get('source') or 'items kept apart'}", True))
    if estimate.get("assessment"):
        found.append(Assessed(estimate["assessment"], f"estimated by {estimate.get('method') or 'resampling'}", False))
    return (found[0] if found else None, found[1] if len(found) > 1 else None)


def _title(task: Mapping[str, Any]) -> str:
    kind = {"text": "A text classifier", "image": "An image classifier"}.get(task.get("modality") or "", "A classifier")
    ways = len(task.get("classes") or ())
    what = f" for {ways:,} classes" if ways else ""
    return kind + what + (f" from {task['n']:,} labelled examples" if task.get("n") else "")


def _counts(classes: Sequence[Mapping[str, Any]]) -> str:
    """``"8 examples a class"`` or ``"3 to 40 examples a class"``."""
    sizes = [int(c.get("count") or 0) for c in classes]
    if not sizes:
        return ""
    few, many = min(sizes), max(sizes)
    return f"{few:,} a class" if few == many else f"{few:,} to {many:,} a class"


def _candidates(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What was tried as a table: the columns that occur, names first, and which row was chosen."""
    keys = [key for key in dict.fromkeys(key for row in rows for key in row) if key != "chosen"]
    keys.sort(key=lambda key: 0 if key in ("name", "key") else 1 if key in _SCORES else 2)
    body = [(bool(row.get("chosen")), [_cell(key, row.get(key)) for key in keys]) for row in rows]
    return {"columns": [key.replace("_", " ") for key in keys], "rows": body}


def _cell(key: str, value: Any) -> str:
    """What a candidate says under ``key``: a share in per cent, anything else as it is."""
    if key in _SHARES and isinstance(value, float):
        return f"{100 * value:.1f} %"
    shown = share(value) if key in _SHARES and isinstance(value, Mapping) else None
    return plain(value) if shown is None else f"{shown.value} {shown.interval}"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("handful.ship", "templates"),
        autoescape=True,
        finalize=lambda value: value if isinstance(value, Markup | int | float) else visible(value),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        weakest_first=weakest_first, confused_pairs=confused_pairs, matrix=matrix, reliability=reliability, plain=plain
    )
    environment.filters.update(sentence=lambda text: text[:1].upper() + text[1:], breakable=_breakable)
    return environment


def _breakable(name: object) -> Markup:
    """A name that may go on in the next line after an underscore or a slash."""
    return Markup(re.sub("([_/])", r"\1<wbr>", str(escape(visible(name)))))


@cache
def _css() -> Markup:
    return Markup(resources.files("handful.ship").joinpath("templates/report.css").read_text("utf-8"))


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
