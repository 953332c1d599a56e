"""Two test sets for one task: how much accuracy falls on fresh items, and what that says about the old ones.

Paper 136: Recht, Roelofs, Schmidt, Shankar, "Do ImageNet Classifiers Generalize to ImageNet?", 2019.

    g(new) = slope g(old) + intercept       least squares over models; g is probit (the inverse of Phi), logit or linear
    drop = old - new                        of each model
    L_S - L_S' = adaptivity + distribution + generalisation
                 (L_S - L_D) + (L_D - L_D') + (L_D' - L_S')

S, S' are the old and the new items, D, D' what they are drawn from. The last gap is no larger than Clopper and
Pearson's interval of the new accuracy; what is left of the drop is adaptivity and distribution together. They are told
apart by the order of the models: a test set that was used too often flatters most the models tuned on it longest, so
that a point gained on it is worth less than a point on fresh items (a linear slope below 1). Intervals of the fit
resample models.

Taori, Dave, Shankar, Carlini, Recht, Schmidt, "Measuring Robustness to Natural Distribution Shifts", 2020:

    effective robustness = new - g^-1(slope g(old) + intercept)         of a model, by the line of the others
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from scipy import special, stats

from handful.core.intervals import Estimate, clopper_pearson, percentiles, resample
from handful.errors import BadInput

Scale = Literal["probit", "logit", "linear"]
SCALES = {
    "probit": (special.ndtri, special.ndtr),
    "logit": (special.logit, special.expit),
    "linear": (np.asarray, np.asarray),
}
"""g and its inverse."""
LEAST = 3
"""Models a line needs."""


@dataclass(frozen=True)
class ModelPair:
    """One model on both sets.

    Attributes:
        model: its name.
        old, new: accuracy with Clopper and Pearson's interval, which is the value alone where sizes are not given.
        drop: ``old - new``.
        residual: ``new`` less what the line expects of it.
        rank_old, rank_new: 1 for the best; equals share their mean.
    """

    model: str
    old: Estimate
    new: Estimate
    drop: float
    residual: float
    rank_old: float
    rank_new: float

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {**vars(self), "old": self.old.as_dict(), "new": self.new.as_dict()}


@dataclass(frozen=True)
class ShiftFit:
    """The line through the models' accuracies on two test sets.

    Attributes:
        scale: in which the line is straight.
        slope, intercept: on that scale, with intervals over models.
        r2: share of the variance on that scale that the line explains.
        worth: what a point gained on the old set is worth on the new one: the slope on the linear scale.
        drop: mean of ``old - new``, with its interval over models.
        smallest, largest: drop of a single model.
        rank_correlation: Spearman's.
        rank_changes: how many models change places.
        models: each of them.
        clipped: models at 0 or 1, moved half an item inwards for the scale.
        verdict: `"no drop"`, `"harder"` (the order holds) or `"flattered"` (the old set may have been used too often).
        sentence: the verdict in words.
        lines: slope and intercept of each resampling ``[R, 2]``, for `expected`.
    """

    scale: Scale
    slope: Estimate
    intercept: Estimate
    r2: float
    worth: Estimate
    drop: Estimate
    smallest: float
    largest: float
    rank_correlation: float
    rank_changes: int
    models: tuple[ModelPair, ...]
    clipped: tuple[str, ...]
    verdict: Literal["no drop", "harder", "flattered"]
    sentence: str
    lines: np.ndarray = field(repr=False, compare=False)

    def expected(self, old: float, confidence: float = 0.95) -> Estimate:
        """Accuracy on the new set of a model with ``old`` on the old one: the line and its band at that point."""
        there, back = SCALES[self.scale]
        x = there(_inside(old, self.scale))
        band = back(self.lines[:, 0] * x + self.lines[:, 1])
        return percentiles(float(back(self.slope.value * x + self.intercept.value)), band, confidence)

    def as_dict(self) -> dict[str, Any]:
        """JSON-able; without the resampled lines."""
        plain = {key: value for key, value in vars(self).items() if key != "lines"}
        plain |= {key: value.as_dict() for key, value in plain.items() if isinstance(value, Estimate)}
        return {**plain, "models": [pair.as_dict() for pair in self.models], "clipped": list(self.clipped)}


@dataclass(frozen=True)
class Gap:
    """What a drop is made of, for one model.

    Attributes:
        drop: ``old - new``.
        generalisation: the most that chance in the new items can account for, to either side.
        rest: adaptivity and distribution gap together.
    """

    drop: float
    generalisation: float
    rest: Estimate

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {"drop": self.drop, "generalisation": self.generalisation, "rest": self.rest.as_dict()}


def robustness_fit(
    old: Any,
    new: Any,
    scale: Scale = "probit",
    *,
    models: Sequence[str] | None = None,
    n_old: Any = None,
    n_new: Any = None,
    replicates: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> ShiftFit:
    """Compare models on an old and a newly collected test set.

    Args:
        old, new: accuracy of each model on either set, shares ``[M]``.
        scale: in which the line is drawn.
        models: their names; by default ``"0"``, ``"1"``, …
        n_old, n_new: items of either set, for intervals of each accuracy and where one is 0 or 1; one number, or one
            for each model, all equal.
        replicates: resamplings of the models. The authors draw 100,000.
        confidence: of every interval.
        seed: of the resampling.

    Raises:
        BadInput: fewer than three models, accuracies in percent or missing, models judged on different numbers of
            items, an accuracy of 0 or 1 on a scale where that is infinite and no size of the set, a confidence or a
            number of replicates out of range.
    """
    old, new = _shares(old, "old"), _shares(new, "new")
    names = tuple(map(str, range(len(old)) if models is None else models))
    if not len(old) == len(new) == len(names):
        raise BadInput(f"old, new and models tell of {len(old)}, {len(new)} and {len(names)} models: one row for each")
    if len(old) < LEAST:
        raise BadInput(f"a line through {len(old)} models shows nothing: give at least {LEAST}")
    if scale not in SCALES:
        raise BadInput(f"unknown scale {scale!r}; there are: {', '.join(SCALES)}")
    if not 0 < confidence < 1 or replicates < 1:
        raise BadInput(f"confidence is between 0 and 1 and replicates at least 1, not {confidence} and {replicates}")
    sizes = _size(n_old, "n_old"), _size(n_new, "n_new")
    x, y, clipped = *(_on_scale(a, n, scale) for a, n in zip((old, new), sizes, strict=True)), []
    if scale != "linear":
        clipped = [name for name, a, b in zip(names, old, new, strict=True) if {a, b} & {0.0, 1.0}]
    if np.ptp(old) == 0:
        raise BadInput(f"all models have {old[0]:.4g} on the old set: a line needs models that differ")

    rows = np.stack([np.ones_like(x), x, y, x * x, x * y, old, new, old * old, old * new], axis=1)
    value = _statistics(rows.sum(axis=0)[None])[0]
    drawn = resample(rows, _statistics, replicates=replicates, seed=seed)
    slope, intercept, worth, drop = (percentiles(float(v), d, confidence) for v, d in zip(value, drawn.T, strict=True))
    verdict, sentence = _verdict(drop, worth)

    left = y - slope.value * x - intercept.value
    spread = float(np.square(y - y.mean()).sum())
    expected = SCALES[scale][1](slope.value * x + intercept.value)
    rank_old, rank_new = stats.rankdata(-old), stats.rankdata(-new)
    pairs = tuple(
        ModelPair(
            name, _interval(a, sizes[0], confidence), _interval(b, sizes[1], confidence), float(a - b), float(b - e),
            float(r), float(s),
        )
        for name, a, b, e, r, s in zip(names, old, new, expected, rank_old, rank_new, strict=True)
    )  # fmt: skip
    return ShiftFit(
        scale=scale,
        slope=slope,
        intercept=intercept,
        r2=1 - float(np.square(left).sum()) / spread if spread > 0 else 1.0,
        worth=worth,
        drop=drop,
        smallest=float((old - new).min()),
        largest=float((old - new).max()),
        rank_correlation=float(stats.spearmanr(old, new).statistic) if np.ptp(new) > 0 else 0.0,
        rank_changes=int((rank_old != rank_new).sum()),
        models=pairs,
        clipped=tuple(clipped),
        verdict=verdict,
        sentence=sentence,
        lines=drawn[np.isfinite(drawn[:, 0]), :2],
    )


def effective_robustness(old: float, new: float, fit: ShiftFit, confidence: float = 0.95) -> Estimate:
    """By how much a model is better on the new set than the line of other models expects; the interval is the line's.

    Raises:
        BadInput: accuracies in percent, or ``old`` 0 or 1 on a scale where that is infinite.
    """
    accuracy = float(_shares([new], "new")[0])
    expected = fit.expected(float(_shares([old], "old")[0]), confidence)
    return Estimate(accuracy - expected.value, accuracy - expected.high, accuracy - expected.low)


def gap(old: float, new: float, n_new: int, confidence: float = 0.95) -> Gap:
    """What the drop of one model from ``old`` to ``new``, seen on ``n_new`` items, is made of.

    Raises:
        BadInput: accuracies in percent, no items.
    """
    old, new = float(_shares([old], "old")[0]), float(_shares([new], "new")[0])
    seen = clopper_pearson(new * n_new, n_new, confidence)
    return Gap(old - new, max(seen.high - new, new - seen.low), Estimate(old - new, old - seen.high, old - seen.low))


def _statistics(sums: np.ndarray) -> np.ndarray:
    """Slope, intercept, linear slope and mean drop ``[R, 4]`` from sums over models; NaN where all are one model."""
    n, x, y, xx, xy, a, b, aa, ab = sums.T

    def line(x: np.ndarray, y: np.ndarray, xx: np.ndarray, xy: np.ndarray) -> np.ndarray:
        across = n * xx - x * x
        slope: np.ndarray = (n * xy - x * y) / np.where(across > 1e-12 * n * np.abs(xx), across, np.nan)
        return slope

    slope = line(x, y, xx, xy)
    return np.stack([slope, (y - slope * x) / n, line(a, b, aa, ab), (a - b) / n], axis=1)


def _verdict(drop: Estimate, worth: Estimate) -> tuple[Literal["no drop", "harder", "flattered"], str]:
    points = f"{100 * drop.value:.1f} points [{100 * drop.low:.1f}, {100 * drop.high:.1f}]"
    gained = f"a point gained on the old set is worth {worth.value:.2f} [{worth.low:.2f}, {worth.high:.2f}] on the new"
    if drop.low <= 0:
        return "no drop", f"no drop on the new set is shown: {points} over models; {gained}"
    if worth.high < 1:
        return (
            "flattered",
            f"accuracy drops by {points}, most for models best on the old set ({gained}): it may be worn",
        )
    return "harder", f"accuracy drops by {points} and the gains hold ({gained}): the new items are harder"


def _shares(accuracy: Any, what: str) -> np.ndarray:
    values = np.asarray(accuracy, dtype=float)
    if values.ndim != 1:
        raise BadInput(f"{what} accuracies are a list, one for each model, not of shape {values.shape}")
    bad = np.flatnonzero(~((values >= 0) & (values <= 1)))
    if len(bad):
        hint = "; these look like percent: divide by 100" if (values[bad] > 1).all() and values.max() <= 100 else ""
        raise BadInput(f"{what} accuracy of model {bad[0]} is {values[bad[0]]:g}, not a share from 0 to 1{hint}")
    return values


def _size(n: Any, what: str) -> int | None:
    if n is None:
        return None
    sizes = np.unique(np.asarray(n))
    if len(sizes) != 1:
        raise BadInput(f"{what}: models were judged on {sizes.min()} to {sizes.max()} items: use the same for all")
    if not sizes[0] >= 1:
        raise BadInput(f"{what} is {sizes[0]}: a test set has items")
    return int(sizes[0])


def _on_scale(accuracy: np.ndarray, n: int | None, scale: Scale) -> np.ndarray:
    inside = accuracy if n is None or scale == "linear" else np.clip(accuracy, 0.5 / n, 1 - 0.5 / n)
    mapped: np.ndarray = SCALES[scale][0](np.array([_inside(value, scale) for value in inside]))
    return mapped


def _inside(accuracy: float, scale: Scale) -> float:
    if scale != "linear" and accuracy in (0, 1):
        raise BadInput(f"an accuracy of {accuracy:g} is infinite on the {scale} scale: give n_old, n_new or use linear")
    return accuracy


def _interval(accuracy: float, n: int | None, confidence: float) -> Estimate:
    value = float(accuracy)
    return Estimate(value, value, value) if n is None else clopper_pearson(value * n, n, confidence)
