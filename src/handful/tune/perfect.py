"""PERFECT: few-shot text classification without template or answer words (paper 078, Karimi Mahabadi et al., 2022).

input     the text, then M masks (of two texts: the masks between them)
h         [M, d], the encoder's states at the masks; the head for words is not used
learns    a bottleneck behind each feed-forward, all norms, label embeddings E [C, M, d] ~ N(0, 0.0001^2)
s_ic      h_i . E_ci                mask i meets the i-th embedding of each class only
loss      sum_{c != y} max(0, 1 - s_iy + s_ic) / C, the mean over masks and items
answer    p_ci = mean of h_i over the examples of class c; the class with the largest
          max_i exp(-|h_i / |h_i| - p_ci / |p_ci||^2)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from handful.encode.asking import OVER, Over, nearest_prototype
from handful.encode.hf import quiet
from handful.encode.language_tower import LanguageTower
from handful.encode.lm import LanguageModel
from handful.encode.prompt import Prompt, masked
from handful.errors import BadInput
from handful.tune.adapters import Adapter
from handful.tune.delta import Placed
from handful.tune.loop import tune
from handful.tune.own import Own
from handful.tune.prompting import listed, refuse_unpaired
from handful.tune.recipe import Data, Readout, Recipe, Seen, Stage
from handful.tune.sites import Where
from handful.tune.tuned import Tuned


class MaskStates(nn.Module):
    """An encoder as a module that gives its states at the masks ``[B, M, d]``.

    Args:
        body: of `transformers`; a head for words is left aside.
        masks: M.
        pad: the token that fills up.
    """

    def __init__(self, body: nn.Module, masks: int, pad: int) -> None:
        super().__init__()
        self.tower = LanguageTower(getattr(body, "base_model", body), "masked", pad)
        self.masks = masks

    def forward(self, prompts: Sequence[Prompt]) -> Tensor:
        return self.tower.states(prompts, self.masks)


class LabelEmbeddings(Readout):
    """``s`` of the states ``[B, M, d]``, the mean over masks: ``[B, C]``.

    Args:
        spread: standard deviation of the first numbers.
    """

    weight: nn.Parameter

    def __init__(self, spread: float = 1e-4) -> None:
        super().__init__()
        self.spread = spread

    def begin(self, model: nn.Module, data: Data, generator: torch.Generator) -> None:
        with torch.no_grad():
            _, masks, width = self.look(model, data.take(torch.arange(1))).shape
        self.weight = nn.Parameter(self.spread * torch.randn(len(data.classes), masks, width, generator=generator))

    def per_mask(self, features: Tensor) -> Tensor:
        """``s_ic`` ``[B, M, C]``."""
        return torch.einsum("bmd,cmd->bmc", features, self.weight)

    def forward(self, features: Tensor, model: nn.Module) -> Tensor:
        return self.per_mask(features).mean(1)


@dataclass(frozen=True)
class PerMask:
    """The loss at each mask by itself, the mean over masks and items by weight.

    Args:
        kind: ``"hinge"``, of all wrong classes together, or ``"cross-entropy"``.
    """

    kind: Literal["hinge", "cross-entropy"] = "hinge"
    name = "per-mask"
    separable = True

    def __post_init__(self) -> None:
        if self.kind not in ("hinge", "cross-entropy"):
            raise BadInput(f"the loss is 'hinge' or 'cross-entropy', not {self.kind!r}")

    def __call__(self, seen: Seen) -> Tensor:
        assert isinstance(seen.readout, LabelEmbeddings)
        s = seen.readout.per_mask(seen.features)
        labels = seen.labels.repeat_interleave(s.shape[1])
        loss = functional.multi_margin_loss if self.kind == "hinge" else functional.cross_entropy
        each = loss(s.flatten(0, 1), labels, reduction="none").view(s.shape[:2]).mean(1)
        return seen.mean(each)


def slots(
    reduction: int, loss: Literal["hinge", "cross-entropy"], steps: int, lr: float, batch: int, embedding_lr: float
) -> Recipe:
    """Bottlenecks and norms, label embeddings, the loss at each mask; arguments as of `PerfectClassifier`."""
    places = (
        Placed(Adapter(reduction=reduction, activation="gelu-tanh", begins="linear"), Where(("down",))),
        Placed(Own(), Where(("norm",))),
        Placed(Own(), Where(("norm",), "bias"), needed=False),
    )
    stage = Stage(steps=steps, lr=lr, batch=batch, readout_lr=embedding_lr, clip=1.0)
    return Recipe(places, (PerMask(loss),), (stage,), readout=LabelEmbeddings)


@dataclass
class PerfectClassifier:
    """See `handful.tune.perfect`.

    Args:
        model: masked, or the body of any encoder whose tokenizer has a mask (made a `LanguageModel`).
        masks: M (the paper: tokens of the task's longest answer word; tried from 1 to 10).
        reduction: of the bottlenecks.
        loss: see `PerMask`.
        answer: ``"prototypes"``, or the trained ``"embeddings"``.
        similarity: of prototypes, ``"euclidean"`` as above or ``"cosine"``.
        over: masks: ``"max"``, ``"mean"``, ``"min"`` or ``"sum"``.
        position: of the masks of two texts, see `masked`.
        steps, lr, batch: of training; rates fall linearly to 0.
        embedding_lr: of the label embeddings (the paper tries 0.1 to 0.00001).
        check: steps between two scores on held-out examples.
        length: tokens at most (the paper: 256 for CR, Subj, RTE, CB and WiC).
        seed: of every draw.
    """

    model: LanguageModel
    masks: int = 2
    reduction: int = 16
    loss: Literal["hinge", "cross-entropy"] = "hinge"
    answer: Literal["prototypes", "embeddings"] = "prototypes"
    similarity: Literal["euclidean", "cosine"] = "euclidean"
    over: Over = "max"
    position: int = 1
    steps: int = 6000
    lr: float = 1e-4
    batch: int = 32
    embedding_lr: float = 0.1
    check: int = 100
    length: int = 128
    seed: int = 0
    tuned: Tuned | None = field(default=None, init=False)
    classes: tuple[Any, ...] = field(default=(), init=False)

    def __post_init__(self) -> None:
        if self.over not in OVER or self.similarity not in ("euclidean", "cosine"):
            raise BadInput(f"over is {', '.join(OVER)}, similarity euclidean or cosine: {self.over}, {self.similarity}")

    def recipe(self) -> Recipe:
        """See `slots`."""
        return slots(self.reduction, self.loss, self.steps, self.lr, self.batch, self.embedding_lr)

    def fit(
        self, texts: Sequence[str] | Sequence[Sequence[str]], labels: Sequence[Any],
        dev_texts: Sequence[str] | Sequence[Sequence[str]] = (), dev_labels: Sequence[Any] = (),
    ) -> PerfectClassifier:  # fmt: skip
        """Learn from a few examples; of the states of the run the one that is best on the held-out ones is kept.

        Raises:
            BadInput: one class only; a held-out label that no example has; no such loss or answer; see `masked`.
        """
        if self.answer not in ("prototypes", "embeddings"):
            raise BadInput(f"answer is 'prototypes' or 'embeddings', not {self.answer!r}")
        refuse_unpaired(texts, labels, dev_texts, dev_labels)
        if missing := [number for number, label in enumerate(labels) if label is None or label != label]:
            raise BadInput(f"text {missing[0]} has no label: {labels[missing[0]]!r}")
        self.classes = tuple(sorted(set(labels), key=str))
        if len(self.classes) < 2:
            raise BadInput(f"{len(self.classes)} classes: at least two are needed")
        if unseen := [label for label in dev_labels if label not in self.classes]:
            raise BadInput(f"held-out label {unseen[0]!r} has no example to learn from")
        codes = torch.tensor([self.classes.index(label) for label in labels])
        self._data = Data(self._prompts(texts), codes, tuple(map(str, self.classes)))
        states = MaskStates(self.model.tower.body, self.masks, self.model.tower.pad).eval()
        held, truth = self._prompts(dev_texts), [self.classes.index(label) for label in dev_labels]
        judge = partial(self._judged, held, torch.tensor(truth)) if truth else None
        self.tuned = tune(states, self._data, self.recipe(), seed=self.seed, judge=judge, judge_every=self.check)
        self.prototypes = self._means(self.tuned)
        return self

    def scores(self, texts: Sequence[str] | Sequence[Sequence[str]]) -> Tensor:
        """How much each item is like each class ``[n, C]``."""
        if self.tuned is None:
            raise BadInput("this classifier has not been fitted")
        if not len(texts):
            raise BadInput("there are no texts")
        return self._scores(self._prompts(texts), self.tuned, self.prototypes)

    def predict(self, texts: Sequence[str] | Sequence[Sequence[str]]) -> np.ndarray:
        """The class of each item ``[n]``."""
        return np.asarray(np.array(self.classes)[self.scores(texts).argmax(1).numpy()])

    def _prompts(self, texts: Sequence[str] | Sequence[Sequence[str]]) -> list[Prompt]:
        most, tokenizer = min(self.length, self.model.most), self.model.tokenizer
        with quiet():  # it would warn of long texts
            return [masked(tokenizer, one, self.masks, position=self.position, most=most) for one in listed(texts)]

    @torch.no_grad()
    def _states(self, prompts: Sequence[Prompt], tuned: Tuned) -> Tensor:
        with tuned.delta.attached(tuned.model):
            return torch.cat([tuned.model(prompts[at : at + 64]) for at in range(0, len(prompts), 64)])

    def _means(self, tuned: Tuned) -> Tensor:
        """``p`` ``[C, M, d]``."""
        h, y = self._states(list(self._data.inputs), tuned), self._data.targets
        return torch.einsum("nc,nmd->cmd", y, h) / y.sum(0)[:, None, None]

    def _scores(self, prompts: list[Prompt], tuned: Tuned, prototypes: Tensor) -> Tensor:
        h = self._states(prompts, tuned)
        if self.answer == "embeddings":
            assert isinstance(tuned.readout, LabelEmbeddings)
            return OVER[self.over](tuned.readout.per_mask(h).detach())
        return nearest_prototype(h, prototypes, self.similarity, self.over)

    def _judged(self, prompts: list[Prompt], truth: Tensor, tuned: Tuned) -> float:
        tuned.model.eval()
        return float((self._scores(prompts, tuned, self._means(tuned)).argmax(1) == truth).float().mean())
