"""Collect a test set anew: how to choose from candidates so that the new set is like the old one.

Paper 136: Recht, Roelofs, Schmidt, Shankar, "Do ImageNet Classifiers Generalize to ImageNet?", 2019.

Several people are shown each candidate and asked whether it is of its class,

    selection frequency f = how many said yes / how many were asked

and a class takes `per_class` candidates by one of three strategies:

    threshold   at random among f >= 0.7
    matched     at random within bins of f, as many from each as the class has in the old set (largest remainders); what
                a bin lacks is taken from the next bin above that has some
    top         the highest f; among equals those that more people were asked about

How f is distributed decides how hard the set is: accuracies fell by 12 points on the matched and rose by 2 on the top
set. Copies of old items must go first: `nearest_pairs` lists what a person should look at.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.ndimage import uniform_filter
from scipy.spatial.distance import cdist

from handful.core.ssim import ssim
from handful.errors import BadInput, nearest

Strategy = Literal["threshold", "matched", "top"]
STRATEGIES = ("threshold", "matched", "top")
EDGES = (0.2, 0.4, 0.6, 0.8)
"""Where the bins of f end; a bin holds its lower edge."""
ASKED = 10
"""Least number of people asked about an item that counts."""
WINDOW = 7
"""Side of the squares in which two pictures are compared."""


@dataclass(frozen=True)
class Judged:
    """Items and what people said of them; equally long.

    Attributes:
        labels: class of each ``[n]``.
        frequency: selection frequency ``[n]``.
        asked: how many people were asked ``[n]``.
    """

    labels: Any
    frequency: Any
    asked: Any


@dataclass(frozen=True)
class Sample:
    """Which candidates make up the new test set, and how that came about.

    Attributes:
        rows: of the candidates that were taken, ascending.
        strategy: by which.
        seed: of the draw.
        kept: rows that an earlier sample had too.
        from_other_bins: by class, how many stand in for a bin of the histogram that was empty.
        frequency: mean selection frequency of the rows.
        lowest: the smallest of each class.
        left_out: how many candidates were not eligible, by reason.
    """

    rows: tuple[int, ...]
    strategy: Strategy
    seed: int
    kept: tuple[int, ...]
    from_other_bins: dict[str, int]
    frequency: float
    lowest: dict[str, float]
    left_out: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able: the whole record of one revision."""
        return {**vars(self), "rows": list(self.rows), "kept": list(self.kept)}


