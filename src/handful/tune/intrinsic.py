"""Fine-tuning in few dimensions: one vector moves every weight through fixed random projections (Aghajanyan et al.,
Intrinsic Dimensionality Explains the Effectiveness of Language Model Fine-Tuning, 2020), as T-Few (027) compares it.

    r_i     = P_i theta,  P_i = H G Pi H B / (|G| sqrt(L) sqrt(D_i / L))     theta [d - m] = 0 is shared by all weights
    vector  w_i + lambda_i r_i                                               lambda_i = 1, one a weight, m in all (SAID)
    matrix  W_i + (lambda_i r_i[:out]) r_i[out:]^T                           D_i = out + in: T-Few's code
            W_i + lambda_i r_i, as a matrix                                  D_i = out in:   the paper

H is Walsh and Hadamard's matrix of the next power of two L, B signs, Pi a permutation, G normal (Fastfood); of theta
the first L numbers count. All of it follows from one seed a weight, so that a file holds d numbers and the seeds.

A product of two vectors that are both 0 has no slope: matrices begin to move once norms and biases have moved theta.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from handful.errors import BadInput
from handful.tune.change import Begun, Change, Mode, Tensors, register
from handful.tune.delta import Placed
from handful.tune.sites import Where, refuse_bare

MODEL = r"^(?!(?:.*\.)?front\.)"
"""Every module but the places in front of a language model, which hold nothing."""


@register
@dataclass(frozen=True)
class Intrinsic(Change):
    """See `handful.tune.intrinsic`; made by `intrinsic`.

    Args:
        dimension: of theta, which all places with equal settings share.
        said: whether each weight has its lambda.
        outer: whether a matrix moves by a product of two vectors, as in T-Few's code.
    """

    key: ClassVar[str] = "intrinsic"
    modes: ClassVar[frozenset[Mode]] = frozenset({"weight"})
    shared: ClassVar[tuple[str, ...]] = ("theta",)
    dimension: int = 20_000
    said: bool = True
    outer: bool = True

    def begin(self, weight: Tensor, generator: torch.Generator) -> Begun:
        if self.dimension < 1:
            raise BadInput(f"the dimension is 1 at least, not {self.dimension}")
        seed = torch.randint(2**31 - 1, (1,), generator=generator)
        learnt = {"theta": weight.new_zeros(self.dimension)}
        return Begun(learnt | ({"scale": weight.new_ones(1)} if self.said else {}), {"seed": seed})

    def weight(self, w: Tensor, t: Tensors) -> Tensor:
        pair = self.outer and w.dim() == 2
        size = sum(w.shape) if pair else w.numel()
        ray = fastfood(t["theta"], size, *draws(int(t["seed"]), _power(size)))
        scale = t.get("scale", 1.0)
        if pair:
            return w + torch.outer(scale * ray[: len(w)], ray[len(w) :])
        return w + scale * ray.view_as(w)


def fastfood(theta: Tensor, size: int, signs: Tensor, order: Tensor, normal: Tensor) -> Tensor:
    """``P theta`` ``[size]``.

    Args:
        theta: any length; the first L numbers count.
        size: of what comes out.
        signs, order, normal: B, Pi and G ``[L]``.
    """
    length = len(signs)
    padded = functional.pad(theta[:length], (0, max(0, length - len(theta))))
    ray = hadamard(normal * hadamard(signs * padded)[order])[:size]
    return ray / (length * normal.square().sum() * size / length).sqrt()


def hadamard(x: Tensor) -> Tensor:
    """``H x`` of Walsh and Hadamard's matrix, not normalised; the length of ``x`` is a power of two."""
    half = 1
    while half < len(x):
        a, b = x.view(-1, 2, half).unbind(1)
        x = torch.stack([a + b, a - b], 1).flatten()
        half *= 2
    return x


@lru_cache(maxsize=4096)
def draws(seed: int, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """B, Pi and G ``[L]`` of a seed."""
    g = torch.Generator().manual_seed(seed)
    signs = torch.randint(2, (length,), generator=g) * 2.0 - 1
    return signs, torch.randperm(length, generator=g), torch.randn(length, generator=g)


def _power(size: int) -> int:
    return 1 << (size - 1).bit_length()


def intrinsic(model: nn.Module, dimension: int = 20_000, outer: bool = True) -> tuple[Placed, ...]:
    """Every parameter of ``model`` moves by ``dimension`` numbers in all: theta and, of each parameter, lambda.

    Raises:
        BadInput: fewer dimensions than parameters; a parameter that is in none of the model's modules.
    """
    refuse_bare(model)
    named = [name for name, _ in model.named_parameters() if ".front." not in f".{name}"]
    if dimension <= len(named):
        raise BadInput(f"{dimension} dimensions do not suffice for a lambda of each of {len(named)} parameters")
    change = Intrinsic(dimension - len(named), outer=outer)
    kinds = dict.fromkeys(name.rpartition(".")[2] for name in named)
    return tuple(Placed(change, Where(names=MODEL, parameter=kind, tied=True)) for kind in kinds)
