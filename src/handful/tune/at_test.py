"""Tuning at test time: for each item alone, a few steps towards one sure answer over views of it, then back again.

    views     x_0 = the item, x_1 … x_n of it
    kept      of those whose logits are most like the item's (a share rho_cos), the surest (a share rho_ent)
    loss      H(mean_v softmax z_v), the entropy of the mean answer
    steps     AdamW, from the same numbers for every item
    answer    of x_0, with what was learnt; what was learnt is forgotten

Views that are kept are chosen in the first step. Shu et al., Test-Time Prompt Tuning for Zero-Shot Generalization in
Vision-Language Models, 2022, with rho_cos = 1; both shares: DiffTPT (116).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from handful.core.train import AdamW
from handful.errors import BadInput, HandfulError
from handful.protocols import Progress
from handful.tune.modes import in_mode
from handful.tune.tuned import Tuned


class TooFewViews(UserWarning):
    """The shares to be kept leave no view, so that one is kept."""


class Views(Protocol):
    """Makes views of an item."""

    def __call__(self, item: Any, generator: torch.Generator) -> Tensor:
        """``[1 + n, …]`` as the model takes them; the item itself is the first."""
        ...


@dataclass(frozen=True)
class AtTest:
    """How `at_test` tunes.

    Args:
        views: makes views of an item.
        select: which of them count, from their logits ``[v, C]``: places ``[k]``.
        steps: for each item.
        lr: learning rate.
        weight_decay: of AdamW; what learns shrinks a little with every step, as torch's default has it.
    """

    views: Views
    select: Callable[[Tensor], Tensor]
    steps: int = 1
    lr: float = 5e-3
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        if self.steps < 0 or not self.lr >= 0:
            raise BadInput(f"steps ({self.steps}) and lr ({self.lr}) must not be negative")


def at_test(
    tuned: Tuned, items: Sequence[Any] | Tensor, how: AtTest, *, seed: int = 0, progress: Progress | None = None
) -> Tensor:
    """Logits ``[n, C]`` of items, each after tuning on views of itself.

    Args:
        tuned: what learns is its delta and its readout, from where they stand; they and the model are as they were
            afterwards, bit for bit.
        items: n of what ``how.views`` takes.
        how: see `AtTest`.
        seed: of the views. All items see the same draws, so that their order makes no difference.
        progress: called with (items done, n).

    Raises:
        BadInput: nothing could learn; there is a single class; an item has no view beside itself.
        HandfulError: logits are no numbers.
    """
    parameters: list[Tensor] = [*tuned.delta.parameters(), *tuned.readout.parameters()]
    if not parameters:
        raise BadInput("nothing could learn: no change of the model, and a readout without numbers")
    if len(tuned.classes) < 2:
        raise BadInput(f"there is a single class, {tuned.classes[0]!r}: every answer is sure of it already")
    answers = []
    with _borrowed(tuned, parameters), tuned.delta.attached(tuned.model):
        start = [p.detach().clone() for p in parameters]
        for row, item in enumerate(items):
            views = how.views(item, torch.Generator().manual_seed(seed))
            if len(views) < 2:
                raise BadInput(f"item {row} has no view beside itself; make at least one")
            _learn(tuned, views, how, parameters, row)
            with torch.no_grad():
                answers.append(tuned.readout(tuned.model(views[:1]), tuned.model)[0])
                for parameter, before in zip(parameters, start, strict=True):
                    parameter.copy_(before)
            if progress is not None:
                progress(row + 1, len(items))
    return torch.stack(answers) if answers else torch.empty(0, len(tuned.classes))


def _learn(tuned: Tuned, views: Tensor, how: AtTest, parameters: list[Tensor], row: int) -> None:
    moves = any(True for _ in tuned.delta.parameters())
    # Where the model stays as it is, it looks at the views once.
    with torch.no_grad():
        features = tuned.model(views)
    update, chosen = AdamW(weight_decay=how.weight_decay), None
    for _ in range(how.steps):
        if chosen is None:
            with torch.no_grad():
                logits = tuned.readout(features, tuned.model)
            if not bool(torch.isfinite(logits).all()):
                raise HandfulError(f"item {row}: its logits hold NaN or infinity; look at the item and the model")
            chosen = how.select(logits)
            views, features = views[chosen], features[chosen]
        seen = tuned.model(views) if moves else features
        loss = marginal_entropy(tuned.readout(seen, tuned.model))
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
        update([p.data for p in parameters], gradients, how.lr)


@contextmanager
def _borrowed(tuned: Tuned, parameters: Sequence[Tensor]) -> Iterator[None]:
    """Only ``parameters`` have gradients inside the block; afterwards all is as it was."""
    modules = (tuned.model, tuned.delta, tuned.readout)
    flags = [(p, p.requires_grad) for module in modules for p in module.parameters()]
    start = [p.detach().clone() for p in parameters]
    try:
        for one, _ in flags:
            one.requires_grad_(False)
        for parameter in parameters:
            parameter.requires_grad_(True)
        with in_mode(False, *modules):
            yield
    finally:
        with torch.no_grad():
            for parameter, before in zip(parameters, start, strict=True):
                parameter.copy_(before)
        for one, needed in flags:
            one.requires_grad_(needed)


def marginal_entropy(logits: Tensor) -> Tensor:
    """``H(mean_v softmax z_v)`` of logits ``[v, C]``, in nats: 0 where all views are sure of one class."""
    mean = logits.log_softmax(-1).logsumexp(0) - math.log(len(logits))
    return -(mean.exp() * mean).sum()


def select_views(logits: Tensor, rho_cos: float, rho_ent: float) -> Tensor:
    """Which views count, as places ``[k]`` among them, the surest first; `AtTest.select` of DiffTPT.

    Args:
        logits: ``[v, C]``, the item itself first.
        rho_cos: share of the other views that are kept: those whose logits have the highest cosine with the item's.
            The item is kept beside them.
        rho_ent: share of what is left that is kept: those of the lowest entropy.

    Raises:
        BadInput: a share is none; there are less than two views.
    """
    for name, share in (("rho_cos", rho_cos), ("rho_ent", rho_ent)):
        if not 0 <= share <= 1:
            raise BadInput(f"{name} is the share of views that is kept, from 0 to 1, not {share}")
    if len(logits) < 2:
        raise BadInput("views are chosen among at least two, the item first")
    if not bool(torch.isfinite(logits).all()):
        raise BadInput("logits of views hold NaN or infinity")
    like = functional.cosine_similarity(logits[:1], logits[1:], dim=-1)
    near = like.argsort(descending=True)[: int(len(like) * rho_cos)] + 1
    pool = torch.cat([near.new_zeros(1), near])
    entropy = -(logits[pool].softmax(-1) * logits[pool].log_softmax(-1)).sum(-1)
    kept = int(len(pool) * rho_ent)
    if not kept:
        warnings.warn(f"a share of {rho_ent} of {len(pool)} views is none: the surest is kept", TooFewViews, 2)
    return pool[entropy.argsort()[: max(kept, 1)]]
