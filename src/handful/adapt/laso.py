"""LaSO as a head: a multi-label classifier of few examples, trained on them and on unions of pairs of them.

Paper 159: Alfassy et al., "LaSO: Label-Set Operations networks for multi-label few-shot learning", 2019. The operations
are in `handful.adapt.laso_sets`, how their networks are trained on base data in `handful.adapt.laso_train`.

    layer   h = LeakyReLU(BN(W h)), dropout on all but the last;  three of them, then logits = V h + d
    loss    mean over labels of the binary cross-entropy, over a batch of rows and of made-up rows

A made-up row is an operation on two rows of the support, with the label set that stands for it. Features are moved up
by each channel's least value first where that is negative: the operations take features from 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, leaky_relu

from handful.adapt.base import Head
from handful.adapt.laso_sets import SLOPE, LaSO, Operation, applied, check_operations, label_set
from handful.adapt.packed import uniform
from handful.adapt.parameters import count, finite
from handful.core.losses import real_rows
from handful.core.task import Query, State, Task
from handful.core.train import Adam, batches, descend
from handful.protocols import Needs

LAYERS, EPS, MOMENTUM = 3, 1e-5, 0.1


@dataclass(eq=False, repr=False, kw_only=True)
class LaSOHead(Head):
    """A network of three layers for items with several labels, fed with unions of the examples.

    Fitted on one label a row it answers with one label.

    Args:
        ops: operations that make up rows, in turn; none for no made-up rows.
        networks: `LaSO` networks trained on base data (`LaSOTrainer`); ``None``: the analytic operations.
        pairs: made-up rows of an epoch, as a share of all pairs of rows (the code's at five shots; 1 at one).
        hidden: width of the layers; ``None``: that of the features.
        dropout: share that is dropped.
        epochs: passes over the support.
        batch_size: rows of the support a step.
        lr: of Adam.
    """

    key: ClassVar[str] = "laso"
    needs: ClassVar[Needs] = Needs(gradient=True, multi_label=True, stochastic=True)
    shapes: ClassVar[Mapping[str, str]] = {
        "offset": "D",
        "w0": "H D",
        "c0": "H",
        "w1": "H H",
        "c1": "H",
        "w2": "H H",
        "c2": "H",
        "weight": "C H",
        "bias": "C",
    }

    ops: Sequence[Operation] = ("union",)
    networks: LaSO | None = None
    pairs: float = 0.25
    hidden: int | None = None
    dropout: float = 0.5
    epochs: int = 50
    batch_size: int = 4
    lr: float = 0.01

    def adapt(self, task: Task) -> State:
        """State: ``offset [*b, D]``, the layers ``w0 [*b, H, D]``, ``c0 [*b, H]``, … with their norms folded in,
        ``weight [*b, C, H]`` and ``bias [*b, C]``.

        Raises:
            BadInput: a parameter out of range, networks of another width.
        """
        if self.ops:
            check_operations(self.ops)
        finite("dropout", self.dropout, least=0, most=0.99)
        real = task.weight > 0
        least = task.support.masked_fill(~real[..., None], torch.inf).amin(-2)
        offset = torch.where(least.isfinite(), least, 0.0).clamp_max(0)
        x = torch.where(real[..., None], task.x - offset[..., None, :], 0.0)
        y = torch.where(real[..., None] & task.class_mask[..., None, :], task.labels, 0.0)
        mass = torch.where(real, task.weight, 0.0)
        plan, running = list(self._plan(task)), self._norms(task)
        dropped = torch.Generator().manual_seed(task.seed)

        def losses(parameters: list[Tensor], step: Tensor) -> Tensor:
            rows, pairs = plan[int(step)]
            parts = [(x[..., rows, :], y[..., rows, :], mass[..., rows])]
            for operation, pair in zip(self.ops, pairs, strict=False):
                parts.append(self._made(operation, pair, x, y, mass))
            z, t = (torch.cat([part[k] for part in parts], -2) for k in (0, 1))
            m = torch.cat([part[2] for part in parts], -1)
            logits = self._forward(parameters, running, z, m, dropped)
            each = binary_cross_entropy_with_logits(logits, t, reduction="none")
            counts = m[..., None] * task.class_mask[..., None, :]
            return (each * counts).sum((-2, -1)) / counts.sum((-2, -1)).clamp_min(1e-30)

        steps = torch.arange(len(plan))
        trained = descend(self._start(task), losses, steps, lambda _: finite("lr", self.lr, above=0), Adam())
        return {"offset": offset, **_folded(trained, running)}

    def answer(self, state: State, query: Query) -> Tensor:
        """``V h + d``."""
        h = query.x - state["offset"][..., None, :]
        for i in range(LAYERS):
            h = leaky_relu(h @ state[f"w{i}"].mT + state[f"c{i}"][..., None, :], SLOPE)
        return h @ state["weight"].mT + state["bias"][..., None, :]

    def _plan(self, task: Task) -> Iterator[tuple[Tensor, Sequence[Tensor]]]:
        """The rows of each step, and for each operation the two rows ``[2, U]`` of every pair."""
        rows, size = real_rows(task).cpu(), count("batch_size", self.batch_size, least=1)
        n, draw = len(rows), torch.Generator().manual_seed(task.seed)
        share = finite("pairs", self.pairs, least=0, most=1)
        made = int(share * (n - 1) / 2 * size) if self.ops else 0
        for seen in batches(rows, count("epochs", self.epochs), size, task.seed):
            if not made:
                yield seen, ()
                continue
            a = torch.randint(n, (made,), generator=draw)
            b = (a + torch.randint(1, n, (made,), generator=draw)) % n
            yield seen, torch.stack([rows[a], rows[b]]).chunk(len(self.ops), -1)

    def _made(
        self, operation: str, pair: Tensor, x: Tensor, y: Tensor, weight: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Made-up rows, their labels and weights; a pair without labels, or that has none left, weighs 0."""
        a, b = pair
        labels = label_set(operation, y[..., a, :], y[..., b, :])
        kept = (y[..., a, :].sum(-1) > 0) & (y[..., b, :].sum(-1) > 0) & (labels.sum(-1) > 0)
        made = applied(operation, x[..., a, :], x[..., b, :], self.networks)
        return made, labels, weight[..., a] * weight[..., b] * kept

    def _start(self, task: Task) -> list[Tensor]:
        """Weights as `torch.nn` draws them, those of the norms around 1 with deviation 0.02, as the code has it."""
        d, c, batch = task.support.shape[-1], task.labels.shape[-1], task.support.shape[:-2]
        h, draw, parts = self._width(d), torch.Generator().manual_seed(task.seed), []
        for into in (d, h, h):
            bound = 1 / math.sqrt(into)
            norm = 1 + 0.02 * torch.randn(h, generator=draw, dtype=torch.float64)
            parts += [uniform((h, into), bound, draw), norm, torch.zeros_like(norm)]
        last = uniform((c, h + 1), 1 / math.sqrt(h), draw)  # a class more is a row more: the others stay as they are
        parts += [last[:, :-1], last[:, -1]]
        return [part.to(task.support).expand((*batch, *part.shape)) for part in parts]

    def _norms(self, task: Task) -> list[Tensor]:
        """Running mean and variance ``[*b, H]`` of each layer, before a step."""
        shape = (*task.support.shape[:-2], self._width(task.support.shape[-1]))
        return [task.support.new_full(shape, value) for _ in range(LAYERS) for value in (0.0, 1.0)]

    def _width(self, d: int) -> int:
        return d if self.hidden is None else count("hidden", self.hidden, least=1)

    def _forward(
        self, parameters: list[Tensor], running: list[Tensor], h: Tensor, m: Tensor, dropped: torch.Generator
    ) -> Tensor:
        """Logits of rows that weigh ``m [*b, n]``; what the norms see is added to ``running``."""
        total, rows = m.sum(-1)[..., None].clamp_min(1e-30), (m > 0).sum(-1)[..., None]
        for i in range(LAYERS):
            weight, gain, shift = parameters[3 * i : 3 * i + 3]
            h = h @ weight.mT  # without a bias: the norm would take it off, and rounding would train it
            mean = (m[..., None] * h).sum(-2) / total
            var = (m[..., None] * (h - mean[..., None, :]).square()).sum(-2) / total
            running[2 * i].lerp_(mean.detach(), MOMENTUM)
            running[2 * i + 1].lerp_(var.detach() * rows / (rows - 1).clamp_min(1), MOMENTUM)
            h = (h - mean[..., None, :]) / (var + EPS).sqrt()[..., None, :] * gain[..., None, :] + shift[..., None, :]
            h = leaky_relu(h, SLOPE)
            if i < LAYERS - 1 and self.dropout:
                kept = torch.rand(h.shape[-2:], generator=dropped, dtype=torch.float64) >= self.dropout
                h = h * kept.to(h) / (1 - self.dropout)
        return h @ parameters[-2].mT + parameters[-1][..., None, :]


def _folded(parameters: list[Tensor], running: list[Tensor]) -> State:
    """The layers at rest: each norm is a scale and a shift of what comes before it."""
    state = {"weight": parameters[-2], "bias": parameters[-1]}
    for i in range(LAYERS):
        weight, gain, shift = parameters[3 * i : 3 * i + 3]
        scale = gain / (running[2 * i + 1] + EPS).sqrt()
        state[f"w{i}"], state[f"c{i}"] = scale[..., None] * weight, shift - scale * running[2 * i]
    return state
