"""For which mix of classes a number speaks, and what that does to probabilities and to judged items.

A model that learnt from a share pi(c) of each class, asked about items among which class c has the share pi'(c):

    p'(c | x)  is proportional to  p(c | x) pi'(c) / pi(c)          what `Population.log_ratio` adds to logits
    an item of class c counts      pi'(c) / share of c among the judged          `Population.item_weights`

Both hold as long as items of one class look alike in both places (label shift). Unlabelled items tell pi' themselves
(Saerens, Latinne, Decaestecker, "Adjusting the outputs of a classifier to new a priori probabilities", 2002):

    E   q_i(c) is proportional to  p(c | x_i) pi'(c) / pi(c)
    M   pi'(c) = mean over i of q_i(c)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from handful.errors import BadInput, nearest
from handful.evaluate.written import read_shares
from handful.read.places import one_line, quoted

Kind = Literal["labels", "uniform", "pool", "file"]
PSEUDO_ITEMS = 0.5
"""How many unlabelled items a class is given beforehand, on average, so that none that is not seen is ruled out."""


@dataclass(frozen=True)
class Population:
    """A mix of classes.

    Attributes:
        kind: where it comes from: the labels, all classes alike, unlabelled items, or a file (or mapping).
        shares: of each class; they add up to 1.
        source: the file; ``None`` for the other kinds.
        sentence: which mix, in words; "items with …" reads well.
    """

    kind: Kind
    shares: dict[str, float]
    source: str | None
    sentence: str

    def log_ratio(self, classes: Sequence[str], labels: Sequence[str] | np.ndarray) -> np.ndarray:
        """``log(pi' / pi) [C]``, to be added to logits learnt from ``labels``; -inf for a class that never occurs.

        A class without labels was learnt as if from half an item; 0 where it has no share in the population either.
        """
        learnt, meant = shares_of(labels, classes), self._of(classes)
        nowhere = (learnt == 0) & (meant == 0)
        with np.errstate(divide="ignore"):
            ratio = np.log(meant) - np.log(np.maximum(learnt, 0.5 / len(labels)))
        return np.where(nowhere, 0.0, ratio)

    def item_weights(self, labels: Sequence[str] | np.ndarray) -> np.ndarray:
        """``[n]``, mean 1: how much each judged item counts. Classes without any judged item are left out."""
        names, codes, counts = np.unique(np.asarray(labels), return_inverse=True, return_counts=True)
        each = self._of([str(name) for name in names]) / counts
        weights: np.ndarray = each[codes]
        if not weights.any():
            raise BadInput("no judged item is of a class that occurs in the population")
        weights /= weights.mean()
        return weights

    def as_dict(self) -> dict[str, Any]:
        """JSON-able; ``Population(**d)`` makes the same again."""
        return {"kind": self.kind, "source": self.source, "shares": dict(self.shares), "sentence": self.sentence}

    def _of(self, classes: Sequence[str]) -> np.ndarray:
        missing = next((name for name in classes if name not in self.shares), None)
        if missing is not None:
            raise BadInput(
                f"the population says nothing of class {quoted(missing)}{one_line(nearest(missing, self.shares))}"
            )
        return np.array([self.shares[name] for name in classes])


def population(
    spec: str | Path | Mapping[str, float],
    classes: Sequence[str],
    labels: Sequence[str] | np.ndarray,
    pool_proba: np.ndarray | None = None,
) -> Population:
    """The mix of classes a user means.

    Args:
        spec: ``"labels"`` (as among the labels), ``"uniform"`` (each class as often), ``"pool"`` (as among the
            unlabelled items), a file with columns label and share (or counts) or a JSON object, or a mapping.
        classes: the C classes of the model.
        labels: what the model learnt from.
        pool_proba: calibrated probabilities ``[m, C]`` of the unlabelled items, for ``"pool"``.

    Raises:
        BadInput: no unlabelled items, no such file, or shares that are not one for each class, adding up to 1.
    """
    if isinstance(spec, Mapping):
        return _given(spec, classes, None, "the class prior")
    if spec == "labels":
        return _named("labels", shares_of(labels, classes), classes, "the classes as often as among the labels")
    if spec == "uniform":
        return _named("uniform", np.full(len(classes), 1 / len(classes)), classes, "every class equally often")
    if spec == "pool":
        if pool_proba is None or not len(pool_proba):
            raise BadInput("--class-prior pool needs unlabelled items: rows of the source with an empty label")
        shares = shares_of_pool(pool_proba, shares_of(labels, classes))
        how = f"the classes as often as among the {len(pool_proba):,} unlabelled items, as far as the model can tell"
        return _named("pool", shares, classes, how)
    return _given(read_shares(spec), classes, str(spec), one_line(Path(spec).name, 80))


def _named(kind: Kind, shares: np.ndarray, classes: Sequence[str], sentence: str) -> Population:
    return Population(kind, dict(zip(map(str, classes), shares.tolist(), strict=True)), None, sentence)


def _given(shares: Mapping[str, float], classes: Sequence[str], source: str | None, name: str) -> Population:
    sentence = f"the classes as often as {f'in {name}' if source else 'given'}"
    return Population("file", checked_shares(shares, classes, name), source, sentence)


def checked_shares(given: Mapping[str, float], classes: Sequence[str], name: str) -> dict[str, float]:
    """Shares that add up to 1 from shares, percentages or counts, in the order of the classes.

    Raises:
        BadInput: a class without a share, a share without a class, a negative one, or a sum that says some are missing.
    """
    unknown = next((label for label in given if label not in classes), None)
    if unknown is not None:
        close = one_line(nearest(str(unknown), classes))
        raise BadInput(f"{name}: label {quoted(str(unknown))} is none of the classes{close}")
    missing = [c for c in classes if c not in given]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise BadInput(
            f"{name} says nothing of class {quoted(missing[0])}{more}; every class needs a share, 0 included"
        )
    values = np.array([float(given[c]) for c in classes])
    bad = ~(np.isfinite(values) & (values >= 0))
    if bad.any():
        raise BadInput(
            f"{name}: the share of {quoted(classes[int(bad.argmax())])} is {values[bad][0]}; it is at least 0"
        )
    total, counts = float(values.sum()), bool((values == np.round(values)).all())
    if total <= 0 or not (counts or abs(total - 1) <= 0.01 or abs(total - 100) <= 1):
        raise BadInput(f"{name}: the shares add up to {total:g}, not to 1 (or 100); whole numbers are taken as counts")
    return dict(zip(classes, (values / total).tolist(), strict=True))


def shares_of(labels: Sequence[str] | np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Share of each class ``[C]`` among the labels. Raises `BadInput` for a label that is no class."""
    counts = Counter(str(label) for label in labels)
    unknown = next((label for label in counts if label not in set(classes)), None)
    if unknown is not None or not counts:
        raise BadInput("no labels to count" if unknown is None else f"label {quoted(unknown)} is none of the classes")
    return np.array([counts[name] for name in classes]) / counts.total()


def shares_of_pool(proba: np.ndarray, learnt: np.ndarray, steps: int = 2000) -> np.ndarray:
    """Share of each class ``[C]`` among items with ``proba [m, C]`` by a model that learnt from shares ``learnt [C]``.

    Expectation maximisation, towards ``learnt`` by `PSEUDO_ITEMS` a class. It needs calibrated probabilities: a model
    too sure of itself takes the mix of its answers, one not sure enough exaggerates every difference.

    Raises:
        BadInput: a row that is no probabilities.
    """
    proba = np.asarray(proba, dtype=float)
    if proba.ndim != 2 or proba.shape[1] != len(learnt) or not np.isfinite(proba).all() or (proba < 0).any():
        raise BadInput(f"probabilities of shape {proba.shape} for {len(learnt)} classes, or not all within 0 and 1")
    known = learnt > 0
    p = proba[:, known] / learnt[known]
    before = PSEUDO_ITEMS * known.sum() * learnt[known]
    shares = learnt[known].copy()
    for _ in range(steps):
        seen = before + shares * (p.T @ (1 / np.maximum(p @ shares, 1e-300)))
        new = seen / seen.sum()
        moved, shares = float(np.abs(new - shares).sum()), new
        if moved < 1e-8:
            break
    out = np.zeros(len(learnt))
    out[known] = shares
    return out
