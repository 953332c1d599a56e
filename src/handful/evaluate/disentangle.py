"""Does the best way to adapt depend on the encoder? A table of encoders by heads, taken apart.

Paper 111: Luo et al., "A Closer Look at Few-shot Classification Again", 2023.

    score[a, b] = m + u[a] + v[b] + rest        R^2 = 1 - |rest|^2 / |score - m|^2
    rank correlations between rows: do encoders agree on the order of heads? between columns: heads on encoders?

Where both are near 1, encoder and head can be chosen one at a time. The paper also finds that error falls as a power of
the number of classes an encoder was trained on, and little with images a class (`scaling_probe`), and that changing the
encoder pays once ways times shots are many (`takes_over`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from handful.core.intervals import Estimate
from handful.errors import BadInput
from handful.evaluate.significance import paired_test


@dataclass(frozen=True)
class Disentangled:
    """How far a table is the sum of its two sides.

    Attributes:
        rows_spearman, rows_kendall: mean rank correlation between two rows (encoders): do they order columns alike?
        columns_spearman, columns_kendall: the same between columns (heads).
        r2: share of the variance that the additive model explains.
        rows, columns: effects ``[A]``, ``[B]`` of the additive model; each adds up to 0.
    """

    rows_spearman: float
    rows_kendall: float
    columns_spearman: float
    columns_kendall: float
    r2: float
    rows: np.ndarray
    columns: np.ndarray


def disentangle(table: Any) -> Disentangled:
    """Take a table of scores ``[A, B]`` (encoders, heads) apart.

    Raises:
        BadInput: fewer than two rows or columns, numbers that are not finite, or scores that are all equal.
    """
    table = np.asarray(table, dtype=float)
    if table.ndim != 2 or min(table.shape) < 2 or not np.isfinite(table).all():
        raise BadInput(f"a table of finite scores [encoders, heads], at least 2 x 2, is needed, not {table.shape}")
    mean = table.mean()
    rows, columns = table.mean(axis=1) - mean, table.mean(axis=0) - mean
    total = float(np.square(table - mean).sum())
    if total <= 1e-24 * max(1.0, mean**2) * table.size:
        raise BadInput("all scores are equal: there is nothing to take apart")
    rest = table - mean - rows[:, None] - columns
    by_row, by_column = _agreement(table), _agreement(table.T)
    return Disentangled(*by_row, *by_column, 1 - float(np.square(rest).sum()) / total, rows, columns)


def _agreement(table: np.ndarray) -> tuple[float, float]:
    """Mean Spearman and Kendall correlation over pairs of rows; a row of ties agrees with nothing."""
    pairs = [(a, b) for i, a in enumerate(table) for b in table[i + 1 :]]
    flat = [bool(np.ptp(a) == 0 or np.ptp(b) == 0) for a, b in pairs]
    found = [
        (0.0, 0.0) if tied else (float(stats.spearmanr(a, b).statistic), float(stats.kendalltau(a, b).statistic))
        for (a, b), tied in zip(pairs, flat, strict=True)
    ]
    spearman, kendall = np.mean(found, axis=0)
    return float(spearman), float(kendall)


class Scaling(NamedTuple):
    """``error = exp(intercept) * classes^-by_classes * images^-by_images``."""

    intercept: float
    by_classes: float
    by_images: float
    r2: float


def scaling_probe(classes: Any, images: Any, error: Any) -> Scaling:
    """How few-shot error falls with the classes an encoder was trained on and with images a class, by least squares of
    logarithms.

    Args:
        classes, images: numbers of training classes and of images in each ``[n]``, above 0.
        error: few-shot error of each encoder ``[n]``, above 0 and up to 1.

    Raises:
        BadInput: lengths that differ, numbers out of range, or too little variety to tell one exponent from the other.
    """
    c, i, e = (np.asarray(x, dtype=float) for x in (classes, images, error))
    if c.ndim != 1 or c.shape != i.shape or c.shape != e.shape or len(c) < 3:
        raise BadInput(f"three lists of one length, at least 3, are needed, not {c.shape}, {i.shape}, {e.shape}")
    if not ((c > 0) & (i > 0) & (e > 0) & (e <= 1)).all():
        raise BadInput("classes and images are above 0, errors above 0 and at most 1")
    design = np.stack([np.ones(len(c)), -np.log(c), -np.log(i)], axis=1)
    if np.linalg.matrix_rank(design) < 3:
        raise BadInput("classes and images must vary, and not together, to tell their effects apart")
    solution = np.linalg.lstsq(design, np.log(e), rcond=None)[0]
    rest, spread = np.log(e) - design @ solution, np.log(e) - np.log(e).mean()
    total = float(spread @ spread)
    r2 = 1 - float(rest @ rest) / total if total > 0 else 1.0
    return Scaling(float(solution[0]), float(solution[1]), float(solution[2]), r2)


class TakesOver(NamedTuple):
    """From which number of labelled items on the second method is shown to be better; ``None``: nowhere."""

    items: int | None
    differences: dict[int, Estimate]


def takes_over(frozen: dict[int, Any], tuned: dict[int, Any]) -> TakesOver:
    """Where changing the encoder overtakes a head on frozen features.

    Args:
        frozen, tuned: scores of the same episodes ``[E]`` by ways times shots.

    Raises:
        BadInput: different sizes, or scores that cannot be paired.
    """
    if frozen.keys() != tuned.keys() or not frozen:
        raise BadInput("both methods need scores at the same numbers of labelled items")
    found = {n: paired_test(tuned[n], frozen[n]).difference for n in sorted(frozen)}
    first = None
    for n in sorted(found, reverse=True):
        if found[n].low <= 0:
            break
        first = n
    return TakesOver(first, found)
