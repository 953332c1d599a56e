"""Small tables in Markdown and LaTeX; what is bold was tested by whoever says so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from handful.core.intervals import Estimate
from handful.evaluate.tables import escape

Kind = Literal["md", "tex"]


@dataclass(frozen=True)
class Grid:
    """Texts in columns.

    Args:
        columns: headings; all but the leading texts are numbers.
        lines: cells.
        bold: places ``(line, column)``.
    """

    columns: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    bold: frozenset[tuple[int, int]] = frozenset()

    def render(self, kind: Kind, note: str) -> str:
        """The table with its note, which must say what bold means."""
        return self._markdown(note) if kind == "md" else self._latex(note)

    def _markdown(self, note: str) -> str:
        body = [
            [f"**{_plain(cell)}**" if (i, j) in self.bold else _plain(cell) for j, cell in enumerate(line)]
            for i, line in enumerate(self.lines)
        ]
        rows = [[_plain(c) for c in self.columns], ["---"] * len(self.columns), *body]
        return "\n".join([*(f"| {' | '.join(row)} |" for row in rows), "", _plain(note), ""])

    def _latex(self, note: str) -> str:
        body = [
            [rf"\textbf{{{_tex(cell)}}}" if (i, j) in self.bold else _tex(cell) for j, cell in enumerate(line)]
            for i, line in enumerate(self.lines)
        ]
        return "\n".join(
            [
                f"% {''.join(c for c in ' '.join(note.split()) if c.isprintable())}",
                rf"\begin{{tabular}}{{{'l' * len(self.columns)}}}",
                r"\toprule",
                " & ".join(map(_tex, self.columns)) + r" \\",
                r"\midrule",
                *(" & ".join(line) + r" \\" for line in body),
                r"\bottomrule",
                r"\end{tabular}",
                "",
            ]
        )


def interval_cell(mean: Estimate) -> str:
    """In percent, ± half of the interval."""
    return f"{100 * mean.value:.2f} ± {100 * (mean.high - mean.value):.2f}"


def _plain(cell: str) -> str:
    """A cell that stays in its column and is no markup: names come from data."""
    text = "".join(c if c.isprintable() else " " for c in cell).strip()
    for c in "\\`*_[]<>|":
        text = text.replace(c, f"\\{c}")
    return text


def _tex(cell: str) -> str:
    return escape(cell).replace("±", r"$\pm$")
