"""From which score on an item is called none of the classes, and how well that tells unknown items from known ones.

All scores are of items that the fit, and the rejecter, had not seen:

    known      by the fits that left each fold out; from these the threshold is taken (`open_set.conformal_threshold`)
    negatives  items of none of the classes, if there are any: dealt out over the folds, each is scored by one of these
               fits; a rejecter that learns from negatives learns from those of other folds. The share found is counted
               with all labelled items learnt from
    otherwise  up to `MOST` classes are left out in turn and play the unknown, a fold of the others being left out too;
               AUROC, FPR95 and the share found are means over these classes

A rejecter that learns from features finds items it has not seen the farther, the fewer it learnt from: with all labels
the known items will score lower than in the folds. Of F folds, two are left out in turn as well as one; what that adds
to the scores, as 1 / shots goes, is (F - 2) / F of it more than what leaving out one adds, and is taken off. Logits are
not corrected: a head that chooses its strengths anew follows no such law.

The share of false alarms that is quoted is counted with thresholds that each fold's own items had no part in.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from handful.core.intervals import Estimate, mean_interval, wilson
from handful.core.shares import Shares
from handful.errors import BadInput
from handful.evaluate.crossfit import answers, as_units
from handful.evaluate.open_set import conformal_threshold, false_positives, least_items, separation

if TYPE_CHECKING:
    from handful.adapt.base import Features, Head
    from handful.adapt.reject.base import Rejecter
    from handful.evaluate.estimate import Quoted

MOST = 20
"""Classes that are left out in turn, at most."""


@dataclass(frozen=True)
class Rejecting:
    """What `rejecting` finds; ``auroc``, ``fpr95`` and ``found`` are ``None`` where nothing could play the unknown.

    Attributes:
        threshold: above it an item is none of the classes.
        false_alarms: share of known items above it.
        found: share of unknown items above it.
        auroc, fpr95: of the scores.
        basis: ``"negatives"``, ``"classes left out"`` or ``"none"``.
        method: in words.
        known, unknown: how many items they rest on.
    """

    threshold: float
    false_alarms: Estimate
    found: Estimate | None
    auroc: Estimate | None
    fpr95: Estimate | None
    basis: str
    method: str
    known: int
    unknown: int

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        values = {name: getattr(self, name) for name in ("false_alarms", "found", "auroc", "fpr95")}
        return {
            **{name: getattr(self, name) for name in ("threshold", "basis", "method", "known", "unknown")},
            **{name: None if value is None else value.as_dict() for name, value in values.items()},
        }


def rejecting(
    rejecter: Rejecter,
    head: Head,
    features: Features,
    labels: np.ndarray,
    groups: np.ndarray | None,
    quoted: Quoted,
    share: float,
    *,
    weights: np.ndarray | None = None,
    negatives: Features | None = None,
    seed: int = 0,
    budget_seconds: float = math.inf,
) -> Rejecting:
    """Choose the threshold and judge it.

    Args:
        rejecter: how unknown items are told.
        head: whose logits it sees; copies are fitted.
        features, labels, groups: of the n items, as `estimate` takes them.
        quoted: the estimate of ``head`` on them.
        share: of the known items that may be called unknown.
        weights: of the items ``[n]``, for a population with other class shares.
        negatives: items of none of the classes.
        seed: of draws.
        budget_seconds: time for leaving classes out; without it the same seed gives the same numbers.

    Raises:
        BadInput: too few items for that share.
    """
    run = _Run(rejecter, head, features, labels, as_units(groups, len(labels)), quoted, seed)
    known, judged = run.known(negatives), quoted.judged
    units, weight = None if groups is None else run.units[judged], None if weights is None else weights[judged]
    threshold = conformal_threshold(known[judged] - run.surplus(negatives, known), share, weight, units)
    if threshold is None:
        have = int(judged.sum()) if groups is None else len(np.unique(run.units[judged]))
        raise BadInput(
            f"--false-alarms {share:g} takes {least_items(share)} labelled items (groups of items) to choose a "
            f"threshold from, and there are {have}: label more, or allow more false alarms"
        )
    alarms = Shares(units, weight)(
        _rejected(known[judged], quoted.fold[judged], share, weight, units), np.ones(int(judged.sum()), bool)
    )
    if negatives is not None:
        unknown = run.unknown(negatives)
        caught = run.shipped(negatives) > threshold
        return Rejecting(
            threshold,
            alarms,
            Shares()(caught, np.ones(len(unknown), bool)),
            separation(known[judged], unknown, units),
            false_positives(known[judged], unknown, units, seed=seed),
            "negatives",
            f"{len(unknown):,} items of none of the classes and {int(judged.sum()):,} labelled ones, each scored by a "
            "fit that had not seen it",
            int(judged.sum()),
            len(unknown),
        )
    rounds, of = run.left_out(share, budget_seconds)
    if not rounds:
        why = "there are only two classes" if len(np.unique(labels)) < 3 else "no time was left"
        method = f"not measured: {why} to leave any out; --negatives measures it"
        return Rejecting(threshold, alarms, None, None, None, "none", method, int(judged.sum()), 0)
    found, auroc, fpr95 = (_mean([getattr(r, name) for r in rounds]) for name in _Round.SCORES)
    many = "each class" if len(rounds) == of else f"{len(rounds)} of the {of} classes"
    method = f"simulated: {many} in turn played the unknown, with a fit that had not seen it; means over these classes"
    return Rejecting(
        threshold, alarms, found, auroc, fpr95, "classes left out", method,
        sum(r.known for r in rounds), sum(r.unknown for r in rounds),
    )  # fmt: skip


@dataclass(frozen=True)
class _Round:
    """What one class that was left out comes to."""

    SCORES = ("found", "auroc", "fpr95")

    found: float
    auroc: float
    fpr95: float
    known: int
    unknown: int


@dataclass(frozen=True)
class _Run:
    rejecter: Rejecter
    head: Head
    features: Features
    labels: np.ndarray
    units: np.ndarray
    quoted: Quoted
    seed: int

    def known(self, negatives: Features | None) -> np.ndarray:
        """Score of each item by the fit that left it out ``[n]``, NaN where there is none."""
        q = self.quoted
        out = np.full(len(self.labels), np.nan)
        for part in range(int(q.fold.max()) + 1):
            held = np.flatnonzero((q.fold == part) & q.judged)
            state = self._state(np.flatnonzero(q.fold != part), self._others(negatives, part))
            out[held] = self.rejecter.scores(state, self.features.take(held), q.scale * q.logits[held])
        return out

    def surplus(self, negatives: Features | None, known: np.ndarray) -> float:
        """By how much scores of items not learnt from are higher with a fold left out than with none."""
        q, folds = self.quoted, int(self.quoted.fold.max()) + 1
        if not self.rejecter.learns or folds < 3:
            return 0.0
        more = []
        for part in range(folds):
            learn = np.flatnonzero((q.fold != part) & (q.fold != (part + 1) % folds))
            held = np.flatnonzero((q.fold == part) & q.judged & np.isin(self.labels, self.labels[learn]))
            if len(held) and len(np.unique(self.labels[learn])) > 1:
                state = self._state(learn, self._others(negatives, part))
                scores = self.rejecter.scores(state, self.features.take(held), q.scale * q.logits[held])
                more.append(scores - known[held])
        return (folds - 2) / folds * float(np.concatenate(more).mean()) if more else 0.0

    def unknown(self, negatives: Features) -> np.ndarray:
        """Score of each negative ``[m]`` by one of these fits."""
        deal = self._deal(len(negatives))
        out = np.empty(len(deal))
        for part in np.unique(deal):
            learn, held = np.flatnonzero(self.quoted.fold != part), np.flatnonzero(deal == part)
            seen = negatives.take(held)
            state = self._state(learn, self._others(negatives, part))
            out[held] = self.rejecter.scores(state, seen, self._logits(learn, seen))
        return out

    def shipped(self, negatives: Features) -> np.ndarray:
        """Score of each negative ``[m]`` with all labelled items learnt from, and no negative of its fold."""
        everything, deal = np.arange(len(self.labels)), self._deal(len(negatives))
        logits = self._logits(everything, negatives)
        if not self.rejecter.negatives:
            return self.rejecter.scores(self._state(everything, None), negatives, logits)
        out = np.empty(len(negatives))
        for part in np.unique(deal):
            held = np.flatnonzero(deal == part)
            state = self._state(everything, self._others(negatives, part))
            out[held] = self.rejecter.scores(state, negatives.take(held), logits[held])
        return out

    def left_out(self, share: float, seconds: float) -> tuple[list[_Round], int]:
        """Classes that played the unknown, and of how many."""
        q, start = self.quoted, time.monotonic()
        classes = np.unique(self.labels[q.judged])
        rounds: list[_Round] = []
        if len(np.unique(self.labels)) < 3:
            return rounds, len(classes)
        chosen = np.sort(np.random.default_rng(self.seed).permutation(len(classes))[:MOST])
        for i, name in enumerate(classes[chosen]):
            if time.monotonic() - start > seconds:
                break
            other = self.labels != name
            held = np.flatnonzero(other & q.judged & (q.fold == i % (int(q.fold.max()) + 1)))
            learn = np.flatnonzero(other & (q.fold != i % (int(q.fold.max()) + 1)))
            alien = np.flatnonzero(~other & ~np.isin(self.units, self.units[learn]))
            if not len(held) or not len(alien) or len(np.unique(self.labels[learn])) < 2:
                continue
            asked = np.concatenate([held, alien])
            logits = np.zeros((len(asked), 1))
            if not self.rejecter.learns:
                logits = q.scale * answers(self.head, self.features, self.labels, learn, asked)
            scores = self.rejecter.scores(self._state(learn, None), self.features.take(asked), logits)
            known, unknown = scores[: len(held)], scores[len(held) :]
            at = float(np.quantile(known, 1 - share, method="higher"))
            rounds.append(
                _Round(
                    float((unknown > at).mean()),
                    separation(known, unknown).value,
                    false_positives(known, unknown).value,
                    len(held),
                    len(alien),
                )
            )
        return rounds, len(classes)

    def _logits(self, learn: np.ndarray, asked: Features) -> np.ndarray:
        """Scaled logits of further items by the head fitted on ``learn``; zeros where nobody looks at them."""
        if self.rejecter.learns:
            return np.zeros((len(asked), self.quoted.logits.shape[1]))
        both, n = joined(self.features, asked), len(self.labels)
        labels = np.concatenate([self.labels, [self.labels[0]] * len(asked)])
        return self.quoted.scale * answers(self.head, both, labels, learn, np.arange(n, n + len(asked)))

    def _state(self, learn: np.ndarray, negatives: Features | None) -> Any:
        return self.rejecter.fit(self.features.take(learn), self.labels[learn], negatives, self.seed)

    def _deal(self, m: int) -> np.ndarray:
        """Fold of each negative ``[m]``."""
        dealt: np.ndarray = np.random.default_rng(self.seed).permutation(m) % (int(self.quoted.fold.max()) + 1)
        return dealt

    def _others(self, negatives: Features | None, part: int) -> Features | None:
        """Negatives of other folds, for a rejecter that learns from them."""
        if negatives is None or not self.rejecter.negatives:
            return None
        rest = np.flatnonzero(self._deal(len(negatives)) != part)
        return negatives.take(rest) if len(rest) else None


def _mean(values: list[float]) -> Estimate:
    """Mean over classes; where they hardly differ, no surer than as many answers of yes or no would make it."""
    mean, floor = mean_interval(values, within=(0, 1)), wilson(sum(values), len(values))
    return Estimate(mean.value, min(mean.low, floor.low), max(mean.high, floor.high))


def _rejected(
    scores: np.ndarray, fold: np.ndarray, share: float, weights: np.ndarray | None, units: np.ndarray | None
) -> np.ndarray:
    """Which items ``[n]`` are above the threshold that the items of other folds give."""
    out = np.zeros(len(scores), bool)
    for part in np.unique(fold):
        rest = fold != part
        at = conformal_threshold(
            scores[rest], share, None if weights is None else weights[rest], None if units is None else units[rest]
        )
        if at is not None:
            out |= ~rest & (scores > at)
    return out


def joined(a: Features, b: Features) -> Features:
    """The rows of both, in the views both have."""
    views = {name: np.concatenate([a.views[name], b.views[name]]) for name in a.views if name in b.views}
    items = None if a.items is None else np.concatenate([a.items, a.items.max() + 1 + np.arange(len(b))])
    return type(a)(np.concatenate([a.x, b.x]), views, items)
