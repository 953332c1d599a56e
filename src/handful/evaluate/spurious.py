"""Measures of what a context does to few-shot accuracy and to embeddings.

Paper 135: Min Zhang, Haoxuan Li, Fei Wu, Kun Kuang, "MetaCoCo: A New Few-Shot Classification Benchmark with Spurious
Correlation", 2024. Episodes are drawn by `handful.evaluate.contexts`.

    gap        accuracy of the control - accuracy of the spurious episodes, paired by episode

The shift of a set of embeddings x with a unit vector e of each concept and context:

    M_ce = mean cos(x_i, e_concept(i))     M_co = mean cos(x_i, e_context(i))     ratio M_co / M_ce
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from handful.core.intervals import Estimate, mean_interval, wilson
from handful.errors import BadInput
from handful.evaluate.contexts import named


@dataclass(frozen=True)
class ContextGap:
    """Accuracy of both kinds of episodes, and the paired gap, with 95 % intervals."""

    spurious: Estimate
    control: Estimate
    gap: Estimate

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {name: value.as_dict() for name, value in self.__dict__.items()}


def context_gap(spurious: np.ndarray, control: np.ndarray) -> ContextGap:
    """The gap from accuracies ``[E]`` of paired episodes (`handful.evaluate.episodic.run`).

    Raises:
        BadInput: they are not as many, or not all shares from 0 to 1.
    """
    spurious, control = np.asarray(spurious, float), np.asarray(control, float)
    if spurious.shape != control.shape or spurious.ndim != 1 or not len(spurious):
        raise BadInput(f"accuracies of {spurious.shape} and {control.shape} episodes are not paired")
    if not all(((part >= 0) & (part <= 1)).all() for part in (spurious, control)):
        raise BadInput("an accuracy is no number from 0 to 1")
    return ContextGap(
        mean_interval(spurious, within=(0, 1)),
        mean_interval(control, within=(0, 1)),
        mean_interval(control - spurious, within=(-1, 1)),
    )


@dataclass(frozen=True)
class ContextTable:
    """Accuracy of each concept in each context.

    Attributes:
        concepts, contexts: sorted names.
        accuracy: ``[C, K]``, NaN without an item.
        n: items ``[C, K]``.
        worst: name and accuracy of the context that is answered worst.
    """

    concepts: tuple[str, ...]
    contexts: tuple[str, ...]
    accuracy: np.ndarray
    n: np.ndarray
    worst: tuple[str, Estimate]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able; ``None`` without an item."""
        cells = [[None if np.isnan(value) else value for value in row] for row in self.accuracy.tolist()]
        worst = {"context": self.worst[0], "accuracy": self.worst[1].as_dict()}
        return {
            "concepts": list(self.concepts),
            "contexts": list(self.contexts),
            "accuracy": cells,
            "n": self.n.tolist(),
            "worst": worst,
        }


def context_table(
    concept: Sequence[Any] | np.ndarray, answers: Sequence[Any] | np.ndarray, context: Sequence[Any] | np.ndarray
) -> ContextTable:
    """Accuracy of n answers by concept and context, and the worst context.

    Raises:
        BadInput: shapes that do not fit, or an item without a concept or a context.
    """
    if not len(concept) == len(answers) == len(context) or not len(concept):
        raise BadInput(f"{len(concept)} concepts, {len(answers)} answers, {len(context)} contexts do not fit together")
    true = np.asarray(named(concept, "concept"))
    right = true == np.asarray([str(a).strip() for a in answers])
    names, y = np.unique(true, return_inverse=True)
    contexts, c = np.unique(np.asarray(named(context, "context")), return_inverse=True)
    n, hit = np.zeros((2, len(names), len(contexts)), dtype=int)
    np.add.at(n, (y, c), 1)
    np.add.at(hit, (y, c), right)
    each = hit.sum(0) / n.sum(0)
    low = int(each.argmin())
    accuracy = np.where(n > 0, hit / np.maximum(n, 1), np.nan)
    worst = (str(contexts[low]), wilson(int(hit[:, low].sum()), int(n[:, low].sum())))
    return ContextTable(tuple(map(str, names)), tuple(map(str, contexts)), accuracy, n, worst)


@dataclass(frozen=True)
class SpuriousShift:
    """How alike embeddings are to their concept (M_ce) and to their context (M_co).

    Attributes:
        concept, context: M_ce and M_co, means with Student's 95 % interval.
        ratio: M_co / M_ce; NaN unless M_ce is above 0.
        gap: M_co - M_ce, paired by item.
    """

    concept: Estimate
    context: Estimate
    ratio: float
    gap: Estimate

    def as_dict(self) -> dict[str, Any]:
        """JSON-able but for a ratio that is NaN."""
        estimates = {"concept": self.concept, "context": self.context, "gap": self.gap}
        return {"ratio": self.ratio} | {name: value.as_dict() for name, value in estimates.items()}


def spurious_shift(
    x: np.ndarray,
    concept_vectors: np.ndarray,
    context_vectors: np.ndarray,
    concept: Sequence[int],
    context: Sequence[int],
) -> SpuriousShift:
    """The shift of one set; take it of base and of novel items and compare.

    Args:
        x: embeddings of items ``[n, d]``.
        concept_vectors: of "a photo of a {concept}", ``[C, d]``.
        context_vectors: of "a photo of a {context}", ``[K, d]``.
        concept, context: which of them each item has ``[n]``.

    Raises:
        BadInput: shapes that do not fit, or a vector of length 0.
    """
    x, e, o = (np.asarray(v, float) for v in (x, concept_vectors, context_vectors))
    y, c = np.asarray(concept), np.asarray(context)
    if y.dtype.kind not in "iu" or c.dtype.kind not in "iu":
        raise BadInput("concept and context of an item are positions: whole numbers, from 0, of rows of the vectors")
    if not (x.ndim == e.ndim == o.ndim == 2 and x.shape[1] == e.shape[1] == o.shape[1] and len(x) == len(y) == len(c)):
        raise BadInput(f"items {x.shape}, concepts {e.shape}, contexts {o.shape}, {len(y)} and {len(c)} do not fit")
    if not len(x) or y.min() < 0 or y.max() >= len(e) or c.min() < 0 or c.max() >= len(o):
        raise BadInput(f"concepts and contexts of items are positions below {len(e)} and {len(o)}")
    unit = []
    for name, part in (("item", x), ("concept", e), ("context", o)):
        length = np.linalg.norm(part, axis=1, keepdims=True)
        usable = np.isfinite(length[:, 0]) & (length[:, 0] > 0)
        if not usable.all():
            raise BadInput(f"{name} {int(usable.argmin())} has no direction: its length is 0 or unknown")
        unit.append(part / length)
    to_concept, to_context = (unit[0] * unit[1][y]).sum(1), (unit[0] * unit[2][c]).sum(1)
    m_ce, m_co = mean_interval(to_concept, within=(-1, 1)), mean_interval(to_context, within=(-1, 1))
    ratio = m_co.value / m_ce.value if m_ce.value > 0 else float("nan")
    return SpuriousShift(m_ce, m_co, ratio, mean_interval(to_context - to_concept, within=(-2, 2)))
