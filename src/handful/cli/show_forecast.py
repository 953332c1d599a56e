"""What `handful forecast` prints: accuracy ahead, labels for the target, classes to begin with, how far to trust it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from handful.cli.layout import count, facts, faint, short, strong, table
from handful.cli.terminal import show
from handful.cli.text import visible

if TYPE_CHECKING:
    from handful.commands.forecast import Outlook

FAR = 100_000
"""Labels beyond which a power law's number is not written out."""


def show_forecast(found: Outlook) -> None:
    """Print an outlook."""
    rows = [[*_row(f"now, measured {100 * found.now['measured']:.1f} %", found.now, None), ""]]
    rows += [_ahead(point) for point in found.ahead]
    show(table(["", "labels", "expected accuracy, 90 % interval", "power law", ""], rows, right=[1, 3]), "")
    if found.need is not None and found.target is not None:
        show(strong(_sentence(found)))
        if found.power_need is not None:
            far = found.power_need > FAR
            plain = f"more than {FAR:,}" if far else f"{round(found.power_need):,}"
            show(faint(f"the plain power law says {plain} more"))
        show("")
    if found.weakest:
        cells = [
            (
                w["class"],
                f"{w['labels']:,}",
                short("recall", w["recall"]),
                "" if w["more"] is None else f"{w['more']:,}",
            )
            for w in found.weakest
        ]
        show(table(["begin with", "labels", "found", "of them"], cells, right=[1, 3]), "")
    horizon = found.horizon
    trusted = (
        f"up to {count(round(horizon['labels']), 'label')} in all ({horizon['times']:.1f} x); checked on "
        f"{horizon['families']} families of data sets, to {horizon['checked']:g} x"
        if horizon["times"] > 1.05
        else "no further than the labels there are: this curve is too uncertain"
    )
    show(facts([("To be trusted", [trusted]), ("Note", [visible(note) for note in found.notes])]))


def _row(name: str, point: Mapping[str, Any], power: float | None) -> list[str]:
    return [
        name,
        f"{round(point['labels']):,}",
        short("accuracy", point["accuracy"]),
        "" if power is None else f"{100 * power:.1f} %",
    ]


def _ahead(point: Mapping[str, Any]) -> list[str]:
    doubt = "" if point["trusted"] else "not to be trusted"
    return [*_row(f"{point['times']} x the labels", point, point["power_law"]), doubt]


def _sentence(found: Outlook) -> str:
    need, target = found.need or {}, f"{100 * (found.target or 0):g} %"
    if need["more"] is None:
        least = "" if need["low"] is None else f"; at least {need['low']:,} more, if things go well"
        return f"{target} takes more labels than can be said{least}"
    if need["more"] == 0:
        return f"{target} is what is expected already [0, {_bound(need['high'])}]"
    return f"For {target} label about {need['more']:,} more [{_bound(need['low'])}, {_bound(need['high'])}]"


def _bound(n: int | None) -> str:
    return "unknown" if n is None else f"{n:,}"
