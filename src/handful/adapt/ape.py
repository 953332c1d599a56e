"""APE: only the channels that tell the classes apart, and a cache whose keys are trusted by what text says of them.

Paper 002: Zhu, Zhang, He, Zhou, Wang, Zhao, Gao, "Not All Features Matter: Enhancing Few-shot CLIP with Adaptive Prior
Refinement", 2023. With unit support features F, unit class text W, labels Y, and J_k = -w0 S_k + w1 V_k of channel k:

    S_k = mean over items of different classes of x_k x'_k,  V_k = variance over classes of W_k
    f', F', W' = the channels of highest J, made unit again
    R_FW = exp(gamma KL(Y | softmax(F' W'')))
    logits = s f W' + alpha exp(-beta (1 - f' F'')) (R_FW Y)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from numbers import Real
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from handful.adapt.base import Head
from handful.adapt.cache import Strength, others, search, stepped
from handful.adapt.parameters import finite
from handful.adapt.two_towers import item_rows, query_rows, text_rows
from handful.adapt.zero_shot import prior_logits
from handful.core.distances import unit
from handful.core.kernels import rbf
from handful.core.task import Query, State, Task, mask_classes
from handful.errors import BadInput
from handful.protocols import Needs, Ranges

ALPHA = Strength("alpha", 1.0, stepped(0.1, 7.0, 10))
BETA = Strength("beta", 1.0, stepped(0.1, 7.0, 10))
GAMMA = Strength("gamma", 0.1, stepped(0.0, 1.0, 5))
TINY = 1e-6


def refine_channels(
    x: Tensor, y: Tensor, text: Tensor, class_mask: Tensor, n: int, w: tuple[float, float], *, text_only: bool = False
) -> Tensor:
    """The ``n`` channels ``[*b, n]`` with the highest ``-w0 S + w1 V``, best first.

    Args:
        x: unit support rows ``[*b, N, D]``.
        y: labels times weights ``[*b, N, C]``; shots may be unequal.
        text: unit class text ``[*b, C, D]``.
        class_mask: ``[*b, C]``.
        n: how many.
        w: weights of similarity and variance.
        text_only: the similarity of class texts alone, as APE-T takes it.
    """
    x, y, text = x.double(), y.double(), text.double()
    real = class_mask[..., None].double()
    total, mass = text * real, real  # over the items of each class, its text being one
    if not text_only:
        total, mass = total + y.mT @ x, mass + y.sum(-2)[..., None]
    pairs = mass.sum(-2).square() - mass.square().sum(-2)
    similarity = (total.sum(-2).square() - total.square().sum(-2)) / pairs
    ways = real.sum(-2)
    mean = (text * real).sum(-2, keepdim=True) / ways[..., None]
    variance = ((text - mean).square() * real).sum(-2) / (ways - 1)
    return (w[1] * variance - w[0] * similarity).topk(n, dim=-1).indices


@dataclass(eq=False, repr=False, kw_only=True)
class Refined(Head):
    """What APE and APE-T share: the channels that are kept, and a cache of the support.

    Args:
        n_channels: how many channels are kept, or their share of all (below 1).
        similarity: weight of a channel's similarity across classes.
        variance: weight of a channel's variance over class texts.
        alpha: weight of the cache; ``"loo"`` searches 10 values from 0.1 to 7, an item's own rows left out of the vote
            (1 where a class has a single item), as the reference does on a validation set.
        beta: sharpness; ``"loo"`` likewise.
    """

    needs: ClassVar[Needs] = Needs(text=True)
    ranges: ClassVar[Ranges] = {"alpha": (0.1, 10.0), "beta": (0.5, 20.0)}

    n_channels: int | float = 0.7
    similarity: float = 0.5
    variance: float = 0.5
    alpha: float | Literal["loo"] = 1.0
    beta: float | Literal["loo"] = 1.0

    @property
    def directions(self) -> bool:
        """Cosines only."""
        return True

    def _channels(self, task: Task, x: Tensor, text: Tensor, *, text_only: bool) -> Tensor:
        w = finite("similarity", self.similarity), finite("variance", self.variance)
        n = channel_count(self.n_channels, x.shape[-1])
        return refine_channels(x, task.y, text, task.class_mask, n, w, text_only=text_only)


@dataclass(eq=False, repr=False, kw_only=True)
class APE(Refined):
    """Cache of the support on the channels that tell the classes apart, training-free.

    Args:
        gamma: how much a key counts that text disagrees with; ``"loo"`` searches 5 values from 0 to 1.
    """

    key: ClassVar[str] = "ape"
    shapes: ClassVar[Mapping[str, str]] = {
        "keys": "N Q",
        "value": "N C",
        "channels": "Q",
        "alpha": "",
        "beta": "",
        "gamma": "",
    }
    ranges: ClassVar[Ranges] = {**Refined.ranges, "gamma": (0.01, 1.0)}

    gamma: float | Literal["loo"] = 0.1

    def adapt(self, task: Task) -> State:
        """State: ``keys [*b, N, Q]``, ``value [*b, N, C]``, ``channels [*b, Q]``, strengths ``[*b]``."""
        x, text = item_rows(task), text_rows(task)
        channels = self._channels(task, x, text, text_only=False)
        keys, words = cut(x, channels), cut(text, channels)
        p = mask_classes(keys @ words.mT, task.class_mask).softmax(-1)
        doubt = torch.log2((1 + TINY) / (p + TINY))  # KL(Y | p) of a row of one class, for each class it may be of
        alpha, beta, gamma = self._strengths(task, keys, doubt)
        value = task.y * (gamma[..., None, None] * doubt).exp()
        return {"keys": keys, "value": value, "channels": channels, "alpha": alpha, "beta": beta, "gamma": gamma}

    def answer(self, state: State, query: Query) -> Tensor:
        """``s f W' + alpha exp(-beta (1 - f' F'')) (R_FW Y)``."""
        votes = rbf(cut(query_rows(query), state["channels"]), state["keys"], state["beta"][..., None, None])
        return prior_logits(query.prior) + state["alpha"][..., None, None] * (votes @ state["value"])

    def held(self, state: State) -> Self:
        """With the strengths that were chosen."""
        return replace(self, alpha=float(state["alpha"]), beta=float(state["beta"]), gamma=float(state["gamma"]))

    def _strengths(self, task: Task, keys: Tensor, doubt: Tensor) -> list[Tensor]:
        pairs = (BETA, self.beta), (GAMMA, self.gamma), (ALPHA, self.alpha)
        betas, gammas, alphas = tried = [strength.tried(value) for strength, value in pairs]
        prior, affinity = prior_logits(task.offset), keys @ keys.mT - 1
        values = torch.stack([task.y * (gamma * doubt).exp() for gamma in gammas])[:, None]
        steps = keys.new_tensor(alphas).reshape(1, -1, *[1] * keys.dim())
        sets = (
            (prior + steps * (others((beta * affinity).exp(), task) @ values)).flatten(0, 1)
            for beta in betas  # one matrix of affinities at a time
        )
        beta, gamma, alpha = search(sets, task, tried, [strength.given(value) for strength, value in pairs])
        return [alpha, beta, gamma]


def channel_count(n_channels: int | float, width: int) -> int:
    """A number of channels from a number or a share. Raises `BadInput` for none or more than there are."""
    number = isinstance(n_channels, Real) and not isinstance(n_channels, bool) and math.isfinite(n_channels)
    n = max(1, round(n_channels * width)) if number and 0 < n_channels < 1 else n_channels
    if not number or n != int(n) or not 1 <= n <= width:
        raise BadInput(f"n_channels must be from 1 to the {width} there are, or a share below 1, not {n_channels!r}")
    return int(n)


def take(x: Tensor, channels: Tensor) -> Tensor:
    """The channels ``[*b, Q]`` of rows ``x [*b, n, D]``."""
    return x.gather(-1, channels[..., None, :].expand(*x.shape[:-1], channels.shape[-1]))


def cut(x: Tensor, channels: Tensor) -> Tensor:
    """Those channels, made unit again."""
    return unit(take(x, channels))
