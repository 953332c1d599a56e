"""What `handful compress` prints: how much smaller, and what became of the answers."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from handful.cli.layout import CELL, count, facts, some, strong
from handful.cli.terminal import show
from handful.cli.text import visible

if TYPE_CHECKING:
    from handful.ship.model import Model


def show_compress(model: Model, out: str | None) -> None:
    """Print the summary of a model that was compressed."""
    made = model.card["compressed"]
    before, after = made["bytes"]["before"], made["bytes"]["after"]
    kept = f"{100 * made['density']:.3g} % of {made['numbers']:,} numbers, as signs and positions"
    answers = f"{100 * made['same']:.1f} % of {count(made['n'], 'item')} answered as before"
    rows = [
        ("Kept", [kept]),
        ("Changes", [f"{before:,} bytes before, {after:,} now"]),
        ("Answers", [answers, f"divergence {made['divergence']:.4f} nats"]),
        ("Items", [some(made["sources"], 3)] if made["sources"] else []),
        ("Estimate", [visible(model.card["estimate"]["method"])]),
        ("Note", [visible(note, 2 * CELL) for note in made["notes"]]),
        ("Model", ["not saved; --out FILE saves it" if out is None else visible(out)]),
    ]
    show(strong(f"{made['ratio']:.1f} times smaller than in 16 bits"), "", facts(rows))
    if out is not None:
        show("", f"Judge it:  handful evaluate {visible(shlex.quote(out))} LABELLED.csv")
