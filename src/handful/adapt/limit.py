"""LIMIT: attention that puts old classifiers and new prototypes on one scale, trained on tasks that pretend to grow.

Paper 181: Zhou, Ye, Ma, Xie, Pu, Zhan, "Few-Shot Class-Incremental Learning by Sampling Multi-Phase Tasks", 2022. With
w_k the row of class k (the mean of its examples), x a query, F = [w_1 ... w_C, x] and one head of attention:

    A = softmax(F Wq (F Wk)' / sqrt(D)),   G = LayerNorm(A F Wv Wo + b + F)
    logit_k = tau cos(g_x, g_k)       ("cosine", CIFAR-100)
    logit_k = g_x . unit(g_k) / tau   ("dot", CUB and mini-ImageNet)

In each step of the training some base classes play new ones: their rows are the means of a few examples drawn, and
other examples ask. No query sees another one. The encoder trained along with it: `handful.tune.limit`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

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


@dataclass(frozen=True)
class Tasks:
    """The tasks of a step of training, and how an attended query answers.

    Args:
        form, temperature, way, tasks, reference_chain: see `LIMIT`; ``way`` is a number here.
    """

    form: Literal["cosine", "dot"]
    temperature: float
    way: int
    tasks: int
    reference_chain: bool

    def loss(
        self,
        weights: State,
        rows: Tensor,
        support: Tensor,
        drawn: Tensor,
        query: Tensor,
        y: Tensor,
        mask: Tensor,
        draw: torch.Generator,
    ) -> Tensor:
        """Mean cross-entropy ``[*b]`` of the queries over the tasks.

        Args:
            weights: `WEIGHTS`, by name.
            rows: of all classes ``[*b, C, D]``.
            support: what takes their place where they play new ones ``[*b, C, D]``.
            drawn: classes that may ``[S]``.
            query, y: rows that ask ``[*b, Q, D]``, their labels times weights ``[*b, Q, C]``.
            mask: which classes there are ``[*b, C]``.
            draw: gives dropout and the classes of each task.
        """
        total, ways = rows.new_zeros(rows.shape[:-2]), rows.shape[-2]
        sizes = (query.shape[-2], ways + 1)
        for _ in range(self.tasks):
            chosen = torch.zeros(ways, dtype=torch.bool)
            chosen[drawn[torch.randperm(len(drawn), generator=draw)[: self.way]]] = True
            drop = (
                _keep((*sizes, sizes[1]), DROP_ATTENTION, draw, rows),
                _keep((*sizes, rows.shape[-1]), DROP_OUT, draw, rows),
            )
            replaced = fake_rows(rows, support, chosen.to(rows.device))
            answered, query_after = attended(weights, replaced, query, mask, drop)
            total = total + cross_entropy(self.logits(answered, query_after), y, mask)
            query = query_after if self.reference_chain else query
        return total / self.tasks

    def logits(self, rows: Tensor, query: Tensor) -> Tensor:
        """``[*b, Q, C]`` of what the attention gave: rows ``[*b, Q, C, D]`` and queries ``[*b, Q, D]``."""
        if self.form == "cosine":
            return self.temperature * (unit(rows) @ unit(query)[..., None])[..., 0]
        return (unit(rows) @ query[..., None])[..., 0] / self.temperature

    def answers(self, weights: State, rows: Tensor, query: Tensor, mask: Tensor) -> Tensor:
        """Logits ``[*b, Q, C]`` of queries ``[*b, Q, D]``, piece by piece; a class not in ``mask`` gets the lowest."""
        piece = max(1, MOST // (rows[..., 0].numel() * rows.shape[-1]))
        parts = [self.logits(*attended(weights, rows, q, mask)) for q in torch.split(query, piece, -2)]
        logits = torch.cat(parts, -2)
        return torch.where(mask[..., None, :], logits, lowest(logits))


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
        check_parameters(self)
        real = task.class_mask.reshape(-1, task.class_mask.shape[-1]).any(0).nonzero()[:, 0]
        sampled, way = classes_of(self, len(real))
        x, y, mask = scaled(task.x), task.y[..., real], task.class_mask[..., real]
        rows, rest = class_means(x, y)[0], real_rows(task)

        def losses(parameters: list[Tensor], seen: Tensor) -> Tensor:
            weights = dict(zip(WEIGHTS, parameters, strict=True))
            drawn = torch.randperm(len(real), generator=draw)[:sampled]
            support = drawn_means(x[..., rest, :], y[..., rest, :], self.shot, draw)
            return tasks.loss(weights, rows, support, drawn, x[..., seen, :], y[..., seen, :], mask, draw)

        tasks, draw = self._tasks(way), torch.Generator().manual_seed(task.seed)
        start = [t.expand(*x.shape[:-2], *t.shape) for t in starting(x, draw)]
        steps = batches(rest, self.epochs, self.batch_size, task.seed)
        a_pass = -(-len(rest) // self.batch_size)
        update = SGD(0.9, 5e-4, nesterov=True)
        trained = descend(start, losses, steps, lambda step: self._rate(step // a_pass), update)
        prototype, mass = class_means(x, task.y)
        return {"prototype": prototype, "mass": mass, **dict(zip(WEIGHTS, trained, strict=True))}

    def answer(self, state: State, query: Query) -> Tensor:
        """See the head of the file; a class without examples gets the lowest logit."""
        return self._tasks(1).answers(state, state["prototype"], scaled(query.x), state["mass"] > 0)

    def extend(self, state: State, task: Task, fresh: Tensor) -> State:
        """The rows of new classes are the means of their examples. See `Growing.extend`."""
        prototype, mass = class_means(scaled(task.x), task.y)
        return {"prototype": state["prototype"] + prototype, "mass": state["mass"] + mass}

    def _tasks(self, way: int) -> Tasks:
        return Tasks(self.form, self.temperature, way, self.tasks, self.reference_chain)

    def _rate(self, epoch: int) -> float:
        return self.lr * fallen(epoch, self.milestones, self.gamma)


class Settings(Protocol):
    """What the head and the tuner of `handful.tune.limit` have in common; see `LIMIT`."""

    form: Literal["cosine", "dot"]
    temperature: float
    epochs: int
    lr: float
    milestones: tuple[int, ...] | list[int]
    gamma: float
    sampled: int
    shot: int
    way: int | None
    tasks: int
    batch_size: int


def check_parameters(given: Settings) -> None:
    """Raise `BadInput` for a parameter that makes no sense."""
    one_of("form", given.form, ("cosine", "dot"))
    finite("temperature", given.temperature, above=0)
    finite("lr", given.lr, least=0)
    finite("gamma", given.gamma, above=0, most=1)
    count("epochs", given.epochs)
    for name in ("sampled", "shot", "tasks", "batch_size"):
        count(name, getattr(given, name), 1)
    if not isinstance(given.milestones, (tuple, list)):
        raise BadInput(f"milestones is a list of epochs, () for none, not {given.milestones!r}")
    for milestone in given.milestones:
        count("milestones", milestone)
    if given.way is not None:
        count("way", given.way, 1)


def classes_of(given: Settings, ways: int) -> tuple[int, int]:
    """How many of ``ways`` base classes a step draws, and how many of those play new ones in a task.

    Raises:
        BadInput: more are to play than are drawn.
    """
    sampled = min(given.sampled, ways)
    if given.way is not None and given.way > sampled:
        raise BadInput(f"way is {given.way}, but only {sampled} classes are drawn in a step")
    return sampled, max(1, sampled // 2) if given.way is None else given.way


def fallen(epoch: float, milestones: Sequence[int], gamma: float) -> float:
    """What a rate is multiplied by after so many epochs."""
    return float(gamma ** sum(epoch >= milestone for milestone in milestones))


def starting(like: Tensor, draw: torch.Generator) -> list[Tensor]:
    """Weights as the authors draw them: normal of variance 1 / D, the bias uniform."""
    d = like.shape[-1]
    square = [torch.randn(d, d, generator=draw, dtype=torch.float64) / d**0.5 for _ in range(4)]
    bias = uniform((d,), 1 / d**0.5, draw)
    return [t.to(like) for t in (*square, bias, torch.ones(d), torch.zeros(d))]


def scaled(x: Tensor) -> Tensor:
    """Rows of the length sqrt(D)."""
    return unit(x) * float(x.shape[-1] ** 0.5)


def _keep(sizes: tuple[int, ...], drop: float, draw: torch.Generator, like: Tensor) -> Tensor:
    """Factors 0 with probability ``drop``, else 1 / (1 - drop)."""
    return (torch.rand(sizes, generator=draw) >= drop).to(like) / (1 - drop)
