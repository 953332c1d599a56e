"""EASY's classifiers: features are centred and made unit; then class means, or soft k-means over all queries together.

Paper 008: Bendou, Hu, Lafargue, Lioi, Pasdeloup, Pateux, Gripon, "EASY: Ensemble Augmented-Shot Y-shaped Learning:
State-Of-The-Art Few-Shot Classification with Simple Ingredients", 2022.

    "ME"    z = unit(x - m),  m the mean of the support and the queries, or of base features
    m_c   = mean of the support of class c
    repeat n_iter times:
        p_qc = softmax_c(-T |z_q - m_c|^2)
        m_c  = (sum of the support of class c + sum_q p_qc z_q) / (its number + sum_q p_qc)
    answer by the last p, which comes before the last m

The inductive classifier is ``EASY(transductive=False, center="base", background=base)``: the nearest m_c of the
support. A pipeline with base features in front (`handful.adapt.transforms`) does both, as the code can.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from handful.adapt.parameters import count, finite, one_of
from handful.adapt.transductive import Transductive, cleaned, joined, real_queries
from handful.adapt.transforms import Chain
from handful.core.distances import sqeuclidean
from handful.core.gaussians import class_means
from handful.core.softem import Rows, among, real_classes, shares
from handful.core.task import Query, State, Task, lowest
from handful.errors import BadInput
from handful.protocols import Needs, Ranges


@dataclass(eq=False, repr=False, kw_only=True)
class EASY(Transductive):
    """Soft k-means of centred features of unit length, the support held.

    Args:
        letters: what is done to features, in order: M subtract the mean (once at most), E divide by the length, R relu,
            P square root.
        center: whose mean: of the ``"run"``, which is the support and the queries (or the unlabelled items), or of the
            ``"base"`` features of ``background``.
        temperature: T, 5 where the authors give numbers; their code takes 20 where none is given.
        n_iter: how often the means move.
    """

    key: ClassVar[str] = "easy"
    needs: ClassVar[Needs] = Needs(transductive=True)
    shapes: ClassVar[Mapping[str, str]] = {"support": "N D", "y": "N C", "mean": "C D", "center": "D"}
    ranges: ClassVar[Ranges] = {"temperature": (1.0, 100.0)}

    letters: str = "ME"
    center: Literal["run", "base"] = "run"
    temperature: float = 5.0
    n_iter: int = 30

    @property
    def positive_only(self) -> bool:
        """Where roots are taken."""
        return Chain.letters(self.letters).positive_only

    def start(self, task: Task) -> State:
        """State: ``support [*b, N, D]`` as it is, ``y [*b, N, C]``, ``mean [*b, C, D]`` of what becomes of it, and the
        ``center [*b, D]`` that M subtracts, zero without M.
        """
        self._check()
        x, y = task.x, task.y
        if self.center == "base":
            if task.background is None:
                raise BadInput("center='base' needs base features: give background=, or center='run'")
            base = task.background.x.to(x.dtype)
            center = self._center(base, torch.ones_like(base[:, 0])).expand(*x.shape[:-2], -1)
        else:
            center = self._center(x, y.sum(-1))
        moves = self.center == "run" and (self.transductive or task.pool is not None)  # `move` takes another center
        z = self._process(center, x, y.sum(-1) > 0, None if moves else "example")
        return {"support": x, "y": y, "mean": class_means(z, y)[0], "center": center}

    def move(self, state: State, query: Query) -> tuple[Tensor, State]:
        """``-T |z_q - m_c|^2`` of the last round, and the state with the means and the center after it."""
        query, real, y = cleaned(query), real_queries(query), state["y"]
        n, known = y.shape[-2], real_classes(y)
        x, weight = joined(state["support"], query.x), torch.cat([y.sum(-1), real.to(y.dtype)], -1)
        center = self._center(x, weight) if self.center == "run" else state["center"]
        support = self._process(center, x[..., :n, :], y.sum(-1) > 0, "example")
        rows = Rows.of(torch.cat([support, self._process(center, x[..., n:, :], real, "item")], -2))
        held = torch.nn.functional.pad(y.mT, (0, real.shape[-1]))
        a = shares(held)
        for _ in range(self.n_iter):
            logits = among(known, -self.temperature * rows.sqeuclidean(a)[..., n:])
            p = logits.softmax(-2) * real[..., None, :]
            a = shares(torch.cat([held[..., :n], p], -1))
        return logits.mT.clamp_min(lowest(y)), {**state, "mean": a @ rows.z, "center": center}

    def inductive(self, state: State, query: Query) -> Tensor:
        """``-T |z_q - m_c|^2`` by the means and the center of the state."""
        z = self._process(state["center"], query.x, real_queries(query), "item")
        logits = -self.temperature * sqeuclidean(z, state["mean"])
        return torch.where(real_classes(state["y"])[..., None, :], logits, lowest(logits))

    def _center(self, x: Tensor, weight: Tensor) -> Tensor:
        """What M subtracts ``[*b, D]``, from rows ``[*b, n, D]`` with weights ``[*b, n]``."""
        learnt = Chain.letters(self.letters).learn(x, weight)
        return learnt.get(self._place, x.new_zeros(*x.shape[:-2], x.shape[-1]))

    def _process(self, center: Tensor, x: Tensor, real: Tensor, what: str | None) -> Tensor:
        """Rows ``x [*b, n, D]`` after all letters, zero where not ``real [*b, n]``.

        Raises:
            BadInput: a negative number under a root; a row without direction where one is wanted, named by ``what``
                (``None``: it becomes zero).
        """
        z = Chain.letters(self.letters).apply({self._place: center}, torch.where(real[..., None], x, 0.0))
        if what is not None and "E" in self.letters and bool((real & (z.norm(dim=-1) == 0)).any()):
            raise BadInput(f"an {what} is all zeros once the mean is taken off: it has no direction, leave it out")
        return torch.where(real[..., None], z, 0.0)

    @property
    def _place(self) -> str:
        return f"{self.letters.find('M')}.mean"

    def _check(self) -> None:
        Chain.letters(self.letters)
        if self.letters.count("M") > 1:
            raise BadInput(f"letters={self.letters!r} subtract a mean twice: M once at most")
        one_of("center", self.center, ("run", "base"))
        finite("temperature", self.temperature, above=0)
        count("n_iter", self.n_iter, 1)
