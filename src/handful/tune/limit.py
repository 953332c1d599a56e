"""LIMIT with its encoder: features and attention learn together from tasks that pretend to grow.

Paper 181: Zhou, Ye, Ma, Xie, Pu, Zhan, "Few-Shot Class-Incremental Learning by Sampling Multi-Phase Tasks", 2022. The
attention, the tasks and their loss are those of `handful.adapt.limit`; here x = encoder(item), and

    first    (where ``pretrain_epochs``) cross-entropy of tau cos(x, w) over all base classes
    base     in each step the loss of the tasks moves the encoder, the attention and the rows w; before each pass over
             the data the rows are the means of their classes by the encoder as it is then
    later    the row of a new class is the mean of its examples; nothing is trained

Normalisations keep their statistics, and in ``base`` the encoder has no dropout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from handful.adapt.limit import WEIGHTS, Tasks, check_parameters, classes_of, fallen, scaled, starting
from handful.adapt.parameters import count, finite
from handful.core.distances import cosine
from handful.core.gaussians import class_means
from handful.core.losses import cross_entropy
from handful.core.task import State
from handful.core.train import SGD
from handful.errors import BadInput
from handful.tune.class_texts import refuse_empty
from handful.tune.delta import Delta, Placed
from handful.tune.fillers import Shuffled
from handful.tune.later import features_of, refuse_later
from handful.tune.loop import tune
from handful.tune.own import Own
from handful.tune.recipe import Augment, Data, Readout, Recipe, Seen, Stage
from handful.tune.sites import Where, refuse_bare


class Calibrated(Readout):
    """Rows of the base classes ``[C, D]`` and the attention that brings them onto one scale with a query.

    Args:
        tasks: how it answers.
    """

    def __init__(self, tasks: Tasks) -> None:
        super().__init__()
        self.tasks = tasks

    def begin(self, model: nn.Module, data: Data, generator: torch.Generator) -> None:
        """Rows are class means of the encoder as it is given."""
        self.data = data
        with torch.no_grad():
            means = self._means(model)
        self.rows = nn.Parameter(means)
        self.weights = nn.ParameterDict(dict(zip(WEIGHTS, map(nn.Parameter, starting(means, generator)), strict=True)))

    def look(self, model: nn.Module, inputs: Any) -> Tensor:
        return scaled(model(inputs))

    def forward(self, features: Any, model: nn.Module) -> Tensor:
        every = torch.ones(len(self.rows), dtype=torch.bool, device=self.rows.device)
        return self.tasks.answers(self.state, self.rows, features, every)

    @property
    def state(self) -> State:
        """The attention."""
        return dict(self.weights.items())

    @torch.no_grad()
    def renew(self, model: nn.Module) -> None:
        """Put class means by the encoder as it is now in the place of the rows."""
        self.rows.copy_(self._means(model))

    def _means(self, model: nn.Module) -> Tensor:
        at = torch.split(torch.arange(len(self.data)), 64)
        z = torch.cat([self.look(model, self.data.take(rows)) for rows in at])
        return class_means(z, self.data.weighted.to(z))[0]


@dataclass(frozen=True)
class AmongRows:
    """Cross-entropy of ``tau cos(x, w)`` over the rows of all base classes."""

    tau: float
    name = "among-rows"
    separable = True

    def __call__(self, seen: Seen) -> Tensor:
        logits = self.tau * cosine(seen.features, seen.read_by(Calibrated).rows)
        y = (seen.weight[:, None] * seen.targets).to(logits)
        return cross_entropy(logits, y, torch.ones_like(y[0], dtype=torch.bool))


@dataclass(frozen=True)
class Pretended:
    """Loss of tasks in which some base classes play new ones, their rows being means of examples drawn.

    Args:
        sampled: classes drawn in a step.
        shot: examples of each.
        pass_: steps of a pass over the data.
        augment: what happens to the drawn examples, as to those that ask.
    """

    sampled: int
    shot: int
    pass_: int
    augment: tuple[Augment, ...] = ()
    name = "pretended"
    separable = False

    def __call__(self, seen: Seen) -> Tensor:
        readout, draw = seen.read_by(Calibrated), seen.generator
        if seen.step % self.pass_ == 0:
            readout.renew(seen.model)
        data = readout.data
        drawn = torch.randperm(len(data.classes), generator=draw)[: self.sampled]
        rows = drawn_rows(data, drawn, self.shot, draw)
        inputs = data.take(rows)
        for change in self.augment:
            inputs = change(inputs, rows, draw)
        z = readout.look(seen.model, inputs)
        support = class_means(z, data.weighted[rows].to(z))[0]
        y = (seen.weight[:, None] * seen.targets).to(z)
        there = torch.ones_like(y[0], dtype=torch.bool)
        return readout.tasks.loss(readout.state, readout.rows, support, drawn, seen.features, y, there, draw)


def drawn_rows(data: Data, drawn: Tensor, shot: int, draw: torch.Generator) -> Tensor:
    """Rows of ``shot`` items of each class in ``drawn [S]``, without replacement; all, where there are fewer."""
    order = torch.randperm(len(data), generator=draw)
    labels = data.labels[order]
    return torch.cat([order[labels == c][:shot] for c in drawn.tolist()])


@dataclass
class LimitFSCIL:
    """An encoder that learns base classes so that further ones can be added by their means; see `handful.tune.limit`.

    Args:
        encoder: gives features ``[n, d]``; it stays as it is, what is learnt is in ``delta``.
        form, temperature, epochs, milestones, gamma, sampled, shot, way, tasks, reference_chain: see
            `handful.adapt.limit.LIMIT`.
        lr: of the encoder, by SGD with Nesterov momentum 0.9 and decay 5e-4; at 0 it is left as it is.
        attention_lr: of attention and rows.
        batch_size: queries of a step.
        augment: random changes of the inputs in training, such as crops.
        pretrain_epochs, pretrain_lr: of the classifier of all base classes before; none for an encoder that has learnt.
        seed: of every draw.

    Attributes (after ``fit_base``):
        classes: names of all classes seen.
        prototypes: their rows ``[C, d]``.
        delta: what was learnt about the encoder.
        attention: its weights, by name.
    """

    encoder: nn.Module
    form: Literal["cosine", "dot"] = "cosine"
    temperature: float = 16.0
    epochs: int = 20
    lr: float = 2e-4
    attention_lr: float = 2e-4
    milestones: tuple[int, ...] | list[int] = (2, 4, 6)
    gamma: float = 0.3
    sampled: int = 16
    shot: int = 1
    way: int | None = None
    tasks: int = 4
    batch_size: int = 128
    reference_chain: bool = False
    augment: Sequence[Augment] = ()
    pretrain_epochs: int = 0
    pretrain_lr: float = 0.1
    seed: int = 0
    classes: tuple[str, ...] = ()
    prototypes: Tensor = field(init=False)
    delta: Delta = field(init=False)
    attention: State = field(init=False)

    def __post_init__(self) -> None:
        check_parameters(self)
        finite("attention_lr", self.attention_lr, least=0)
        finite("pretrain_lr", self.pretrain_lr, least=0)
        count("pretrain_epochs", self.pretrain_epochs)

    def fit_base(self, data: Data) -> LimitFSCIL:
        """Learn the base classes: encoder and attention.

        Raises:
            BadInput: a class has no example, there are fewer than two, more are to play new ones than are drawn; the
                encoder has parameters outside of its modules.
        """
        refuse_empty(data)
        if len(data.classes) < 2:
            raise BadInput("one base class only: at least two classes are needed")
        refuse_bare(self.encoder)
        sampled, way = classes_of(self, len(data.classes))
        self._answers = Tasks(self.form, self.temperature, way, self.tasks, self.reference_chain)
        a_pass = Shuffled().steps(data, 1, self.batch_size)
        pretended = Pretended(sampled, self.shot, a_pass, tuple(self.augment))
        stages = [self._before()] if self.pretrain_epochs else []
        if self.epochs or not stages:
            stages.append(self._base(pretended))
        recipe = Recipe(
            _everything(self.encoder),
            stages=tuple(stages),
            augment=tuple(self.augment),
            readout=lambda: Calibrated(self._answers),
        )
        found = tune(self.encoder, data, recipe, seed=self.seed)
        assert isinstance(found.readout, Calibrated)
        self.delta = found.delta
        self.attention = {name: weight.detach() for name, weight in found.readout.state.items()}
        self.classes, self.prototypes = data.classes, self._means(data)
        return self

    def partial_fit(self, data: Data) -> LimitFSCIL:
        """Add further classes by a few examples of each; those of the classes before are not needed.

        Raises:
            BadInput: there are no base classes; a class is known already, or has no example.
        """
        refuse_later(self.classes, data)
        self.prototypes = torch.cat([self.prototypes, self._means(data)])
        self.classes += data.classes
        return self

    @torch.no_grad()
    def features(self, inputs: Tensor | Sequence[Any]) -> Tensor:
        """``[n, d]`` of the encoder as it is now, of the length sqrt(d)."""
        return scaled(features_of(self.encoder, self.delta, inputs))

    @torch.no_grad()
    def logits(self, inputs: Tensor | Sequence[Any]) -> Tensor:
        """``[n, C]``, through the attention over all classes. Raises `BadInput` before `fit_base`."""
        if not self.classes:
            raise BadInput("there are no prototypes yet: call fit_base first")
        every = torch.ones(len(self.classes), dtype=torch.bool, device=self.prototypes.device)
        return self._answers.answers(self.attention, self.prototypes, self.features(inputs), every)

    def predict(self, inputs: Tensor | Sequence[Any]) -> list[str]:
        """The class of each item."""
        return [self.classes[c] for c in self.logits(inputs).argmax(1).tolist()]

    def _means(self, data: Data) -> Tensor:
        z = self.features(data.inputs)
        return class_means(z, data.weighted.to(z))[0]

    def _before(self) -> Stage:
        """The classifier of all base classes; nothing pulls at the attention, which has no part in it."""
        return Stage(
            epochs=self.pretrain_epochs, lr=self.pretrain_lr, batch=self.batch_size, rate="constant",
            update=lambda _: SGD(0.9, 5e-4, nesterov=True), readout_update=lambda _: SGD(0.9, nesterov=True),
            objectives=(AmongRows(self.temperature),),
        )  # fmt: skip

    def _base(self, pretended: Pretended) -> Stage:
        lr = self.lr or self.attention_lr  # at 0 the encoder is left as it is, and the attention learns alone
        return Stage(
            epochs=self.epochs, lr=lr, readout_lr=self.attention_lr, batch=self.batch_size,
            trains=("delta", "readout") if self.lr else ("readout",),
            rate=lambda done: lr * fallen(int(done), self.milestones, self.gamma),
            update=lambda _: SGD(0.9, 5e-4, nesterov=True), dropout=False, objectives=(pretended,),
        )  # fmt: skip


def _everything(encoder: nn.Module) -> tuple[Placed, ...]:
    """Every parameter learns as it is."""
    kinds: dict[str, list[str]] = {}
    for name, _ in encoder.named_parameters():
        site, _, kind = name.rpartition(".")
        kinds.setdefault(kind, []).append(site)
    return tuple(Placed(Own(), Where((), kind, sites=tuple(at), tied=True)) for kind, at in kinds.items())
