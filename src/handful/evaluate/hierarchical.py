"""How right answers in a tree of labels are (203, Hierarchical Verbalizer, 2023).

    micro, macro     F1 over all labels of the tree
    C                a right label counts only where all its ancestors were right too
    P                F1 over paths from root to leaf: a path is answered when all its labels are; times
                     a = 1 - 2 (sigmoid(x) - 1/2),  x = answered labels that are in no answered path / true labels
    exact            share of texts all of whose labels are right, and no other

Macro means run over every label, or path, of the tree, also those that do not occur.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from handful.core.hierarchy import SEPARATOR, Hierarchy
from handful.errors import BadInput, nearest


@dataclass(frozen=True)
class TreeScores:
    """See `handful.evaluate.hierarchical`; all from 0 to 1.

    Args:
        micro, macro: F1 over labels.
        c_micro, c_macro: with the ancestors right.
        p_micro, p_macro: over paths.
        discount: a.
        exact: P_acc.
    """

    micro: float
    macro: float
    c_micro: float
    c_macro: float
    p_micro: float
    p_macro: float
    discount: float
    exact: float


def hierarchical_scores(
    predicted: Sequence[Collection[str]], gold: Sequence[Collection[str]], tree: Hierarchy, *, repo: bool = False
) -> TreeScores:
    """Scores of answers that name a label a level (or several).

    Args:
        predicted, gold: of each of n texts its labels at all levels, by their paths from the root: ``{"a", "a > b"}``.
        tree: of the labels.
        repo: count a label that two answered paths share twice, as the authors' code does.

    Raises:
        BadInput: nothing to score; a label that the tree does not have; a text without a true label.
    """
    if len(predicted) != len(gold) or not gold:
        raise BadInput(f"{len(predicted)} answers for {len(gold)} texts")
    names = [name for level in tree.levels for name in level]
    place = {name: i for i, name in enumerate(names)}
    said, true = _table(predicted, place), _table(gold, place)
    if not true.any(1).all():
        raise BadInput(f"text {int((~true.any(1)).argmax())} has no true label")
    lineage = np.array([[name == other or name.startswith(other + SEPARATOR) for other in names] for name in names])
    paths = lineage[[place[leaf] for leaf in tree.levels[-1]]]
    right = said & true
    whole = right & _covers(right, lineage)
    said_paths, true_paths = _covers(said, paths), _covers(true, paths)
    within = (said_paths @ paths.astype(int)) if repo else (said_paths @ paths)
    x = (said.sum() - within.sum()) / true.sum()
    a = 1 - 2 * (1 / (1 + math.exp(-x)) - 0.5)
    micro, macro = _f1(right, said, true)
    c_micro, c_macro = _f1(whole, said, true)
    p_micro, p_macro = _f1(said_paths & true_paths, said_paths, true_paths)
    exact = float((said == true).all(1).mean())
    return TreeScores(micro, macro, c_micro, c_macro, a * p_micro, a * p_macro, a, exact)


def _table(labels: Sequence[Collection[str]], place: dict[str, int]) -> np.ndarray:
    out = np.zeros((len(labels), len(place)), bool)
    for row, some in enumerate(labels):
        for name in some:
            if name not in place:
                raise BadInput(f"text {row}: the hierarchy has no label {name!r}{nearest(name, place)}")
            out[row, place[name]] = True
    return out


def _covers(table: np.ndarray, sets: np.ndarray) -> np.ndarray:
    """Which of the sets ``[m, L]`` are whole in each row of ``table [n, L]``: ``[n, m]``."""
    return np.asarray(table.astype(int) @ sets.T.astype(int) == sets.sum(1))


def _f1(right: np.ndarray, said: np.ndarray, true: np.ndarray) -> tuple[float, float]:
    """Micro and macro F1 over columns."""
    hits, both = right.sum(0), said.sum(0) + true.sum(0)
    return float(2 * hits.sum() / max(both.sum(), 1)), float((2 * hits / np.maximum(both, 1)).mean())
