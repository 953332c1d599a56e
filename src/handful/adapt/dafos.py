"""DAFOS-Net: few classes of one domain, learnt to be told from each other and from all else on base classes of two.

Paper 107: Pal, More, Bhargav, Tamboli, Aggarwal, Banerjee, "Domain Adaptive Few-Shot Open-Set Learning", 2023. The part
in feature space: the authors' norm by domains and their last layer stand on frozen features, where they have a network.
`handful.adapt.dafos_train` says how the encoder f and the judge are trained on base classes. Then, of new classes:

    p_k      = mean f(x_i) of class k,   d_k(q) = mean (f(q) - p_k)^2,   logit_k = -d_k
    unknown <=> the judge says so of the smallest distances d(q), in ascending order
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

import torch
from torch import Tensor

from handful.adapt.dafos_nets import JUDGE, forward
from handful.adapt.dafos_train import Base, Trained, distances, judged, train
from handful.adapt.open_head import OpenHead
from handful.core.gaussians import class_means, means_without_item
from handful.core.task import Background, Query, State, Task, lowest
from handful.errors import BadInput
from handful.protocols import Needs

_SIZES = ("K", *(f"J{size}" for size in JUDGE), "two")
_JUDGE = {
    f"judge.{kind}{i}": axes
    for i, (columns, rows) in enumerate(pairwise(_SIZES))
    for kind, axes in (("weight", f"{rows} {columns}"), ("bias", rows))
}


@dataclass(eq=False, repr=False, kw_only=True)
class DAFOSNet(OpenHead):
    """Nearest class mean of a small encoder that base classes of two domains taught, with a judge of unknown items.

    ``background`` are labelled items of base classes; a view ``domain`` (`Features`) says which are of the source (0)
    and which of the target domain (1), the one of the items to classify. Without it there is one domain. `predict_open`
    answers "none of these".

    Defaults are the authors', whose encoder sees images. On features of sentences the judge hardly learns with them and
    may find known items stranger than unknown ones; larger episodes and steps did better there:
    ``way=5, queries=5, shots=(5, 5), lr=1e-3, width=256, pseudo_known=False``.

    Args:
        way, unknown: known and other classes of an episode, of each domain; the judge sees ``way`` distances.
        shots: examples a known class, of the source and of the target.
        queries: of each class.
        width: numbers of an encoded row.
        episodes: how many; the rate falls to a thousandth after each 1000.
        lr: of Adam, for encoder and judges.
        weights: of the losses on classes, judge, domain judge, T of the source, T of the target, alignment.
        gan_steps, gan_lr: steps of each generator and discriminator an episode, and their rate.
        meta_rate: share of the way they went that they keep.
        low_noise, high_noise: standard deviations.
        apart: what keeps features from little and from much noise apart: ``"overlap"`` or ``"collapse"``.
        pseudo_known, pseudo_unknown: whether the features made take part.
        signed: sum differences of the alignment with their sign, as the authors' code does.
        judge_steps: of each judge an episode.
        l1, l2: penalties on weights and activations of the judges.
    """

    key: ClassVar[str] = "dafos-net"
    needs: ClassVar[Needs] = Needs(background=True, gradient=True, stochastic=True)
    shapes: ClassVar[Mapping[str, str]] = {
        "prototype": "C E", "mass": "C", "encoder.weight0": "E D", "encoder.bias0": "E", **_JUDGE,
    }  # fmt: skip

    way: int = 3
    unknown: int = 3
    shots: tuple[int, ...] | list[int] = (4, 1)
    queries: int = 2
    width: int = 64
    episodes: int = 1000
    lr: float = 1e-4
    weights: tuple[float, ...] | list[float] = (40.0, 0.3, 0.05, 0.075, 0.125, 50.0)
    gan_steps: int = 5
    gan_lr: float = 1e-4
    meta_rate: float = 0.003
    low_noise: float = 0.2
    high_noise: float = 1.0
    apart: Literal["overlap", "collapse"] = "overlap"
    pseudo_known: bool = True
    pseudo_unknown: bool = True
    signed: bool = False
    judge_steps: int = 1
    l1: float = 0.0
    l2: float = 0.0

    def adapt(self, task: Task) -> State:
        """State: ``prototype [*b, C, E]``, ``mass [*b, C]``, weights and biases of encoder and judge.

        Raises:
            BadInput: base items without labels, too few classes or items among them, a domain that is none, a parameter
                that makes no sense.
        """
        return state_of(self._trained(task), task.x, task.y)

    def answer(self, state: State, query: Query) -> Tensor:
        """``-d_k(q)``; a class without examples gets the lowest logit."""
        return -_distances(state, query.x)

    def leave_one_out(self, task: Task) -> Tensor | None:
        """Closed form: what the base classes taught stays."""
        f = forward(self._trained(task).encoder, task.x).relu()
        cross, square, gone = means_without_item(f, task.y, task.items)
        logits = -(f.square().sum(-1, keepdim=True) - 2 * cross + square).clamp_min(0) / f.shape[-1]
        return torch.where(gone, lowest(f), logits)

    def beyond(self, state: State, x: Tensor) -> Tensor:
        """Logit of "unknown" less that of "known" by the judge ``[*b, Q]``."""
        return beyond(state, x)

    def _trained(self, task: Task) -> Trained:
        return train(self, _base(task.background, task.x), task.seed)


def state_of(networks: Trained, x: Tensor, y: Tensor) -> State:
    """The state of the head for rows ``x [*b, N, D]`` and their labels ``[*b, N, C]``."""
    prototype, mass = class_means(forward(networks.encoder, x).relu(), y)
    state = {"prototype": prototype, "mass": mass}
    for name, network in (("encoder", networks.encoder), ("judge", networks.judge)):
        for at, tensor in enumerate(network):
            kind = ("weight", "bias")[at % 2]
            state[f"{name}.{kind}{at // 2}"] = tensor.expand(*mass.shape[:-1], *tensor.shape)
    return state


def beyond(state: State, x: Tensor) -> Tensor:
    """Logit of "unknown" less that of "known" of rows ``x [*b, Q, D]``: ``[*b, Q]``."""
    logits = judged(_network(state, "judge"), _distances(state, x), state["mass"] > 0)
    return logits[..., 0] - logits[..., 1]


def _distances(state: State, x: Tensor) -> Tensor:
    f = forward(_network(state, "encoder"), x).relu()
    d = distances(f, state["prototype"])
    return torch.where(state["mass"][..., None, :] > 0, d, -lowest(d))


def _network(state: State, name: str) -> list[Tensor]:
    depth = sum(key.startswith(f"{name}.weight") for key in state)
    return [state[f"{name}.{kind}{i}"] for i in range(depth) for kind in ("weight", "bias")]


def _base(given: Background | None, like: Tensor) -> Base:
    """The base items. Raises `BadInput` where they cannot be used."""
    if given is None or given.labels is None:
        raise BadInput("DAFOSNet needs labels of the base items: give background=(features, labels)")
    domain = given.views.get("domain")
    if domain is None:
        domain = torch.zeros_like(given.labels)
    if domain.shape != given.labels.shape or not bool(((domain == 0) | (domain == 1)).all()):
        raise BadInput("the view 'domain' of the background is 0 or 1 an item: of the source, of the target domain")
    if not bool((domain == 0).any()):
        raise BadInput("the background has no item of the source domain, 0 in its view 'domain'")
    x = given.x.to(like.dtype)
    return Base(x, given.labels, domain.long(), x[:0])
