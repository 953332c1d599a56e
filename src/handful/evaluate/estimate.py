"""The quoted number: how often THIS model, learnt from all labels, is right on new items.

Folds judge models that learnt from fewer labels, and each other model than the one that ships. Hence

    errors      of each item by a fit that left its fold out, choices repeated inside; folds are dealt out several times
                where fits are cheap
    correction  error of all labels = sum_i w_i error_i (share of i's class that fit knew)^b / sum_i w_i
    decay       b from the curve of fewer shots (slope of log error on log shots), drawn to `DECAY` as far as few errors
                say little:  b = (b_curve / v + b_0 / s^2) / (1 / v + 1 / s^2)
    interval    Wilson's for as many items as  p (1-p) / (`MODEL` p (1-p) / n_eff + var(correction)),  n_eff being what
                items in groups and of unequal weight are worth
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from handful.core.intervals import Estimate, wilson
from handful.core.shares import Shares, checked_weights
from handful.evaluate.crossfit import CrossFit, as_units, cross_fit, units_of_classes
from handful.evaluate.curve import MODEL, Point, shots_curve

if TYPE_CHECKING:
    from handful.adapt.base import Features, Head

FOLDS = 10
"""Folds at most."""
LARGE, FEW = 2000, 5
"""Above so many items, so many folds."""
ROWS = 2000
"""Examples learnt from in all folds together that set how often they are dealt out anew."""
DEALS = 3
"""How often at most: more tells little that is new."""
DECAY = (0.4, 0.25)
"""Mean and standard deviation of b: between half of the shots and all it was 0.1 (SST-2) to 0.8 (WHU-RS19) on the ten
sets of ``benchmarks/trust.py``."""


@dataclass(frozen=True)
class Quoted:
    """An estimate for one model and one population.

    Attributes:
        accuracy: of the model that learnt from all labels, on new items; its interval is for this model.
        logits: of each item by a fit that had not seen it ``[n, C]``; NaN where there are none.
        judged: which items have them ``[n]``.
        fold: which fold an item was in ``[n]``, -1 for items learnt from in every fit.
        scale: what ``logits`` are to be multiplied with so that their softmax means what it says.
        decay: b, how fast errors fall with shots.
        curve: accuracy with fewer shots, and with all.
        method: in words.
    """

    accuracy: Estimate
    logits: np.ndarray
    judged: np.ndarray
    fold: np.ndarray
    scale: float
    decay: Estimate
    curve: tuple[Point, ...]
    method: str


def estimate(
    head: Head,
    features: Features,
    labels: np.ndarray,
    groups: np.ndarray | None = None,
    *,
    seed: int = 0,
    weights: np.ndarray | None = None,
    shift: np.ndarray | None = None,
    folds: int | None = None,
    budget_seconds: float | None = None,
) -> Quoted | None:
    """How good ``head`` is after learning from all of these items; ``None`` where fewer than two classes can be judged.

    Args:
        head: unfitted, or fitted: copies are made.
        features: of n items.
        labels: ``[n]``.
        groups: ``[n]``, items that belong together, near-duplicates among them; they never stand on both sides.
        seed: of folds and draws.
        weights: of the items ``[n]``, for a population with other class shares than the labels have.
        shift: added to scaled logits ``[C]`` before the answer is read off, for that population.
        folds: at most; by default what `usual_folds` says.
        budget_seconds: time for the curve; without it the same seed gives the same numbers.
    """
    codes = np.unique(labels, return_inverse=True)[1]
    units = as_units(groups, len(codes))
    folds = usual_folds(codes, units) if folds is None else folds
    first = cross_fit(head, features, labels, groups, folds=folds, seed=seed)
    if first is None:
        return None
    repeats = int(np.clip(ROWS // (first.folds * len(codes)), 1, DEALS))
    seeds = np.random.default_rng(seed).integers(2**31, size=repeats - 1)
    more = (cross_fit(head, features, labels, groups, folds=folds, seed=int(s)) for s in seeds)
    deals = [first, *(deal for deal in more if deal is not None)]

    curve = partial(shots_curve, head, features, labels, groups, seed=seed, budget_seconds=budget_seconds)
    return quote(deals, labels, groups, curve, weights=weights, shift=shift)


def quote(
    deals: Sequence[CrossFit],
    labels: np.ndarray,
    groups: np.ndarray | None,
    curve: Callable[..., list[Point]],
    *,
    weights: np.ndarray | None = None,
    shift: np.ndarray | None = None,
) -> Quoted:
    """What out-of-fold answers say of the model that learnt from all labels; arguments as `estimate`.

    Args:
        deals: answers of each item by fits that had not seen it, folds dealt out in as many ways.
        labels, groups: ``[n]``.
        curve: gives the accuracies with fewer shots, for ``weights`` and ``shift`` by name.
        weights, shift: of the population.
    """
    first, codes = deals[0], np.unique(labels, return_inverse=True)[1]
    units = as_units(groups, len(codes))
    scale = scale_of(first, codes)
    weight = np.where(first.judged, 1.0 if weights is None else weights, 0.0)
    weight = checked_weights(weight, len(codes))
    wrong = np.stack([_wrong(deal, codes, scale, shift) for deal in deals])
    known = np.stack([deal.known for deal in deals])
    items = Shares(None if groups is None else units, weight)
    worth = items.worth(wrong[0] == 0, first.judged)
    points = curve(weights=weight, shift=None if shift is None else shift / scale)
    shots = float(np.median(units_of_classes(codes, units)))
    b = decay(points, float((wrong * weight).mean()), float(known[:, first.judged].mean()) * shots, worth)

    left = wrong * weight * known**b.value
    value, slope = 1 - float(left.mean()), abs(float((left * np.log(known)).mean()))
    spread = slope * (b.high - b.low) / 2
    accuracy = widened(value, worth / MODEL, spread)
    full = Point(round(shots), len(codes), accuracy)
    return Quoted(
        accuracy,
        first.logits,
        first.judged,
        first.fold,
        scale,
        b,
        (*points, full),
        _method(first, len(deals), b, known),
    )


def usual_folds(codes: np.ndarray, units: np.ndarray) -> int:
    """As many folds as divide what the middle class has in shots: if each fold takes as many of every class, no fit
    knows less of the class it is asked for than of the others."""
    counts = units_of_classes(codes, units)
    if len(codes) > LARGE:
        return FEW
    shots = int(np.median(counts[counts >= 2])) if (counts >= 2).any() else 2
    even = [folds for folds in range(FEW, FOLDS + 1) if shots % folds == 0]
    return even[-1] if even else min(shots, FOLDS)


def decay(curve: Sequence[Point], error: float, shots: float, items: float) -> Estimate:
    """b of ``error ~ shots^-b`` and one standard deviation to either side, from a curve that ends in ``error``.

    The slope is taken from a quarter of the shots on (before, chance and class names rule), and drawn to `DECAY`; two
    errors in n items are known to within ``(1 - e) / (n e)`` in their logarithm.
    """
    usual, spread = DECAY
    quarter = round(shots / 4, 6)  # a mean of shares: 4 shots may read as 4.000000000000001
    before = [point for point in curve if quarter <= point.shots < shots and point.accuracy.value < 1]
    if not before or error <= 0:
        return Estimate(usual, usual - spread, usual + spread)
    start = 1 - before[0].accuracy.value
    length = math.log(shots / before[0].shots)
    noise = ((1 - error) / error + (1 - start) / start) / items / length**2
    trust = spread**2 / (spread**2 + noise)
    b = max(0.0, usual + trust * (math.log(start / error) / length - usual))
    left = spread * math.sqrt(1 - trust)
    return Estimate(b, b - left, b + left)


def widened(value: float, items: float, spread: float) -> Estimate:
    """Wilson's interval of a share seen among ``items`` that has an error of standard deviation ``spread`` besides."""
    variance = value * (1 - value)
    if variance > 0:
        items = variance / (variance / items + spread**2)
    return replace(wilson(value * items, items), value=value)


