"""How well sets of labels are answered and found: several labels an item.

Average precision and F1 are scikit-learn's. Intervals are percentiles of replicates in which items are drawn anew,
whole groups where there are some. `label_set_retrieval_iou` is the retrieval of paper 159 (LaSO, Alfassy et al., 2019).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score, f1_score
from sklearn.neighbors import NearestNeighbors

from handful.adapt.parameters import count
from handful.core.intervals import Estimate, percentiles
from handful.errors import BadInput

REPLICATES = 200


def assess_label_sets(
    Y: Any,
    scores: Any,
    predicted: Any,
    *,
    groups: Sequence[Any] | np.ndarray | None = None,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> dict[str, Estimate]:
    """``micro_f1``, ``macro_f1`` and ``mean_average_precision`` of answers to n items, each with an interval of 95 %.

    Macro means are over the labels that some item has.

    Args:
        Y: ``[n, L]``, 0 or 1: which labels each item has.
        scores: ``[n, L]``, higher for more likely.
        predicted: ``[n, L]``, 0 or 1.
        groups: n names; items of a group are drawn together.
        replicates: how many.
        seed: of the replicates.

    Raises:
        BadInput: no items, shapes that differ, entries other than 0 and 1, scores that are not finite, no labels, no
            replicates.
    """
    y, answer = _indicator(Y, "Y"), _indicator(predicted, "predicted")
    s = np.asarray(scores, dtype=float)
    if not y.shape == answer.shape == s.shape:
        raise BadInput(f"Y {y.shape}, scores {s.shape} and predicted {answer.shape} differ in shape")
    if not np.isfinite(s).all():
        raise BadInput("scores that are not finite")
    if groups is not None and len(groups) != len(y):
        raise BadInput(f"{len(y)} items but {len(groups)} groups")
    if not y.any():
        raise BadInput("no item has a label: there is nothing to find")
    count("replicates", replicates, 1)
    units = np.arange(len(y)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    rows_of = np.split(np.argsort(units, kind="stable"), np.cumsum(np.bincount(units))[:-1])
    draw, drawn = np.random.default_rng(seed), list[list[float]]()
    while len(drawn) < replicates:
        rows = np.concatenate([rows_of[i] for i in draw.integers(len(rows_of), size=len(rows_of))])
        if y[rows].any():
            drawn.append(_metrics(y[rows], s[rows], answer[rows]))
    names, values, table = ("micro_f1", "macro_f1", "mean_average_precision"), _metrics(y, s, answer), np.array(drawn)
    return {name: percentiles(values[i], table[:, i]) for i, name in enumerate(names)}


def label_set_retrieval_iou(
    made: Any,
    target: Any,
    Z: Any,
    Y: Any,
    *,
    ks: Sequence[int] = (1, 3, 5),
    sources: Any = None,
) -> Mapping[int, float]:
    """Mean over made-up items of the best overlap (intersection over union) of label sets among the k nearest items.

    Only made-up items whose label set some item has are asked, as in the authors' code.

    Args:
        made: features ``[m, D]`` of made-up items.
        target: the label sets they stand for, ``[m, L]``, 0 or 1.
        Z: features ``[n, D]`` of items.
        Y: their labels ``[n, L]``, 0 or 1.
        ks: how many nearest items, by Euclidean distance.
        sources: rows of ``Z`` ``[m, s]`` that each made-up item was made from: they are not found.

    Raises:
        BadInput: shapes that do not fit, features that are not finite, entries other than 0 and 1, fewer items than k,
            no label set that an item has.
    """
    want, have = _indicator(target, "target"), _indicator(Y, "Y")
    asked, items = np.asarray(made, dtype=float), np.asarray(Z, dtype=float)
    fits = asked.ndim == items.ndim == 2 and asked.shape[1] == items.shape[1] and want.shape[1] == have.shape[1]
    if not fits or len(asked) != len(want) or len(items) != len(have):
        raise BadInput(f"features {asked.shape} and {items.shape} do not fit labels {want.shape} and {have.shape}")
    if not (np.isfinite(asked).all() and np.isfinite(items).all()):
        raise BadInput("features that are not finite")
    own = np.empty((len(asked), 0), dtype=int) if sources is None else np.asarray(sources)
    if own.ndim != 2 or len(own) != len(asked):
        raise BadInput(f"sources are rows [{len(asked)}, s] that each item was made from, not of shape {own.shape}")
    if not ks or any(k != int(k) for k in ks) or min(ks) < 1 or len(items) < max(ks) + own.shape[1]:
        raise BadInput(f"ks must be from 1 to the {len(items) - own.shape[1]} items there are, not {list(ks)}")
    known = {row.tobytes() for row in have}
    can = np.array([row.tobytes() in known for row in want])
    if not can.any():
        raise BadInput("no item has any of the label sets that are asked for")
    near = NearestNeighbors(n_neighbors=max(ks) + own.shape[1]).fit(items).kneighbors(asked[can])[1]
    banned = (near[:, :, None] == own[can][:, None, :]).any(-1)
    near = np.take_along_axis(near, np.argsort(banned, axis=1, kind="stable"), 1)[:, : max(ks)]
    both = (have[near] & want[can][:, None]).sum(-1)
    either = (have[near] | want[can][:, None]).sum(-1)
    overlap = np.where(either > 0, both / np.maximum(either, 1), 1.0)
    return {k: float(overlap[:, :k].max(1).mean()) for k in ks}


def _metrics(y: np.ndarray, scores: np.ndarray, answer: np.ndarray) -> list[float]:
    there = y.any(0)
    return [
        float(f1_score(y, answer, average="micro", zero_division=0)),
        float(f1_score(y[:, there], answer[:, there], average="macro", zero_division=0)),
        float(average_precision_score(y[:, there], scores[:, there], average="macro")),
    ]


def _indicator(given: Any, what: str) -> np.ndarray:
    table = np.asarray(given)
    if table.ndim != 2 or not table.size or table.dtype.kind not in "biuf" or not np.isin(table, (0, 1)).all():
        raise BadInput(f"{what} must be a matrix of 0 and 1, not an array of shape {table.shape}")
    return table.astype(int)
