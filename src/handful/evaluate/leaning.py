"""Whether answers follow something that should not matter: an attribute of an item beside its class.

With y the class, h the answer, a the attribute of an item:

    I(h; a | y)   mutual information of answer and attribute within each class, in nats: 0 for a model that looks at the
                  class alone
    share         I(h; a | y) / H(h | y): how much of what answers differ in within a class the attribute explains, less
                  what it explains when permuted; in [0, 1]
    p             permutation test: the attribute is permuted within each class, so that a class that goes with an
                  attribute in the data is no evidence by itself
    pull          of the wrong answers, the share that is the (other) class that goes most often with the attribute
                  of the item; beside what it is when the attribute is permuted
    association   Cramér's V of class and attribute in the data: how far one could be told from the other

The setting is that of paper 135 (Zhang et al., "MetaCoCo: A New Few-Shot Classification Benchmark with Spurious
Correlation", 2024); the test asks of one model and one labelled set whether it is in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import contingency

from handful.core.intervals import Estimate, wilson
from handful.errors import BadInput

DRAWS = 2000
"""Permutations."""
BLOCK = 1 << 22
"""How many counts are held at a time."""


@dataclass(frozen=True)
class Leaning:
    """What `leaning` finds.

    Attributes:
        column: the attribute.
        n: items the test rests on; one of each unit.
        share: of the differences of answers within a class, how much the attribute explains beyond chance.
        p: how often permuted attributes explain as much.
        association: of class and attribute in the data, 0 to 1.
        errors: wrong answers among the n items.
        pull: share of them that is the class which goes with the attribute; ``None`` without an error.
        pull_by_chance: what that share is for permuted attributes.
    """

    column: str
    n: int
    share: float
    p: float
    association: float
    errors: int
    pull: Estimate | None
    pull_by_chance: float | None

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {**self.__dict__, "pull": None if self.pull is None else self.pull.as_dict()}


def leaning(
    labels: Sequence[Any] | np.ndarray,
    answers: Sequence[Any] | np.ndarray,
    attribute: Sequence[Any] | np.ndarray,
    *,
    column: str = "attribute",
    units: Sequence[Any] | np.ndarray | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> Leaning:
    """Does the attribute predict the answers beyond the labels?

    Args:
        labels, answers, attribute: n values each.
        column: name of the attribute.
        units: n names; items of one are not independent, and one of each, drawn at random, is looked at.
        draws: permutations; p is at least 1 / (draws + 1).
        seed: of permutations and of the items drawn.

    Raises:
        BadInput: shapes that do not fit, or an attribute of one value.
    """
    true, answer, value = (np.asarray([str(v) for v in part]) for part in (labels, answers, attribute))
    n = len(true)
    if not n or len(answer) != n or len(value) != n or (units is not None and len(units) != n):
        raise BadInput(f"{n} labels, {len(answer)} answers and {len(value)} values of {column!r} do not fit together")
    if draws < 1:
        raise BadInput(f"a permutation test needs at least one draw, not {draws}")
    if len(set(value.tolist())) < 2:
        raise BadInput(f"column {column!r} has one value only; there is nothing that answers could follow")
    rng = np.random.default_rng(seed)
    if units is not None:
        mixed = rng.permutation(n)
        kept = np.sort(mixed[np.unique(np.asarray(units)[mixed], return_index=True)[1]])
        true, answer, value = true[kept], answer[kept], value[kept]
    classes, codes = np.unique(np.concatenate([true, answer]), return_inverse=True)
    y, h = codes.reshape(2, -1)
    names, a = np.unique(value, return_inverse=True)  # one name, where the units leave no other: p is 1
    table = np.zeros((len(classes), len(names)))
    np.add.at(table, (y, a), 1)
    wrong = y != h
    towards = _towards(table, y)
    seen, pulled = _information(y, h, a[None])[0], _pulled(towards, h, a[None], wrong)[0]
    blocks = [(_information(y, h, b), _pulled(towards, h, b, wrong)) for b in _permuted(y, a, draws, rng)]
    drawn, chance = (np.concatenate(part) for part in zip(*blocks, strict=True))
    spread = _information(y, h, h[None])[0]  # H(h | y)
    errors = int(wrong.sum())
    return Leaning(
        column=column,
        n=len(y),
        share=float(np.clip((seen - drawn.mean()) / spread, 0, 1)) if spread > 0 else 0.0,
        p=float((1 + (drawn >= seen - 1e-12).sum()) / (draws + 1)),
        association=_cramer(table),
        errors=errors,
        pull=wilson(int(pulled), errors) if errors else None,
        pull_by_chance=float(chance.mean() / errors) if errors else None,
    )


def _towards(table: np.ndarray, y: np.ndarray) -> np.ndarray:
    """For each item and value of the attribute ``[n, A]`` the class, other than the item's, that has the value most."""
    order = np.argsort(-table, axis=0, kind="stable")
    first, second = order[0], order[min(1, len(order) - 1)]
    towards: np.ndarray = np.where(first == y[:, None], second, first)
    return towards


