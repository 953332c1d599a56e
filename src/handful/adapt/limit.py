"""LIMIT: attention that puts old classifiers and new prototypes on one scale, trained on tasks that pretend to grow.

Paper 181: Zhou, Ye, Ma, Xie, Pu, Zhan, "Few-Shot Class-Incremental Learning by Sampling Multi-Phase Tasks", 2022. With
w_k the row of class k (the mean of its examples), x a query, F = [w_1 ... w_C, x] and one head of attention:

    A = softmax(F Wq (F Wk)' / sqrt(D)),   G = LayerNorm(A F Wv Wo + b + F)
    logit_k = tau cos(g_x, g_k)       ("cosine", CIFAR-100)
    logit_k = g_x . unit(g_k) / tau   ("dot", CUB and mini-ImageNet)

In each step of the training some base classes play new ones: their rows are the means of a few examples drawn, and
other examples ask. No query sees another one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from handful.adapt.growing import Growing, drawn_means
from handful.adapt.packed import uniform
from handful.adapt.parameters import count, finite, one_of
from handful.core.distances import unit
from handful.core.gaussians import class_means
from handful.core.losses import cross_entropy, real_rows
from handful.core.task import Query, State, Task, lowest
from handful.core.train import SGD, batches, descend
from handful.errors import BadInput
from handful.protocols import Needs

WEIGHTS = ("query", "key", "value", "out", "bias", "gain", "shift")
DROP_ATTENTION, DROP_OUT = 0.1, 0.5
MOST = 1 << 23
"""Numbers in one piece of the work when queries are answered: each query has rows of its own."""


def attended(
    weights: State, rows: Tensor, query: Tensor, mask: Tensor, drop: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Rows ``[*b, Q, C, D]`` and queries ``[*b, Q, D]`` after the attention.

    Args:
        weights: `WEIGHTS`, by name.
        rows: ``[*b, C, D]``.
        query: ``[*b, Q, D]``.
        mask: ``[*b, C]``; classes that are not there are not looked at.
        drop: factors of the attention ``[Q, C + 1, C + 1]`` and of its output ``[Q, C + 1, D]``, in training.
    """

    def together(r: Tensor, q: Tensor) -> Tensor:
        r = r[..., None, :, :].expand(*q.shape[:-1], *r.shape[-2:])
        return torch.cat([r, q[..., None, :]], -2)

    def through(*names: str) -> Tensor:
        r, q = rows, query
        for name in names:
            r, q = r @ weights[name].mT, q @ weights[name].mT
        return together(r, q)

    scores = through("query") @ through("key").mT / rows.shape[-1] ** 0.5
    there = torch.cat([mask, mask.new_ones(*mask.shape[:-1], 1)], -1)
    share = scores.masked_fill(~there[..., None, None, :], -torch.inf).softmax(-1)
    share = share if drop is None else share * drop[0]
    out = share @ through("value", "out") + weights["bias"][..., None, None, :]
    out = out if drop is None else out * drop[1]
    whole = _layer_norm(together(rows, query) + out, weights["gain"], weights["shift"])
    return whole[..., :-1, :], whole[..., -1, :]


