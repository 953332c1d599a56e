"""What `bench` finds, as JSON, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from handful.core.intervals import Estimate
from handful.errors import BadInput
from handful.evaluate.comparison import Row, winners
from handful.files import whole_file

SCHEMA = "handful/bench/1"
FORMATS = (".csv", ".json", ".tex")
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{c: f"\\{c}" for c in "&%$#_{}"},
}


@dataclass(frozen=True)
class BenchResult:
    """What `bench` finds: ``rows`` by shots and head, and the ``setting`` they were judged in."""

    rows: tuple[Row, ...]
    setting: Mapping[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able; every estimate is ``{"value", "low", "high"}``."""
        return {
            "schema": SCHEMA,
            **self.setting,
            "reference": self.rows[0].head,
            "results": [row.as_dict() for row in self.rows],
        }

    def save(self, path: str | Path) -> None:
        """Write a ``.csv``, ``.json`` or ``.tex`` file, whole or not at all. Raises `BadInput` for another kind."""
        kind, setting = table_format(path), self.setting
        sources = " ".join(setting["sources"])
        if kind == ".json":
            text = json.dumps(self.as_dict(), indent=2, ensure_ascii=False) + "\n"
        elif kind == ".csv":
            text = as_csv(self.rows, {**_plain(setting), "sources": sources})
        else:
            what = ", ".join(f"{name} {setting[name]}" for name in ("episodes", "ways", "queries", "seed"))
            text = as_latex(self.rows, f"{sources}: {what}; 95 % intervals over episodes, in percent")
        with whole_file(path) as file:
            file.write(text.encode())


def _plain(setting: Mapping[str, Any]) -> dict[str, Any]:
    """Objects as JSON, as cells hold them."""
    return {k: json.dumps(v, sort_keys=True) if isinstance(v, Mapping) else v for k, v in setting.items()}


def table_format(path: str | Path) -> str:
    """The ending of a results file. Raises `BadInput` for one that is not written."""
    kind = Path(path).suffix.lower()
    if kind not in FORMATS:
        raise BadInput(f"results are written as {', '.join(FORMATS)}, not as {Path(path).name!r}")
    return kind


def as_csv(rows: Sequence[Row], setting: Mapping[str, Any]) -> str:
    """One line a head and number of shots, the ``setting`` (ways, seed, …) repeated in front; empty where none is."""
    out = io.StringIO()
    lines = [{**setting, **_flat(row.as_dict())} for row in rows]
    writer = csv.DictWriter(out, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """Estimates as three columns, parameters as JSON."""
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if name in ("accuracy", "difference", "to_best"):
            known = value or {"value": "", "low": "", "high": ""}
            flat |= {name: known["value"], f"{name}_low": known["low"], f"{name}_high": known["high"]}
        elif name == "parameters":
            flat[name] = json.dumps(value, sort_keys=True)
        else:
            flat[name] = "" if value is None else value
    return flat


def as_latex(rows: Sequence[Row], caption: str) -> str:
    """A ``tabular`` for booktabs, in percent: a line a head; for each number of shots accuracy with its interval's half
    width, bold where paired tests show a winner (`winners`), and the paired difference from the first head."""
    shots = list(dict.fromkeys(row.shots for row in rows))
    heads = list(dict.fromkeys(row.head for row in rows))
    cell = {(row.head, row.shots): row for row in rows}
    won = winners(rows)
    top = " & ".join(f"\\multicolumn{{2}}{{c}}{{{escape(str(k))} {'shot' if k == 1 else 'shots'}}}" for k in shots)
    sub = " & ".join("accuracy & difference" for _ in shots)
    body = [
        " & ".join([escape(head), *(_cells(cell[head, k], bold=won[k] == head) for k in shots)]) + r" \\"
        for head in heads
    ]
    return "\n".join(
        [
            f"% {''.join(c for c in ' '.join(caption.split()) if c.isprintable())}",
            r"\begin{tabular}{l" + "rr" * len(shots) + "}",
            r"\toprule",
            rf" & {top} \\",
            rf"head & {sub} \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def escape(text: str) -> str:
    """``text`` so that LaTeX prints it and does not obey it."""
    return "".join(_LATEX.get(c, c) for c in text if c.isprintable())


def _cells(row: Row, bold: bool) -> str:
    mean = row.result.mean
    accuracy = f"{100 * mean.value:.2f} \\pm {100 * (mean.high - mean.value):.2f}"
    shown = rf"$\mathbf{{{accuracy}}}$" if bold else f"${accuracy}$"
    return f"{shown} & {_signed(row.difference)}"


def _signed(d: Estimate | None) -> str:
    return "--" if d is None else f"${100 * d.value:+.2f}$ [${100 * d.low:+.2f}$, ${100 * d.high:+.2f}$]"
