"""LaplacianShot: nearest prototypes, but neighbours among the queries should agree.

Ziko, Dolz, Granger, Ben Ayed, "Laplacian Regularized Few-Shot Learning", 2020; see also
`handful.adapt.clustering`.

    min over assignments z   sum_p sum_k z_pk a_pk + lam / 2 sum_pq w_pq |z_p - z_q|^2 + sum_p z_p log z_p
    a_pk = |x_p - m_k|^2,  w_pq = 1 for the knn - 1 nearest other queries q of p, else 0
    sweep   z_p <- softmax_k(-a_pk + lam sum_q w_pq z_qk), all p at once, from z = softmax(-a)

The start may be rectified first: `handful.adapt.bd_cspn`, form "mean". easyfsl 1.5 does that by form "share" with t = 1
and then asks about the queries where they were: ``LaplacianShot(norm="UN", lam=0.7, rectify="share", temperature=1,
shifted=False)``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from handful.adapt.bd_cspn import rectified
from handful.adapt.parameters import count, finite, one_of
from handful.adapt.simpleshot import Norm, normed, origin
from handful.adapt.transductive import Transductive, cleaned, joined, mean_of, real_queries
from handful.core.distances import sqeuclidean
from handful.core.gaussians import class_means
from handful.core.neighbours import Neighbours
from handful.core.softem import Rows, among, real_classes, shares
from handful.core.task import Query, State, Task, lowest
from handful.errors import BadInput
from handful.protocols import Needs, Ranges

SAME = 1e-6
"""Relative change of the energy at which the sweeps of a task end."""


def energy(z: Tensor, unary: Tensor, pulled: Tensor, lam: float | Tensor) -> Tensor:
    """``sum z a - lam sum z (w z) + sum z log z`` ``[*b]``, up to a constant the objective; ``pulled = w z``."""
    return torch.where(z > 0, z * (z.clamp_min(1e-20).log() + unary - lam * pulled), 0.0).sum((-2, -1))


def sweeps(
    unary: Tensor, pull: Callable[[Tensor], Tensor], lam: float | Tensor, most: int, start: Tensor, real: Tensor
) -> tuple[Tensor, Tensor]:
    """Assignments ``z [*b, C, Q]`` after at most so many sweeps from ``start``, and their logits.

    Args:
        unary: ``a [*b, C, Q]``, infinite for classes that are not real.
        pull: ``z -> w z``.
        lam: a number, or one a task ``[*b, 1, 1]``.
        real: which queries are real ``[*b, Q]``; others pull nobody.
    """
    z, before = start * real[..., None, :], None
    logits, pulled = -unary, pull(z)
    busy = torch.ones(unary.shape[:-2], dtype=torch.bool, device=unary.device)[..., None, None]
    for done in range(most):
        logits = torch.where(busy, lam * pulled - unary, logits)
        z = logits.softmax(-2) * real[..., None, :]
        pulled = pull(z)
        now = energy(z, unary, pulled, lam)[..., None, None]
        if before is not None and done > 1:
            busy = busy & ((now - before).abs() > SAME * before.abs())
            if not busy.any():
                break
        before = now
    return z, logits


@dataclass(eq=False, repr=False, kw_only=True)
class LaplacianShot(Transductive):
    """Fixed prototypes, and neighbours among the queries that pull at each other.

    Args:
        lam: how strongly neighbours pull; the authors choose it from 0.1 to 1.5 on validation tasks.
        knn: neighbours a query has, itself counted.
        n_inner: sweeps at most.
        norm: see `handful.adapt.simpleshot`.
        rectify: prototypes as BD-CSPN has them, by which form; ``None`` for class means.
        temperature: of the rectification.
        shifted: move the queries to where the support is, where prototypes are rectified.
        symmetric: make the graph symmetric; the energy then falls with every sweep (the reference does not).
    """

    key: ClassVar[str] = "laplacianshot"
    needs: ClassVar[Needs] = Needs(transductive=True)
    shapes: ClassVar[Mapping[str, str]] = {"support": "N D", "y": "N C", "mean": "C D", "origin": "D", "shift": "D"}
    ranges: ClassVar[Ranges] = {"lam": (0.1, 3.0), "rectify": ("mean", "share", None)}

    lam: float = 1.0
    knn: int = 3
    n_inner: int = 20
    norm: Norm = "CL2N"
    rectify: Literal["mean", "share"] | None = "mean"
    temperature: float = 10.0
    shifted: bool = True
    symmetric: bool = False

    @property
    def directions(self) -> bool:
        """Lengths count only where rows are left as they are."""
        return self.norm != "UN" or self.rectify is not None

    def start(self, task: Task) -> State:
        """State: ``support [*b, N, D]`` normed, ``y [*b, N, C]``, ``mean [*b, C, D]``, ``origin`` and
        ``shift [*b, D]``.
        """
        self._check()
        at, y = origin(task, self.norm), task.y
        z = normed(task.x, at, self.norm) * (y.sum(-1, keepdim=True) > 0)
        return {"support": z, "y": y, "mean": class_means(z, y)[0], "origin": at, "shift": torch.zeros_like(at)}

    def move(self, state: State, query: Query) -> tuple[Tensor, State]:
        """Logits, and the state with the prototypes they were made with."""
        query, real, y = cleaned(query), real_queries(query), state["y"]
        self._check_queries(real)
        q = normed(query.x, state["origin"], self.norm)
        rows, a, shift = self._rows(state, q, real)
        logits, a = self._cluster(rows, a, state, real)
        known = real_classes(y)[..., None, :]
        return torch.where(known, logits.mT, lowest(q)), {**state, "mean": a @ rows.z, "shift": shift}

    def inductive(self, state: State, query: Query) -> Tensor:
        """``-a``: the prototypes, and nobody who pulls."""
        z = self._moved(state, query)
        logits = -sqeuclidean(z, state["mean"])
        return torch.where(real_classes(state["y"])[..., None, :], logits, lowest(z))

    def _moved(self, state: State, query: Query) -> Tensor:
        return normed(query.x, state["origin"], self.norm) + state["shift"][..., None, :]

    def _cluster(self, rows: Rows, a: Tensor, state: State, real: Tensor) -> tuple[Tensor, Tensor]:
        """Logits ``[*b, C, Q]`` of the queries and the prototypes' coefficients."""
        y = state["y"]
        unary = -among(real_classes(y), -rows.sqeuclidean(a)[..., y.shape[-2] :])
        start = (-unary).softmax(-2)
        return sweeps(unary, self._graph(rows, y, real).sum, self.lam, self.n_inner, start, real)[1], a

    def _graph(self, rows: Rows, y: Tensor, real: Tensor) -> Neighbours:
        n = y.shape[-2]
        gram = None if rows.gram is None else rows.gram[..., n:, n:]
        return Neighbours.of(rows.z[..., n:, :], self.knn - 1, real, gram=gram, symmetric=self.symmetric)

    def _rows(self, state: State, q: Tensor, real: Tensor) -> tuple[Rows, Tensor, Tensor]:
        """Support and queries, prototypes as coefficients of them, and how far the queries were moved ``[*b, D]``."""
        z, y = state["support"], state["y"]
        weight, still = y.sum(-1), torch.zeros_like(state["shift"])
        if self.rectify is None:
            own = torch.nn.functional.pad(y.mT, (0, real.shape[-1]))
            return Rows.of(joined(z, q)), shares(own), still
        shift = mean_of(z, weight) - mean_of(q, real.to(q.dtype))
        rows = Rows.of(joined(z, q, shift), looks=1000 if self.shifted else 2)
        a = rectified(rows, y, real, self.temperature, self.rectify)
        if self.shifted:
            return rows, a, shift
        # The shift is itself a weighted sum of support and queries.
        apart = torch.cat([shares(weight), -shares(real.to(q.dtype))], -1)
        a = a + a[..., weight.shape[-1] :].sum(-1, keepdim=True) * apart[..., None, :]
        return Rows.of(joined(z, q)), a, still

    def _check(self) -> None:
        self._check_strength()
        finite("temperature", self.temperature, above=0)
        count("knn", self.knn, 2)
        count("n_inner", self.n_inner, 1)
        if self.rectify is not None:
            one_of("rectify", self.rectify, ("mean", "share"))

    def _check_strength(self) -> None:
        finite("lam", self.lam, least=0)

    def _check_queries(self, real: Tensor) -> None:
        fewest = int(real.sum(-1).min())
        if self.knn > fewest:
            raise BadInput(f"knn={self.knn} neighbours, itself counted, but there are {fewest} queries")
