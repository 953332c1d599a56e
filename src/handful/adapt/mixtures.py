"""ConSE, SSE and SynC: other classes as mixtures of seen ones.

Paper 202: Xian, Lampert, Schiele, Akata, "Zero-Shot Learning - A Comprehensive Evaluation of the Good, the Bad and the
Ugly", 2017.

    ConSE  f(x) = sum_(t <= T) p(k_t | x) phi_(k_t) over the T likeliest seen classes;  logit_c = cos(f(x), phi_c)
    SSE    z_c = argmin_(z in simplex) |phi_c - sum_k z_k phi_k|^2 + reg |z|^2,  logit_c = sum_k z_ck w.min(x, v_k),
           w and the v_k by a multi-class hinge:  sum_i sum_(c != y) [1 + logit_c - logit_y]_+ / (C - 1) n + ridges
    SynC   u_ck proportional to exp(-|phi_c - phi_k|^2 / sigma^2),  w_c = sum_k u_ck v_k,  logit_c = w_c x,
           the v_k such that the w_c of seen classes are one-against-others squared-hinge machines
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from handful.adapt.attributes import posterior, seen_posterior
from handful.adapt.parameters import count, finite
from handful.adapt.signatures import Known, SignatureHead
from handful.core.column_regression import fit_columns
from handful.core.distances import cosine, sqeuclidean
from handful.core.gaussians import class_means
from handful.core.simplex import onto_simplex
from handful.core.task import State
from handful.core.train import Adam, descend
from handful.core.train import cosine as falling
from handful.protocols import Needs


@dataclass(eq=False, repr=False, kw_only=True)
class ConSE(SignatureHead):
    """An item is the mean of the signatures of the seen classes it looks most like; the nearest class answers.

    Args:
        top: T, how many seen classes take part.
        C: inverse strength of the penalty of the logistic regression behind p(k | x).
    """

    key: ClassVar[str] = "conse"
    needs: ClassVar[Needs] = Needs(text=True, gradient=True)
    shapes: ClassVar[Mapping[str, str]] = {**SignatureHead.shapes, "weight": "C D", "bias": "C", "known": "C T"}

    top: int = 10
    C: float = 1.0

    def learn(self, known: Known) -> State:
        """State: ``weight [*b, C, D]``, ``bias [*b, C]``, signatures of seen classes ``known [*b, C, T]``."""
        count("top", self.top, 1)
        finite("C", self.C, above=0)
        return {**seen_posterior(known, self.C), "known": known.s}

    def compatibility(self, state: State, x: Tensor) -> Tensor:
        """Cosines times ``logit_scale``."""
        p = posterior(state, x)
        best = p.topk(min(self.top, p.shape[-1]), dim=-1)
        p = torch.zeros_like(p).scatter(-1, best.indices, best.values)
        return self.logit_scale * cosine(p @ state["known"], state["text"])


@dataclass(eq=False, repr=False, kw_only=True)
class SSE(SignatureHead):
    """Items and classes as proportions of seen classes, compared by them.

    Args:
        reg: ridge on the proportions of a class.
        ridge: of w and of the distance of v_k from the mean of class k.
        steps: of Adam over all rows together.
        lr: length of the first; it falls to 0 by a cosine.
    """

    key: ClassVar[str] = "sse"
    needs: ClassVar[Needs] = Needs(text=True, gradient=True)
    shapes: ClassVar[Mapping[str, str]] = {**SignatureHead.shapes, "w": "D", "v": "C D", "known": "C T", "seen": "C"}

    reg: float = 0.01
    ridge: float = 1e-3
    steps: int = 200
    lr: float = 0.01

    def learn(self, known: Known) -> State:
        """State: ``w [*b, D]``, ``v [*b, C, D]``, signatures of seen classes ``known [*b, C, T]``, ``seen [*b, C]``."""
        finite("reg", self.reg, above=0)
        finite("ridge", self.ridge, least=0)
        finite("lr", self.lr, above=0)
        count("steps", self.steps)
        x, y, seen = known.x, known.y, known.seen
        mean = class_means(x, y)[0]
        z = proportions(known.s, known.s, seen, self.reg)
        pairs = y.sum((-2, -1)) * (seen.sum(-1) - 1).clamp_min(1)
        most = max(1, int((y > 0).sum(-1).max()))  # labels of a row: one, where they are not soft
        share, code = y.topk(most, dim=-1)  # [*b, N, M]
        other = code[..., None] != torch.arange(y.shape[-1], device=y.device)
        other = other & seen[..., None, None, :]

        def losses(parameters: list[Tensor], _: Tensor) -> Tensor:
            w, v = parameters
            logits = intersections(w, v, x) @ z.mT
            gap = 1 + logits[..., None, :] - logits.gather(-1, code)[..., None]  # [*b, N, M, C]
            hinge = (share[..., None] * torch.where(other, gap.clamp_min(0), 0.0)).sum((-3, -2, -1)) / pairs
            away = torch.where(seen[..., None], v - mean, 0.0).square().sum((-2, -1))
            return hinge + 0.5 * self.ridge * (w.square().sum(-1) + away)

        start = torch.ones_like(x[..., 0, :]) / x.shape[-1] ** 0.5
        none = torch.zeros(0, device=x.device)
        w, v = descend([start, mean], losses, [none] * self.steps, falling(self.lr, max(1, self.steps)), Adam())
        return {"w": w, "v": v, "known": known.s, "seen": seen.to(x.dtype)}

    def compatibility(self, state: State, x: Tensor) -> Tensor:
        """``sum_k z_ck w.min(x, v_k)``."""
        z = proportions(state["text"], state["known"], state["seen"] > 0, self.reg)
        return intersections(state["w"], state["v"], x) @ z.mT


def intersections(w: Tensor, v: Tensor, x: Tensor) -> Tensor:
    """``w . min(x, v_k)`` ``[*b, Q, K]``: half of w.x + w.v_k - w.|x - v_k|, the last as distances, w's signs apart."""
    away = _spread_out(w.clamp_min(0), v, x)
    if bool((w < 0).any()):
        away = away - _spread_out((-w).clamp_min(0), v, x)
    return 0.5 * ((x @ w[..., None]) + (v @ w[..., None]).mT - away)


