"""The report: a model's card as one HTML page that stands alone.

The page loads nothing and runs nothing: its policy is ``default-src 'none'`` with the hash of its one style sheet, and
pictures only as part of the page. All text that comes from data is escaped, with control and reordering characters
spelt out.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from handful.files import whole_file
from handful.ship import report_items, report_none, report_quoted, report_trust
from handful.ship.evidence import Evidence
from handful.ship.report_card import check_card
from handful.ship.report_findings import findings
from handful.ship.report_label_sets import label_sets_view
from handful.ship.report_views import confused_pairs, matrix, reliability, weakest_first
from handful.ship.shown import plain, share, visible

_POLICY = "default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
_SHARES = ("accuracy", "balanced", "balanced_accuracy", "macro-f1", "macro_f1")
_SCORES = (*_SHARES, "log-loss", "log_loss", "score")
_NAME = 160  # characters of a name in a table


def write_report(
    card: Mapping[str, Any],
    path: str | Path,
    evidence: Evidence | None = None,
    *,
    date: datetime.datetime | None = None,
) -> None:
    """Write the page whole or not at all.

    Args:
        card: as `handful.commands.card` makes it; parts it lacks are left out.
        path: the file.
        evidence: examples to show beside the numbers; `None` shows none.
        date: what the page calls the time of writing; by default now.

    Raises:
        BadInput: the card holds something that no card holds.
        HandfulError: the disk refuses.
    """
    page = render(card, evidence, date=date).encode()
    with whole_file(path) as file:
        file.write(page)


def render(card: Mapping[str, Any], evidence: Evidence | None = None, *, date: datetime.datetime | None = None) -> str:
    """The page as text; the same card, evidence and date give the same page. See `write_report`."""
    check_card(card)
    evidence = evidence or Evidence()
    task, quoted, sets = card.get("task") or {}, report_quoted.quoted(card), label_sets_view(card)
    template = _environment().get_template("report.html.j2")
    return template.render(
        css=_css(),
        policy=_POLICY.format(digest=_digest(_css())),
        date=f"{date or datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M %Z}".strip(),
        card=card,
        task=task,
        title=report_quoted.title(task, several=sets is not None),
        counts=report_quoted.counts(task.get("classes") or (), "class" if sets is None else "label"),
        sets=sets,
        first=report_quoted.first_measure(card),
        quoted=quoted[0] if quoted else None,
        second=quoted[1] if len(quoted) > 1 else None,
        why_not=(card.get("estimate") or {}).get("method") or "no estimate was made",
        findings=findings(card, quoted[0] if quoted else None, sets.weakest if sets else ""),
        evidence=evidence,
        answers=report_trust.answers(card.get("selective")),
        cost=report_trust.cost(card),
        none_of=report_none.none_of(card),
        curve=report_trust.curve(card.get("shots_curve")),
        doubts=report_items.doubts(card, evidence),
        clashes=report_items.clashes(card, evidence),
        copies=report_items.copies(card),
        blind_spots=report_items.blind_spots(card),
        head=card.get("head") or {},
        encoder=card.get("encoder") or {},
        tuning=card.get("tuning") or {},
        class_text=card.get("class_text"),
        unlabelled=card.get("unlabelled") or {},
        candidates=_candidates(card.get("candidates") or ()),
        provenance=card.get("provenance") or {},
        seconds=card.get("seconds") or {},
    )


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
    return plain(value) if shown is None else shown.text


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
    views = (weakest_first, confused_pairs, matrix, reliability, report_items.mistakes, report_quoted.population)
    environment.globals.update({view.__name__: view for view in (*views, report_quoted.first_sentence, plain)})
    environment.filters.update(sentence=_sentence, tight=_tight, breakable=_breakable)
    return environment


def _tight(text: object) -> Markup:
    """``text`` with every number on one line with its per cent sign, and options and intervals unbroken."""
    joined = re.sub(r"(\d) %", "\\1\u00a0%", str(escape(visible(text))))
    joined = re.sub(r"(\[[\d.]+,) ([\d.]+\])", "\\1\u00a0\\2", joined)
    return Markup(re.sub(r"--[a-z][a-z-]*", r'<span class="option">\g<0></span>', joined))


def _sentence(text: str) -> Markup:
    """`_tight`, with a capital at the start."""
    return _tight(text[:1].upper() + text[1:])


def _breakable(name: object) -> Markup:
    """A name that may go on in the next line after an underscore or a slash."""
    return Markup(re.sub("([_/])", r"\1<wbr>", str(escape(visible(name, _NAME)))))


@cache
def _css() -> Markup:
    return Markup(resources.files("handful.ship").joinpath("templates/report.css").read_text("utf-8"))


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
