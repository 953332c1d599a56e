"""Generalised EM: soft clustering with the support held, a penalty on class shares and a temperature.

Paper 134: Zhou, Shakeri, Sadraoui, Kaaniche, Pesquet, Ben Ayed, "UNEM: UNrolled Generalized EM for Transductive
Few-Shot Learning", 2024.

    repeat n_iter times:
        theta_k   fitted to the support of class k and the queries by u_qk
        v_k = log(mean_q u_qk + eps)
        u_q = softmax_k((log p(z_q | theta_k) + lam v_k) / T)
    "gaussian"    z = s x;  log p = -|z - w_k|^2 / 2;  the first w are the class means, the first v is 0
    "dirichlet"   z = softmax(s cos(x, class text)), or x where there is no text and rows are probabilities;
                  log p as in `handful.core.dirichlet`; the first u are z (the classes' fit to the support without text)

lam, T (one for each iteration, or one for all) and s are learnt over tasks by `handful.adapt.unrolled.learn`; by
default they are where that learning starts. Without learning: `UNEM.paddle`, `UNEM.em_dirichlet`, `UNEM.k_means`.
The authors add 1 to v, which changes no softmax.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from handful.adapt.em import DirichletRows, GaussianRows, Model, generalized_em
from handful.adapt.parameters import count, finite, one_of
from handful.adapt.transductive import Transductive, cleaned, real_queries
from handful.core.dirichlet import log_density
from handful.core.distances import sqeuclidean
from handful.core.gaussians import class_means
from handful.core.softem import Rows, among, real_classes
from handful.core.task import Query, State, Task, lowest
from handful.errors import BadInput
from handful.protocols import Needs

EPS: Mapping[str, float] = {"gaussian": 1e-6, "dirichlet": 1e-15}


def softplus(x: float) -> float:
    """``log(1 + e^x)``: learnt numbers pass through it to stay above 0."""
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


@dataclass(eq=False, repr=False, kw_only=True)
class UNEM(Transductive):
    """Generalised EM whose strengths can be learnt over tasks.

    Args:
        family: how rows of a class are distributed.
        n_iter: iterations, or layers.
        lam: weight of the penalty; a sequence has one for each iteration. ``"auto"``: where learning starts, 1.31 for
            ``"gaussian"``, softplus(C / k_eff) for ``"dirichlet"``; ``"ratio"``: floor(C / k_eff).
        per_query: divide ``lam`` by the number of queries, as PADDLE does.
        temperature: T, at least 1; a sequence has one for each iteration.
        feature_temperature: s; ``"auto"``: where learning starts, 1.31 or 30.
        k_eff: how many classes the queries are of, C when not given.
        hard: assign every query to one class.
    """

    key: ClassVar[str] = "unem"
    needs: ClassVar[Needs] = Needs(transductive=True)
    shapes: ClassVar[Mapping[str, str]] = {"support": "N F", "y": "N C", "theta": "C F", "v": "C"}

    family: Literal["gaussian", "dirichlet"] = "gaussian"
    n_iter: int = 10
    lam: float | Sequence[float] | Literal["auto", "ratio"] = "auto"
    per_query: bool = False
    temperature: float | Sequence[float] = 1 + softplus(1.0)
    feature_temperature: float | Literal["auto"] = "auto"
    k_eff: int | None = None
    hard: bool = False

    @classmethod
    def paddle(cls, lam: float = 75.0) -> Self:
        """Martin et al., "Towards Practical Few-Shot Query Sets", 2022, with the defaults of the UNEM repository.

        There every channel is divided by its range over the queries first, and ``lam`` is for that; here rows are taken
        as they are.
        """
        return cls(n_iter=100, lam=lam, per_query=True, temperature=1.0, feature_temperature=1.0)

    @classmethod
    def em_dirichlet(cls, k_eff: int, *, hard: bool = False) -> Self:
        """Martin et al., "Transductive Zero-Shot and Few-Shot CLIP", 2024."""
        return cls(family="dirichlet", n_iter=20, lam="ratio", k_eff=k_eff, temperature=1.0, hard=hard)

    @classmethod
    def k_means(cls, *, hard: bool = False) -> Self:
        """Clamped k-means with unit variance, soft or hard."""
        return cls(n_iter=20, lam=0.0, temperature=1.0, feature_temperature=1.0, hard=hard)

    def start(self, task: Task) -> State:
        """State: ``support [*b, N, F]``, as features or cosines, ``y [*b, N, C]``, ``theta [*b, C, F]``, log shares
        ``v [*b, C]``.
        """
        self._check(int(task.ways.min()))
        y, v = task.y, task.y.new_zeros(*task.y.shape[:-2], task.y.shape[-1])
        if self.family == "gaussian":
            return {"support": task.x, "y": y, "theta": class_means(task.x, y)[0], "v": v}
        rows = task.x if task.offset is None else task.offset / self.logit_scale
        there = self._there(rows, y, task.prior is not None)
        z = self._log_rows(rows, there, y.sum(-1) > 0, self._scale, task.prior is not None)
        return {"support": rows, "y": y, "theta": DirichletRows(z, there).fit(y.mT, None), "v": v}

    def move(self, state: State, query: Query) -> tuple[Tensor, State]:
        """Logits of the last iteration, and the parameters they come from."""
        query, real, y = cleaned(query), real_queries(query), state["y"]
        lam, temperature = self._strengths(y)
        if self.per_query:
            lam = lam / real.sum(-1).clamp_min(1)[..., None, None, None]
        model, start = self.problem(state, query, real, self._scale)
        layers = lam.movedim(-1, 0)
        logits, theta, v = generalized_em(
            model, y, real, layers, temperature, eps=EPS[self.family], start=start, hard=self.hard
        )
        return logits.mT.clamp_min(lowest(y)), {**state, "theta": theta, "v": v}

    def inductive(self, state: State, query: Query) -> Tensor:
        """``(log p + lam v) / T`` of the last iteration."""
        y, real = state["y"], real_queries(query)
        lam, temperature = self._strengths(y)
        if self.family == "gaussian":
            density = -0.5 * self._scale**2 * sqeuclidean(query.x, state["theta"]).mT
        else:
            rows, by_class = self._asked(query)
            there = self._there(rows, y, by_class)
            density = log_density(self._log_rows(rows, there, real, self._scale, by_class), state["theta"], there)
        penalty = 0.0 if self.per_query else lam[..., -1] * state["v"][..., None]
        return among(real_classes(y), (density + penalty) / temperature[-1]).mT.clamp_min(lowest(y))

    def problem(self, state: State, query: Query, real: Tensor, scale: Tensor | float) -> tuple[Model, Tensor | None]:
        """Support and queries as rows, and assignments ``[*b, C, Q]`` to start from: the queries' own probabilities
        where they are about the classes.
        """
        if self.family == "gaussian":
            return GaussianRows(Rows.of(torch.cat([state["support"], query.x], -2)), scale), None
        rows, by_class = self._asked(query)
        there = self._there(rows, state["y"], by_class)
        s = self._log_rows(state["support"], there, state["y"].sum(-1) > 0, scale, by_class)
        q = self._log_rows(rows, there, real, scale, by_class)
        return DirichletRows(torch.cat([s, q], -2), there), q.exp().mT if by_class else None

    def _asked(self, query: Query) -> tuple[Tensor, bool]:
        """Rows ``[*b, Q, F]``, and whether they are cosines with class text rather than probabilities."""
        return (query.x, False) if query.prior is None else (query.prior / self.logit_scale, True)

    def _log_rows(self, rows: Tensor, there: Tensor, real: Tensor, scale: Tensor | float, by_class: bool) -> Tensor:
        """``log(z + eps) [*b, n, F]``, zero where not ``real [*b, n]``."""
        if by_class:
            z = (rows * scale).masked_fill(~there, -torch.inf).softmax(-1)
        else:
            z = torch.where(real[..., None], rows, 1.0)
            off = real & ((z < 0).any(-1) | ((z.sum(-1) - 1).abs() > 1e-3))
            if bool(off.any()):
                row = int(off.nonzero()[0, -1])
                raise BadInput(f"row {row} is no probability vector: family 'dirichlet' needs those, or class text")
        return torch.where(real[..., None], (z + EPS["dirichlet"]).log(), 0.0)

    @staticmethod
    def _there(rows: Tensor, y: Tensor, by_class: bool) -> Tensor:
        """Which entries of rows are real ``[*b, 1, F]``: the real classes where rows are about classes."""
        if by_class:
            return real_classes(y)[..., None, :]
        return torch.ones(*rows.shape[:-2], 1, rows.shape[-1], dtype=torch.bool, device=rows.device)

    @property
    def _scale(self) -> float:
        if isinstance(self.feature_temperature, str):
            return softplus(1.0) if self.family == "gaussian" else 30.0
        return float(self.feature_temperature)

    def _strengths(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """lam ``[*b, 1, 1, L]``, and T ``[L]``."""
        classes = real_classes(y).sum(-1).to(y.dtype)[..., None, None, None]
        ratio = classes / (classes if self.k_eff is None else self.k_eff)
        if self.lam == "auto":
            gamma = torch.ones_like(ratio) if self.family == "gaussian" else ratio
            lam = torch.nn.functional.softplus(gamma)
        else:
            lam = ratio.floor() if self.lam == "ratio" else torch.as_tensor(self.lam, dtype=y.dtype, device=y.device)
        temperature = torch.as_tensor(self.temperature, dtype=y.dtype, device=y.device)
        return lam.expand(*classes.shape[:-1], self.n_iter), temperature.expand(self.n_iter)

    def _check(self, classes: int) -> None:
        one_of("family", self.family, tuple(EPS))
        count("n_iter", self.n_iter, 1)
        if isinstance(self.lam, str):
            one_of("lam", self.lam, ("auto", "ratio"))
        if isinstance(self.feature_temperature, str):
            one_of("feature_temperature", self.feature_temperature, ("auto",))
        else:
            finite("feature_temperature", self.feature_temperature, above=0)
        for name, value, least in (("lam", self.lam, 0.0), ("temperature", self.temperature, 1.0)):
            if isinstance(value, Sequence) and not isinstance(value, str) and len(value) != self.n_iter:
                raise BadInput(f"{name} has {len(value)} values for n_iter={self.n_iter} iterations")
            for one in value if isinstance(value, Sequence) else [value]:
                if value != self.lam or not isinstance(one, str):
                    finite(name, one, least=least)  # type: ignore[arg-type]
        if self.k_eff is not None and count("k_eff", self.k_eff, 1) > classes:
            raise BadInput(f"k_eff={self.k_eff} classes among the queries, but there are only {classes}")
