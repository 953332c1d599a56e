"""Fine-tuning that is held at what was pre-trained, and let go (072, Avoiding Inference Heuristics in Few-shot
Prompt-based Finetuning, 2021).

Each step of ordinary fine-tuning makes a model of pairs rely more on the words that two texts share. The pull towards
the pre-trained weights keeps what it knew; see `handful.core.anchored` for the step, and
`handful.evaluate.heuristics` for the audit. What began anew, such as a head, is not held.

    Anchored()                                                          a sentence encoder and a linear head
    PromptClassifier(model, template, words, update=Anchored().update)  the paper's: a head for words, held as well
"""

from __future__ import annotations

from dataclasses import dataclass

from handful.core.anchored import AnchoredAdamW, Schedule
from handful.core.train import AdamW
from handful.errors import BadInput
from handful.tune.fillers import CrossEntropy, Linear
from handful.tune.plain import EVERYTHING
from handful.tune.recipe import Recipe, Stage


@dataclass(frozen=True)
class Anchored:
    """Full fine-tuning with a linear head, the encoder held where it began for the first steps (072).

    Args:
        steps: of training.
        lr: learning rate; the paper tries 1e-5, 2e-5 and 5e-5.
        batch: items a step; the paper tries 2, 4 and 8.
        gamma: strength of the pull.
        k: how fast it is let go.
        t0: after which share of the steps half of it is.
        schedule: see `AnchoredAdamW`.
    """

    steps: int = 1000
    lr: float = 1e-5
    batch: int = 8
    gamma: float = 5000.0
    k: float = 0.01
    t0: float = 0.6
    schedule: Schedule = "sigmoid"

    def update(self, decay: float = 0.0) -> AnchoredAdamW:
        """The optimiser of one run; in `PromptClassifier` it holds the head for words too, as the paper does."""
        half = self.t0 * max(self.steps, 1)
        return AnchoredAdamW(half, self.gamma, self.k, self.schedule, eps=1e-8, weight_decay=decay)

    def recipe(self) -> Recipe:
        """As slots."""
        self.update()  # says what is wrong before anything is read
        if self.gamma * self.lr > 1:
            raise BadInput(f"gamma {self.gamma:g} times lr {self.lr:g} is above 1: the pull would overshoot")
        stage = Stage(
            steps=self.steps, lr=self.lr, batch=self.batch, clip=1.0, update=self.update,
            readout_update=lambda decay: AdamW(weight_decay=decay),
        )  # fmt: skip
        return Recipe(EVERYTHING, (CrossEntropy(),), (stage,), readout=Linear)
