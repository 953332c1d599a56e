"""The ways to tune an encoder that paper 111 compares: fine-tuning, TSA, URL and eTT, and how their rates are chosen.

Luo et al., "A Closer Look at Few-shot Classification Again", 2023, as their code has them:

    fine-tuning     every weight; a linear head W = 1, b = 0 on unit features ("fc"), or 10 cos ("cc", the 10 learns)
    TSA             residual adapters at the 3 x 3 convolutions of residual blocks, and B; see `residual`, `nearest`
    URL             B alone, before the nearest class mean
    eTT             prefixes of the classes in every block, offsets, B; see `prefixes`

    SGD with momentum 0.9, no decay, batches of 100, a cosine over all steps; dropout and statistics as in use
    rates and epochs from a grid, by the mean accuracy over tasks of a validation set (`choose`), then used everywhere
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from handful.core.train import SGD
from handful.errors import BadInput
from handful.tune.delta import Placed
from handful.tune.loop import tune
from handful.tune.nearest import NearestClass, NearestLoss
from handful.tune.prompting import everything
from handful.tune.recipe import Data, Readout, Recipe, Stage
from handful.tune.residual import Residual
from handful.tune.sites import Where, named

BACKBONE_LRS = (0.01, 0.05, 0.25)
HEAD_LRS = (0.02, 0.1, 0.5)
EPOCHS = (10, 20, 30)
BATCH = 100


class Method(Protocol):
    """Settings of a way to tune."""

    def recipe(self, model: nn.Module) -> Recipe:
        """As slots, for that model."""
        ...


def stage(backbone_lr: float, head_lr: float, epochs: int) -> Stage:
    """How all of them learn. Raises `BadInput` for a rate below 0."""
    if not (backbone_lr >= 0 and head_lr >= 0) or epochs < 0:
        raise BadInput(f"rates and epochs are not below 0: {backbone_lr}, {head_lr}, {epochs}")
    lr = backbone_lr or head_lr  # without the backbone the readout alone learns
    return Stage(
        epochs=epochs, lr=lr, readout_lr=head_lr, batch=BATCH, rate="cosine", dropout=False,
        update=lambda decay: SGD(0.9, decay),
    )  # fmt: skip


class OnUnit(Readout):
    """``W x / |x| + b``, which begins with ones and zeros (``"fc"``), or ``s cos(W, x)``, s = 10 first (``"cc"``)."""

    weight: nn.Parameter
    bias: nn.Parameter
    scale: nn.Parameter

    def __init__(self, kind: Literal["fc", "cc"] = "fc") -> None:
        super().__init__()
        if kind not in ("fc", "cc"):
            raise BadInput(f"a head is 'fc' or 'cc', not {kind!r}")
        self.kind = kind

    def begin(self, model: nn.Module, data: Data, generator: torch.Generator) -> None:
        with torch.no_grad():
            probe = model(data.take(torch.arange(1)))
        shape = (len(data.classes), probe.shape[-1])
        if self.kind == "fc":
            self.weight, self.bias = nn.Parameter(probe.new_ones(shape)), nn.Parameter(probe.new_zeros(shape[0]))
        else:
            drawn = (torch.rand(shape, generator=generator) * 2 - 1) / shape[1] ** 0.5
            self.weight, self.scale = nn.Parameter(drawn.to(probe)), nn.Parameter(probe.new_tensor([10.0]))

    def forward(self, features: Tensor, model: nn.Module) -> Tensor:
        x = functional.normalize(features, dim=-1)
        if self.kind == "fc":
            return functional.linear(x, self.weight, self.bias)
        return self.scale * functional.linear(x, functional.normalize(self.weight, dim=-1))


@dataclass(frozen=True)
class FineTune:
    """All of the encoder and a head.

    Args:
        backbone_lr: rate of the encoder; at 0 the head alone learns.
        head_lr: rate of the head.
        epochs: passes over the support.
        head: see `OnUnit`.
    """

    backbone_lr: float = 0.05
    head_lr: float = 0.1
    epochs: int = 20
    head: Literal["fc", "cc"] = "fc"

    def recipe(self, model: nn.Module) -> Recipe:
        """See `Method`."""
        changes = everything(model) if self.backbone_lr else ()
        how = stage(self.backbone_lr, self.head_lr, self.epochs)
        return Recipe(changes, stages=(how,), readout=partial(OnUnit, self.head))


@dataclass(frozen=True)
class URL:
    """The alignment B before the nearest class mean; the encoder stays as it is.

    Args:
        head_lr: rate of B.
        epochs: passes over the support.
    """

    head_lr: float = 0.1
    epochs: int = 20

    def recipe(self, model: nn.Module) -> Recipe:
        """See `Method`."""
        how = stage(0.0, self.head_lr, self.epochs)
        return Recipe(objectives=(NearestLoss(),), stages=(how,), readout=NearestClass)


@dataclass(frozen=True)
class TSA:
    """Residual adapters at the convolutions of residual blocks, and B.

    Args:
        backbone_lr: rate of the adapters.
        head_lr: rate of B.
        epochs: passes over the support.
        names: a regular expression that is found in the names of residual blocks.
        kernel: of the convolutions that get one, an odd number.
    """

    backbone_lr: float = 0.05
    head_lr: float = 0.1
    epochs: int = 20
    names: str = r"layer|stage|block"
    kernel: int = 3

    def recipe(self, model: nn.Module) -> Recipe:
        """See `Method`. Raises `BadInput` for a model without such a convolution, or names that are none."""
        fits = named("names", self.names).search
        found = tuple(
            name
            for name, module in model.named_modules()
            if isinstance(module, nn.Conv2d) and module.kernel_size == (self.kernel, self.kernel) and fits(name)
        )
        if not found:
            raise BadInput(
                f"no {self.kernel} x {self.kernel} convolution is called like {self.names!r}: TSA is for networks of "
                "residual blocks; take URL or fine-tuning"
            )
        change = Placed(Residual(self.kernel**2), Where(sites=found))
        how = stage(self.backbone_lr, self.head_lr, self.epochs)
        return Recipe((change,), (NearestLoss(),), (how,), readout=NearestClass)


def grid(kind: Callable[..., Method]) -> tuple[Method, ...]:
    """Every setting of the paper's grid: rates of encoder and head, epochs; of `URL`, which leaves the encoder, two."""
    if kind is URL:
        return tuple(URL(head, epochs) for head, epochs in itertools.product(HEAD_LRS, EPOCHS))
    return tuple(kind(*some) for some in itertools.product(BACKBONE_LRS, HEAD_LRS, EPOCHS))


