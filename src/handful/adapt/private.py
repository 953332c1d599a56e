"""A linear head with differential privacy: what it learns hardly depends on any single example.

Paper 003: Tobaben, Shysheya, Bronskill, Paverd, Tople, Zanella-Béguelin, Turner, Honkela, "On the Efficacy of
Differentially Private Few-shot Image Classification", 2023: softmax regression from zero on frozen features by DP-SGD
(Abadi et al. 2016) with Adam. At each of T = epochs ceil(n / B) steps, every example joins with probability q = B / n:

    e_i = softmax(W z_i) - y_i,   z_i = [x_i / |x_i|, 1],   g_i = e_i z_i'
    G   = (sum_i g_i min(1, C / |g_i|) + sigma C N(0, 1)) / B,   |g_i| = |e_i| |z_i|

sigma is the least for which (epsilon, delta) hold. Nothing else looks at the examples: no mean, no scale, no search of
strengths, which would have to pay (`private_search`). What is taken as known to everybody: how many examples there are,
the names of the classes, the encoder.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor

from handful.adapt.base import Head
from handful.core.distances import unit
from handful.core.noise import Source
from handful.core.privacy import Budget, PrivacySpent
from handful.core.task import Query, State, Task, mask_classes
from handful.core.train import SGD, Adam, Update
from handful.errors import BadInput
from handful.protocols import Needs

SEEDED = (
    "private noise takes no seed: leave random_state=None (on the command line: handful fit --private "
    "EPSILON), or give noise='seeded' for a study that is not private"
)


@dataclass(frozen=True)
class Descent:
    """DP-SGD from zero for tasks ``[*b]``, whose numbers of it are ``[*b, 1, 1]``.

    Args:
        size: B, examples a step on average.
        q: chance of an example to join a step.
        sigma: noise of a step by C.
        steps: T.
        max_grad_norm: C.
        lr: of the optimiser.
        optimizer: ``"adam"`` or ``"sgd"`` (momentum 0.9).
    """

    size: Tensor
    q: Tensor
    sigma: Tensor
    steps: Tensor
    max_grad_norm: float
    lr: float
    optimizer: str

    def weights(self, task: Task, z: Tensor, real: Tensor, source: Source) -> Tensor:
        """``W [*b, C, D + 1]`` from the examples ``z [*b, N, D]`` that are ``real [*b, N]``."""
        z = torch.cat([z, torch.ones_like(z[..., :1])], -1)
        length = z.norm(dim=-1, keepdim=True)
        y, mask = task.y, task.class_mask[..., None]
        mass = y.sum(-1, keepdim=True)
        weights = z.new_zeros(*real.shape[:-1], y.shape[-1], z.shape[-1])
        update: Update = Adam() if self.optimizer == "adam" else SGD()
        for step in range(int(self.steps.max())):
            p = mask_classes(z @ weights.mT, task.class_mask).softmax(-1)
            error = mass * p - y
            norm = error.norm(dim=-1, keepdim=True) * length
            share = (self.max_grad_norm / norm.clamp_min(1e-30)).clamp_max(1.0) * real[..., None]
            if (self.q < 1).any():
                share = share * (source.uniform(*real.shape, 1).to(z.device) < self.q)
            total = ((error * share).mT @ z).double()
            if (self.sigma > 0).any():
                drawn = source.normal(*total.shape).to(total.device)
                total = total + torch.where(mask, self.sigma * self.max_grad_norm * drawn, 0.0)
            moved = weights.clone()
            update([moved], ((total / self.size).to(z.dtype),), self.lr)
            weights = torch.where(step < self.steps, moved, weights)
        return weights


@dataclass(eq=False, repr=False, kw_only=True)
class PrivateHead(Head):
    """A linear head whose weights are all that comes from the examples, with noise.

    Args:
        epsilon: privacy budget; ``None`` adds no noise and promises nothing.
        delta: chance that the promise fails; ``"1/n"`` for n examples (the paper's).
        optimizer: ``"adam"`` or ``"sgd"`` (momentum 0.9).
        normalize: make rows unit first.
        noise: ``"system"`` draws from the operating system, and then ``random_state`` must be ``None``; ``"seeded"``
            draws from ``random_state``, for tests and studies: it is not private, and `fit` warns so.

    Attributes (after ``fit``):
        privacy_spent_: see `PrivacySpent`.
    """

    shapes: ClassVar[Mapping[str, str]] = {"weight": "C D", "bias": "C"}

    epsilon: float | None = 1.0
    delta: float | Literal["1/n"] = "1/n"
    optimizer: Literal["adam", "sgd"] = "adam"
    normalize: bool = True
    noise: Literal["system", "seeded"] = "system"

    @property
    def directions(self) -> bool:
        """Where rows are made unit."""
        return self.normalize

    @abstractmethod
    def spent(self, n: int) -> PrivacySpent:
        """What fitting n examples spends or, once fitted, has spent."""

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """See `Head.fit`; then ``privacy_spent_`` is there. Warns where nothing is promised, or little."""
        super().fit(X, y, sample_weight)
        weight = np.ones(np.asarray(y).size) if sample_weight is None else np.asarray(sample_weight)
        self.privacy_spent_ = self.spent(int((weight > 0).sum()))
        if said := self.privacy_spent_.warning(chosen=self.delta != "1/n"):
            warnings.warn(said, UserWarning, stacklevel=2)
        return self

    def answer(self, state: State, query: Query) -> Tensor:
        """``W x / |x| + b``."""
        return self._rows(query.x) @ state["weight"].mT + state["bias"][..., None, :]

    def _rows(self, x: Tensor) -> Tensor:
        return unit(x) if self.normalize else x

    def _refuse_seed(self) -> None:
        if self.noise == "system" and self.random_state is not None:
            raise BadInput(SEEDED)


@dataclass(eq=False, repr=False, kw_only=True)
class PrivateLogistic(PrivateHead):
    """Softmax regression with differential privacy: clipped, noisy gradients and an accountant.

    The defaults are those of the paper where it does not search; ``handful fit --private`` takes others. An example is
    a row: rows that show the same item are protected one by one. A row of weight w has w times the gradient before
    clipping.

    Args:
        max_grad_norm: C, the most an example's gradient may be long.
        epochs: passes over the examples, on average.
        batch_size: B, examples a step on average; all where there are fewer, or with ``None``. For a given budget all
            leave more accuracy than a few, and take longer.
        lr: of the optimiser.

    The others, and what is there after ``fit``: see `PrivateHead`.
    """

    key: ClassVar[str] = "private-logistic"
    needs: ClassVar[Needs] = Needs(gradient=True, stochastic=True)

    max_grad_norm: float = 1.0
    epochs: int = 400
    batch_size: int | None = 200
    lr: float = 3e-3

    def plan(self, n: int) -> PrivacySpent:
        """What fitting n examples spends; looks at nothing but n.

        Raises:
            BadInput: a parameter out of range, an epsilon too small for any noise, dp-accounting not installed.
        """
        return self._budget.plan(n)

    def spent(self, n: int) -> PrivacySpent:
        """As `plan`: it is known before."""
        return self.plan(n)

    def adapt(self, task: Task) -> State:
        """State: ``weight [*b, C, D]``, ``bias [*b, C]``; tasks of a batch may differ in how many examples they have.

        Raises:
            BadInput: as `plan`; a seed beside the system's noise.
        """
        budget = self._budget
        self._refuse_seed()
        real = task.weight > 0
        n = real.sum(-1)
        plans = {k: self.plan(k) for k in set(n.reshape(-1).tolist())}

        def each(name: str) -> Tensor:  # a number of the plan of each task
            values = [getattr(plans[k], name) for k in n.reshape(-1).tolist()]
            return torch.tensor(values, dtype=torch.float64, device=n.device).reshape(*n.shape, 1, 1)

        q = each("sampling_rate")
        run = Descent(
            q * n[..., None, None], q, each("sigma"), each("steps"), self.max_grad_norm, self.lr, self.optimizer
        )
        weights = run.weights(task, self._rows(task.x), real, budget.source(task.seed))
        return {"weight": weights[..., :-1], "bias": weights[..., -1]}

    @property
    def _budget(self) -> Budget:
        return Budget(**{field.name: getattr(self, field.name) for field in fields(Budget)})
