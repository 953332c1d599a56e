"""FAFD-LDWR: items compared region by region, the regions that say little about the classes left out.

Paper 049: Yan, "Feature Aligning Few shot Learning Method Using Local Descriptors Weighted Rules", 2024. There is no
published code.

    x        = CrossNorm of the descriptors of an item (or they themselves, made unit)
    p_c      = mean of the descriptors of the class' examples
    n_l      = mean of x_l and its nearest descriptors of the same item, by cosine
    r_lc     = softmax_c cos(n_l, p_c)
    importance of l:  r_lc of the own class in an example,  max_c r_lc in a query;  kept if above the item's mean
    logit_c  = mean over the kept l of a query of the mean of its k largest cosines with kept descriptors of class c

Without the filter and with unit descriptors this is the image-to-class measure of DN4 (Li et al. 2019), over its number
of terms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from handful.adapt.base import Head
from handful.adapt.inputs import read_rows
from handful.adapt.parameters import count, one_of
from handful.core.distances import cosine, unit
from handful.core.task import Query, State, Task, lowest
from handful.errors import BadInput
from handful.protocols import Needs

EPS = 1e-5
BLOCK = 2**24
"""Cosines times classes held at a time."""


class CrossNorm(nn.Module):
    """``a conv(s) + (1 - a) (gain t + shift)``: ``s`` standardises a channel over the places of an item, ``t`` a
    descriptor over its channels.

    ``a`` is the sigmoid of ``mix``. Untrained, a is 0.5, the 1 x 1 convolution the identity, gain 1 and shift 0.

    Args:
        channels: width of a descriptor.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.zeros(()))
        self.conv = nn.Parameter(torch.eye(channels))
        self.offset = nn.Parameter(torch.zeros(channels))
        self.gain = nn.Parameter(torch.ones(channels))
        self.shift = nn.Parameter(torch.zeros(channels))

    def forward(self, local: Tensor) -> Tensor:
        """Descriptors ``[..., L, E]``."""
        return cross_norm(local, dict(self.named_parameters()))


def cross_norm(local: Tensor, by: Mapping[str, Tensor]) -> Tensor:
    """Descriptors ``[*b, n, L, E]`` as `CrossNorm` gives them, its parameters having the leading dimensions ``*b``."""

    def over(name: str, axes: int) -> Tensor:
        value = by[name]
        batch = value.shape[: value.dim() - axes]
        return value.reshape(*batch, *[1] * (local.dim() - len(batch) - axes), *value.shape[value.dim() - axes :])

    spatial = (local - local.mean(-2, keepdim=True)) / (local.var(-2, correction=0, keepdim=True) + EPS).sqrt()
    channel = (local - local.mean(-1, keepdim=True)) / (local.var(-1, correction=0, keepdim=True) + EPS).sqrt()
    share = over("mix", 0).sigmoid()
    return share * (spatial @ over("conv", 2).mT + over("offset", 1)) + (1 - share) * (
        over("gain", 1) * channel + over("shift", 1)
    )