def resample_test_set(
    pool: Judged,
    strategy: Strategy,
    per_class: int = 10,
    *,
    seed: int,
    old: Judged | None = None,
    threshold: float = 0.7,
    thresholds: Mapping[Any, float] | None = None,
    edges: Sequence[float] = EDGES,
    least_asked: int = ASKED,
    duplicate: Any = None,
    previous: Sequence[int] = (),
) -> Sample:
    """Choose ``per_class`` candidates of each class.

    Args:
        pool: the candidates.
        strategy: ``"threshold"``, ``"matched"`` or ``"top"``.
        per_class: how many of each class.
        seed: of the draw.
        old: the old test set, which ``"matched"`` imitates.
        threshold: least f for ``"threshold"``.
        thresholds: other least f for some classes, which have too few candidates.
        edges: of the bins for ``"matched"``.
        least_asked: items about which fewer people were asked are left out, candidates and old ones alike.
        duplicate: ``[n]`` booleans, candidates that are copies of old items or were rejected by a reviewer.
        previous: rows of an earlier revision, kept as far as they are still eligible.

    Raises:
        BadInput: frequencies out of range, lists of different length, a class with too few candidates, earlier rows
            that the pool has not, edges that do not ascend, ``"matched"`` without the old set, with an old class that
            has no candidates or with one that has no item enough people were asked about.
    """
    if strategy not in STRATEGIES:
        raise BadInput(f"unknown strategy {strategy!r}{nearest(strategy, STRATEGIES)}")
    if not isinstance(per_class, int | np.integer) or per_class < 1:
        raise BadInput(f"a class takes a whole number of items, at least one, not {per_class!r}")
    if (np.diff(np.asarray(edges, float)) <= 0).any() or not np.isfinite(np.asarray(edges, float)).all():
        raise BadInput(f"edges of bins ascend, unlike {list(edges)}")
    labels, f, asked = _checked(pool, "pool")
    copies = np.zeros(len(f), bool) if duplicate is None else np.asarray(duplicate, bool)
    if copies.shape != f.shape:
        raise BadInput(f"duplicate marks {copies.shape} of {f.shape} candidates: one mark for each")
    limits = thresholds or {}
    least = np.array([limits.get(label, threshold) for label in labels.tolist()])
    enough, reaches = asked >= least_asked, f >= (least if strategy == "threshold" else 0)
    eligible = enough & reaches & ~copies
    left_out = {"asked too few": ~enough, "below the threshold": enough & ~reaches, "duplicate": copies}
    kept = np.asarray(previous, int)
    if len(kept) and not 0 <= kept.min() <= kept.max() < len(f):
        raise BadInput(f"previous rows {kept.min()} to {kept.max()} of {len(f)} candidates: rows are those of the pool")
    earlier = np.zeros(len(f), bool)
    earlier[kept] = True
    goal = _goals(old, np.asarray(edges, float), per_class, least_asked) if strategy == "matched" else {}

    if goal and len(gone := np.setdiff1d(np.asarray(old.labels), labels)):  # type: ignore[union-attr]
        raise BadInput(f"class {gone[0]} of the old set has no candidates: collect some, or leave it out of old=")

    rng, rows, borrowed = np.random.default_rng(seed), [], {}
    for label in np.unique(labels):
        mine = np.flatnonzero(eligible & (labels == label))
        if len(mine) < per_class:
            raise BadInput(
                f"class {label}: {len(mine)} candidates are eligible, {per_class} are asked for: collect more, or take"
                " fewer per class"
            )
        order = rng.permutation(mine)
        order = order[np.argsort(~earlier[order], kind="stable")]
        if strategy == "top":
            order = mine[np.lexsort((~earlier[mine], -asked[mine], -f[mine]))]
        if strategy == "matched":
            if label not in goal:
                raise BadInput(
                    f"class {label}: no old item that {least_asked} people were asked about tells how to match it"
                )
            order, other = _by_bins(order, np.digitize(f[order], edges), goal[label])
            if other:
                borrowed[str(label)] = other
            if len(order) < per_class:
                raise BadInput(f"class {label}: too few candidates as frequent as the old items or more: collect more")
        rows.append(order[:per_class])
    taken = np.sort(np.concatenate(rows))
    return Sample(
        rows=tuple(taken.tolist()),
        strategy=strategy,
        seed=seed,
        kept=tuple(taken[earlier[taken]].tolist()),
        from_other_bins=borrowed,
        frequency=float(f[taken].mean()),
        lowest={str(labels[some[0]]): float(f[some].min()) for some in rows},
        left_out={reason: int(mask.sum()) for reason, mask in left_out.items()},
    )