def _wrong(deal: CrossFit, codes: np.ndarray, scale: float, shift: np.ndarray | None) -> np.ndarray:
    """1 for an item that is answered wrongly ``[n]``, 0 for others and those not judged."""
    logits = np.where(deal.judged[:, None], deal.logits, 0.0) * scale + (0 if shift is None else shift)
    wrong: np.ndarray = (deal.judged & (logits.argmax(axis=1) != codes)).astype(float)
    return wrong


def scale_of(folds: CrossFit, codes: np.ndarray, share: np.ndarray | None = None) -> float:
    """What is left to multiply logits with, each head's own spread being in them; ``share``: what each item adds."""
    import torch

    from handful.core.calibration import fit_scale, hedged

    logits = torch.as_tensor(folds.logits[folds.judged])
    mask = torch.ones(logits.shape[1], dtype=torch.bool)
    y = torch.nn.functional.one_hot(torch.as_tensor(codes[folds.judged]), logits.shape[1]).double()
    if share is not None:
        y *= torch.as_tensor(share[folds.judged])[:, None]
    return float(fit_scale(logits, hedged(y, mask), mask)[0])


def _method(first: CrossFit, repeats: int, b: Estimate, known: np.ndarray) -> str:
    judged, n = int(first.judged.sum()), len(first.judged)
    dealt = "" if repeats == 1 else f", dealt out {repeats} times"
    text = f"{first.folds} stratified folds{dealt} over {judged} labelled items, every choice repeated inside each"
    if judged < n:
        text += f"; {n - judged} items alone in their class were learnt from but not judged"
    share = float(known[:, first.judged].mean())
    return f"{text}; corrected from {100 * share:.0f} % of the labels to all of them (error ~ labels^-{b.value:.2f})"
