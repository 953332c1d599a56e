"""TIM: classes that fit the support while the queries are told apart clearly and evenly.

Boudiaf, Masud, Rony, Dolz, Piantanida, Ben Ayed, "Transductive Information Maximization For Few-Shot Learning", 2020.

    s_ki = -t/2 |z_i - w_k|^2,   z = unit(x),   w_k = mean of the support of class k at the start
    L = w_s CE(support) - w_m H(mean_q p_q) + w_c mean_q H(p_q)              see `handful.core.information`

    tim-gd     n_steps of Adam on w
    tim-adm    alternating: q_qk ~ p_qk^(1 + w_c) / (sum_q p_qk^(1 + w_c))^(w_m / (1 + w_m)), rows to 1;
               w_k <- w_k + alpha (w'_k - w_k), with c_s = w_s / (1 + w_c), c_q = N / Q and
               w'_k = (c_s sum_i (y_ik z_i + p_ik (w_k - z_i)) + c_q sum_q (q_qk z_q + p_qk (w_k - z_q)))
                      / (c_s sum_i y_ik + c_q sum_q q_qk)

easyfsl 1.5 has cosines, t = 10, weights (1, 1, 0.1) and 50 steps: ``TIMGD(norm="UN", metric="cosine", temperature=10,
loss_weights=(1, 1, 0.1), n_steps=50)``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from handful.adapt.parameters import count, finite, one_of
from handful.adapt.prototype_descent import Likeness, Metric, descend_prototypes
from handful.adapt.simpleshot import Norm, normed, origin
from handful.adapt.transductive import Transductive, cleaned, real_queries
from handful.core.gaussians import class_means
from handful.core.information import Information
from handful.core.softem import Rows, among, real_classes, shares
from handful.core.task import Query, State, Task, lowest
from handful.errors import BadInput
from handful.protocols import Needs, Ranges


@dataclass(eq=False, repr=False, kw_only=True)
class Tuned(Transductive):
    """What the heads that move prototypes of unit rows share: where they start, and how they answer.

    Args:
        norm: see `handful.adapt.simpleshot`.
        temperature: t.
    """

    needs: ClassVar[Needs] = Needs(transductive=True, gradient=True)
    shapes: ClassVar[Mapping[str, str]] = {"support": "N D", "y": "N C", "mean": "C D", "origin": "D"}

    norm: Norm = "L2N"
    temperature: float = 15.0

    @property
    def directions(self) -> bool:
        """Lengths count only where rows are left as they are."""
        return self.norm != "UN" or self.likeness.metric == "cosine"

    @property
    @abstractmethod
    def likeness(self) -> Likeness:
        """How logits depend on prototypes."""

    @abstractmethod
    def weights(self, y: Tensor, real: Tensor) -> tuple[float | Tensor, float, float]:
        """w_s, w_m, w_c for support ``y [*b, N, C]`` and queries ``real [*b, Q]``; the first may be ``[*b]``."""

    @abstractmethod
    def moved(self, z: Tensor, w: Tensor, y: Tensor, real: Tensor) -> Tensor:
        """Prototypes ``[*b, C, D]`` that started as ``w``, for support and queries ``z [*b, N + Q, D]``."""

    def check(self) -> None:
        """Raise `BadInput` for a parameter that makes no sense."""
        finite("temperature", self.temperature, above=0)

    def start(self, task: Task) -> State:
        """State: ``support [*b, N, D]`` normed, ``y [*b, N, C]``, ``mean [*b, C, D]``, ``origin [*b, D]``."""
        self.check()
        at, y = origin(task, self.norm), task.y
        z = normed(task.x, at, self.norm) * (y.sum(-1, keepdim=True) > 0)
        return {"support": z, "y": y, "mean": class_means(z, y)[0], "origin": at}

    def move(self, state: State, query: Query) -> tuple[Tensor, State]:
        """Logits, and the state with the moved prototypes."""
        query, real = cleaned(query), real_queries(query)
        q = normed(query.x, state["origin"], self.norm) * real[..., None]
        z = torch.cat([state["support"], q], -2)
        state = {**state, "mean": self.moved(z, state["mean"], state["y"], real)}
        return self._logits(q, state), state

    def inductive(self, state: State, query: Query) -> Tensor:
        """The same, by the prototypes of the state."""
        return self._logits(normed(query.x, state["origin"], self.norm), state)

    def _logits(self, z: Tensor, state: State) -> Tensor:
        z = self.likeness.prepared(z)
        s = self.likeness.logits(state["mean"], z, z.square().sum(-1)[..., None, :])[0].mT
        return torch.where(real_classes(state["y"])[..., None, :], s, lowest(z))


@dataclass(eq=False, repr=False, kw_only=True)
class Descended(Tuned):
    """Prototypes moved by Adam, down the loss of the support, of the queries' mean and of each query.

    Args:
        metric: what the logits are made of.
        n_steps: of Adam.
        lr: its rate.
    """

    metric: Metric
    n_steps: int
    lr: float

    def check(self) -> None:
        """See `Tuned.check`."""
        super().check()
        one_of("metric", self.metric, ("sqeuclidean", "euclidean", "cosine"))
        count("n_steps", self.n_steps)
        finite("lr", self.lr, above=0)

    @property
    def likeness(self) -> Likeness:
        """See `Tuned.likeness`."""
        return Likeness(self.metric, self.temperature)

    def moved(self, z: Tensor, w: Tensor, y: Tensor, real: Tensor) -> Tensor:
        """See `Tuned.moved`."""
        information = Information.of(y, real, self.weights(y, real))
        return descend_prototypes(w, z, self.likeness, information, steps=self.n_steps, lr=self.lr)


@dataclass(eq=False, repr=False, kw_only=True)
class TIM(Tuned):
    """The loss of both forms.

    Args:
        loss_weights: w_s, w_m, w_c; ``"auto"`` for the first is (1 + w_c) N / Q.
    """

    loss_weights: tuple[float | Literal["auto"], float, float] = (0.1, 1.0, 0.1)

    def check(self) -> None:
        """See `Tuned.check`."""
        super().check()
        if len(self.loss_weights) != 3:
            raise BadInput(f"loss_weights are three: support, marginal, conditional, not {self.loss_weights!r}")
        for weight in self.loss_weights:
            if not isinstance(weight, str):
                finite("loss_weights", weight, least=0)
        if isinstance(self.loss_weights[0], str):
            one_of("the first of loss_weights", self.loss_weights[0], ("auto",))

    def weights(self, y: Tensor, real: Tensor) -> tuple[float | Tensor, float, float]:
        """See `Tuned.weights`; the first is ``[*b]`` where it is ``"auto"``."""
        w_s, w_m, w_c = self.loss_weights
        return (1 + w_c) * y.sum((-2, -1)) / real.sum(-1) if isinstance(w_s, str) else w_s, w_m, w_c


@dataclass(eq=False, repr=False, kw_only=True)
class TIMGD(Descended, TIM):
    """TIM by gradient descent."""

    key: ClassVar[str] = "tim-gd"
    needs: ClassVar[Needs] = Needs(transductive=True, gradient=True, assumes_balanced=True)

    metric: Metric = "sqeuclidean"
    n_steps: int = 1000
    lr: float = 1e-4


@dataclass(eq=False, repr=False, kw_only=True)
class TIMADM(TIM):
    """TIM by alternating closed forms.

    Args:
        n_steps: how often both are updated.
        alpha: how far prototypes move in a step.
    """

    key: ClassVar[str] = "tim-adm"
    needs: ClassVar[Needs] = Needs(transductive=True, assumes_balanced=True)
    ranges: ClassVar[Ranges] = {"temperature": (3.0, 100.0), "norm": ("CL2N", "L2N")}

    n_steps: int = 150
    alpha: float = 1.0

    def check(self) -> None:
        """See `Tuned.check`."""
        super().check()
        count("n_steps", self.n_steps)
        finite("alpha", self.alpha, least=0, most=1)

    @property
    def likeness(self) -> Likeness:
        """See `Tuned.likeness`."""
        return Likeness("sqeuclidean", self.temperature)

    def moved(self, z: Tensor, w: Tensor, y: Tensor, real: Tensor) -> Tensor:
        """See `Tuned.moved`; prototypes stay weighted sums of rows."""
        n, rows, known = y.shape[-2], Rows.of(z, looks=2 * self.n_steps), real_classes(y)
        w_s, w_m, w_c = self.weights(y, real)
        c_s = torch.as_tensor(w_s / (1 + w_c)).to(z)[..., None, None]
        c_q = (y.sum((-2, -1)) / real.sum(-1).clamp_min(1))[..., None, None]
        weight = torch.cat([c_s * y.sum(-1)[..., None, :], c_q * real[..., None, :]], -1)
        a = shares(torch.nn.functional.pad(y.mT, (0, real.shape[-1])))
        for _ in range(self.n_steps):
            cross, square = rows.products(a)
            log_p = among(known, self.temperature * (cross - square[..., None] / 2)).log_softmax(-2)
            p = log_p.exp() * weight
            goal = torch.cat([c_s * y.mT, c_q * self._assigned(log_p[..., n:], real, w_m, w_c)], -1)
            norm = goal.sum(-1, keepdim=True).clamp_min(torch.finfo(z.dtype).tiny)
            a = a.lerp((goal - p + a * p.sum(-1, keepdim=True)) / norm, self.alpha)
        return a @ z

    @staticmethod
    def _assigned(log_p: Tensor, real: Tensor, w_m: float, w_c: float) -> Tensor:
        """``q [*b, C, Q]``, zero for padding."""
        log_q = (1 + w_c) * log_p
        mass = log_q.masked_fill(~real[..., None, :], -torch.inf).logsumexp(-1, keepdim=True)
        return (log_q - w_m / (w_m + 1) * mass.clamp_min(lowest(mass))).softmax(-2) * real[..., None, :]