def nearest_pairs(new: Any, old: Any, metric: Literal["l2", "dssim"] = "l2", *, closest: int = 30) -> np.ndarray:
    """For each new item its nearest old one, the closest such pairs first: what a person should look at.

    Args:
        new, old: features or pixels ``[n, d]`` and ``[m, d]`` for ``"l2"``, grey pictures ``[n, h, w]`` and
            ``[m, h, w]`` for ``"dssim"``, which is half of one less the structural similarity.
        metric: of the two.
        closest: pairs to return, at most.

    Returns:
        ``[p, 3]``: row among the new, row among the old, distance.

    Raises:
        BadInput: sizes that differ, numbers that are not finite, an unknown metric, ``closest`` below 1.
    """
    new, old = np.asarray(new, float), np.asarray(old, float)
    axes = {"l2": 2, "dssim": 3}
    if metric not in axes:
        raise BadInput(f"unknown metric {metric!r}; there are: {', '.join(axes)}")
    if new.ndim != axes[metric] or new.shape[1:] != old.shape[1:] or not len(new) or not len(old):
        raise BadInput(
            f"new {new.shape} and old {old.shape} are not two lists of {'rows' if metric == 'l2' else 'pictures'} of"
            " one size"
        )
    if not (np.isfinite(new).all() and np.isfinite(old).all()):
        raise BadInput("new or old has numbers that are not finite: no distance can be told")
    if closest < 1:
        raise BadInput(f"closest is how many pairs to list, at least 1, not {closest}")
    distance = cdist(new, old) if metric == "l2" else np.stack([_dssim(picture, old) for picture in new])
    partner = distance.argmin(axis=1)
    least = distance[np.arange(len(new)), partner]
    first = np.argsort(least, kind="stable")[:closest]
    return np.stack([first, partner[first], least[first]], axis=1)


def _dssim(one: np.ndarray, others: np.ndarray) -> np.ndarray:
    """``(1 - SSIM) / 2`` of a picture ``[h, w]`` to each of ``[m, h, w]``."""
    span = max(float(np.ptp(others)), float(np.ptp(one)), 1e-12)

    def mean(x: np.ndarray) -> np.ndarray:
        blurred: np.ndarray = uniform_filter(x, size=(0, WINDOW, WINDOW))
        return blurred

    half: np.ndarray = (1 - ssim(one[None], others, mean, span).mean(axis=(1, 2))) / 2
    return half


def _goals(old: Judged | None, edges: np.ndarray, per_class: int, least_asked: int) -> dict[Hashable, np.ndarray]:
    """By class, how many items each bin of f gives."""
    if old is None:
        raise BadInput("'matched' imitates the old test set: give old=Judged(labels, frequency, asked)")
    labels, f, asked = _checked(old, "old")
    goal = {}
    for label in np.unique(labels[asked >= least_asked]):
        count = np.bincount(np.digitize(f[(labels == label) & (asked >= least_asked)], edges), minlength=len(edges) + 1)
        exact = per_class * count / count.sum()
        whole = np.floor(exact + 1e-9).astype(int)
        last = np.arange(len(whole))
        more = np.lexsort((last, np.round(exact - whole, 9)))[::-1][: per_class - whole.sum()]
        whole[more] += 1
        goal[label] = whole
    return goal


def _by_bins(order: np.ndarray, bins: np.ndarray, goal: np.ndarray) -> tuple[np.ndarray, int]:
    """Rows in which each bin has its share, and how many of them stand in for a lower bin."""
    left = [order[bins == k].tolist() for k in range(len(goal))]
    taken = [row for k, many in enumerate(goal) for row in left[k][:many]]
    short = [max(0, many - len(left[k])) for k, many in enumerate(goal)]
    left = [rows[many:] for rows, many in zip(left, goal, strict=True)]
    other = 0
    for k, many in enumerate(short):
        for _ in range(many):
            above = next((rows for rows in left[k + 1 :] if rows), None)
            if above is None:
                return np.array(taken, int), other
            taken.append(above.pop(0))
            other += 1
    return np.array(taken, int), other


def _checked(items: Judged, what: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    labels, f, asked = np.asarray(items.labels), np.asarray(items.frequency, float), np.asarray(items.asked)
    if not labels.shape == f.shape == asked.shape or labels.ndim != 1 or not len(labels):
        shapes = f"{labels.shape}, {f.shape} and {asked.shape}"
        raise BadInput(f"{what}: labels, frequency and asked are three lists of one length, not {shapes}")
    if not ((f >= 0) & (f <= 1)).all():
        raise BadInput(f"{what}: selection frequencies are shares from 0 to 1, not {f.min():g} to {f.max():g}")
    return labels, f, asked
