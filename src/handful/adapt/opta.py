"""OpTA: prototypes transported to where the queries are, then logistic regression on them.

Paper 068: Poulakakis-Daktylidis, Jamali-Rad, "BECLR: Batch Enhanced Contrastive Few-Shot Learning", 2024.

    z = (x - mean_d x) / std_d x                                      each row over its own numbers
    p_k = mean of the support of class k
    repeat ``passes`` times:
        P = sinkhorn(|p_k - q_j|^2 / max, eps), between 1/K a prototype and 1/Q a query
        p_k <- sum_j P_kj q_j / sum_j P_kj                            barycentric map
    more than one shot:  p <- mix p + (1 - mix) (the class means)
    softmax regression on the K prototypes, with penalty |w|^2 / (2 C)

The authors stop the transport when its potentials move less than 1e-4 in a sweep; here it is solved to ``tol``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from handful.adapt.parameters import count, finite, one_of
from handful.adapt.transductive import Transductive, cleaned, real_queries
from handful.core.distances import sqeuclidean
from handful.core.gaussians import class_means
from handful.core.softem import shares
from handful.core.softmax_regression import fit_softmax
from handful.core.task import Query, State, Task, lowest
from handful.core.transport import sinkhorn
from handful.errors import BadInput
from handful.protocols import Needs

ONE_SHOT, MORE_SHOTS = 5, 1
"""Passes."""
FLAT = 1e-6
"""Standard deviation, as a share of the largest number, below which a row has none."""


def standardised(x: Tensor) -> Tensor:
    """Rows ``x [*b, n, D]`` minus their own mean, over their own standard deviation; zero where that is 0."""
    moved, spread = x - x.mean(-1, keepdim=True), x.std(-1, keepdim=True)
    flat = spread <= FLAT * x.abs().amax(-1, keepdim=True)
    return torch.where(flat, 0.0, moved / torch.where(flat, 1.0, spread))


def _standardised(x: Tensor, real: Tensor) -> Tensor:
    """`standardised`, zero for rows not ``real [*b, n]``. Raises `BadInput` for a real row of equal numbers."""
    z = torch.where(real[..., None], standardised(x), 0.0)
    flat = real & (z == 0).all(-1)
    if bool(flat.any()):
        row = int(flat.nonzero()[0, -1])
        raise BadInput(f"row {row} cannot be standardised: its numbers are all the same")
    return z


def transported(
    means: Tensor, classes: Tensor, q: Tensor, real: Tensor, passes: Tensor, eps: float, tol: float, max_sweeps: int
) -> Tensor:
    """Prototypes ``[*b, C, D]`` after each task's number of ``passes [*b]``.

    Args:
        means, classes: class means ``[*b, C, D]``, and which are real ``[*b, C]``.
        q, real: queries ``[*b, Q, D]``, and which are real ``[*b, Q]``.

    Raises:
        BadInput: all queries lie on all prototypes.
    """
    a, b = shares(real.to(q.dtype)), shares(classes.to(q.dtype))
    there = real[..., :, None] & classes[..., None, :]
    for done in range(int(passes.max())):
        cost = torch.where(there, sqeuclidean(q, means), 0.0)
        largest = cost.amax((-2, -1), keepdim=True)
        if not bool((largest > 0).all()):
            raise BadInput("every query lies on every prototype: there is nothing to transport")
        plan = sinkhorn(cost / largest, eps, a, b, tol=tol, max_sweeps=max_sweeps)
        means = torch.where((done < passes)[..., None, None], shares(plan.mT) @ q, means)
    return means


@dataclass(eq=False, repr=False, kw_only=True)
class OpTA(Transductive):
    """Optimal transport-based alignment of prototypes and queries.

    Args:
        eps: regularisation of the transport.
        passes: how often prototypes are transported; ``"auto"``: 5 times at one shot, else once.
        mix: share of the transported prototypes at more than one shot.
        C: inverse strength of the regression's penalty.
        tol, max_sweeps: when the transport is solved; see `handful.core.transport.sinkhorn`.
    """

    key: ClassVar[str] = "opta"
    needs: ClassVar[Needs] = Needs(transductive=True, assumes_balanced=True)
    shapes: ClassVar[Mapping[str, str]] = {"means": "C D", "mass": "C", "weights": "C D", "bias": "C"}

    eps: float = 0.05
    passes: int | Literal["auto"] = "auto"
    mix: float = 0.7
    C: float = 1.0
    tol: float = 1e-6
    max_sweeps: int = 1000

    @property
    def directions(self) -> bool:
        """A row of zeros cannot be standardised."""
        return True

    def start(self, task: Task) -> State:
        """State: class means ``[*b, C, D]``, ``mass [*b, C]``, and the regression on them."""
        self._check()
        if task.x.shape[-1] < 2:
            raise BadInput("rows are standardised over their features, of which there must be two: n_features=1")
        y = task.y
        means, mass = class_means(_standardised(task.x, y.sum(-1) > 0), y)
        return self._regression({"means": means, "mass": mass}, means)

    def move(self, state: State, query: Query) -> tuple[Tensor, State]:
        """Logits of the regression on the transported prototypes."""
        query, real = cleaned(query), real_queries(query)
        q = _standardised(query.x, real)
        state = self._regression(state, self.moved(state, q, real))
        return self._logits(state, q), state

    def moved(self, state: State, q: Tensor, real: Tensor) -> Tensor:
        """Prototypes ``[*b, C, D]`` transported to standardised queries ``[*b, Q, D]``."""
        means, mass = state["means"], state["mass"]
        several = mass.amax(-1) > 1
        passes = torch.where(several, MORE_SHOTS, ONE_SHOT)
        passes = passes if isinstance(self.passes, str) else torch.full_like(passes, self.passes)
        found = transported(means, mass > 0, q, real, passes, self.eps, self.tol, self.max_sweeps)
        return torch.where(several[..., None, None], torch.lerp(means, found, self.mix), found)

    def inductive(self, state: State, query: Query) -> Tensor:
        """Logits of the regression the state holds."""
        return self._logits(state, standardised(query.x))

    def _regression(self, state: State, prototypes: Tensor) -> State:
        classes = state["mass"] > 0
        weights, bias = fit_softmax(prototypes, torch.diag_embed(classes.to(prototypes.dtype)), classes, self.C)
        return {**state, "weights": weights, "bias": bias}

    @staticmethod
    def _logits(state: State, z: Tensor) -> Tensor:
        logits = z @ state["weights"].mT + state["bias"][..., None, :]
        return torch.where(state["mass"][..., None, :] > 0, logits, lowest(z))

    def _check(self) -> None:
        finite("eps", self.eps, above=0)
        finite("mix", self.mix, least=0, most=1)
        finite("C", self.C, above=0)
        finite("tol", self.tol, above=0)
        count("max_sweeps", self.max_sweeps, 1)
        if isinstance(self.passes, str):
            one_of("passes", self.passes, ("auto",))
        else:
            count("passes", self.passes)