def _layer_norm(x: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    x = x - x.mean(-1, keepdim=True)
    x = x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return x * gain[..., None, None, :] + shift[..., None, None, :]


def fake_rows(rows: Tensor, support: Tensor, chosen: Tensor) -> Tensor:
    """``rows [*b, C, D]`` with those of the classes ``chosen [C]`` replaced by ``support [*b, C, D]``."""
    return torch.where(chosen[:, None], support, rows)


@dataclass(eq=False, repr=False, kw_only=True)
class LIMIT(Growing):
    """Class means that grow, brought onto one scale by attention over all of them and the query.

    ``fit`` trains the attention on the base classes, `grow` adds the means of new ones. Rows are used by their
    direction, at the length sqrt(D).

    Args:
        form: ``"cosine"`` or ``"dot"``, see the head of the file.
        temperature: tau (16 for the paper's CIFAR-100 and CUB, 0.5 for mini-ImageNet).
        epochs: passes over the base examples.
        lr: of SGD with Nesterov momentum 0.9 and decay 5e-4. The default is the authors', who train the encoder too; it
            moves the attention little where there are few examples.
        milestones: epochs after which the rate is multiplied by ``gamma``.
        gamma: see ``milestones``.
        sampled: base classes drawn in a step (all, where there are fewer).
        shot: examples of each that a drawn row is the mean of.
        way: how many of the drawn classes play new ones in a task; ``None``: half of them.
        tasks: tasks of a step.
        batch_size: queries of a step.
        reference_chain: hand the attended query of a task to the next one, a slip of the authors' code.
    """

    key: ClassVar[str] = "limit-fscil"
    needs: ClassVar[Needs] = Needs(gradient=True, stochastic=True)
    shapes: ClassVar[Mapping[str, str]] = {
        "prototype": "C D",
        "mass": "C",
        **{name: "D" if name in ("bias", "gain", "shift") else "D D" for name in WEIGHTS},
    }
    settled: ClassVar[bool] = False

    form: Literal["cosine", "dot"] = "cosine"
    temperature: float = 16.0
    epochs: int = 20
    lr: float = 2e-4
    milestones: tuple[int, ...] | list[int] = (2, 4, 6)
    gamma: float = 0.3
    sampled: int = 16
    shot: int = 1
    way: int | None = None
    tasks: int = 4
    batch_size: int = 128
    reference_chain: bool = False

    @property
    def directions(self) -> bool:
        """Rows are made as long as each other."""
        return True

    def adapt(self, task: Task) -> State:
        """State: ``prototype [*b, C, D]``, ``mass [*b, C]`` and the weights of the attention."""
        self._check_parameters()
        real = task.class_mask.reshape(-1, task.class_mask.shape[-1]).any(0).nonzero()[:, 0]
        sampled = min(self.sampled, len(real))
        if self.way is not None and self.way > sampled:
            raise BadInput(f"way is {self.way}, but only {sampled} classes are drawn in a step")
        way = max(1, sampled // 2) if self.way is None else self.way
        x, y, mask = _scaled(task.x), task.y[..., real], task.class_mask[..., real]
        rows, rest = class_means(x, y)[0], real_rows(task)

        def losses(parameters: list[Tensor], seen: Tensor) -> Tensor:
            weights = dict(zip(WEIGHTS, parameters, strict=True))
            drawn = torch.randperm(len(real), generator=draw)[:sampled]
            support = drawn_means(x[..., rest, :], y[..., rest, :], self.shot, draw)
            query, total = x[..., seen, :], x.new_zeros(x.shape[:-2])
            for _ in range(self.tasks):
                chosen = torch.zeros(len(real), dtype=torch.bool)
                chosen[drawn[torch.randperm(sampled, generator=draw)[:way]]] = True
                sizes = (len(seen), len(real) + 1)
                drop = (
                    _keep((*sizes, sizes[1]), DROP_ATTENTION, draw, x),
                    _keep((*sizes, x.shape[-1]), DROP_OUT, draw, x),
                )
                replaced = fake_rows(rows, support, chosen.to(x.device))
                answered, query_after = attended(weights, replaced, query, mask, drop)
                total = total + cross_entropy(self._logits(answered, query_after), y[..., seen, :], mask)
                query = query_after if self.reference_chain else query
            return total / self.tasks

        draw = torch.Generator().manual_seed(task.seed)
        start = [t.expand(*x.shape[:-2], *t.shape) for t in _start(x, draw)]
        steps = batches(rest, self.epochs, self.batch_size, task.seed)
        a_pass = -(-len(rest) // self.batch_size)
        update = SGD(0.9, 5e-4, nesterov=True)
        trained = descend(start, losses, steps, lambda step: self._rate(step // a_pass), update)
        prototype, mass = class_means(x, task.y)
        return {"prototype": prototype, "mass": mass, **dict(zip(WEIGHTS, trained, strict=True))}

    def answer(self, state: State, query: Query) -> Tensor:
        """See the head of the file; a class without examples gets the lowest logit."""
        rows, there = state["prototype"], state["mass"] > 0
        piece = max(1, MOST // (rows[..., 0].numel() * rows.shape[-1]))
        parts = [attended(state, rows, q, there) for q in torch.split(_scaled(query.x), piece, -2)]
        logits = torch.cat([self._logits(*part) for part in parts], -2)
        return torch.where(there[..., None, :], logits, lowest(logits))

    def extend(self, state: State, task: Task, fresh: Tensor) -> State:
        """The rows of new classes are the means of their examples. See `Growing.extend`."""
        prototype, mass = class_means(_scaled(task.x), task.y)
        return {"prototype": state["prototype"] + prototype, "mass": state["mass"] + mass}

    def _logits(self, rows: Tensor, query: Tensor) -> Tensor:
        if self.form == "cosine":
            return self.temperature * (unit(rows) @ unit(query)[..., None])[..., 0]
        return (unit(rows) @ query[..., None])[..., 0] / self.temperature

    def _rate(self, epoch: int) -> float:
        return self.lr * self.gamma ** sum(epoch >= milestone for milestone in self.milestones)

    def _check_parameters(self) -> None:
        one_of("form", self.form, ("cosine", "dot"))
        finite("temperature", self.temperature, above=0)
        finite("lr", self.lr, least=0)
        finite("gamma", self.gamma, above=0, most=1)
        count("epochs", self.epochs)
        for name in ("sampled", "shot", "tasks", "batch_size"):
            count(name, getattr(self, name), 1)
        for milestone in self.milestones:
            count("milestones", milestone)
        if self.way is not None:
            count("way", self.way, 1)


def _start(like: Tensor, draw: torch.Generator) -> list[Tensor]:
    """Weights as the authors draw them: normal of variance 1 / D, the bias uniform."""
    d = like.shape[-1]
    square = [torch.randn(d, d, generator=draw, dtype=torch.float64) / d**0.5 for _ in range(4)]
    bias = uniform((d,), 1 / d**0.5, draw)
    return [t.to(like) for t in (*square, bias, torch.ones(d), torch.zeros(d))]


def _scaled(x: Tensor) -> Tensor:
    return unit(x) * float(x.shape[-1] ** 0.5)


def _keep(sizes: tuple[int, ...], drop: float, draw: torch.Generator, like: Tensor) -> Tensor:
    """Factors 0 with probability ``drop``, else 1 / (1 - drop)."""
    return (torch.rand(sizes, generator=draw) >= drop).to(like) / (1 - drop)
