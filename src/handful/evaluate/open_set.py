"""How well what is none of the classes is told from what is one of them.

    AUROC   share of the pairs of a known and an unknown item in which the unknown one has the higher score; its
            variance by DeLong, DeLong, Clarke-Pearson 1988, by groups Obuchowski 1997; interval on the logit scale
    FPR95   share of unknown items that are taken for known where 95 % of the known ones are
    threshold   the least t with  sum_i w_i [s_i > t] + 1 <= a (sum_i w_i + 1):  the conformal quantile, the
            ceil((n + 1) (1 - a))-th of n scores (Vovk, Gammerman, Shafer 2005); items of a group share a weight of one
            (Dunn, Wasserman, Ramdas 2022)

Paper 058 (GPAM, 2024): accuracy with "none" as a class, accuracy of known items, F1 of "none".
Paper 107: Pal et al., "Domain Adaptive Few-Shot Open-Set Learning", 2023: closed and open overall accuracy in
one-vs-rest form, sum (TP + TN) / all, which grows with the number of classes; harmonic mean of the accuracy of known
items and the recall of unknown ones.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import sparse

from handful.core.intervals import Estimate, resample, wilson
from handful.errors import BadInput

KNOWN = 0.95
"""Share of known items that FPR95 keeps."""
REPLICATES = 1000


@dataclass(frozen=True)
class OpenSet:
    """What `score_open_set` finds; what there are no items for is ``None``.

    Attributes:
        n: items, ``unknown`` of them of none of the classes.
        accuracy: share answered right, "none" counting as a class.
        known_accuracy: share of the known items.
        unknown_recall: share of the unknown items answered "none".
        harmonic: mean of these two.
        none_f1: F1 of the answer "none".
        auroc: of the scores.
        closed_one_vs_rest: over the classes and the known items that are given one, (TP + TN) / all.
        open_one_vs_rest: the same over all items, "none" being a class.
    """

    n: int
    unknown: int
    accuracy: float
    known_accuracy: float | None
    unknown_recall: float | None
    harmonic: float | None
    none_f1: float | None
    auroc: float | None
    closed_one_vs_rest: float | None
    open_one_vs_rest: float

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


def score_open_set(labels: Any, predicted: Any, scores: Any = None, unknown: Any = -1) -> OpenSet:
    """Judge answers to items of which some belong to none of the classes.

    Args:
        labels: true labels ``[n]``, ``unknown`` for items of no class.
        predicted: answers ``[n]``, ``unknown`` for "none of these".
        scores: ``[n]``, higher for what looks unknown; without them there is no AUROC.
        unknown: what stands for no class.

    Raises:
        BadInput: no items, or other numbers of them; scores that are NaN.
    """
    true, answer = np.asarray(labels, dtype=object), np.asarray(predicted, dtype=object)
    if not len(true) or true.shape != answer.shape or true.ndim != 1:
        raise BadInput(f"labels of shape {true.shape} and answers of shape {answer.shape} are not n of each, n > 0")
    none, said = true == unknown, answer == unknown
    right = true == answer
    classes = len({*true[~none].tolist(), *answer[~said].tolist()})
    known_accuracy = float(right[~none].mean()) if (~none).any() else None
    recall = float(said[none].mean()) if none.any() else None
    both = None if known_accuracy is None or recall is None else known_accuracy + recall
    wrong = ~right
    f1 = 2 * (none & said).sum() / (none.sum() + said.sum()) if (none | said).any() else None
    auroc = None
    if scores is not None:
        score = np.asarray(scores, dtype=float)
        if score.shape != true.shape or np.isnan(score).any():
            raise BadInput(f"scores of shape {score.shape} are not {len(true)} numbers")
        if none.any() and not none.all():
            auroc = separation(score[~none], score[none]).value
    return OpenSet(
        n=len(true),
        unknown=int(none.sum()),
        accuracy=float(right.mean()),
        known_accuracy=known_accuracy,
        unknown_recall=recall,
        harmonic=None if both is None else (0.0 if both == 0 else 2 * known_accuracy * recall / both),  # type: ignore[operator]
        none_f1=None if f1 is None else float(f1),
        auroc=auroc,
        # a wrong answer is a false negative of one class and a false positive of another
        closed_one_vs_rest=_one_vs_rest(wrong[~none & ~said], classes) if (~none & ~said).any() else None,
        open_one_vs_rest=_one_vs_rest(wrong, classes + int((none | said).any())),
    )


def _one_vs_rest(wrong: np.ndarray, classes: int) -> float:
    return 1 - 2 * float(wrong.mean()) / classes


def separation(known: np.ndarray, unknown: np.ndarray, groups: np.ndarray | None = None) -> Estimate:
    """AUROC with its 95 % interval.

    Args:
        known: scores of known items ``[n]``, high for what looks unknown.
        unknown: scores of unknown items ``[m]``.
        groups: of the known items ``[n]``; those of a group are not independent.

    Raises:
        BadInput: no known or no unknown items.
    """
    known, unknown = _scores(known, unknown)
    n, m = len(known), len(unknown)
    below, above = _placed(unknown, known), 1 - _placed(known, unknown)  # [m]: known below; [n]: unknown above
    value = float(below.mean())
    units = np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1]
    sums = np.bincount(units, above - value)
    count = len(sums)
    variance = count / max(count - 1, 1) * float(np.square(sums).sum()) / n**2
    variance += float(np.square(below - value).sum()) / max(m - 1, 1) / m
    floor = wilson(value * min(count, m), min(count, m))
    if variance <= 0 or not 0 < value < 1:
        return Estimate(value, floor.low, floor.high)
    half = 1.96 * variance**0.5 / (value * (1 - value))
    odds = np.log(value / (1 - value))
    low, high = (float(1 / (1 + np.exp(-(odds + side)))) for side in (-half, half))
    return Estimate(value, low, high)


def false_positives(
    known: np.ndarray, unknown: np.ndarray, groups: np.ndarray | None = None, *, seed: int = 0
) -> Estimate:
    """FPR95 with its 95 % interval: both kinds of items are resampled, so that the threshold moves too.

    Args:
        known, unknown, groups: as `separation` takes them.
        seed: of the resampling.
    """
    known, unknown = _scores(known, unknown)
    steps, place = np.unique(known, return_inverse=True)
    table = sparse.csr_array((np.ones(len(known)), (np.arange(len(known)), place)), shape=(len(known), len(steps)))

    def threshold(counts: np.ndarray) -> np.ndarray:
        reached = np.cumsum(counts, axis=1) >= KNOWN * counts.sum(axis=1, keepdims=True) - 1e-9
        out: np.ndarray = steps[reached.argmax(axis=1)][:, None]
        return out

    value = float((unknown <= threshold(np.asarray(table.sum(axis=0))[None])[0, 0]).mean())
    drawn = resample(table, threshold, groups=groups, replicates=REPLICATES, seed=seed)[:, 0]
    taken = np.searchsorted(np.sort(unknown), drawn, side="right") / len(unknown)
    taken = np.random.default_rng(seed).binomial(len(unknown), taken) / len(unknown)
    low, high = np.quantile(taken, [0.025, 0.975])
    floor = wilson(value * len(unknown), len(unknown))
    return Estimate(value, min(float(low), floor.low), max(float(high), floor.high))


def conformal_threshold(
    scores: np.ndarray, share: float, weights: np.ndarray | None = None, groups: np.ndarray | None = None
) -> float | None:
    """The score above which at most ``share`` of new known items are; ``None`` where there are too few to say.

    Args:
        scores: of known items by fits that had not seen them ``[n]``.
        share: above 0 and below 1.
        weights: how often items like each come, over how often they come here ``[n]``.
        groups: ``[n]``; a group counts as one item.
    """
    scores = np.asarray(scores, dtype=float)
    weight = np.ones(len(scores)) if weights is None else np.asarray(weights, dtype=float)
    if groups is not None:
        units = np.unique(groups, return_inverse=True)[1]
        weight = weight / np.bincount(units)[units]
        weight = weight * (units.max() + 1) / weight.sum() if weight.any() else weight
    one = 1.0 if weights is None else float(weight.sum() / (weight > 0).sum())
    order = np.argsort(scores, kind="stable")
    beyond = weight.sum() - np.cumsum(weight[order])  # weight above each score, equal scores not yet together
    enough = beyond + one <= share * (weight.sum() + one) + 1e-9 * one
    return float(scores[order][enough.argmax()]) if enough.any() else None


def least_items(share: float) -> int:
    """How many known items a threshold for this share of false alarms takes."""
    return int(np.ceil(1 / share - 1 - 1e-9))


def _placed(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Share of ``b`` below each of ``a``, equal ones counting half."""
    ordered = np.sort(b)
    out: np.ndarray = (np.searchsorted(ordered, a, "left") + np.searchsorted(ordered, a, "right")) / (2 * len(b))
    return out


def _scores(known: np.ndarray, unknown: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    found = np.asarray(known, dtype=float), np.asarray(unknown, dtype=float)
    if not len(found[0]) or not len(found[1]):
        raise BadInput(f"{len(found[0])} known and {len(found[1])} unknown items: at least one of each is needed")
    if any(np.isnan(part).any() for part in found):
        raise BadInput("a score is not a number")
    return found
