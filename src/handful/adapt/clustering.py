"""Clustering with a few labels as constraints, smooth over a graph of neighbours.

Paper 155: Ziko, Boudiaf, Dolz, Granger, Ben Ayed, "Transductive Few-Shot Learning: Clustering is All You Need?", 2021.

    min over assignments z_p and prototypes m_k   sum_p sum_k z_pk a_pk + lam / 2 sum_pq w_pq |z_p - z_q|^2
                                                  + sum_p z_p log z_p,   z_p = y_p for the support
    "mean"   a_pk = |x_p - m_k|^2,                          m_k = sum_p z_pk x_p / sum_p z_pk
    "mode"   a_pk = -g_pk,  g = exp(-|x - m|^2 / 2 sigma^2), m_k = sum_p z_pk g_pk x_p / sum_p z_pk g_pk (mean shift)

Assignments by the sweeps of `handful.adapt.laplacian`, then prototypes, until no query changes its class. The sweeps go
on from the assignments there are, so that the objective falls throughout where the graph's matrix is symmetric and has
no negative eigenvalue.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import torch
from sklearn.base import clone
from torch import Tensor

from handful.adapt.laplacian import LaplacianShot, sweeps
from handful.adapt.parameters import count, finite, one_of
from handful.adapt.validation import base_episodes
from handful.core.distances import sqeuclidean
from handful.core.neighbours import Neighbours
from handful.core.softem import Rows, among, real_classes, shares
from handful.core.task import Query, State, Task, lowest
from handful.errors import BadInput

STRENGTHS = (0.1, 0.3, 0.5, 0.7, 0.8, 1.0, 1.2, 1.5)
"""Among which the authors choose ``lam`` on validation tasks."""
SHIFTS = 10
"""Steps of mean shift at a time."""


@dataclass(frozen=True)
class Prototype:
    """What a cluster is: its mean, or its densest place."""

    kind: Literal["mean", "mode"]
    sigma: float

    def unary(self, distance: Tensor) -> Tensor:
        """``a [*b, C, n]`` from squared distances."""
        return distance if self.kind == "mean" else -self._density(distance)

    def update(self, rows: Rows, a: Tensor, z: Tensor) -> Tensor:
        """Coefficients ``[*b, C, n]`` of the prototypes for assignments ``z``; without mass they stay as they were."""
        for _ in range(SHIFTS if self.kind == "mode" else 1):
            weight = z if self.kind == "mean" else z * self._density(rows.sqeuclidean(a))
            a = torch.where(weight.sum(-1, keepdim=True) > 0, shares(weight), a)
        return a

    def _density(self, distance: Tensor) -> Tensor:
        return (distance / (-2 * self.sigma**2)).exp()


def alternate(
    rows: Rows,
    a: Tensor,
    labels: Tensor,
    known: Tensor,
    real: Tensor,
    pull: Callable[[Tensor], Tensor],
    lam: float | Tensor,
    prototype: Prototype,
    n_outer: int,
    n_inner: int,
) -> tuple[Tensor, Tensor]:
    """Logits ``[*b, C, Q]`` of the free rows, and the coefficients ``[*b, C, N + Q]`` of the prototypes they come from.

    Args:
        rows: N labelled rows, then Q free ones.
        a: prototypes to start from, as coefficients of the rows.
        labels: labels times weights of the N rows ``[*b, C, N]``.
        known: which classes are real ``[*b, C]``; ``real``: which free rows ``[*b, Q]``.
    """
    n, z, logits = labels.shape[-1], None, a.new_zeros(())
    busy = torch.ones(a.shape[:-2], dtype=torch.bool, device=a.device)[..., None, None]
    for _ in range(n_outer):
        unary = -among(known, -prototype.unary(rows.sqeuclidean(a)[..., n:]))
        before = (-unary).softmax(-2) if z is None else z
        after, found = sweeps(unary, pull, lam, n_inner, before, real)
        moved = (after.argmax(-2) != before.argmax(-2)).any(-1)[..., None, None]
        logits = torch.where(busy, found, logits)
        if z is not None:
            busy = busy & moved
        z = torch.where(busy, after, before) if z is not None else after
        a = torch.where(busy, prototype.update(rows, a, torch.cat([labels, z], -1)), a)
        if not busy.any():
            break
    return logits, a


@dataclass(eq=False, repr=False, kw_only=True)
class LaplacianClustering(LaplacianShot):
    """k-means, k-modes or Laplacian clustering with the support's labels held.

    Args:
        lam: as in `LaplacianShot`; 0 for k-means and k-modes; ``"auto"`` chooses by episodes drawn from the labelled
            ``background`` and takes the authors' 1 without it.
        prototype: what a class is.
        sigma: width of the kernel of ``"mode"``.
        n_outer: how often prototypes are updated at most.
    """

    key: ClassVar[str] = "laplacian-clustering"
    shapes: ClassVar[Mapping[str, str]] = {**LaplacianShot.shapes, "lam": ""}

    lam: float | Literal["auto"] = "auto"  # type: ignore[assignment]
    prototype: Literal["mean", "mode"] = "mean"
    sigma: float = 1.0
    n_outer: int = 10

    def start(self, task: Task) -> State:
        """See `LaplacianShot.start`; and ``lam [*b]``."""
        state = super().start(task)
        return {**state, "lam": self._strength(task)}

    def inductive(self, state: State, query: Query) -> Tensor:
        """``-a``: the prototypes, and nobody who pulls."""
        z = self._moved(state, query)
        logits = -self._prototype.unary(sqeuclidean(z, state["mean"]))
        return torch.where(real_classes(state["y"])[..., None, :], logits, lowest(z))

    def held(self, state: State) -> Self:
        """See `Head.held`."""
        still: Self = clone(self).set_params(lam=float(state["lam"]))
        return still

    @property
    def _prototype(self) -> Prototype:
        return Prototype(self.prototype, self.sigma)

    def _cluster(self, rows: Rows, a: Tensor, state: State, real: Tensor) -> tuple[Tensor, Tensor]:
        y, lam = state["y"], state["lam"][..., None, None]
        pull = self._graph(rows, y, real).sum
        return alternate(rows, a, y.mT, real_classes(y), real, pull, lam, self._prototype, self.n_outer, self.n_inner)

    def _strength(self, task: Task) -> Tensor:
        """``lam [*b]``."""
        lam = self.lam
        if lam == "auto":
            drawn = base_episodes(task, seed=task.seed)
            accuracies = [] if drawn is None else [self._accuracy(value, *drawn) for value in STRENGTHS]
            lam = STRENGTHS[accuracies.index(max(accuracies))] if accuracies else 1.0
        return task.support.new_full(task.support.shape[:-2], float(lam))

    def _accuracy(self, lam: float, task: Task, answers: Tensor) -> float:
        logits = type(self)(**{**self.get_params(deep=False), "lam": lam, "transductive": True}).logits(task)
        return float((torch.as_tensor(logits).argmax(-1) == answers).double().mean())

    def _check(self) -> None:
        super()._check()
        one_of("prototype", self.prototype, ("mean", "mode"))
        finite("sigma", self.sigma, above=0)
        count("n_outer", self.n_outer, 1)

    def _check_strength(self) -> None:
        if self.lam != "auto":
            super()._check_strength()


def cluster(
    x: Tensor,
    n_clusters: int,
    *,
    lam: float = 1.0,
    knn: int = 3,
    prototype: Literal["mean", "mode"] = "mean",
    sigma: float = 1.0,
    symmetric: bool = False,
    n_outer: int = 100,
    n_inner: int = 20,
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """Clusters without any label: the cluster of each row of ``x [n, D]``, and the prototypes ``[n_clusters, D]``.

    Prototypes start from rows drawn far from each other (k-means++).

    Raises:
        BadInput: fewer rows than clusters or neighbours, rows that are not finite, a parameter that makes no sense.
    """
    LaplacianClustering(lam=lam, knn=knn, prototype=prototype, sigma=sigma, n_outer=n_outer, n_inner=n_inner)._check()
    count("n_clusters", n_clusters, 2)
    if x.dim() != 2 or not bool(x.isfinite().all()):
        raise BadInput(f"x must be rows [n, D] of finite numbers, not an array of shape {tuple(x.shape)} with others")
    if len(x) < max(n_clusters, knn):
        raise BadInput(f"{len(x)} rows do not make {n_clusters} clusters with knn={knn}")
    a = torch.nn.functional.one_hot(_apart(x, n_clusters, seed), len(x)).to(x.dtype)
    real = torch.ones(len(x), dtype=torch.bool, device=x.device)
    rows = Rows.of(x)
    pull = Neighbours.of(x, knn - 1, real, gram=rows.gram, symmetric=symmetric).sum
    known, nobody = torch.ones(n_clusters, dtype=torch.bool, device=x.device), x.new_zeros(n_clusters, 0)
    logits, a = alternate(rows, a, nobody, known, real, pull, lam, Prototype(prototype, sigma), n_outer, n_inner)
    return logits.argmax(-2), a @ x


def _apart(x: Tensor, k: int, seed: int) -> Tensor:
    """Indices of k rows, each drawn by its squared distance to the nearest one drawn before."""
    draw = torch.Generator(device=x.device).manual_seed(seed)
    found = torch.randint(len(x), (1,), generator=draw, device=x.device)
    for _ in range(k - 1):
        near = sqeuclidean(x, x[found]).amin(-1) + torch.finfo(x.dtype).tiny
        found = torch.cat([found, torch.multinomial(near, 1, generator=draw)])
    return found
