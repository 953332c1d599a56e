"""PELA: a transformer of half the size, repaired once by a short distillation (199, Learning Parameter-Efficient Models
with Low-Rank Approximation, 2023).

    1  every linear map becomes U V, see `handful.compress.lowrank`
    2  all of it learns, with the model as it was for a teacher, on any data of the domain:
       L = L_task + a L_fm + b L_logit + c L_wp
       L_fm     mean over blocks of the mean square of (block of the student - block of the teacher)
       L_logit  mean square of (outputs of the student - of the teacher)
       L_wp     mean over maps of relu(max |U V - W| - eps)^2
    3  it is tuned and served like any model, by its factors
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from handful.compress.lowrank import OMIT, Factored, Replacement, low_rank_replace
from handful.errors import BadInput, nearest
from handful.tune.delta import Placed
from handful.tune.fillers import CrossEntropy
from handful.tune.loop import tune
from handful.tune.modes import in_mode
from handful.tune.own import Own
from handful.tune.recipe import Data, Objective, Recipe, Seen, Stage
from handful.tune.sites import Where, block_outputs, is_linear, map_of


@contextmanager
def watched(model: nn.Module, layers: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Inside, what each of ``layers`` of ``model`` gave last, by name; of several outputs the first."""
    modules, seen = dict(model.named_modules()), {}
    for name in layers:
        if name not in modules:
            raise BadInput(f"the model has no layer {name!r}{nearest(name, modules)}")

    def keep(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            seen[name] = output if isinstance(output, Tensor) else output[0]

        return modules[name].register_forward_hook(hook)

    handles = [keep(name) for name in layers]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True)
class Features:
    """L_fm, as an objective; put it first, so that the student reads its inputs once.

    Args:
        teacher: the model as it was.
        layers: names of modules in both; the transformer blocks by default.
        weight: a.
    """

    teacher: nn.Module
    layers: tuple[str, ...] = ()
    weight: float = 1.0
    name = "features"
    separable = True

    def __call__(self, seen: Seen) -> Tensor:
        layers = self.layers or block_outputs(self.teacher)
        with watched(seen.model, layers) as mine:
            if "features" in seen.__dict__:
                seen.model(seen.inputs)
            else:
                _ = seen.features
        return self.weight * torch.stack(list(feature_errors(mine, self._theirs(seen, layers), layers).values())).mean()

    @torch.no_grad()
    def _theirs(self, seen: Seen, layers: Sequence[str]) -> dict[str, Tensor]:
        with in_mode(False, self.teacher), watched(self.teacher, layers) as theirs:
            self.teacher(seen.inputs)
        return theirs


def feature_errors(mine: dict[str, Tensor], theirs: dict[str, Tensor], layers: Sequence[str]) -> dict[str, Tensor]:
    """The mean square error of each layer. Raises `BadInput` where a layer gave nothing, or there is none."""
    if not layers:
        raise BadInput("the model has no transformer blocks that are known; name its layers with layers=")
    for name in layers:
        if name not in mine or name not in theirs:
            raise BadInput(f"layer {name} is never called, so that it has no output; name others with layers=")
    return {name: functional.mse_loss(mine[name], theirs[name]) for name in layers}


@dataclass(frozen=True)
class Logits:
    """L_logit, as an objective.

    Args:
        teacher: the model as it was.
        weight: b.
    """

    teacher: nn.Module
    weight: float = 1.0
    name = "logits"
    separable = True

    def __call__(self, seen: Seen) -> Tensor:
        with torch.no_grad(), in_mode(False, self.teacher):
            wanted = self.teacher(seen.inputs)
        return self.weight * functional.mse_loss(seen.features, wanted)


@dataclass(frozen=True)
class Perturbation:
    """L_wp, as an objective.

    Args:
        teacher: the model as it was.
        eps: how far the product of the factors may be from the weight.
        pulled: the squared distance of the largest deviation *to* eps, below it too, as the authors' code has it.
        weight: c.
    """

    teacher: nn.Module
    eps: float = 1e-3
    pulled: bool = False
    weight: float = 1.0
    name = "perturbation"
    separable = True

    def __call__(self, seen: Seen) -> Tensor:
        over = torch.stack([largest for _, largest in deviations(self.teacher, seen.model)]) - self.eps
        return self.weight * (over if self.pulled else over.relu()).square().mean()


def deviations(teacher: nn.Module, student: nn.Module) -> list[tuple[str, Tensor]]:
    """``max |U V - W|`` of every factored map. Raises `BadInput` where the student has none, or another's."""
    found, theirs = [], dict(teacher.named_modules())
    for name, module in student.named_modules():
        if isinstance(module, Factored):
            whole = theirs.get(name)
            if whole is None or not is_linear(whole):
                raise BadInput(f"the teacher has no linear map {name}; this is a student of another")
            found.append((name, (module.weight - map_of(whole)[0]).abs().max()))
    if not found:
        raise BadInput("the model has no factored map; see low_rank_replace")
    return found


