"""LiST: prompt-based self-training of small adapters on texts without labels (paper 123, Wang et al., 2021).

    learns     a linear bottleneck behind each attention and each feed-forward, and the head for words
    teacher    prompt-based fine-tuning on the few labelled texts (as LM-BFF, without examples shown)
    student    from the pre-trained weights anew: steps on unlabelled texts, then on the labelled ones, with one
               optimiser and one rate that falls over both; it teaches next

    L_u        KL(teacher_u || student_u)              loss  sum_u w_u L_u
    w_u        first 60 % of the steps 1 / (kept + 1e-5) where the teacher is surer than `threshold`, then
               max(0, -d L_lab(theta - lr grad sum_u e_u L_u) / d e_u) at e = 0, by their sum + eps

The derivative at e = 0 is ``-lr <grad L_lab, grad L_u>``: a text counts as far as learning it helps the labelled ones.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from handful.encode.hf import quiet
from handful.encode.lm import LanguageModel
from handful.encode.prompt import LabelWords, Prompt
from handful.encode.template import Template
from handful.errors import BadInput
from handful.tune.adapters import Adapter
from handful.tune.delta import Placed
from handful.tune.fillers import CrossEntropy, Shuffled
from handful.tune.loop import tune
from handful.tune.modes import in_mode
from handful.tune.own import Own
from handful.tune.prompting import Texts, Words, divergence, listed, one_hot
from handful.tune.recipe import Closures, Data, Recipe, Seen, Stage
from handful.tune.sites import Where
from handful.tune.tuned import Tuned

HEAD = r"(?:^|\.)(?:lm_head|cls)\b(?!.*decoder)"
"""The head for words short of its table, which is the table of the embeddings and stays."""


def meta_weights(
    losses: Tensor, labelled: Tensor, parameters: Sequence[Tensor], lr: float = 5e-6, eps: float = 1e-6
) -> Tensor:
    """How much each unlabelled item's gradient step would lower the loss on labelled ones ``[U]``, never negative.

    Args:
        losses: of the unlabelled items ``[U]``, at ``parameters``.
        labelled: loss of the labelled ones, there too.
        parameters: what learns.
        lr: of the step that is imagined. The weights sum to less than 1 where they are as small as ``eps``; with
            ``eps=0`` they do not depend on it.
        eps: added to their sum.
    """
    each = torch.zeros_like(losses, requires_grad=True)
    with torch.enable_grad():
        wanted = torch.autograd.grad(labelled, parameters, allow_unused=True, materialize_grads=True)
        step = torch.autograd.grad(
            (each * losses).sum(), parameters, create_graph=True, allow_unused=True, materialize_grads=True
        )
        along = sum(((g * s).sum() for g, s in zip(wanted, step, strict=True)), torch.zeros(()))
    weights = (lr * torch.autograd.grad(along, each)[0]).clamp_min(0)
    return weights / (weights.sum() + eps).clamp_min(torch.finfo(weights.dtype).tiny)


@dataclass
class SelfTraining:
    """The loss on unlabelled items, weighted as above, and after ``steps`` that of labelled ones.

    Args:
        labelled: the few items with labels.
        steps: on unlabelled items.
        meta_from: share of those after which weights are learnt; 1 keeps them uniform.
        soft: learn the teacher's probabilities, not its answers alone.
        threshold: the teacher must be surer.
        lr, eps: see `meta_weights`.
        batch: labelled items a step.
    """

    labelled: Data
    steps: int = 1000
    meta_from: float = 0.6
    soft: bool = True
    threshold: float = 0.0
    lr: float = 5e-6
    eps: float = 1e-6
    batch: int = 4
    skipped: int = field(default=0, init=False)
    name = "self-training"
    separable = False

    def __call__(self, seen: Seen) -> Tensor:
        if seen.step >= self.steps:
            return CrossEntropy()(seen)
        weights = self.weights(seen)
        if not bool(weights.any()):  # no item helps: the step is left out
            self.skipped += 1
            return torch.zeros(())
        return (weights * divergence(self.taught(seen), seen.logits)).sum()

    def taught(self, seen: Seen) -> Tensor:
        """What is learnt of the teacher ``[U, C]``."""
        return seen.targets if self.soft else functional.one_hot(seen.labels, seen.targets.shape[1]).to(seen.targets)

    def weights(self, seen: Seen) -> Tensor:
        """``w`` ``[U]``."""
        if seen.step < self.meta_from * self.steps:
            kept = (seen.targets.amax(1) > self.threshold).float()
            return kept / (kept.sum() + 1e-5)
        rows = torch.randperm(len(self.labelled), generator=seen.generator)[: self.batch]
        with in_mode(False, seen.model, seen.readout):  # without dropout
            with sdpa_kernel(SDPBackend.MATH):  # the only one that can be differentiated twice
                losses = divergence(self.taught(seen), seen.readout(seen.model(seen.inputs), seen.model))
            logits = seen.readout(seen.model(self.labelled.take(rows)), seen.model)
            loss = functional.cross_entropy(logits, self.labelled.targets[rows])
            return meta_weights(losses, loss, seen.learns, self.lr, self.eps)


@dataclass(frozen=True)
class FirstUnlabelled:
    """Rows of a student: ``count`` batches of unlabelled items, then ``batch`` labelled ones a step, which follow them.

    Args:
        unlabelled, labelled: both kinds.
        count: steps on the former.
        batch: of the latter.
    """

    unlabelled: Data
    labelled: Data
    count: int
    batch: int

    def steps(self, data: Data, epochs: float, batch: int) -> int:
        """Those on unlabelled items, and ``epochs`` passes over the labelled ones."""
        return self.count + Shuffled().steps(self.labelled, epochs, self.batch)

    def draws(self, data: Data, batch: int, generator: torch.Generator) -> Iterator[Tensor]:
        """See there."""
        yield from itertools.islice(Shuffled().draws(self.unlabelled, batch, generator), self.count)
        for rows in Shuffled().draws(self.labelled, self.batch, generator):
            yield len(self.unlabelled) + rows


class UnlessEmpty:
    """The gradient of the whole loss; no step where nothing bears on it."""

    def __call__(
        self, closures: Closures, parameters: Sequence[Tensor], update: Callable[[Sequence[Tensor]], None]
    ) -> Tensor:
        loss = closures["loss"]()
        if loss.requires_grad:
            update(torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True))
        return loss.detach()


@dataclass
class ListClassifier:
    """See `handful.tune.list_prompt`.

    Args:
        model: masked.
        template, words: as LM-BFF's, see `handful.tune.lm_bff.PromptClassifier`.
        width: of the bottlenecks.
        activation: between their two maps, ``"identity"`` as above or ``"relu"``.
        rounds: students, one after the other.
        steps, batch: on unlabelled texts.
        lr: of a student, falling to 0 over both kinds of text.
        epochs, few_batch: on labelled texts.
        few_lr: of the first teacher on them.
        soft: learn the teacher's probabilities, not its answers alone.
        meta_from, threshold, eps: see `SelfTraining`; its step is imagined at ``few_lr``.
        length: tokens of a prompt at most.
        first, others: tokens of the first text at most, and of every other, so that the mask is not cut off.
        seed: of every draw.
    """

    model: LanguageModel
    template: str
    words: Mapping[Any, str]
    width: int = 128
    activation: Literal["identity", "relu"] = "identity"
    rounds: int = 6
    steps: int = 1000
    lr: float = 1e-4
    batch: int = 16
    epochs: int = 50
    few_lr: float = 5e-6
    few_batch: int = 4
    soft: bool = True
    meta_from: float = 0.6
    threshold: float = 0.0
    eps: float = 1e-6
    length: int = 128
    first: int | None = None
    others: int | None = None
    seed: int = 0
    tuned: Tuned | None = field(default=None, init=False)
    skipped: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._template = Template(self.template)
        if self.model.kind != "masked" or not self._template.asks:
            raise BadInput("LiST asks a masked model at one mask; give such a model, and a template with *mask*")
        self._ids = LabelWords.of(self.model.tokenizer, self.words).single
        if not 0 <= self.threshold < 1 or self.rounds < 0:
            raise BadInput(f"threshold is a probability below 1, rounds not negative: {self.threshold}, {self.rounds}")
        if not 0 <= self.meta_from <= 1 or self.steps < 0 or not self.eps >= 0:
            raise BadInput(
                f"meta_from is a share, steps and eps not negative: {self.meta_from}, {self.steps}, {self.eps}"
            )
        if self.activation not in ("identity", "relu"):
            raise BadInput(f"activation is 'identity' or 'relu', not {self.activation!r}")

    @property
    def classes(self) -> tuple[Any, ...]:
        """As ``words`` has them."""
        return tuple(self.words)

    def changes(self) -> tuple[Placed, ...]:
        """What learns: bottlenecks behind attention and feed-forward, the head for words."""
        small = Adapter(width=self.width, activation=self.activation, biases=False, begins="normal")
        own = (Placed(Own(), Where(names=HEAD)), Placed(Own(), Where(names=HEAD, parameter="bias", tied=True)))
        return (Placed(small, Where(("o", "down"))), *own)

    def fit(self, texts: Texts, labels: Sequence[Any], unlabelled: Texts) -> ListClassifier:
        """Learn from a few labelled texts and many without labels. The last state is kept: there are none held out.

        Raises:
            BadInput: no unlabelled texts; a class without labelled ones; the teacher is never surer than ``threshold``.
        """
        if not len(unlabelled):
            raise BadInput("there are no unlabelled texts to teach on; without them use PromptClassifier")
        if len(labels) != len(texts):
            raise BadInput(f"{len(texts)} texts, but {len(labels)} labels")
        few = Data(self._prompts(texts), one_hot(labels, self.classes), tuple(map(str, self.classes)))
        if missing := [name for name in self.classes if name not in labels]:
            raise BadInput(f"class {missing[0]!r} has no labelled text; give one at least")
        many = self._prompts(unlabelled)
        self.skipped = 0
        self.tuned = self._teacher(few)
        for number in range(1, self.rounds + 1):
            self.tuned = self._student(many, few, self.tuned, self.seed + number)
        if self.skipped:
            warnings.warn(f"{self.skipped} steps were left out: no unlabelled text helped", UserWarning, stacklevel=2)
        return self

    def logits(self, texts: Texts) -> Tensor:
        """``[n, C]``. Raises `BadInput` before `fit`."""
        if self.tuned is None:
            raise BadInput("this classifier has not been fitted")
        return self.tuned.logits(self._prompts(texts))

    def predict(self, texts: Texts) -> np.ndarray:
        """The class of each item ``[n]``."""
        return np.asarray(np.array(self.classes)[self.logits(texts).argmax(1).numpy()])

    def _teacher(self, few: Data) -> Tuned:
        """The first: prompt-based fine-tuning on the labelled texts."""
        stage = Stage(epochs=self.epochs, lr=self.few_lr, batch=self.few_batch, clip=1.0)
        recipe = Recipe(self.changes(), stages=(stage,), readout=partial(Words, self._ids))
        return tune(self.model.tower, few, recipe, seed=self.seed)

    def _student(self, many: list[Prompt], few: Data, teacher: Tuned, seed: int) -> Tuned:
        """From fresh bottlenecks, the texts that ``teacher`` answers and then the labelled ones."""
        soft = teacher.logits(many).softmax(1)
        if not bool((soft.amax(1) > self.threshold).any()):
            raise BadInput(f"the teacher is surer than {self.threshold} of no unlabelled text; lower the threshold")
        loss = SelfTraining(
            few, self.steps, self.meta_from, self.soft, self.threshold, self.few_lr, self.eps, self.few_batch
        )
        rows = FirstUnlabelled(Data(many, soft), few, self.steps, self.few_batch)
        recipe = Recipe(
            self.changes(), (loss,), (Stage(epochs=self.epochs, lr=self.lr, batch=self.batch, clip=1.0),),
            readout=partial(Words, self._ids), step=UnlessEmpty(), sampler=rows,
        )  # fmt: skip
        both = Data([*many, *few.inputs], torch.cat([soft, few.targets]), few.classes)
        student = tune(self.model.tower, both, recipe, seed=seed)
        self.skipped += loss.skipped
        return student

    def _prompts(self, texts: Texts) -> list[Prompt]:
        most = min(self.length, self.model.most)
        with quiet():  # it would warn of long texts
            return [
                self._template.encode(self.model.tokenizer, item, first=self.first, others=self.others, most=most)
                for item in listed(texts)
            ]
