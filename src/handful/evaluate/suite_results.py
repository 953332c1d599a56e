"""What a suite finds: a file that grows cell by cell, so that a run that was killed goes on, and its tables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from handful.core.intervals import mean_interval
from handful.errors import BadInput
from handful.evaluate.disentangle import disentangle
from handful.evaluate.grids import Grid, interval_cell
from handful.evaluate.partition import standing
from handful.evaluate.significance import Pair, pairs_by_row, winner
from handful.evaluate.suites import Scores
from handful.files import whole_file

SCHEMA = "handful/suite/1"
Row = tuple[str, str, str]
"""Data set, encoder, setting."""


@dataclass(frozen=True)
class SuiteResult:
    """Scores by row (data set, encoder, setting) and head, and the setting of the run."""

    setting: Mapping[str, Any]
    cells: Mapping[tuple[Row, str], Scores]
    left_out: tuple[str, ...] = ()

    @property
    def rows(self) -> list[Row]:
        """In the order they were run."""
        return list(dict.fromkeys(row for row, _ in self.cells))

    @property
    def heads(self) -> list[str]:
        """In the order they were asked for."""
        return list(dict.fromkeys(head for _, head in self.cells))

    def pairs(self) -> dict[Row, list[Pair]]:
        """Every two heads of every row compared, p-values adjusted for all comparisons of the whole table."""
        table: dict[Row, dict[str, np.ndarray]] = {}
        for row in self.rows:
            scores = {head: self.cells[row, head].scores for head in self.heads}
            table[row] = scores if all(each.size for each in scores.values()) else {}
        return pairs_by_row(table)

    def winners(self) -> dict[Row, str | None]:
        """The head of each row that is better than each of the others; most rows have none."""
        names: dict[str, Any] = dict.fromkeys(self.heads)
        return {row: winner(names, pairs) for row, pairs in self.pairs().items()}

    def as_dict(self, scores: bool = False) -> dict[str, Any]:
        """JSON-able; with ``scores`` those of every draw and item, from which a later run goes on."""
        pairs, won = self.pairs(), self.winners()
        rows = []
        for row in self.rows:
            zero = self.cells.get((row, "zero-shot"))
            cells = []
            for head in self.heads:
                cell = self.cells[row, head]
                gain = None if zero is None or head == "zero-shot" else cell.value - zero.value
                cells.append({**_written(head, cell, scores), "gain": gain})
            data, encoder, name = row
            found = {"data": data, "encoder": encoder, "setting": name, "cells": cells, "winner": won[row]}
            rows.append({**found, "pairs": [pair.as_dict() for pair in pairs[row]]})
        return {
            "schema": SCHEMA,
            **self.setting,
            "left_out": list(self.left_out),
            "rows": rows,
            "ranks": self._ranks(),
            "disentangled": self._disentangled(),
        }

    def _ranks(self) -> dict[str, Any] | None:
        if len(self.heads) < 2:
            return None
        values = np.array([[self.cells[row, head].value for head in self.heads] for row in self.rows])
        ranks = standing(dict(zip(self.heads, values.T, strict=True))).ranks
        # Rows of one data set share its items: only data sets are independent, so their means are what is tested.
        of = np.unique([data for data, *_ in self.rows], return_inverse=True)[1]
        means = np.stack([values[of == i].mean(axis=0) for i in range(of.max() + 1)])
        overall = standing(dict(zip(self.heads, means.T, strict=True))).overall
        return {
            "mean": dict(zip(self.heads, ranks.mean(axis=0).tolist(), strict=True)),
            "by_row": [dict(zip(self.heads, row, strict=True)) for row in ranks.tolist()],
            "friedman_p": None if overall is None else overall.p,
        }

    def _disentangled(self) -> list[dict[str, Any]]:
        """Encoders by heads taken apart, where two of each were judged on the same data."""
        out = []
        for data, name in dict.fromkeys((data, name) for data, _, name in self.rows):
            encoders = [e for d, e, n in self.rows if (d, n) == (data, name)]
            if len(encoders) > 1 and len(self.heads) > 1:
                table = [[self.cells[(data, e, name), head].value for head in self.heads] for e in encoders]
                if np.ptp(table) > 0:
                    d = disentangle(table)
                    found = {"data": data, "setting": name, "r2": d.r2}
                    out.append({**found, "rows_kendall": d.rows_kendall, "columns_kendall": d.columns_kendall})
        return out

    def table(self, kind: Literal["md", "tex"]) -> str:
        """Markdown or LaTeX, in percent; the same cells give the same bytes."""
        many = len(self.heads) > 1
        encoders = len({encoder for _, encoder, _ in self.rows}) > 1
        won, lines, bold = self.winners(), [], set()
        for i, row in enumerate(self.rows):
            data, encoder, name = row
            cells = [self.cells[row, head] for head in self.heads]
            lines.append([data, *([encoder] if encoders else []), name, *(self._cell(cell) for cell in cells)])
            if won[row] is not None:
                bold.add((i, len(lines[0]) - len(self.heads) + self.heads.index(str(won[row]))))
        ranks = self._ranks()
        if ranks is not None and len(self.rows) > 1:
            mean = [f"{ranks['mean'][head]:.2f}" for head in self.heads]
            lines.append(["mean rank", *([""] if encoders else []), "", *mean])
        columns = ("data", *(("encoder",) if encoders else ()), "setting", *self.heads)
        return Grid(columns, tuple(map(tuple, lines)), frozenset(bold)).render(kind, self._note(many, ranks))

    def _cell(self, cell: Scores) -> str:
        if self.setting["kind"] == "episodes":
            return interval_cell(mean_interval(cell.scores[0]))
        return f"{100 * cell.value:.2f} ± {100 * cell.deviation:.2f}"

    def _note(self, many: bool, ranks: Mapping[str, Any] | None) -> str:
        of_mean = self.setting["kind"] == "episodes"
        what = "half of the 95 % interval over episodes" if of_mean else "standard deviation over draws"
        value = "H of unseen and seen classes" if self.setting["kind"] == "unseen" else "accuracy"
        parts = [f"{self.setting['title']}: {value} in percent, ± {what}"]
        if many and any(pairs for pairs in self.pairs().values()):
            parts.append("bold: better than each other head of the row, paired t tests, Holm over the table, 5 % level")
        if ranks is not None and ranks["friedman_p"] is not None:
            parts.append(f"ranks differ with p = {ranks['friedman_p']:.2g} (Friedman, over data sets)")
        if self.setting.get("changed"):
            parts.append("shots or episodes are not those of the protocol")
        return "; ".join(parts) + "."


@dataclass
class Store:
    """The file of a run: cells as far as they are done.

    Args:
        path: of a ``.json`` file, or ``None`` to keep nothing.
        setting: of the run; a file of another setting is refused.

    Raises:
        BadInput: another kind of file, one that holds something else, or another run.
    """

    path: Path | None
    setting: Mapping[str, Any]
    cells: dict[tuple[Row, str], Scores] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.path is None:
            return
        if self.path.suffix.lower() != ".json":
            raise BadInput(f"a suite writes a .json file, from which it can go on, not {self.path.name!r}; see --table")
        if not self.path.exists():
            return
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            if content["schema"] != SCHEMA:
                raise ValueError(f"schema {content['schema']!r}")
            there = {name: content.get(name) for name in self.setting}
            cells = {
                ((row["data"], row["encoder"], row["setting"]), cell["head"]): _read(cell)
                for row in content["rows"]
                for cell in row["cells"]
            }
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BadInput(f"{self.path} is there and holds no results of a suite ({error}): name another") from error
        asked = json.loads(json.dumps(dict(self.setting)))
        if other := next((name for name in asked if asked[name] != there[name]), None):
            raise BadInput(f"{self.path} holds another run: its {other} differ; name another file, or remove this one")
        self.cells.update(cells)

    def add(self, row: Row, head: str, scores: Scores) -> None:
        """Keep a cell, and write the file anew, rows that lack a head included."""
        self.cells[row, head] = scores
        if self.path is None:
            return
        rows: dict[Row, list[dict[str, Any]]] = {}
        for (of, key), cell in self.cells.items():
            rows.setdefault(of, []).append(_written(key, cell, scores=True))
        listed = [{"data": d, "encoder": e, "setting": s, "cells": cells} for (d, e, s), cells in rows.items()]
        self._write({"schema": SCHEMA, **self.setting, "rows": listed})

    def finish(self, result: SuiteResult) -> None:
        """Write the file with everything that follows from the cells."""
        if self.path is not None:
            self._write(result.as_dict(scores=True))

    def _write(self, content: Mapping[str, Any]) -> None:
        if self.path is not None:
            with whole_file(self.path) as file:
                file.write((json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n").encode())


def _written(head: str, cell: Scores, scores: bool) -> dict[str, Any]:
    shown = {"head": head, "value": cell.value, "deviation": cell.deviation, "figures": dict(cell.figures)}
    return {**shown, **({"scores": _packed(cell.scores)} if scores else {})}


def _packed(scores: np.ndarray) -> list[list[float]]:
    """Whole numbers as such: most scores are 0 and 1."""
    return [[int(x) if x == int(x) else float(x) for x in row] for row in scores]


def _read(cell: Mapping[str, Any]) -> Scores:
    rows = cell["scores"]
    scores = np.array(rows, dtype=float) if rows else np.empty((0, 0))
    return Scores(float(cell["value"]), float(cell["deviation"]), scores, dict(cell["figures"]))
