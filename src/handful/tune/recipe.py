"""A way of tuning, as what fills the engine's slots: where x start x readout x objective x step x schedule x data.

Recipes compose: ``a | b`` fills the slots that ``a`` leaves empty, appends where a slot is a list, and names both where
the two fill one slot with different things.

    lora = Recipe(changes=(Placed(LoRA(rank=8)),), stages=(Stage(epochs=10, lr=1e-3),))
    contrastive = Recipe(objectives=(SupCon(),), sampler=Balanced(ways=8))
    tune(model, data, lora | contrastive)
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, ClassVar, Literal, Protocol, TypeVar

import torch
from torch import Tensor, nn

from handful.core.train import AdamW, Optimiser
from handful.encode.asking import Asking
from handful.encode.reading import LateInteraction
from handful.errors import BadInput
from handful.tune.delta import Delta, Placed

Part = Literal["delta", "readout"]
R = TypeVar("R", bound="Readout")


@dataclass(frozen=True)
class Data:
    """What is learnt from.

    Args:
        inputs: n items as the model takes them: a tensor ``[n, …]``, or a list that is cut into lists.
        targets: ``[n, C]`` rows that sum to 1 (or several ones, multi-label), or ``[n]`` numbers of classes.
        classes: names, C of them.
        weight: of each item ``[n]``; 1 by default.
        documents: a text that describes each class, as the model takes items; C of them, or none.
    """

    inputs: Tensor | Sequence[Any]
    targets: Tensor
    classes: tuple[str, ...] = ()
    weight: Tensor | None = None
    documents: Sequence[Any] = ()

    def __post_init__(self) -> None:
        n = len(self.inputs)
        if not n:
            raise BadInput("there is nothing to learn from: no items")
        if len(self.targets) != n:
            raise BadInput(f"{n} items, but {len(self.targets)} targets")
        if self.targets.dim() == 1:
            ways = len(self.classes) or int(self.targets.max()) + 1
            if int(self.targets.min()) < 0 or int(self.targets.max()) >= ways:
                raise BadInput(f"targets must be numbers of classes from 0 to {ways - 1}")
            object.__setattr__(self, "targets", nn.functional.one_hot(self.targets, ways).float())
        if not self.classes:
            object.__setattr__(self, "classes", tuple(str(c) for c in range(self.targets.shape[1])))
        if len(self.classes) != self.targets.shape[1]:
            raise BadInput(f"{len(self.classes)} class names, but targets of {self.targets.shape[1]} classes")
        if len(self.documents) not in (0, len(self.classes)):
            raise BadInput(f"{len(self.documents)} class texts, but {len(self.classes)} classes")
        if not bool(torch.isfinite(self.targets).all()):
            raise BadInput("targets hold NaN or infinity")

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def labels(self) -> Tensor:
        """The class of each item ``[n]``."""
        return self.targets.argmax(1)

    @property
    def weighted(self) -> Tensor:
        """Targets times weights ``[n, C]``."""
        return self.targets if self.weight is None else self.weight[:, None] * self.targets

    def shared(self, other: Data) -> int:
        """How many items of ``other`` are among these; 0 for items that cannot be compared."""

        def keys(data: Data) -> list[Any]:
            if isinstance(data.inputs, Tensor):
                return [row.cpu().contiguous().numpy().tobytes() for row in data.inputs]
            return [item for item in data.inputs if isinstance(item, str)]

        mine = set(keys(self))
        return sum(key in mine for key in keys(other))

    def take(self, rows: Tensor) -> Any:
        """The inputs of these rows, as the model takes them."""
        return rows_of(self.inputs, rows.tolist())


def rows_of(inputs: Tensor | Sequence[Any], rows: Sequence[int]) -> Any:
    """Some of the inputs: of a tensor a tensor, of a list a list."""
    return inputs[list(rows)] if isinstance(inputs, Tensor) else [inputs[row] for row in rows]


@dataclass(frozen=True)
class Shipped:
    """A linear head ``w x + b`` that goes into the model file.

    Args:
        weight: ``[C, D]``.
        bias: ``[C]``.
        reading: what makes x of an item's token vectors; ``None`` for the encoder's own way.
    """

    weight: Tensor
    bias: Tensor
    reading: LateInteraction | Asking | None = None


class Readout(nn.Module, ABC):
    """What turns the model's outputs into logits: a protocol with parameters of its own, or none.

    Attributes:
        independent: whether each logit can stand for a label by itself, beside others; not where they are similarities,
            of which the largest wins.
    """

    independent: ClassVar[bool] = False

    def begin(self, model: nn.Module, data: Data, generator: torch.Generator) -> None:
        """Make the parameters, once the data is known; nothing by default."""

    def look(self, model: nn.Module, inputs: Any) -> Any:
        """What it reads of the model for B items: what the model gives, by default."""
        return model(inputs)

    @abstractmethod
    def forward(self, features: Any, model: nn.Module) -> Tensor:
        """Logits ``[B, C]`` of what `look` gave for B items."""

    def ships(self, model: nn.Module) -> Shipped | None:
        """What answers once it is learnt, where that is the readout and no head fitted afterwards; none by default."""
        return None


@dataclass
class Seen:
    """What an objective sees of a step; outputs are worked out when first asked for.

    Args:
        model, readout: as they are now.
        rows: of the items ``[B]``.
        inputs: of those items.
        targets: ``[B, C]``.
        weight: ``[B]``.
        step: its number, from 0.
        steps: in all.
        generator: of what an objective draws.
        learns: the parameters that move, for objectives that look at gradients.
    """

    model: nn.Module
    readout: Readout
    rows: Tensor
    inputs: Any
    targets: Tensor
    weight: Tensor
    step: int
    steps: int
    generator: torch.Generator
    learns: tuple[Tensor, ...] = ()

    @cached_property
    def features(self) -> Any:
        """What the readout reads of the model for the items; most often ``[B, d]``."""
        return self.readout.look(self.model, self.inputs)

    @cached_property
    def logits(self) -> Tensor:
        """``[B, C]``."""
        return self.readout(self.features, self.model)  # type: ignore[no-any-return]

    @property
    def labels(self) -> Tensor:
        """The class of each item ``[B]``."""
        return self.targets.argmax(1)

    def read_by(self, kind: type[R]) -> R:
        """The readout, which must be of that kind: for objectives that belong to one. Raises `BadInput`."""
        if not isinstance(self.readout, kind):
            name = kind.__name__
            raise BadInput(f"this objective belongs to the readout {name}: give the recipe readout={name}")
        return self.readout

    def mean(self, each: Tensor) -> Tensor:
        """Of what each item costs ``[B]``, by weight."""
        return (self.weight * each).sum() / self.weight.sum()

    def again(self, inputs: Any = None) -> Seen:
        """The same items looked at once more (another dropout), or other ``inputs`` in their place."""
        return replace(self, inputs=self.inputs if inputs is None else inputs)


class Objective(Protocol):
    """One term of the loss.

    Attributes:
        name: its name among the closures of a step; two of a name cannot be in one recipe.
        separable: whether it is a mean over items, so that a batch may be taken in parts.
    """

    name: str
    separable: bool

    def __call__(self, seen: Seen) -> Tensor:
        """A scalar."""
        ...


class Sampler(Protocol):
    """Which rows each step sees."""

    def steps(self, data: Data, epochs: float, batch: int) -> int:
        """How many steps ``epochs`` passes are."""
        ...

    def draws(self, data: Data, batch: int, generator: torch.Generator) -> Iterator[Tensor]:
        """Rows ``[B]`` of step 0, 1, …, without end."""
        ...


class Augment(Protocol):
    """Changes the inputs of a step, such as random crops."""

    def __call__(self, inputs: Any, rows: Tensor, generator: torch.Generator) -> Any: ...


class Closures(dict[str, Callable[[], Tensor]]):
    """By the name of each objective its loss; under ``"loss"`` their sum. Each call works it out anew.

    Under ``"held"`` is the sum on examples held out, as the model answers outside of training and without a gradient,
    where `tune` was given some.

    Args:
        losses: by name.
        step: its number in the stage, from 0.
        steps: in all.
    """

    def __init__(self, losses: Mapping[str, Callable[[], Tensor]], step: int, steps: int) -> None:
        super().__init__(losses)
        self.step, self.steps = step, steps


class Step(Protocol):
    """The whole of an update: from losses to gradients, and what is done with them."""

    def __call__(
        self, closures: Closures, parameters: Sequence[Tensor], update: Callable[[Sequence[Tensor]], None]
    ) -> Tensor:
        """Take one step and return the loss. ``update`` takes a gradient for each of ``parameters`` and moves them."""
        ...


class Start(Protocol):
    """Gives the delta its first numbers, where they follow from the data."""

    def __call__(
        self, delta: Delta, model: nn.Module, readout: Readout, data: Data, loss: Callable[[Any], Tensor]
    ) -> None:
        """Change ``delta`` in place; ``loss`` is that of the recipe for some rows ``[B]``, without the delta."""
        ...


class Average(Protocol):
    """How much the newest state is of the average that answers in the end."""

    def __call__(self, step: int) -> float:
        """Its share, from 0 to 1, after step 0, 1, … of the run."""
        ...


@dataclass(frozen=True)
class Stage:
    """A stretch of training.

    Args:
        epochs: passes over the data; or
        steps: how many steps.
        lr: learning rate.
        batch: items a step.
        trains: which parts learn: the ``"delta"`` of the model, the ``"readout"``.
        rate: ``"constant"``; ``"linear"`` or ``"cosine"`` from ``lr`` to ``last``; ``"halved"`` every five epochs;
            after the warm-up. Or a function that gives it for the passes over the data that are done.
        warmup: share of the steps in which the rate rises from 0.
        last: rate at the end.
        weight_decay: of matrices; vectors (norms, biases) have none.
        update: the optimiser.
        readout_lr, readout_update: of the readout, where they differ.
        clip: length of all gradients together, at most.
        block_decay: factor of the rate from a transformer block to the one below it.
        dropout: whether the model's own is on.
        patience: end once the mean loss of so many steps is not below that of as many before; never by default.
        above: leave the stage out unless the mean loss of the four steps before it is above this.
        objectives, sampler: of this stage, in place of the recipe's.
    """

    epochs: float | None = None
    steps: int | None = None
    lr: float = 1e-3
    batch: int = 16
    trains: tuple[Part, ...] = ("delta", "readout")
    rate: Literal["constant", "linear", "cosine", "halved"] | Callable[[float], float] = "linear"
    warmup: float = 0.0
    last: float = 0.0
    weight_decay: float = 0.0
    update: Callable[[float], Optimiser] = lambda decay: AdamW(weight_decay=decay)
    readout_lr: float | None = None
    readout_update: Callable[[float], Optimiser] | None = None
    clip: float | None = None
    block_decay: float = 1.0
    dropout: bool = True
    patience: int | None = None
    above: float | None = None
    objectives: tuple[Objective, ...] = ()
    sampler: Sampler | None = None

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.steps is None):
            raise BadInput("a stage lasts so many epochs, or so many steps: give one of the two")
        if (self.rate == "halved" or callable(self.rate)) and self.epochs is None:
            raise BadInput(
                "a rate that is halved every five epochs, or a function of the epochs, needs epochs, not steps"
            )
        if not 0 <= (self.epochs or self.steps or 0) < math.inf or self.batch < 1:
            raise BadInput("epochs and steps must be numbers, not below 0, and a batch holds one item at least")
        if not (self.lr < math.inf and 0 <= self.weight_decay < math.inf):
            raise BadInput(f"lr and weight decay are numbers, none below 0, not {self.lr} and {self.weight_decay}")
        if not callable(self.rate) and self.rate not in ("constant", "linear", "cosine", "halved"):
            raise BadInput(f"rate is constant, linear, cosine, halved or a function, not {self.rate!r}")
        if not 0 < self.block_decay <= 1:
            raise BadInput(f"block_decay is a factor above 0, at most 1, not {self.block_decay}")
        if self.patience is not None and self.patience < 1:
            raise BadInput(f"patience is {self.patience} steps; it must be at least 1")
        if self.readout_lr is not None and not self.readout_lr >= 0:
            raise BadInput(f"the readout's rate must not be negative: {self.readout_lr}")
        if self.above is not None and not self.above >= 0:
            raise BadInput(f"above is a loss, 0 at least, not {self.above}")
        if not self.lr >= 0 or not 0 <= self.warmup <= 1 or not (self.clip is None or self.clip > 0):
            raise BadInput("lr must not be negative, warmup is a share of the steps, clip a length above 0")


@dataclass(frozen=True)
class Recipe:
    """See `handful.tune.recipe`.

    Args:
        changes: what is changed, and where.
        readout: makes the readout; ``None`` takes what the model gives as logits.
        objectives: terms of the loss; they are added up.
        stages: one after the other.
        start: first numbers of the delta, where they follow from data.
        step: how an update is made.
        sampler: which rows a step sees.
        augment: what happens to inputs before the model sees them, in order.
        average: of the states after the steps, which is judged and kept in place of the last; see `EMA`.
    """

    changes: tuple[Placed, ...] = ()
    objectives: tuple[Objective, ...] = ()
    stages: tuple[Stage, ...] = ()
    augment: tuple[Augment, ...] = ()
    readout: Callable[[], Readout] | None = None
    start: Start | None = None
    step: Step | None = None
    sampler: Sampler | None = None
    average: Average | None = None

    def __post_init__(self) -> None:
        names = [objective.name for objective in self.objectives]
        for name in names:
            if names.count(name) > 1:
                raise BadInput(f"two objectives are called {name!r}")

    def __or__(self, other: Recipe) -> Recipe:
        """Both together. Raises `BadInput` where they fill one slot with different things."""
        merged: dict[str, Any] = {}
        for one in fields(self):
            mine, theirs = getattr(self, one.name), getattr(other, one.name)
            if isinstance(mine, tuple):
                merged[one.name] = mine + tuple(x for x in theirs if x not in mine)
            elif mine is not None and theirs is not None and mine != theirs:
                raise BadInput(f"both recipes fill the slot {one.name!r}: {_called(mine)} and {_called(theirs)}")
            else:
                merged[one.name] = theirs if mine is None else mine
        return Recipe(**merged)


def _called(filler: object) -> str:
    return getattr(filler, "__qualname__", None) or repr(filler)
