"""Logistic regression on frozen features: the plain baseline that is hard to beat.

Paper 103: Tian, Wang, Krishnan, Tenenbaum, Isola, "Rethinking Few-Shot Image Classification: a Good Embedding Is All
You Need?", 2020: unit features, then multinomial logistic regression with an L2 penalty and C = 1.

    min_(w, b)  C sum_i CE(y_i, softmax(w z_i + b)) + |w|^2 / 2,   z = x / |x|
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from handful.adapt.base import Head
from handful.adapt.parameters import count, finite
from handful.core.calibration import pick
from handful.core.distances import unit
from handful.core.softmax_regression import fit_softmax
from handful.core.task import Query, State, Task
from handful.errors import BadInput
from handful.protocols import Needs, Ranges

GRID = (0.1, 1.0, 10.0, 100.0)


@dataclass(eq=False, repr=False, kw_only=True)
class Logistic(Head):
    """Multinomial logistic regression, all tasks of a batch at once.

    Args:
        C: inverse strength of the penalty, as in scikit-learn; ``"cv"`` chooses among 0.1, 1, 10 and 100 by folds over
            items (1 where a class has a single item).
        normalize: make rows unit first.
        folds: how many, for ``C="cv"`` and for out-of-fold logits.
        tolerance: the optimiser stops when no weight moves more than this share of the largest.
    """

    key: ClassVar[str] = "logistic"
    needs: ClassVar[Needs] = Needs(gradient=True)
    shapes: ClassVar[Mapping[str, str]] = {"weight": "C D", "bias": "C", "strength": ""}
    leaves: ClassVar[Literal["item", "fold"]] = "fold"
    ranges: ClassVar[Ranges] = {"C": (0.01, 100.0), "normalize": (True, False)}

    C: float | Literal["cv"] = 1.0
    normalize: bool = False
    folds: int = 5
    tolerance: float = 1e-4

    @property
    def directions(self) -> bool:
        """Where rows are made unit."""
        return self.normalize

    def adapt(self, task: Task) -> State:
        """State: ``weight [*b, C, D]``, ``bias [*b, C]``, ``strength [*b]`` (the C used)."""
        self._check()
        strength = self._choose(task)
        weight, bias = self._fit(task, task.y, strength)
        return {"weight": weight, "bias": bias, "strength": strength}

    def answer(self, state: State, query: Query) -> Tensor:
        """``w z + b``."""
        return self._rows(query.x) @ state["weight"].mT + state["bias"][..., None, :]

    def leave_one_out(self, task: Task) -> Tensor | None:
        """Out-of-fold logits at the strength the head uses: there is no closed form, but all folds are one batch."""
        self._check()
        return self.out_of_fold(task, self._choose(task)[None])[0]

    def held(self, state: State) -> Self:
        """With the C that was chosen."""
        return replace(self, C=float(state["strength"]))

    def out_of_fold(self, task: Task, strengths: Tensor) -> Tensor:
        """Logits ``[S, *b, N, C]`` of each row by the fit on the other folds, for strengths ``[S]`` or ``[S, *b]``."""
        held = held_out(task, self.folds)
        x, y, out = self._rows(task.x), torch.where(held, 0.0, task.y), []
        for strength in strengths:  # not one more batch dimension: weak penalties take many more steps
            weight, bias = self._fit(task, y, strength)
            out.append(torch.where(held, x @ weight.mT + bias[..., None, :], 0.0).sum(0))
        return torch.stack(out)

    def _check(self) -> None:
        if isinstance(self.C, str):
            if self.C != "cv":
                raise BadInput(f"C is a number above 0 or 'cv', not {self.C!r}")
        else:
            finite("C", self.C, above=0)
        count("folds", self.folds, 2)
        finite("tolerance", self.tolerance, above=0, below=1)

    def _rows(self, x: Tensor) -> Tensor:
        return unit(x) if self.normalize else x

    def _fit(self, task: Task, y: Tensor, strength: Tensor) -> tuple[Tensor, Tensor]:
        # Two classes: scikit-learn penalises the one difference w_2 - w_1, which is twice the sum over both.
        strength = torch.where(task.ways == 2, strength / 2, strength)
        return fit_softmax(self._rows(task.x), y, task.class_mask, strength, tolerance=self.tolerance)

    def _choose(self, task: Task) -> Tensor:
        like = task.labels.new_ones(task.labels.shape[:-2])
        if not isinstance(self.C, str):
            return like * self.C
        grid = like.new_tensor(GRID)
        index = pick(self.out_of_fold(task, grid), task.y, task.class_mask)
        return torch.where(task.fewest_items < 2, 1.0, grid[index])


@dataclass(eq=False, repr=False, kw_only=True)
class RFS(Logistic):
    """Paper 103's head: unit features, C = 1. Its five augmented shots are ``views`` of the encoder, one row each."""

    key: ClassVar[str] = "rfs"
    ranges: ClassVar[Ranges] = {"C": (0.01, 100.0)}

    normalize: bool = True


def stratified_folds(task: Task, folds: int) -> Tensor:
    """Fold of each row ``[*b, N]``: the items of a class are dealt out in turn, rows of one item together."""
    return task.items.dealt(task.y.argmax(-1), folds)


def held_out(task: Task, folds: int) -> Tensor:
    """Whether a row is in a fold ``[F, *b, N, 1]``, the folds being one more batch dimension."""
    fold = stratified_folds(task, folds)
    index = torch.arange(folds, device=fold.device).reshape(-1, *[1] * fold.dim())
    return (fold == index)[..., None]
