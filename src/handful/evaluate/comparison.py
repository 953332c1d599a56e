"""Heads compared on the same episodes: what counts is the difference within each, not two averages side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from handful.adapt.base import Features, Head
from handful.core.intervals import Estimate, mean_interval
from handful.errors import BadInput
from handful.evaluate.episodic import EpisodeResult, run
from handful.evaluate.indices import Count, Episodes
from handful.evaluate.significance import pairs_by_row, winner
from handful.protocols import Progress


@dataclass(frozen=True)
class Row:
    """One head at one number of shots.

    Attributes:
        head: its key.
        shots: support items a class.
        result: accuracy over the episodes, seconds, memory.
        difference: accuracy minus that of the first head, paired by episode; ``None`` for the first head itself.
        to_best: accuracy minus that of the best head; ``None`` for the best itself.
        statement: what the difference shows, in words.
        parameters: what it was set to.
    """

    head: str
    shots: Count
    result: EpisodeResult
    difference: Estimate | None
    to_best: Estimate | None
    statement: str
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Episodes a second."""
        return len(self.result.accuracy) / self.result.seconds

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "head": self.head,
            "parameters": dict(self.parameters),
            "shots": self.shots,
            **self.result.as_dict(),
            "episodes_per_second": self.rate,
            "difference": None if self.difference is None else self.difference.as_dict(),
            "to_best": None if self.to_best is None else self.to_best.as_dict(),
            "statement": self.statement,
        }


def judge(
    heads: Mapping[str, Head],
    features: Features,
    labels: np.ndarray,
    drawn: Episodes,
    shots: Sequence[Count],
    *,
    base: Any = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[Row]:
    """Each head by key on the same episodes, at each number of shots the episodes allow (``"any"``: as they are)."""
    tasks = {k: drawn if k == "any" else drawn.with_shots(k) for k in shots}
    for part in tasks.values():
        for head in heads.values():  # what cannot run is refused before hours are spent; it also warms up
            run(head, features, labels, part[:1], base=base, seed=seed)
    rows: list[Row] = []
    done, total = 0, len(heads) * len(tasks) * len(drawn)
    for k, part in tasks.items():
        results: dict[str, EpisodeResult] = {}
        for key, head in heads.items():
            told = _after(progress, done, total)
            results[key] = run(head, features, labels, part, base=base, seed=seed, progress=told)
            done += len(drawn)
        rows += compare(results, k)
    return rows


def _after(progress: Progress | None, before: int, total: int) -> Progress | None:
    return None if progress is None else lambda done, _: progress(before + done, total)


def compare(results: Mapping[str, EpisodeResult], shots: Count) -> list[Row]:
    """A row for each head by key, in order; the first is what the others are measured against.

    Raises:
        BadInput: the heads were not judged on the same episodes.
    """
    first = next(iter(results))
    best = max(results, key=lambda key: results[key].mean.value)
    return [
        Row(
            head=key,
            shots=shots,
            result=result,
            difference=None if key == first else paired(result, results[first]),
            to_best=None if key == best else paired(result, results[best]),
            statement=_statement(key, result, first, results[first]),
        )
        for key, result in results.items()
    ]


def paired(one: EpisodeResult, other: EpisodeResult) -> Estimate:
    """Mean difference in accuracy over the episodes both were judged on, with Student's paired interval."""
    a, b = one.episodes, other.episodes
    if a.source != b.source or a.query.shape != b.query.shape or not (a.query == b.query).all():
        raise BadInput("results are compared on the same episodes only")
    return mean_interval(one.accuracy - other.accuracy, within=(-1.0, 1.0))


def winners(rows: Sequence[Row]) -> dict[Count, str | None]:
    """For each number of shots the head that is better than each of the others, if there is one.

    By paired tests, corrected for all comparisons of the table. Nothing else is printed bold.
    """
    table: dict[Count, dict[str, np.ndarray]] = {}
    for row in rows:
        judged = row.result.accuracy
        table.setdefault(row.shots, {}).update({row.head: judged} if len(judged) > 1 else {})
    return {shots: winner(table[shots], pairs) for shots, pairs in pairs_by_row(table).items()}


def _statement(key: str, result: EpisodeResult, first: str, reference: EpisodeResult) -> str:
    if key == first:
        return "what the others are compared with"
    d = paired(result, reference)
    value, low, high = (f"{100 * x:+.2f}" for x in (d.value, d.low, d.high))
    what = f"{value} points [{low}, {high}], paired over {len(result.accuracy)} episodes"
    if d.low > 0:
        return f"{key} is better than {first}: {what}"
    if d.high < 0:
        return f"{key} is worse than {first}: {what}"
    return f"no difference between {key} and {first} is shown: {what}"
