"""198 TAPS: Task Adaptive Parameter Sharing for Multi-Task Learning, 2022. Many tasks from one network: each keeps only
the few layers that it must change, and which these are is learnt along with them.

    f(W) = W + 1[g >= tau] D      D = 0 and the score g = 0.15 at first, tau = 0.1
    dL/dg = <dL/dW', D>           as if the step were the identity (straight through), so that a layer can come back
    loss  = CE + lambda / L sum_l |g_l|      L layers; the penalty starts after some epochs

Norms, their statistics and the readout are the task's own. Where all tasks are known beforehand, a backbone that was
trained on them together is the better base (`joint`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from handful.core.train import SGD
from handful.errors import BadInput
from handful.tune.change import Begun, Change, Mode, Tensors, register
from handful.tune.delta import Delta, Holder, Merged, Placed
from handful.tune.fillers import CrossEntropy, Linear
from handful.tune.loop import tune
from handful.tune.own import Own, Statistics
from handful.tune.recipe import Data, Recipe, Seen, Stage
from handful.tune.sites import LINEAR, Where


@register
@dataclass(frozen=True)
class Scored(Change):
    """See `handful.tune.taps`.

    Args:
        threshold: tau.
        score: of g at first; not below tau, where neither g nor D would ever get a gradient.
    """

    key: ClassVar[str] = "scored"
    modes: ClassVar[frozenset[Mode]] = frozenset({"weight"})
    threshold: float = 0.1
    score: float = 0.15

    def __post_init__(self) -> None:
        if self.score < self.threshold:
            raise BadInput(f"a score of {self.score} below the threshold {self.threshold} can never rise above it")

    def begin(self, weight: Tensor, generator: torch.Generator) -> Begun:
        return Begun({"D": torch.zeros_like(weight), "g": weight.new_tensor(self.score)})

    def weight(self, w: Tensor, t: Tensors) -> Tensor:
        g = t["g"]
        step = (g >= self.threshold).to(g) + (g - g.detach())  # 0 or 1 exactly, with the gradient of g
        return w + step * t["D"]

    def idle(self, t: Tensors) -> bool:
        return not bool(t["g"] >= self.threshold)


@dataclass(frozen=True)
class FewLayers:
    """``lambda / L sum_l |g_l|`` over the layers with a score.

    Args:
        lam: lambda.
        after: share of the steps without the penalty.
    """

    lam: float = 1.0
    after: float = 0.0
    name = "few-layers"
    separable = True

    def __post_init__(self) -> None:
        if self.lam < 0:
            raise BadInput(f"lam is {self.lam}; a negative one would reward every layer")

    def __call__(self, seen: Seen) -> Tensor:
        scores = [
            h.tensors["g"] for h in seen.model.modules() if isinstance(h, Holder) and isinstance(h.change, Scored)
        ]
        if not scores:
            raise BadInput("no layer has a score; place the change 'scored'")
        on = seen.step >= self.after * seen.steps
        return self.lam * on * torch.stack(scores).abs().mean()

    def each_label(self) -> FewLayers:
        """Itself: it looks at no label."""
        return self


@dataclass(frozen=True)
class TAPS:
    """Only the layers that the task must change are changed, and which is learnt (198).

    Args:
        lam: of the penalty on scores; the paper takes 0.1 to 1.
        threshold, score: see `Scored`.
        warmup: epochs 0 to this one are without the penalty, -1 for none; a run that ends before has none at all.
        lr: 0.005, 0.001 or 5e-4 for a ResNet, 5e-5 for a ViT; its decay is a cosine.
        epochs, batch: of SGD with momentum 0.9 and without decay.
        roles: layers that may change.
        names: a regular expression of their names, in place of the roles, as for convolutions.
    """

    lam: float = 1.0
    threshold: float = 0.1
    score: float = 0.15
    warmup: int = 2
    lr: float = 0.005
    epochs: int = 30
    batch: int = 32
    roles: tuple[str, ...] = LINEAR
    names: str | None = None

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.warmup < -1:
            raise BadInput(f"epochs are at least 1 and warmup at least -1, not {self.epochs} and {self.warmup}")

    def recipe(self) -> Recipe:
        """As slots."""
        norms = [Placed(Own(), Where(("norm",), parameter), needed=False) for parameter in ("weight", "bias")]
        counts = [Placed(Statistics(), Where(("norm",), f"running_{x}"), needed=False) for x in ("mean", "var")]
        scored = Placed(Scored(self.threshold, self.score), Where(self.roles, names=self.names))
        stage = Stage(
            epochs=self.epochs, lr=self.lr, batch=self.batch, rate="cosine", update=lambda decay: SGD(0.9, decay)
        )
        penalty = FewLayers(self.lam, min(1.0, (self.warmup + 1) / self.epochs))
        return Recipe((scored, *norms, *counts), (CrossEntropy(), penalty), (stage,), readout=Linear)


def active_layers(delta: Delta) -> tuple[str, ...]:
    """The layers that the task changes."""
    scored = (holder for holder in delta.each() if isinstance(holder.change, Scored))
    return tuple(holder.site for holder in scored if not holder.change.idle(holder.tensors))


def patch(delta: Delta, model: nn.Module) -> Delta:
    """What has to be stored for the task: the layers it changes, norms and their statistics; the same answers."""
    return delta.stored(model)


@dataclass(frozen=True)
class TaskWise:
    """Cross-entropy of each item among the classes of its own task: a mean over a task's items, summed over tasks.

    Args:
        ways: classes of each task; they stand side by side in the targets.
    """

    ways: tuple[int, ...]
    name = "task-wise"
    separable = False

    def __call__(self, seen: Seen) -> Tensor:
        total = torch.zeros(())
        for logits, targets in zip(
            *(torch.split(x, list(self.ways), 1) for x in (seen.logits, seen.targets)), strict=True
        ):
            mine = targets.sum(1) > 0
            if mine.any():
                total = total - (targets[mine] * logits[mine].log_softmax(1)).sum(1).mean()
        return total


@dataclass(frozen=True)
class EachTask:
    """Every step sees ``batch`` rows of each task; a pass is one over the largest.

    Args:
        sizes: items of each task; they stand one task after the other.
    """

    sizes: tuple[int, ...]

    def steps(self, data: Data, epochs: float, batch: int) -> int:
        return round(epochs * -(-max(self.sizes) // batch))

    def draws(self, data: Data, batch: int, generator: torch.Generator) -> Iterator[Tensor]:
        first = [sum(self.sizes[:task]) for task in range(len(self.sizes))]

        def endless(at: int, size: int) -> Iterator[Tensor]:
            while True:
                yield from at + torch.randperm(size, generator=generator)

        rows = [endless(at, size) for at, size in zip(first, self.sizes, strict=True)]
        while True:
            some = [
                torch.stack([next(row) for _ in range(min(batch, n))]) for row, n in zip(rows, self.sizes, strict=True)
            ]
            yield torch.cat(some)


def joint(
    model: nn.Module, tasks: Mapping[str, Data], changes: tuple[Placed, ...], stage: Stage, seed: int = 0
) -> Merged:
    """Train the backbone on all tasks together, one head each, and write it into ``model`` (step (i) of the variant).

    Tasks are then learnt one by one from there with `TAPS`, whose memory does not grow with their number.

    Args:
        model: the backbone; ``.undo()`` of the answer puts the base back.
        tasks: what is learnt, by name.
        changes: what of the backbone learns, most often `Own` everywhere.
        stage: how; ``batch`` is that of each task.
        seed: of every draw.
    """
    if len(tasks) < 2:
        raise BadInput("a joint backbone needs two tasks or more")
    ways = tuple(data.targets.shape[1] for data in tasks.values())
    parts = list(tasks.values())
    tensors = [part.inputs for part in parts if isinstance(part.inputs, Tensor)]
    inputs = torch.cat(tensors) if len(tensors) == len(parts) else [x for part in parts for x in part.inputs]
    names = tuple(f"{task}/{name}" for task, data in tasks.items() for name in data.classes)
    targets: Tensor = torch.block_diag(*(part.targets for part in parts))  # type: ignore[no-untyped-call]
    every = Data(inputs, targets, names)
    sampler = EachTask(tuple(map(len, parts)))
    recipe = Recipe(changes, (TaskWise(ways),), (stage,), readout=Linear, sampler=sampler)
    return tune(model, every, recipe, seed=seed).merge()
