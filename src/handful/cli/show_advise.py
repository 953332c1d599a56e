"""What `handful advise` prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from handful.cli.layout import count, faint, short, some, strong, table
from handful.cli.terminal import show

if TYPE_CHECKING:
    from handful.evaluate.cards import Advice
    from handful.evaluate.encoder_choice import EncoderAdvice

MOST = 12
"""Methods shown on a terminal; ``--json`` has all."""


def method_object(found: Sequence[Advice], have: Sequence[str], shots: int) -> dict[str, Any]:
    """What was asked, and every method that can run."""
    methods = [advice.as_dict() for advice in found]
    return {"schema": "handful/advise-method/1", "have": list(have), "shots": shots, "methods": methods}


def show_methods(found: Sequence[Advice], have: Sequence[str], shots: int) -> None:
    """Print the methods that can run, the measured ones first."""
    with_what = f" and {some(have)}" if have else ""
    show(strong(f"{count(len(found), 'method')} can run with {count(shots, 'example')} a class{with_what}"))
    show(faint("Points behind the best head where both were measured, with the built-in encoders; – is not measured."))
    rows = [
        [
            advice.card.key,
            "–" if advice.behind is None else f"{advice.behind:.1f}",
            advice.card.cost,
            advice.card.place,
            "; ".join(advice.reasons[1:] if advice.behind is None else advice.reasons[2:]),
        ]
        for advice in found[:MOST]
    ]
    show("", table(("head", "behind", "learns by", "knowledge enters at", "note"), rows, right=[1], limit=120))
    if len(found) > MOST:
        show("", faint(f"{len(found) - MOST} more: --json lists all, handful list heads says what they are"))
    if found and found[0].behind is not None:
        show("", f"Start with {found[0].card.key}; check on your data: handful bench DATA --head {_both(found)}")


def _both(found: Sequence[Advice]) -> str:
    return ",".join(advice.card.key for advice in found[:2])


def show_encoders(result: EncoderAdvice) -> None:
    """Print the encoders, best first."""
    found = result.as_dict()
    what = f"{count(found['items'], 'example')}, {count(found['classes'], 'class', 'classes')}"
    show(strong(f"{what}: {some(found['sources'], 3)}"))
    show(faint(f"Accuracy of {found['head']} out of fold, 95 % interval; differences from the best in points, paired."))
    rows = []
    for row in found["encoders"]:
        b = row["behind"]
        behind = "best" if b is None else f"-{100 * b['value']:.1f} [{-100 * b['high']:+.1f}, {-100 * b['low']:+.1f}]"
        rows.append([row["encoder"], str(row["dim"]), short("accuracy", row["accuracy"]), behind])
    show("", table(("encoder", "width", "accuracy", "difference"), rows, right=[1]))
    best = found["encoders"][0]
    show("")
    if len(rows) == 1:
        show(f"{best['encoder']} is the only one judged: name others with --encoder")
    elif found["shown"]:
        show(f"{best['encoder']} is better than each of the others")
    else:
        show("No encoder is shown to be better than each of the others: take the smaller one, or label more")
    show(*(faint(f"Limit: {line}") for line in best["limits"]))