class Chosen(NamedTuple):
    """The setting with the highest mean accuracy, the first of equal ones, and the accuracy of each tried."""

    method: Method
    accuracy: tuple[float, ...]


def choose(
    model: nn.Module,
    tasks: Sequence[tuple[Data, Data]],
    methods: Sequence[Method],
    *,
    test: Sequence[Data] = (),
    seed: int = 0,
) -> Chosen:
    """Settings by tasks of a validation set: 50 of five classes with five examples each, in the paper.

    Args:
        model: the encoder; it is as it was afterwards.
        tasks: support and query of each.
        methods: what is tried, such as `grid` gives.
        test: what the settings will be used on, none of which may be in the tasks.
        seed: of every draw.

    Raises:
        BadInput: nothing to try or to try it on; a query that is in its support; items that are tested as well.
    """
    if not tasks or not methods:
        raise BadInput(f"{len(methods)} settings to choose among and {len(tasks)} tasks to try them on; one at least")
    for number, (support, query) in enumerate(tasks, 1):
        if shared := support.shared(query):
            raise BadInput(f"task {number}: {shared} items of the query are in the support")
        if shared := sum(each.shared(some) for each in test for some in (support, query)):
            raise BadInput(f"task {number}: {shared} items are tested as well; choose on data of its own")
    found = []
    for method in methods:
        right = [
            (tune(model, support, method.recipe(model), seed=seed).logits(query.inputs).argmax(1) == query.labels)
            for support, query in tasks
        ]
        found.append(float(torch.stack([each.float().mean() for each in right]).mean()))
    return Chosen(methods[found.index(max(found))], tuple(found))
