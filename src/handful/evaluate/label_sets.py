"""How well sets of labels are answered and found: several labels an item.

    micro-F1            2 J / (1 + J),  J = sum TP / sum (TP + FP + FN) over items and labels
    macro-F1            the mean over labels of the same of each label
    average precision   sum_k (R_k - R_{k-1}) P_k over the distinct scores, as scikit-learn has it; equals fall together
    exact match         the share of items with every label right

Shares have Wilson intervals, F1 that of its J, for as many pairs of an item and a label as they are worth: those of one
item (group) are not independent. The means over labels are percentiles of replicates in which items (whole groups) are
drawn anew, no narrower than Wilson's for so many pairs, since no replicate of items without an error has one.
`label_set_retrieval_iou` is the retrieval of paper 159 (LaSO, Alfassy et al., 2019).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.neighbors import NearestNeighbors

from handful.adapt.parameters import count
from handful.core.intervals import Estimate, no_narrower, percentiles
from handful.core.shares import Shares
from handful.errors import BadInput
from handful.evaluate.label_set_assessment import LabelScore, LabelSetAssessment

REPLICATES = 200
BLOCK = 1 << 23
"""Resampled counts that are held at a time."""


def assess_label_sets(
    Y: Any,
    scores: Any,
    predicted: Any,
    labels: Sequence[str] | None = None,
    *,
    groups: Sequence[Any] | np.ndarray | None = None,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> LabelSetAssessment:
    """Judge answers to n items; means over labels are over those that some item has.

    Args:
        Y: ``[n, L]``, 0 or 1: which labels each item has.
        scores: ``[n, L]``, higher for more likely.
        predicted: ``[n, L]``, 0 or 1.
        labels: L names; by default their numbers.
        groups: n names; items of a group are not independent, and the intervals know it.
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
    names = [str(i) for i in range(y.shape[1])] if labels is None else [str(name) for name in labels]
    if len(names) != y.shape[1]:
        raise BadInput(f"{len(names)} labels do not fit Y of shape {y.shape}")
    if not np.isfinite(s).all():
        raise BadInput("scores that are not finite")
    if groups is not None and len(groups) != len(y):
        raise BadInput(f"{len(y)} items but {len(groups)} groups")
    if not y.any():
        raise BadInput("no item has a label: there is nothing to find")
    count("replicates", replicates, 1)
    units = None if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    share, right = Shares(units), (y == answer).all(1)
    everything = np.ones(len(y), dtype=bool)
    once = np.ones((1, len(y)))
    drawn = _drawn(len(y), units, replicates, seed)
    f1, ap = _f1(y, answer, once)[0], _average_precision(y, s, once)[0]
    f1_drawn = np.concatenate([_f1(y, answer, counts) for counts in drawn])
    ap_drawn = np.concatenate([_average_precision(y, s, counts) for counts in drawn])
    there, cells = y.any(0), (y | answer) > 0
    item, hit = np.nonzero(cells)[0], (y & answer)[cells] > 0
    pairs, each = Shares(item if units is None else units[item]), np.ones(len(hit), dtype=bool)
    least = pairs.worth(hit, each)

    def mean(values: np.ndarray, replicates: np.ndarray) -> Estimate:
        return no_narrower(percentiles(float(values.mean()), _mean_of_known(replicates)), least)

    def label_score(i: int) -> LabelScore:
        true, said = y[:, i] > 0, answer[:, i] > 0
        overlap = share(true & said, true | said) if (true | said).any() else None
        rests_on = share.worth(said, true) if true.any() else 0.0
        return LabelScore(
            label=names[i],
            n=int(true.sum()),
            said=int(said.sum()),
            precision=share(true, said) if said.any() else None,
            recall=share(said, true) if true.any() else None,
            f1=None if overlap is None else _of_overlap(overlap),
            average_precision=no_narrower(percentiles(float(ap[i]), ap_drawn[:, i]), rests_on) if true.any() else None,
        )

    return LabelSetAssessment(
        n=len(y),
        groups=None if units is None else int(units.max()) + 1,
        labels=tuple(names),
        micro_f1=_of_overlap(pairs(hit, each)),
        macro_f1=mean(f1[there], f1_drawn[:, there]),
        mean_average_precision=mean(ap[there], ap_drawn[:, there]),
        exact_match=share(right, everything),
        labels_per_item=float(y.sum(1).mean()),
        said_per_item=float(answer.sum(1).mean()),
        per_label=tuple(map(label_score, range(len(names)))),
    )


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


def _drawn(n: int, units: np.ndarray | None, replicates: int, seed: int) -> list[np.ndarray]:
    """How often each of n items is in each replicate, in blocks ``[R, n]``."""
    units = np.arange(n) if units is None else units
    many, draw = int(units.max()) + 1, np.random.default_rng(seed)
    step, blocks = max(1, BLOCK // n), []
    for start in range(0, replicates, step):
        r = min(step, replicates - start)
        at = draw.integers(many, size=(r, many)) + many * np.arange(r)[:, None]
        blocks.append(np.bincount(at.ravel(), minlength=r * many).reshape(r, many)[:, units].astype(float))
    return blocks


def _f1(y: np.ndarray, answer: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """F1 of every label in each replicate ``[R, L]``; NaN where no item has it."""
    had, both, either = counts @ y, counts @ (y & answer), counts @ (y + answer)
    out: np.ndarray = np.divide(2 * both, either, out=np.full_like(both, np.nan), where=had > 0)
    return out


def _average_precision(y: np.ndarray, scores: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Average precision of every label in each replicate ``[R, L]``; NaN for a label that no item there has."""
    out = np.full((len(counts), y.shape[1]), np.nan)
    for i in range(y.shape[1]):
        order = np.argsort(-scores[:, i], kind="stable")
        ends = np.flatnonzero(np.r_[np.diff(scores[order, i]) != 0, True])
        weight = counts[:, order]
        said, hit = weight.cumsum(1)[:, ends], (weight * y[order, i]).cumsum(1)[:, ends]
        precision = np.divide(hit, said, out=np.zeros_like(hit), where=said > 0)
        area, total = (np.diff(hit, axis=1, prepend=0) * precision).sum(1), hit[:, -1]
        np.divide(area, total, out=out[:, i], where=total > 0)
    within: np.ndarray = np.minimum(out, 1.0)
    return within


def _mean_of_known(values: np.ndarray) -> np.ndarray:
    """The mean ``[R]`` over the labels ``[R, L]`` that are not NaN; NaN where all are."""
    known = ~np.isnan(values)
    total, many = np.where(known, values, 0.0).sum(1), known.sum(1)
    out: np.ndarray = np.divide(total, many, out=np.full(len(values), np.nan), where=many > 0)
    return out


def _of_overlap(overlap: Estimate) -> Estimate:
    """F1, which is ``2 J / (1 + J)``."""
    return Estimate(*(2 * j / (1 + j) for j in (overlap.value, overlap.low, overlap.high)))


def _indicator(given: Any, what: str) -> np.ndarray:
    table = np.asarray(given)
    if table.ndim != 2 or not table.size or table.dtype.kind not in "biuf" or not np.isin(table, (0, 1)).all():
        raise BadInput(f"{what} must be a matrix of 0 and 1, not an array of shape {table.shape}")
    return table.astype(int)