def _pulled(towards: np.ndarray, h: np.ndarray, a: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """How many wrong answers are the class that goes with the attribute ``a [R, n]``: ``[R]``."""
    rows = np.flatnonzero(wrong)
    hit: np.ndarray = (towards[rows, a[:, rows]] == h[rows]).sum(axis=1)
    return hit


def _information(y: np.ndarray, h: np.ndarray, a: np.ndarray) -> np.ndarray:
    """I(h; a | y) in nats ``[R]`` for attributes ``a [R, n]``.

    sum over cells of n(y,h,a) log n(y,h,a) n(y) / (n(y,h) n(y,a)), by n; only pairs (y, h) that occur are counted.
    """
    n, width = len(y), int(a.max()) + 1
    pair = np.unique(y * (int(h.max()) + 1) + h, return_inverse=True)[1]
    of_pair = np.zeros(int(pair.max()) + 1, dtype=np.int64)
    of_pair[pair] = y
    row = np.arange(len(a))[:, None]
    cells = len(of_pair) * width
    joint = np.bincount((row * cells + pair * width + a).ravel(), minlength=len(a) * cells)
    joint = joint.reshape(len(a), len(of_pair), width).astype(float)
    member = (np.arange(int(y.max()) + 1)[:, None] == of_pair).astype(float)
    within = member @ joint
    total = _xlogx(joint).sum((1, 2)) - _xlogx(within).sum((1, 2))
    information: np.ndarray = (total - _xlogx(joint.sum(2)).sum(1) + _xlogx(within.sum(2)).sum(1)) / n
    floored: np.ndarray = np.maximum(information, 0.0)
    return floored


def _xlogx(x: np.ndarray) -> np.ndarray:
    out: np.ndarray = x * np.log(np.where(x > 0, x, 1.0))
    return out


def _permuted(y: np.ndarray, a: np.ndarray, draws: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Attributes permuted within each class, ``[block, n]`` at a time."""
    by_class = np.argsort(y, kind="stable")
    wide = max(len(y), (len(np.unique(y)) ** 2) * (int(a.max()) + 1))
    step = max(1, BLOCK // wide)
    for start in range(0, draws, step):
        keys = rng.random((min(step, draws - start), len(y))) + y
        block = np.empty(keys.shape, dtype=a.dtype)
        block[:, by_class] = a[np.argsort(keys, axis=1)]
        yield block


def _cramer(table: np.ndarray) -> float:
    """Cramér's V of a table ``[C, A]`` of counts; 0 where one side has one value."""
    filled = table[table.any(axis=1)][:, table.any(axis=0)].astype(int)
    return float(contingency.association(filled, method="cramer")) if min(filled.shape) > 1 else 0.0
