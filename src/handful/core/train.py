"""The one training loop of heads: parameters keep their batch dimensions and the losses of all tasks are summed.

`descend` takes the steps; what a step sees comes from `batches`, how long it is from `cosine`, how it is made from
`AdamW`, `Adam` or `SGD`. Every update depends on its own task's gradient only, so a batch of tasks gives what a loop
over them gives as long as the tasks see the same rows at each step. The numbers are those of `torch.optim`, whose first
use imports a compiler for seconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

BETA1, BETA2 = 0.9, 0.999

Losses = Callable[[list[Tensor], Tensor], Tensor]
"""``losses(parameters, what the step sees) -> [*b]``."""


class Update(Protocol):
    """Changes parameters in place by their gradients; keeps what it remembers of them."""

    def __call__(self, parameters: list[Tensor], gradients: tuple[Tensor, ...], rate: float) -> None:
        """One step of length ``rate``."""


class Optimiser(Update, Protocol):
    """An update whose run can be broken off and go on."""

    def memory(self) -> list[Tensor]:
        """What it remembers, for a run to go on from; empty before the first step."""

    def recall(self, memory: list[Tensor]) -> None:
        """Go on from what `memory` gave."""


def descend(
    start: list[Tensor], losses: Losses, steps: Iterable[Tensor], rate: Callable[[int], float], update: Update
) -> list[Tensor]:
    """Parameters after one update for each of ``steps``, whose entry is handed to ``losses``.

    Args:
        start: parameters, ``[*b, …]`` each; they are not changed.
        losses: see `Losses`.
        steps: what each step sees, most often the indices of rows.
        rate: learning rate of step 0, 1, …
        update: `AdamW`, `Adam` or `SGD`.
    """
    parameters = [p.detach().clone() for p in start]
    for step, seen in enumerate(steps):
        with torch.enable_grad():
            free = [p.detach().requires_grad_() for p in parameters]
            gradients = torch.autograd.grad(losses(free, seen).sum(), free)
        update(parameters, gradients, rate(step))
    return parameters


def batches(rows: Tensor, epochs: int, batch_size: int, seed: int) -> Iterator[Tensor]:
    """``epochs`` passes over ``rows``, ``batch_size`` a step; their order is drawn where they do not fit into one.

    Leave out of ``rows`` what is padding in every task.
    """
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        whole = len(rows) <= batch_size
        order = rows if whole else rows[torch.randperm(len(rows), generator=generator).to(rows.device)]
        yield from (order[at : at + batch_size] for at in range(0, len(order), batch_size))


def cosine(
    lr: float, steps: int, *, warmup: int = 0, warmup_lr: float = 0.0, climb: bool = False, last: float = 0.0
) -> Callable[[int], float]:
    """A rate that falls from ``lr`` to ``last`` over ``steps``, after ``warmup`` others.

    Those are at ``warmup_lr``; with ``climb`` only the first of them is, and the rate then grows evenly.
    """

    def rate(step: int) -> float:
        if step < warmup:
            return lr * step / warmup if climb and step else warmup_lr
        return last + (lr - last) * (1 + math.cos(math.pi * (step - warmup) / steps)) / 2

    return rate


@dataclass
class AdamW:
    """Loshchilov and Hutter 2019: the decay does not pass through the moments.

    Without ``debias`` the moments count from 0, as in BERT's own optimiser: first steps are longer. With ``amsgrad`` a
    step is by the largest second moment so far (Reddi et al. 2018).
    """

    eps: float = 1e-8
    weight_decay: float = 0.01
    betas: tuple[float, float] = (BETA1, BETA2)
    debias: bool = True
    amsgrad: bool = False
    _moments: list[tuple[Tensor, ...]] = field(default_factory=list)
    _step: int = 0
    _room: Tensor | None = field(default=None, repr=False)

    def __call__(self, parameters: list[Tensor], gradients: tuple[Tensor, ...], rate: float) -> None:
        """See `Update`."""
        self.penalised(parameters, gradients, rate, 0.0)

    def penalised(self, parameters: list[Tensor], gradients: tuple[Tensor, ...], rate: float, penalty: float) -> None:
        """One step by ``gradients`` and those of ``penalty / 2 |p|^2``."""
        kept = self._kept
        self._moments = self._moments or [tuple(torch.zeros_like(p) for _ in range(kept)) for p in parameters]
        self._step += 1
        beta1, beta2 = self.betas
        for p, g, (m, v, *most) in zip(parameters, gradients, self._moments, strict=True):
            room = self._room_for(p)
            if penalty:
                g = torch.add(g, p, alpha=penalty, out=room)
            m.lerp_(g, 1 - beta1)
            v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
            for largest in most:
                v = torch.maximum(largest, v, out=largest)
            first, second = (1 - beta1**self._step, 1 - beta2**self._step) if self.debias else (1.0, 1.0)
            spread = torch.sqrt(v, out=room).div_(second**0.5).add_(self.eps)
            if self.weight_decay:
                p.mul_(1 - rate * self.weight_decay)
            p.addcdiv_(m, spread, value=-rate / first)

    def memory(self) -> list[Tensor]:
        """See `Optimiser`: the number of steps, then the moments of each parameter."""
        return [torch.tensor(self._step), *(x for some in self._moments for x in some)] if self._step else []

    def recall(self, memory: list[Tensor]) -> None:
        """See `Optimiser`."""
        self._step = int(memory[0]) if memory else 0
        self._moments = list(zip(*(memory[1 + i :: self._kept] for i in range(self._kept)), strict=True))

    @property
    def _kept(self) -> int:
        return 3 if self.amsgrad else 2

    def _room_for(self, p: Tensor) -> Tensor:
        """Memory like ``p``, the same in every step: to ask for it anew takes longer than what is computed in it."""
        room, n = self._room, p.numel()
        if room is None or len(room) < n or (room.dtype, room.device) != (p.dtype, p.device):
            self._room = room = torch.empty(n, dtype=p.dtype, device=p.device)
        return room[:n].view(p.shape)


@dataclass
class Adam:
    """Kingma and Ba 2015, with the decay as a penalty ``weight_decay / 2 |p|^2`` on the loss."""

    eps: float = 1e-8
    weight_decay: float = 0.0
    betas: tuple[float, float] = (BETA1, BETA2)
    _rule: AdamW = field(init=False)

    def __post_init__(self) -> None:
        self._rule = AdamW(self.eps, 0.0, self.betas)

    def __call__(self, parameters: list[Tensor], gradients: tuple[Tensor, ...], rate: float) -> None:
        """See `Update`."""
        self._rule.penalised(parameters, gradients, rate, self.weight_decay)

    def memory(self) -> list[Tensor]:
        """See `Optimiser`."""
        return self._rule.memory()

    def recall(self, memory: list[Tensor]) -> None:
        """See `Optimiser`."""
        self._rule.recall(memory)


@dataclass
class SGD:
    """With momentum: ``v <- momentum v + g``, ``p <- p - rate v``, and the decay as a penalty on the loss.

    With ``nesterov`` the step is along ``g + momentum v`` instead of ``v``.
    """

    momentum: float = 0.9
    weight_decay: float = 0.0
    nesterov: bool = False
    _velocity: list[Tensor] = field(default_factory=list)

    def __call__(self, parameters: list[Tensor], gradients: tuple[Tensor, ...], rate: float) -> None:
        """See `Update`."""
        self._velocity = self._velocity or [torch.zeros_like(p) for p in parameters]
        for p, g, v in zip(parameters, gradients, self._velocity, strict=True):
            g = g + self.weight_decay * p
            v.mul_(self.momentum).add_(g)
            p.sub_(rate * (g + self.momentum * v if self.nesterov else v))

    def memory(self) -> list[Tensor]:
        """See `Optimiser`: the velocities."""
        return list(self._velocity)

    def recall(self, memory: list[Tensor]) -> None:
        """See `Optimiser`."""
        self._velocity = list(memory)


@dataclass
class Clipped:
    """Another update, its gradients shortened to the length ``most`` where they are longer, each task's by itself.

    Args:
        update: what takes the step.
        most: Euclidean length of all gradients of a task together.
        batch: how many leading dimensions are tasks.
    """

    update: Update
    most: float
    batch: int = 0

    def __call__(self, parameters: list[Tensor], gradients: tuple[Tensor, ...], rate: float) -> None:
        """See `Update`."""
        squares = [g.flatten(self.batch).square().sum(-1) if g.dim() > self.batch else g.square() for g in gradients]
        share = (self.most / torch.stack(squares).sum(0).sqrt().clamp_min(1e-30)).clamp_max(1)
        shorter = tuple(g * share.reshape(*share.shape, *[1] * (g.dim() - self.batch)) for g in gradients)
        self.update(parameters, shorter, rate)


def adamw(
    start: list[Tensor],
    losses: Losses,
    *,
    rows: Tensor,
    epochs: int,
    lr: float,
    eps: float = 1e-8,
    weight_decay: float = 0.01,
    batch_size: int = 256,
    seed: int = 0,
) -> list[Tensor]:
    """Minimise ``losses(parameters, row indices) -> [*b]`` with AdamW and a cosine to zero over all steps."""
    steps = epochs * math.ceil(len(rows) / batch_size)
    seen = batches(rows, epochs, batch_size, seed)
    return descend(start, losses, seen, cosine(lr, steps), AdamW(eps, weight_decay))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside, what a module draws by itself (dropout) follows from ``seed``; outside, nothing was drawn."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def each_of(parameter: Tensor, mass: Tensor) -> Tensor:
    """``parameter``, with its gradient divided by ``mass``: what stands for rows of that weight moves as each would."""
    share = parameter / mass.clamp_min(1e-30)
    return torch.where(mass > 0, share + (parameter - share).detach(), parameter)
