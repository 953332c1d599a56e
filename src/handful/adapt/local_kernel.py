"""Local kernel estimates beside the zero-shot answer: Tip-Adapter, Nadaraya-Watson, local linear.

Paper 140: Bendou, Ouasfi, Gripon, Boukhayma, "ProKeR: A Kernel Perspective on Few-Shot Adaptation of Large
Vision-Language Models", 2025, sees caches as kernel smoothers. With k_i = exp(-beta (1 - z.x_i)) on unit rows,
f0(z) = z W' without logit scale and r_i = y_i - f0(x_i), what the zero-shot answer gets wrong:

    f(z) = f0(z) + alpha sum_i k_i y_i                                               'tip': no denominator
    f(z) = f0(z) + alpha sum_i k_i r_i / sum_i k_i                                   'nw'
    f(z) = f0(z) + alpha (b + B z),   min_(b, B)  sum_i k_i |r_i - b - B x_i|^2 + lambda |B|^2      'local-linear'

The last is solved with the N x N matrix A = (diag(1 / k) + X X' / lambda)^-1 of a query:
b = 1'A r / 1'A 1,  B z = (X z)' A (r - b) / lambda. The global member of the family is `ProKeR`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self, get_args

import torch
from torch import Tensor

from handful.adapt.base import Head
from handful.adapt.cache import Strength, others, search
from handful.adapt.parameters import finite, one_of
from handful.adapt.zero_shot import prior_logits
from handful.core.distances import unit
from handful.core.kernels import rbf
from handful.core.task import Query, State, Task
from handful.errors import BadInput
from handful.protocols import Needs, Ranges

Kind = Literal["tip", "nw", "local-linear"]
ALPHA = Strength("alpha", 1.0, (0.01, 0.03, 0.1, 0.3, 1.0, 3.0))
BETA = Strength("beta", 3.0, (1.0, 3.0, 6.0, 12.0, 25.0))
MOST = 2048
"""Rows of which 'local-linear' solves one system a query."""
BLOCK = 2**24
"""Numbers in the systems that are solved at a time."""


@dataclass(eq=False, repr=False, kw_only=True)
class KernelCache(Head):
    """A local average of the examples, or of what the zero-shot model gets wrong on them.

    Args:
        kind: ``"tip"``, ``"nw"`` (Nadaraya-Watson) or ``"local-linear"``, which solves a system of N examples for every
            query.
        alpha: weight of the correction; ``"loo"`` chooses among 0.01 ... 3 by leave-one-out over items (1 where a class
            has a single item).
        beta: sharpness of the kernel; ``"loo"`` chooses among 1 ... 25 (3 where a class has a single item).
        ridge: lambda of ``"local-linear"``.
    """

    key: ClassVar[str] = "kernel-cache"
    needs: ClassVar[Needs] = Needs(text=True)
    shapes: ClassVar[Mapping[str, str]] = {"keys": "N D", "target": "N C", "mass": "N", "alpha": "", "beta": ""}
    ranges: ClassVar[Ranges] = {"kind": get_args(Kind)}

    kind: Kind = "nw"
    alpha: float | Literal["loo"] = "loo"
    beta: float | Literal["loo"] = "loo"
    ridge: float = 0.1

    @property
    def directions(self) -> bool:
        """Cosines only."""
        return True

    def adapt(self, task: Task) -> State:
        """State: unit ``keys [*b, N, D]``, what is averaged ``target [*b, N, C]``, with which weight ``mass [*b, N]``,
        ``alpha [*b]``, ``beta [*b]``."""
        one_of("kind", self.kind, get_args(Kind))
        finite("ridge", self.ridge, above=0)
        if self.kind == "local-linear" and task.support.shape[-2] > MOST:
            raise BadInput(
                f"'local-linear' solves a system of all {task.support.shape[-2]} examples for every query: "
                f"take 'proker', or at most {MOST} examples"
            )
        tried = [BETA.tried(self.beta), ALPHA.tried(self.alpha)]
        start = [BETA.given(self.beta), ALPHA.given(self.alpha)]
        state = self._rows(task)
        sets = (self._left_out(state, task, beta, tried[1]) for beta in tried[0])
        beta, alpha = search(sets, task, tried, start)
        return {**state, "alpha": alpha, "beta": beta}

    def answer(self, state: State, query: Query) -> Tensor:
        """``f(z)``."""
        z = unit(query.x)
        kernel = rbf(z, state["keys"], state["beta"][..., None, None])
        alpha = state["alpha"][..., None, None]
        return prior_logits(query.prior) / self.logit_scale + alpha * self._estimate(state, z, kernel)

    def leave_one_out(self, task: Task) -> Tensor | None:
        """An item's own rows have no weight for it."""
        state = self.adapt(task)
        kernel = others(rbf(unit(task.x), state["keys"], state["beta"][..., None, None]), task)
        alpha = state["alpha"][..., None, None]
        return prior_logits(task.offset) / self.logit_scale + alpha * self._estimate(state, unit(task.x), kernel)

    def held(self, state: State) -> Self:
        """With the alpha and beta that were chosen."""
        return replace(self, alpha=float(state["alpha"]), beta=float(state["beta"]))

    def _rows(self, task: Task) -> State:
        y = task.y
        mass = y.sum(-1)
        start = prior_logits(task.offset) / self.logit_scale
        target = torch.where(mass[..., None] > 0, y / mass[..., None].clamp_min(1e-30), 0.0)
        if self.kind != "tip":
            real = (mass[..., None] > 0) & task.class_mask[..., None, :]
            target = torch.where(real, target - start, 0.0)
        return {"keys": unit(task.x), "target": target, "mass": mass}

    def _left_out(self, state: State, task: Task, beta: float, alphas: tuple[float, ...]) -> Tensor:
        """Left-out logits for each alpha ``[S, *b, N, C]``."""
        x, start = unit(task.x), prior_logits(task.offset) / self.logit_scale
        found = self._estimate(state, x, others(rbf(x, x, beta), task))
        return start + found.new_tensor(alphas).reshape(-1, *[1] * found.dim()) * found

    def _estimate(self, state: State, z: Tensor, kernel: Tensor) -> Tensor:
        """The correction ``[*b, Q, C]`` at unit rows ``z [*b, Q, D]``, for ``kernel [*b, Q, N]``."""
        k, target = kernel * state["mass"][..., None, :], state["target"]
        if self.kind == "tip":
            return k @ target
        if self.kind == "nw":
            return k @ target / k.sum(-1, keepdim=True).clamp_min(torch.finfo(k.dtype).tiny)
        each = max(1, BLOCK // (k.shape[-1] * k[..., 0, :].numel()))
        parts = zip(torch.split(z, each, -2), torch.split(k, each, -2), strict=True)
        return torch.cat([self._linear(state["keys"], target, rows, weight) for rows, weight in parts], -2)

    def _linear(self, x: Tensor, target: Tensor, z: Tensor, k: Tensor) -> Tensor:
        root, cross = k.sqrt()[..., None], (z @ x.mT)[..., None]  # [*b, q, N, 1]
        system = root * (x @ x.mT)[..., None, :, :] * root.mT / self.ridge
        system = system + torch.eye(k.shape[-1], dtype=k.dtype, device=k.device)
        factor = torch.linalg.cholesky_ex(system).L  # never singular; a padded query may hold NaN
        one, far = (
            root * torch.cholesky_solve(root * v, factor) for v in (torch.ones_like(cross), cross)
        )  # A 1, A X z
        b = one.mT @ target[..., None, :, :] / one.sum(-2, keepdim=True).clamp_min(torch.finfo(k.dtype).tiny)
        slope = (far.mT @ target[..., None, :, :] - far.sum(-2, keepdim=True) * b) / self.ridge
        return (b + slope)[..., 0, :]
