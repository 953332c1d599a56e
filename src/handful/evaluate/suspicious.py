"""Labels that look wrong, by probabilities of a fit that has not seen them.

Northcutt, Jiang, Chuang (2021), Confident learning: estimating uncertainty in dataset labels. The threshold of a class
is its mean probability among the items labelled so,

    t_k = mean of p_k(x) over x with label k,

and an item belongs confidently to the most probable class whose threshold it reaches. Where that is another class than
the given one, the label is a candidate. From a handful of shots a model confuses similar classes with confidence, which
makes many a right label a candidate; so the given class must also be ruled out, by a probability below half of chance,
1 / (2 C).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RULED_OUT = 0.5
"""Share of chance, 1 / C, that the given class stays below."""


@dataclass(frozen=True)
class Suspicion:
    """A label that looks wrong: the row, the given and the suggested class (codes), and the probability of each."""

    row: int
    given: int
    suggested: int
    p_given: float
    p_suggested: float


def suspicious_labels(labels_codes: np.ndarray, proba: np.ndarray, judged: np.ndarray) -> list[Suspicion]:
    """The labels that look wrong, the least probable first.

    Args:
        labels_codes: the class of each item ``[n]``, columns of ``proba``.
        proba: out-of-fold probabilities ``[n, C]``.
        judged: which items have such ``[n]``; the others are never suspected.
    """
    rows = np.flatnonzero(judged)
    given, p = np.asarray(labels_codes)[rows], np.asarray(proba, dtype=np.float64)[rows]
    n, c = p.shape
    one_hot = given[:, None] == np.arange(c)
    labelled = one_hot.sum(axis=0)
    threshold = np.where(labelled > 0, (p * one_hot).sum(axis=0) / np.maximum(labelled, 1), np.inf)
    confident = np.where(p >= threshold, p, -1.0)
    suggested = confident.argmax(axis=1)
    p_given, p_suggested = p[np.arange(n), given], confident[np.arange(n), suggested]
    wrong = (p_suggested >= 0) & (suggested != given) & (p_given < RULED_OUT / c)
    found = np.flatnonzero(wrong)
    return [
        Suspicion(int(rows[i]), int(given[i]), int(suggested[i]), float(p_given[i]), float(p_suggested[i]))
        for i in found[np.argsort(p_given[found], kind="stable")]
    ]
