"""What `handful next` prints: the rows to label, and what a replay says of choosing them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from handful.cli.layout import count, table
from handful.cli.terminal import show
from handful.cli.text import visible

if TYPE_CHECKING:
    from handful.commands.next import Next

ROWS = 10
"""How many are shown where none are written."""


def show_next(found: Next, out: str | None) -> None:
    """Print what was chosen."""
    suggested = ("handful_suggested", "handful_confidence")
    chosen = f"{count(len(found.table), 'row')} of {found.pool:,} to label next"
    if out is not None:
        show(f"{chosen}; written to {visible(out)}: fill in column {visible(found.label_column, 60)!r}")
    else:
        names = [c for c in found.table.columns if c not in (*suggested, found.label_column)]
        cells = [
            (row[suggested[0]], f"{row[suggested[1]]:.2f}", *(row[c] for c in names[:3]))
            for row in found.table.head(ROWS).to_dicts()
        ]
        show(table(["suggested", "confidence", *names[:3]], cells, right=[1], one_line=True))
        show("", f"{chosen}; --out FILE writes them all")
    if found.replay is not None:
        r = found.replay
        low, high = 100 * r.gain.low, 100 * r.gain.high
        show(
            f"Replay: {r.n} more after {count(r.before, 'label')}, {r.draws} draws: chosen {100 * r.picked:.1f} "
            f"%, at random {100 * r.random:.1f} %; gain {100 * r.gain.value:+.1f} points [{low:+.1f}, {high:+.1f}]"
        )