@dataclass(frozen=True)
class Report:
    """What a smaller model is, beside the one it was made of.

    Attributes:
        replacement: which maps were replaced; ``None`` where that was not told.
        parameters: of both, the old one first.
        flops: of the linear maps for one token, of both.
        seconds: for the same inputs, of both; the median of five.
        deviation: the largest ``|U V - W|`` of all maps.
        errors: the mean square error of each layer.
    """

    replacement: Replacement | None
    parameters: tuple[int, int]
    flops: tuple[int, int]
    seconds: tuple[float, float]
    deviation: float
    errors: dict[str, float]


@torch.no_grad()
def compare(
    teacher: nn.Module, student: nn.Module, inputs: Any, *, layers: Sequence[str] = (),
    replacement: Replacement | None = None,
) -> Report:  # fmt: skip
    """Both models on the same inputs; layers as in `Features`."""
    layers = tuple(layers) or block_outputs(teacher)
    both = (teacher, student)
    with in_mode(False, *both), watched(teacher, layers) as theirs, watched(student, layers) as mine:
        seconds = tuple(_seconds(model, inputs) for model in both)
    return Report(
        replacement,
        tuple(sum(p.numel() for p in model.parameters()) for model in both),  # type: ignore[arg-type]
        tuple(_flops(model) for model in both),  # type: ignore[arg-type]
        seconds,  # type: ignore[arg-type]
        max(float(one) for _, one in deviations(teacher, student)),
        {name: float(error) for name, error in feature_errors(mine, theirs, layers).items()},
    )


def _seconds(model: nn.Module, inputs: Any) -> float:
    def once() -> float:
        began = time.perf_counter()
        model(inputs)
        return time.perf_counter() - began

    return median(once() for _ in range(5))


def _flops(model: nn.Module) -> int:
    return sum(2 * map_of(module)[0].numel() for module in model.modules() if is_linear(module))


@dataclass(frozen=True)
class PELA:
    """See `handful.compress.pela`.

    Args:
        ratio, omit: see `low_rank_replace`.
        a, b, c: weights of the three losses; 1, 0 and 0 in the authors' scripts for DeiT.
        eps, pulled: see `Perturbation`.
        task: L_task; ``None`` where the data has no labels.
        layers: see `Features`.
        lr, epochs, batch, warmup, last, weight_decay: of AdamW, with a cosine from ``lr`` to ``last``.
    """

    ratio: float = 2.0
    omit: tuple[str, ...] = OMIT
    a: float = 1.0
    b: float = 0.0
    c: float = 1.0
    eps: float = 1e-3
    pulled: bool = False
    task: Objective | None = field(default_factory=CrossEntropy)
    layers: tuple[str, ...] = ()
    lr: float = 2.5e-4
    epochs: float = 50
    batch: int = 256
    warmup: float = 0.02
    last: float = 1e-5
    weight_decay: float = 0.05

    def __post_init__(self) -> None:
        for name, value in (("omit", self.omit), ("layers", self.layers)):
            if isinstance(value, str):
                raise BadInput(f"{name} is a tuple of names, not {value!r}: give ({value!r},)")
        if not all(one >= 0 for one in (self.a, self.b, self.c, self.eps)):
            raise BadInput(f"a, b, c and eps must not be negative: {self.a}, {self.b}, {self.c}, {self.eps}")
        if self.task is None and not (self.a or self.b or self.c):
            raise BadInput("without a task, one of a, b and c must be above 0: there is no loss")

    def recipe(self, teacher: nn.Module, student: nn.Module) -> Recipe:
        """Step 2, as slots: every parameter of the student learns."""
        objectives: list[Objective] = []
        if self.a:
            objectives.append(Features(teacher, self.layers, self.a))
        if self.task is not None:
            objectives.append(self.task)
        if self.b:
            objectives.append(Logits(teacher, self.b))
        if self.c:
            objectives.append(Perturbation(teacher, self.eps, self.pulled, self.c))
        names = sorted({name.rpartition(".")[2] for name, _ in student.named_parameters() if "." in name})
        changes = tuple(Placed(Own(), Where(names=".", parameter=name, tied=True)) for name in names)
        stage = Stage(
            epochs=self.epochs, lr=self.lr, batch=self.batch, rate="cosine", warmup=self.warmup, last=self.last,
            weight_decay=self.weight_decay,
        )  # fmt: skip
        return Recipe(changes, tuple(objectives), (stage,))

    def compress(self, model: nn.Module, data: Data, *, seed: int = 0) -> tuple[nn.Module, Report, list[float]]:
        """A smaller copy of ``model``, repaired on ``data``; how it compares on the first batch; the losses.

        Raises:
            BadInput: as `low_rank_replace`; the model has no blocks that are known; there is nothing to learn from.
        """
        student = copy.deepcopy(model)
        replacement = low_rank_replace(student, self.ratio, omit=self.omit)
        tuned = tune(student, data, self.recipe(model, student), seed=seed, mode="weight")
        tuned.merge()
        some = data.take(torch.arange(min(self.batch, len(data))))
        return student, compare(model, student, some, layers=self.layers, replacement=replacement), tuned.losses
