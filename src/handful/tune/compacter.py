"""Compacter: a bottleneck whose maps are sums of Kronecker products (Karimi Mahabadi et al., Compacter: Efficient
Low-Rank Hypercomplex Adapter Layers, 2021), as T-Few (027) compares it.

    H_j   = sum_{i=1..n} A_ji (x) s_ji t_ji        A_ji [n, n],  s_1i [d/n, r],  t_1i [r, m/n], and back for j = 2
    y'    = y + act(y H_1 + c) H_2 + e             H_1 [d, m],  H_2 [m, d],  m = d // reduction

    numbers that learn, at one place:   2 n^3 + 2 r (d + m) + d + m

A begins N(0, 0.02^2), s and t uniform as Glorot with gain sqrt 2, c = e = 0: nearly, not exactly, the model as it was.
Each place has its own A, as in T-Few's code; in the paper all share one.

`LowRank` is the paper's adapter of two low-rank maps: H_j = s_j t_j, 2 r (d + m) + d + m numbers at a place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from handful.errors import BadInput
from handful.tune.adapters import Activation, activated
from handful.tune.change import Begun, Change, Mode, Tensors, register
from handful.tune.delta import Placed
from handful.tune.own import Own
from handful.tune.sites import Where, sites


@register
@dataclass(frozen=True)
class Compacter(Change):
    """See `handful.tune.compacter`. Place it at the map (``o``, ``down``) whose output it is to change.

    Args:
        reduction: how many times narrower than what it reads the middle is.
        n: of the products.
        rank: r.
        activation: in the middle.
    """

    key: ClassVar[str] = "compacter"
    modes: ClassVar[frozenset[Mode]] = frozenset({"branch"})
    reduction: int = 32
    n: int = 4
    rank: int = 1
    activation: Activation = "relu"

    def __post_init__(self) -> None:
        if min(self.reduction, self.n, self.rank) < 1:
            raise BadInput(f"reduction, n and rank are 1 at least, not {self.reduction}, {self.n}, {self.rank}")
        activated(torch.zeros(1), self.activation)

    def begin(self, weight: Tensor, generator: torch.Generator) -> Begun:
        d = len(weight)
        m, n = d // self.reduction, self.n
        if not m or d % n or m % n:
            raise BadInput(f"{d} numbers, and {m} in the middle, do not split into {n} parts; change reduction or n")

        learnt: dict[str, Tensor] = {}
        for j, into, out in ((1, d, m), (2, m, d)):
            learnt[f"A{j}"] = (0.02 * torch.randn(n, n, n, generator=generator)).to(weight)
            learnt[f"s{j}"] = glorot(n, into // n, self.rank, generator=generator).to(weight)
            learnt[f"t{j}"] = glorot(n, self.rank, out // n, generator=generator).to(weight)
        return Begun({**learnt, "c": weight.new_zeros(m), "e": weight.new_zeros(d)})

    def branch(self, x: Tensor, y: Tensor, module: nn.Module, t: Tensors) -> Tensor:
        inner = activated(y @ kronecker(t["A1"], t["s1"] @ t["t1"]) + t["c"], self.activation)
        return y + inner @ kronecker(t["A2"], t["s2"] @ t["t2"]) + t["e"]


@register
@dataclass(frozen=True)
class LowRank(Change):
    """A bottleneck of two low-rank maps, see `handful.tune.compacter`. Place it as a `Compacter`.

    Args:
        reduction: how many times narrower than what it reads the middle is.
        rank: r.
        activation: in the middle.
    """

    key: ClassVar[str] = "low-rank"
    modes: ClassVar[frozenset[Mode]] = frozenset({"branch"})
    reduction: int = 4
    rank: int = 1
    activation: Activation = "relu"

    def __post_init__(self) -> None:
        if min(self.reduction, self.rank) < 1:
            raise BadInput(f"reduction and rank are 1 at least, not {self.reduction} and {self.rank}")
        activated(torch.zeros(1), self.activation)

    def begin(self, weight: Tensor, generator: torch.Generator) -> Begun:
        d = len(weight)
        m = max(1, d // self.reduction)
        learnt: dict[str, Tensor] = {}
        for j, into, out in ((1, d, m), (2, m, d)):
            learnt[f"s{j}"] = glorot(into, self.rank, generator=generator).to(weight)
            learnt[f"t{j}"] = glorot(self.rank, out, generator=generator).to(weight)
        return Begun({**learnt, "c": weight.new_zeros(m), "e": weight.new_zeros(d)})

    def branch(self, x: Tensor, y: Tensor, module: nn.Module, t: Tensors) -> Tensor:
        return y + activated(y @ t["s1"] @ t["t1"] + t["c"], self.activation) @ t["s2"] @ t["t2"] + t["e"]


def glorot(*shape: int, generator: torch.Generator) -> Tensor:
    """Uniform as Glorot with gain sqrt 2, for matrices of the last two of ``shape``."""
    return math.sqrt(2 * 6 / (shape[-2] + shape[-1])) * (torch.rand(shape, generator=generator) * 2 - 1)


def kronecker(a: Tensor, b: Tensor) -> Tensor:
    """``sum_i a_i (x) b_i`` ``[p r, q s]`` of ``a [n, p, q]`` and ``b [n, r, s]``."""
    product = torch.einsum("ipq,irs->prqs", a, b)
    return product.reshape(a.shape[1] * b.shape[1], a.shape[2] * b.shape[2])


def compacter(model: nn.Module, attention: bool = True, change: Change | None = None) -> tuple[Placed, ...]:
    """Behind each feed-forward and, unless it is Compacter++, each self-attention; all norms learn as well.

    ``change`` stands there in place of Compacter.

    Raises:
        BadInput: the model has no feed-forward or attention that is known; its width does not split.
    """
    roles = ("o", "down") if attention else ("down",)
    every = Where(roles).find(model)
    chosen = tuple(site.name for site in every if "EncDecAttention" not in site.name)
    behind = Placed(change or Compacter(), Where((), sites=chosen))
    return (behind, *norms(model))


def norms(model: nn.Module) -> tuple[Placed, ...]:
    """Scale and shift of every normalisation, as far as it has them."""
    has = {kind for site in sites(model) if site.role == "norm" for kind in ("weight", "bias")
           if isinstance(getattr(model.get_submodule(site.name), kind, None), Tensor)}  # fmt: skip
    return tuple(Placed(Own(), Where(("norm",), kind)) for kind in ("weight", "bias") if kind in has)