def _spread_out(w: Tensor, v: Tensor, x: Tensor) -> Tensor:
    return torch.cdist(x * w[..., None, :], v * w[..., None, :], p=1.0)


def proportions(text: Tensor, known: Tensor, seen: Tensor, reg: float, steps: int = 300) -> Tensor:
    """``z_c`` ``[*b, K, C]`` of signatures ``text [*b, K, T]`` in those of seen classes ``known [*b, C, T]``.

    By accelerated projected gradient (Beck and Teboulle 2009).
    """
    gram = known @ known.mT
    linear = text @ known.mT
    rate = 1 / (torch.linalg.matrix_norm(gram).clamp_min(1e-12) + reg)[..., None, None]
    z = onto_simplex(torch.zeros_like(linear), seen[..., None, :])
    ahead, t = z, 1.0
    for _ in range(steps):
        new = onto_simplex(ahead - rate * (ahead @ gram - linear + reg * ahead), seen[..., None, :])
        grown = (1 + (1 + 4 * t * t) ** 0.5) / 2
        ahead, z, t = new + (t - 1) / grown * (new - z), new, grown
    return z


@dataclass(eq=False, repr=False, kw_only=True)
class SynC(SignatureHead):
    """Classifiers of all classes as mixtures of those of phantom classes, which lie where the seen ones do.

    Args:
        sigma: width of the mixture in the space of signatures.
        C: inverse strength of the penalty of the machines.
    """

    key: ClassVar[str] = "sync"
    needs: ClassVar[Needs] = Needs(text=True, gradient=True)
    shapes: ClassVar[Mapping[str, str]] = {**SignatureHead.shapes, "v": "C D", "known": "C T", "seen": "C"}

    sigma: float = 1.0
    C: float = 1.0

    def learn(self, known: Known) -> State:
        """State: ``v [*b, C, D]``, signatures of seen classes ``known [*b, C, T]``, ``seen [*b, C]``."""
        finite("sigma", self.sigma, above=0)
        finite("C", self.C, above=0)
        against = torch.where(known.seen[..., None, :], known.y.sum(-1, keepdim=True) - known.y, 0.0)
        w, _ = fit_columns(known.x, known.y, against, self.C, loss="squared-hinge", intercept=False)
        u = self._mixture(known.s, known.s, known.seen).double()
        u = torch.where(known.seen[..., None], u, 0.0)
        v = (torch.linalg.pinv(u, rtol=1e-10) @ w.double()).to(w.dtype)
        return {"v": v, "known": known.s, "seen": known.seen.to(w.dtype)}

    def compatibility(self, state: State, x: Tensor) -> Tensor:
        """``w_c x``."""
        u = self._mixture(state["text"], state["known"], state["seen"] > 0)
        return x @ (u @ state["v"]).mT

    def _mixture(self, text: Tensor, known: Tensor, seen: Tensor) -> Tensor:
        near = -sqeuclidean(text, known) / self.sigma**2
        return near.masked_fill(~seen[..., None, :], -torch.inf).softmax(-1)