@dataclass(eq=False, repr=False, kw_only=True)
class LocalDescriptors(Head):
    """The nearest descriptors of a class, over the descriptors of an item that matter; training-free.

    The features carry the descriptors as a view ``local [n, places, e]``.

    Args:
        k: nearest descriptors of a class that count for one of a query.
        neighbourhood: nearest descriptors of the same item that speak for one when its importance is judged.
        filter: ``"adaptive"`` leaves out descriptors below the mean importance of their item, ``None`` none.
        norm: ``"cross"`` or ``"l2"``.
        cross_norm: a trained `CrossNorm`; ``None``: an untrained one.
    """

    key: ClassVar[str] = "fafd-ldwr"
    needs: ClassVar[Needs] = Needs(views=("local",))
    shapes: ClassVar[Mapping[str, str]] = {
        "local": "N L E",
        "mass": "N L C",
        "prototype": "C E",
        "mix": "",
        "conv": "E E",
        "offset": "E",
        "gain": "E",
        "shift": "E",
    }

    k: int = 3
    neighbourhood: int = 3
    filter: Literal["adaptive"] | None = "adaptive"
    norm: Literal["cross", "l2"] = "cross"
    cross_norm: CrossNorm | None = None

    def adapt(self, task: Task) -> State:
        """State: unit descriptors ``local [*b, N, L, E]``, how much each counts for a class ``mass [*b, N, L, C]``,
        ``prototype [*b, C, E]``, and the parameters of the `CrossNorm` that queries go through.

        Raises:
            BadInput: no view ``local``, fewer places than k, a parameter out of range, a `CrossNorm` of another width.
        """
        self._check()
        local = self._local(task.views, task.support)
        local = torch.where(task.weight[..., None, None] > 0, local, 0.0)
        if local.shape[-2] < self.k:
            raise BadInput(f"maps of {local.shape[-2]} places: k is {self.k} and needs as many")
        by = self._parameters(local, task.support.shape[:-2])
        local = self._normalised(local, by)
        y = task.y
        total = y.sum(-2).clamp_min(torch.finfo(y.dtype).tiny)
        prototype = y.mT @ local.mean(-2) / total[..., None]
        mass = y[..., None, :].expand(*local.shape[:-1], y.shape[-1])
        if self.filter is not None:
            relevance = self._relevance(local, prototype, y.sum(-2) > 0)
            mass = torch.where(_above_mean(relevance, -2), mass, 0.0)
        return {**by, "local": unit(local), "mass": mass.contiguous(), "prototype": prototype}

    def answer(self, state: State, query: Query) -> Tensor:
        """Mean of the k largest cosines of the kept descriptors; a class without examples gets the lowest logit."""
        local, here = self._asked(query, state), state["mass"].sum((-3, -2)) > 0
        bank, mass = state["local"].flatten(-3, -2), state["mass"].flatten(-3, -2)
        shares = self._kept(local, state["prototype"], here).to(local.dtype)
        shares = shares / shares.sum(-1, keepdim=True)
        seen, step = unit(local), max(1, BLOCK // (mass.numel() * local.shape[-2]))
        parts = []
        for at in range(0, seen.shape[-3], step):
            part = seen[..., at : at + step, :, :]
            found = nearest_mean(part.flatten(-3, -2) @ bank.mT, mass, self.k)
            found = found.reshape(*part.shape[:-1], found.shape[-1])
            parts.append((shares[..., at : at + step, None, :] @ found)[..., 0, :])
        logits = torch.cat(parts, -2)
        return torch.where(here[..., None, :], logits, lowest(logits))

    def view_widths(self) -> dict[str, int]:
        """See `Head.view_widths`."""
        return super().view_widths() | {"local": self.state_["local"].shape[-1]}

    def descriptor_importance(self, X: Any) -> np.ndarray:
        """Importance ``[n, places]`` of the descriptors of items for the fitted classes: a map of where it looks.

        Raises:
            BadInput: features without a view ``local``, or of another width.
        """
        check_is_fitted(self)
        x, views = read_rows(self, X, reset=False, directions=False)
        query, state = self._query(x, views, self.state_), self.state_
        local = self._asked(query, state)
        found = self._relevance(local, state["prototype"], state["mass"].sum((-3, -2)) > 0).amax(-1)
        out: np.ndarray = found.cpu().numpy()
        return out

    def _check(self) -> None:
        count("k", self.k, least=1)
        count("neighbourhood", self.neighbourhood)
        one_of("norm", self.norm, ("cross", "l2"))
        if self.filter not in ("adaptive", None):
            raise BadInput(f"filter is 'adaptive' or None, not {self.filter!r}")

    def _local(self, views: Mapping[str, Tensor], like: Tensor) -> Tensor:
        if "local" not in views:
            raise BadInput("LocalDescriptors needs features with a view 'local'")
        return views["local"].to(like.dtype)

    def _asked(self, query: Query, state: State) -> Tensor:
        local, width = self._local(query.views, state["local"]), state["local"].shape[-1]
        if local.shape[-1] != width:
            raise BadInput(f"descriptors of width {local.shape[-1]}, those of the examples have {width}")
        return self._normalised(local, state)

    def _parameters(self, local: Tensor, batch: torch.Size) -> State:
        e = local.shape[-1]
        norm = CrossNorm(e) if self.cross_norm is None else self.cross_norm
        if norm.gain.shape[0] != e:
            raise BadInput(f"a CrossNorm of width {norm.gain.shape[0]} for descriptors of width {e}")
        values = {name: value.detach().to(local) for name, value in norm.named_parameters()}
        return {name: value.expand((*batch, *value.shape)) for name, value in values.items()}

    def _normalised(self, local: Tensor, by: Mapping[str, Tensor]) -> Tensor:
        return unit(local) if self.norm == "l2" else cross_norm(local, by)

    def _relevance(self, local: Tensor, prototype: Tensor, here: Tensor) -> Tensor:
        """``r`` ``[*b, n, L, C]``, over the classes that are ``here [*b, C]``."""
        near = neighbourhoods(local, self.neighbourhood)
        cos = cosine(near.flatten(-3, -2), prototype).reshape(*near.shape[:-1], prototype.shape[-2])
        return cos.masked_fill(~here[..., None, None, :], -torch.inf).softmax(-1)

    def _kept(self, local: Tensor, prototype: Tensor, here: Tensor) -> Tensor:
        """Which descriptors of queries count ``[*b, Q, L]``."""
        if self.filter is None:
            return torch.ones(local.shape[:-1], dtype=torch.bool, device=local.device)
        return _above_mean(self._relevance(local, prototype, here).amax(-1), -1)


def neighbourhoods(local: Tensor, k: int) -> Tensor:
    """Mean of each descriptor of ``local [..., L, E]`` and the k others of its item that are nearest by cosine."""
    k = min(k, local.shape[-2] - 1)
    if not k:
        return local
    like = unit(local) @ unit(local).mT
    like.diagonal(dim1=-2, dim2=-1).fill_(-torch.inf)
    nearest = like.topk(k, -1).indices
    near = torch.zeros_like(like).scatter_(-1, nearest, 1.0)
    return (local + near @ local) / (k + 1)


def nearest_mean(cos: Tensor, mass: Tensor, k: int) -> Tensor:
    """Mean of the k largest of ``cos [*b, q, m]`` a class, ``[*b, q, C]``; column m counts ``mass [*b, m, C]`` times.

    A class whose columns count less than k in all has the mean of all of them.
    """
    value, order = cos.sort(-1, descending=True)
    shape = (*order.shape, mass.shape[-1])
    times = mass[..., None, :, :].expand(shape).gather(-2, order[..., None].expand(shape))
    taken = torch.minimum((k - (times.cumsum(-2) - times)).clamp_min(0), times)
    return (taken * value[..., None]).sum(-2) / taken.sum(-2).clamp_min(torch.finfo(cos.dtype).tiny)


def _above_mean(importance: Tensor, axis: int) -> Tensor:
    """What exceeds the mean along ``axis``; the largest where nothing does."""
    kept = importance > importance.mean(axis, keepdim=True)
    top = torch.zeros_like(kept).scatter(axis, importance.argmax(axis, keepdim=True), True)
    return torch.where(kept.any(axis, keepdim=True), kept, top)
