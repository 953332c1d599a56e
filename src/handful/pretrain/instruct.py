"""Instruction tuning: a language model learns to answer, from examples with the loss on the answers alone.

    loss      mean of -log p over the tokens of the answers in a batch
    packed    several examples in a row of a causal model, each seeing itself alone (`handful.encode.rows`)

The settings of the papers that tune on instructions are `Instruct` (121, Flan; the default), `quick_learner` (178)
and `less_is_more` (185).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from handful.core.adafactor import Adafactor
from handful.core.train import AdamW, Optimiser
from handful.encode.lm import LanguageModel
from handful.encode.rows import Row, packed
from handful.errors import BadInput
from handful.pretrain.examples import Example, Framing, checked
from handful.protocols import Progress
from handful.tune.delta import Placed
from handful.tune.loop import tune
from handful.tune.prompting import Ranked, everything
from handful.tune.recipe import Data, Recipe, Stage
from handful.tune.t_few import LanguageLoss
from handful.tune.tuned import Tuned


@dataclass(frozen=True)
class Instruct:
    """How a model is tuned on instructions (121).

    Args:
        lr, batch: examples (of packed ones, rows) a step.
        epochs: passes over the examples.
        rate: see `Stage`.
        warmup: steps in which the rate rises.
        update: the optimiser.
        clip: length of the gradient at most.
        pack: whether a causal model's examples share rows, as long as the model reads.
        framing: see `Framing`.
        changes: what learns, of the model's tower; everything by default.
        dropout: whether the model's own is on.
    """

    lr: float = 5e-4
    batch: int = 64
    epochs: float = 1
    rate: Literal["constant", "linear"] = "constant"
    warmup: int = 0
    update: Callable[[float], Optimiser] = lambda decay: Adafactor(decay)
    clip: float | None = None
    pack: bool = True
    framing: Framing = field(default_factory=lambda: Framing(separator=True))
    changes: Callable[[Any], tuple[Placed, ...]] = everything
    dropout: bool = True

    def __post_init__(self) -> None:
        if self.batch < 1 or not 0 < self.epochs < math.inf or self.warmup < 0:
            told = f"batch {self.batch}, epochs {self.epochs}, warmup {self.warmup}"
            raise BadInput(f"a batch holds an example at least, epochs are above 0, warm-up not below 0: {told}")

    def items(self, model: LanguageModel, examples: Sequence[Example]) -> list[Any]:
        """What the tower learns from."""
        items: list[Any] = list(self.framing.items(model, checked(examples, "to learn from")))
        if self.pack and model.kind == "causal":
            rows: list[Row] = items
            longest = max(len(row.ids) for row in rows)
            items = list(packed(rows, min(max(longest, self.framing.most_in + self.framing.most_out), model.most)))
        return items

    def recipe(self, changes: tuple[Placed, ...], steps: int) -> Recipe:
        """As slots, for a run of ``steps``."""
        stage = Stage(
            steps=steps, lr=self.lr, batch=self.batch, rate=self.rate, warmup=min(1.0, self.warmup / max(1, steps)),
            update=self.update, clip=self.clip, dropout=self.dropout,
        )  # fmt: skip
        return Recipe(changes, (LanguageLoss(),), (stage,), readout=Ranked)

    def fit(
        self,
        model: LanguageModel,
        examples: Sequence[Example],
        *,
        seed: int = 0,
        progress: Progress | None = None,
        judge: Callable[[Tuned], float] | None = None,
        judge_every: int = 2000,
    ) -> Tuned:
        """Tune on examples; the model itself is as it was afterwards, see `tune`.

        Args:
            model: causal or seq2seq.
            examples: such as `InstructionMixture.draw` gives.
            seed: of every draw.
            progress: see `tune`.
            judge, judge_every: a score on held-out tasks, by which the best state is kept; see `tune`.
        """
        return self.learn(model, self.items(model, examples), seed, progress, judge, judge_every)

    def learn(
        self, model: LanguageModel, items: Sequence[Any], seed: int = 0, progress: Progress | None = None,
        judge: Callable[[Tuned], float] | None = None, judge_every: int = 2000,
    ) -> Tuned:  # fmt: skip
        """Tune on rows, or questions with one answer."""
        for number, item in enumerate(items):
            if isinstance(item, Row) and len(item.ids) > model.most:
                raise BadInput(
                    f"row {number} has {len(item.ids)} tokens, {model.name!r} reads {model.most}; shorten it"
                )
        data = Data(items, torch.ones(len(items), 1))
        steps = max(1, round(self.epochs * -(-len(items) // self.batch)))
        recipe = self.recipe(self.changes(model.tower), steps)
        return tune(model.tower, data, recipe, seed=seed, progress=progress, judge=judge, judge_every=judge_every)


def quick_learner() -> Instruct:
    """The settings of 178: constant 5e-5, two passes, 12 examples a step, 1024 tokens in and 128 out."""
    return Instruct(
        lr=5e-5, batch=12, epochs=2, clip=1.0, update=lambda decay: AdamW(weight_decay=decay), pack=False,
        framing=Framing(most_in=1024, most_out=128),
    )  # fmt: skip


def less_is_more(epochs: float = 2) -> Instruct:
    """The settings of 185: 5e-6 falling to 0 behind 50 steps of warm-up, 48 examples a step, gradients of length 1."""
    return Instruct(
        lr=5e-6, batch=48, epochs=epochs, rate="linear", warmup=50, clip=1.0, pack=False,
        update=lambda decay: AdamW(weight_decay=decay), framing=Framing(),
    )  # fmt: skip
