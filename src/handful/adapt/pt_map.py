"""PT-MAP: features made more Gaussian, then class centres and a balanced assignment of the queries, in turn.

Paper 042: Hu, Gripon, Pateux, "Leveraging the Feature Distribution in Transfer-based Few-Shot Learning", 2021.

    z = unit(unit((x + eps)^beta) - m),  m the mean of the support for the support, of the queries for the queries
    c_k = mean of the support of class k
    repeat n_steps times:
        P = sinkhorn(|z_q - c_k|^2, 1 / lam): each query sums to 1, class k to its prior times the queries
        mu_k = sum_i P_ik z_i / sum_i P_ik over support (its labels) and queries;   c_k <- c_k + alpha (mu_k - c_k)
    answer by P of the last centres

The authors first turn the task's rows into coordinates of their span (`handful.adapt.transforms.lossless`); here only
inner products are looked at, which is the same without the decomposition. Each task's transport stops by itself and
when it is solved; the authors wait for the slowest task of a batch, and stop when a sweep changes little.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from handful.adapt.parameters import count, finite, several
from handful.adapt.transductive import Transductive, center_, cleaned, real_queries
from handful.adapt.transforms import Power
from handful.core.distances import sqeuclidean, unit_
from handful.core.gaussians import class_means
from handful.core.softem import Rows, real_classes, shares
from handful.core.task import Query, State, Task, lowest
from handful.core.transport import sinkhorn
from handful.errors import BadInput
from handful.protocols import Needs, Ranges


@dataclass(eq=False, repr=False, kw_only=True)
class PTMAP(Transductive):
    """Power transform and maximum a posteriori centres, for queries of which every class has its known share.

    Args:
        beta: exponent of the power transform; 0 takes logarithms.
        lam: how sharply distance decides.
        alpha: how far centres move in a step.
        n_steps: how often they move.
        class_prior: share of each class among the queries, in the order of the sorted labels.
        signed: keep the sign of negative features and raise their size (our extension); otherwise those are refused.
        center: subtract the means of support and queries. Off: as easyfsl has it.
        tol, max_sweeps: when the transport is solved; see `handful.core.transport.sinkhorn`.
    """

    key: ClassVar[str] = "pt-map"
    needs: ClassVar[Needs] = Needs(transductive=True, assumes_balanced=True, positive=True)
    shapes: ClassVar[Mapping[str, str]] = {"support": "N D", "y": "N C", "mean": "C D", "center": "D"}
    small_steps: ClassVar[bool] = True
    ranges: ClassVar[Ranges] = {"lam": (1.0, 100.0), "alpha": (0.1, 0.2, 0.3, 0.4), "beta": (0.25, 0.5, 1.0)}

    beta: float = 0.5
    lam: float = 10.0
    alpha: float = 0.2
    n_steps: int = 20
    class_prior: Literal["uniform"] | Sequence[float] = "uniform"
    signed: bool = False
    center: bool = True
    tol: float = 1e-6
    max_sweeps: int = 1000

    @property
    def positive_only(self) -> bool:
        """Unless ``signed``."""
        return not self.signed

    def start(self, task: Task) -> State:
        """State: ``support [*b, N, D]`` transformed, its ``y [*b, N, C]``, ``mean [*b, C, D]``, ``center [*b, D]``."""
        self._check(task.class_mask.shape[-1])
        z, y = task.x.clone(), task.y
        center = self._transform_(z, y.sum(-1))
        return {"support": z, "y": y, "mean": class_means(z, y)[0], "center": center}

    def move(self, state: State, query: Query) -> tuple[Tensor, State]:
        """log P, and the centres and the queries' mean it was made with."""
        query, real, y = cleaned(query), real_queries(query), state["y"]
        self._check_queries(real, y)
        n, classes = y.shape[-2], real_classes(y)
        z = torch.cat([state["support"], query.x], -2)
        center = self._transform_(z[..., n:, :], real.to(z.dtype))
        rows, known = Rows.of(z), y.mT
        a = shares(torch.nn.functional.pad(known, (0, query.x.shape[-2])))
        plan = self._plan(rows.sqeuclidean(a)[..., n:], classes, real)
        for _ in range(self.n_steps):
            a = a.lerp(shares(torch.cat([known, plan], -1)), self.alpha)
            plan = self._plan(rows.sqeuclidean(a)[..., n:], classes, real)
        log_p = plan.clamp_min(torch.finfo(z.dtype).tiny).log().mT
        return torch.where(classes[..., None, :], log_p, lowest(z)), {**state, "mean": a @ z, "center": center}

    def inductive(self, state: State, query: Query) -> Tensor:
        """``-lam |z - c_k|^2``, queries centred by the mean the state holds."""
        z = unit_(self._power.apply_(query.x.clone()))
        z = unit_(z.sub_(state["center"][..., None, :])) if self.center else z
        logits = -self.lam * sqeuclidean(z, state["mean"])
        return torch.where(real_classes(state["y"])[..., None, :], logits, lowest(z))

    @property
    def _power(self) -> Power:
        return Power(beta=self.beta, signed=self.signed)

    def _transform_(self, x: Tensor, weight: Tensor) -> Tensor:
        """Power, unit length, centre, unit length, in the memory of ``x``; returns the centre."""
        unit_(self._power.apply_(x))
        if not self.center:
            x.mul_((weight > 0)[..., None])
            return x.new_zeros(*x.shape[:-2], x.shape[-1])
        center = center_(x, weight)
        unit_(x)
        return center

    def _plan(self, cost: Tensor, real_class: Tensor, real: Tensor) -> Tensor:
        """Between classes, by their share of the real queries, and queries."""
        classes = real_class.to(cost.dtype)
        if not isinstance(self.class_prior, str):
            classes = classes * torch.as_tensor(self.class_prior, dtype=cost.dtype, device=cost.device)
        queries = real.to(cost.dtype)
        target = shares(classes) * queries.sum(-1, keepdim=True)
        return sinkhorn(cost, 1 / self.lam, target, queries, tol=self.tol, max_sweeps=self.max_sweeps)

    def _check(self, classes: int) -> None:
        finite("lam", self.lam, above=0)
        finite("alpha", self.alpha, least=0, most=1)
        finite("tol", self.tol, above=0)
        count("n_steps", self.n_steps)
        count("max_sweeps", self.max_sweeps, 1)
        if isinstance(self.class_prior, str):
            if self.class_prior != "uniform":
                raise BadInput(f"class_prior is 'uniform' or a share for each class, not {self.class_prior!r}")
            return
        shares = several("class_prior", self.class_prior, "'uniform' or a share for each class")
        prior = [finite("class_prior", share, above=0) for share in shares]
        if len(prior) != classes:
            raise BadInput(f"class_prior has {len(prior)} shares, but there are {classes} classes")
        if abs(sum(prior) - 1) > 1e-6:
            raise BadInput(f"the shares of class_prior add up to {sum(prior):.6g}, not to 1")

    def _check_queries(self, real: Tensor, y: Tensor) -> None:
        fewest = int(real.sum(-1).min())
        if self.center and fewest < 2:
            raise BadInput("a single query minus the queries' mean is nothing: ask several, or set center=False")
        if fewest < int(real_classes(y).sum(-1).max()):
            warnings.warn(
                f"{fewest} queries among more classes: PTMAP gives every class its share of them", stacklevel=4
            )
