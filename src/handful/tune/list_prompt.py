"""LiST: prompt-based self-training of small adapters on texts without labels (paper 123, Wang et al., 2021).

    learns     a linear bottleneck behind each attention and each feed-forward, and the head for words
    teacher    prompt-based fine-tuning on the few labelled texts (as LM-BFF, without examples shown)
    student    from the pre-trained weights anew: steps on unlabelled texts, then the labelled ones; it teaches next

    L_u        KL(teacher_u || student_u)              loss  sum_u w_u L_u
    w_u        first 60 % of the steps 1 / (kept + 1e-5) where the teacher is surer than `threshold`, then
               max(0, -d L_lab(theta - lr grad sum_u e_u L_u) / d e_u) at e = 0, by their sum + eps

The derivative at e = 0 is ``-lr <grad L_lab, grad L_u>``: a text counts as far as learning it helps the labelled ones.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from handful.encode.lm import LanguageModel
from handful.encode.prompt import LabelWords, Prompt
from handful.encode.template import Template
from handful.errors import BadInput
from handful.tune.adapters import Adapter
from handful.tune.delta import Placed
from handful.tune.loop import tune
from handful.tune.own import Own
from handful.tune.prompting import Words
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


def divergences(logits: Tensor, targets: Tensor) -> Tensor:
    """``KL(target || softmax of the logits)`` of each item ``[U]``."""
    return (torch.xlogy(targets, targets) - targets * logits.log_softmax(-1)).sum(-1)


@dataclass
class SelfTraining:
    """The loss on unlabelled items, weighted as above.

    Args:
        labelled: the few items with labels.
        meta_from: share of the steps after which weights are learnt; 1 keeps them uniform.
        threshold: the teacher must be surer.
        lr, eps: see `meta_weights`.
        batch: labelled items a step.
    """

    labelled: Data
    meta_from: float = 0.6
    threshold: float = 0.0
    lr: float = 5e-6
    eps: float = 1e-6
    batch: int = 4
    skipped: int = field(default=0, init=False)
    name = "self-training"
    separable = False

    def __call__(self, seen: Seen) -> Tensor:
        weights = self.weights(seen)
        if not bool(weights.any()):  # no item helps: the step is left out
            self.skipped += 1
            return torch.zeros(())
        return (weights * divergences(seen.logits, seen.targets)).sum()

    def weights(self, seen: Seen) -> Tensor:
        """``w`` ``[U]``."""
        if seen.step < self.meta_from * seen.steps:
            kept = (seen.targets.amax(1) > self.threshold).float()
            return kept / (kept.sum() + 1e-5)
        rows = torch.randperm(len(self.labelled), generator=seen.generator)[: self.batch]
        training = [(module, module.training) for module in (seen.model, seen.readout)]
        try:
            for module, _ in training:
                module.eval()  # without dropout
            with sdpa_kernel(SDPBackend.MATH):  # the only one that can be differentiated twice
                losses = divergences(seen.readout(seen.model(seen.inputs), seen.model), seen.targets)
            logits = seen.readout(seen.model(self.labelled.take(rows)), seen.model)
            loss = functional.cross_entropy(logits, self.labelled.targets[rows])
            return meta_weights(losses, loss, seen.learns, self.lr, self.eps)
        finally:
            for module, before in training:
                module.train(before)


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
        rounds: students, one after the other.
        steps, lr, batch: on unlabelled texts.
        epochs, few_lr, few_batch: on labelled ones.
        soft: learn the teacher's probabilities, not its answers alone.
        meta_from, threshold, eps: see `SelfTraining`; its step is imagined at ``few_lr``.
        length: tokens of a prompt at most.
        seed: of every draw.
    """

    model: LanguageModel
    template: str
    words: Mapping[Any, str]
    width: int = 128
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

    @property
    def classes(self) -> tuple[Any, ...]:
        """As ``words`` has them."""
        return tuple(self.words)

    def changes(self) -> tuple[Placed, ...]:
        """What learns: bottlenecks behind attention and feed-forward, the head for words."""
        small = Adapter(width=self.width, activation="identity", biases=False, begins="normal")
        own = (Placed(Own(), Where(names=HEAD)), Placed(Own(), Where(names=HEAD, parameter="bias", tied=True)))
        return (Placed(small, Where(("o", "down"))), *own)

    def fit(
        self, texts: Sequence[str] | Sequence[Sequence[str]], labels: Sequence[Any],
        unlabelled: Sequence[str] | Sequence[Sequence[str]],
    ) -> ListClassifier:  # fmt: skip
        """Learn from a few labelled texts and many without labels. The last state is kept: there are none held out.

        Raises:
            BadInput: no unlabelled texts; a class without labelled ones; the teacher is never surer than ``threshold``.
        """
        if not len(unlabelled):
            raise BadInput("there are no unlabelled texts to teach on; without them use PromptClassifier")
        if len(labels) != len(texts):
            raise BadInput(f"{len(texts)} texts, but {len(labels)} labels")
        if unknown := [label for label in labels if label not in self.classes]:
            raise BadInput(f"label {unknown[0]!r} has no word; there are {', '.join(map(repr, self.classes))}")
        if missing := [name for name in self.classes if name not in labels]:
            raise BadInput(f"class {missing[0]!r} has no labelled text; give one at least")
        codes = torch.tensor([self.classes.index(label) for label in labels])
        names = tuple(map(str, self.classes))
        few = Data(self._prompts(texts), codes, names)
        many = self._prompts(unlabelled)
        self.skipped = 0
        self.tuned = self._few(few, None, self.seed)
        for number in range(1, self.rounds + 1):
            taught = self._taught(many, few, names, self.tuned, self.seed + number)
            self.tuned = self._few(few, taught, self.seed + number)
        if self.skipped:
            warnings.warn(f"{self.skipped} steps were left out: no unlabelled text helped", UserWarning, stacklevel=2)
        return self

    def logits(self, texts: Sequence[str] | Sequence[Sequence[str]]) -> Tensor:
        """``[n, C]``. Raises `BadInput` before `fit`."""
        if self.tuned is None:
            raise BadInput("this classifier has not been fitted")
        return self.tuned.logits(self._prompts(texts))

    def predict(self, texts: Sequence[str] | Sequence[Sequence[str]]) -> np.ndarray:
        """The class of each item ``[n]``."""
        return np.asarray(np.array(self.classes)[self.logits(texts).argmax(1).numpy()])

    def _few(self, few: Data, begun: Tuned | None, seed: int) -> Tuned:
        """Prompt-based fine-tuning, from fresh bottlenecks or from where ``begun`` is."""
        stage = Stage(epochs=self.epochs, lr=self.few_lr, batch=self.few_batch)

        def start(delta: Any, model: Any, readout: Any, data: Any, loss: Any) -> None:
            if begun is not None:
                delta.load_state_dict(begun.delta.state_dict())

        recipe = Recipe(self.changes(), stages=(stage,), readout=partial(Words, self._ids), start=start)
        return tune(self.model.tower, few, recipe, seed=seed)

    def _taught(self, many: list[Prompt], few: Data, names: tuple[str, ...], teacher: Tuned, seed: int) -> Tuned:
        """A student after its steps on unlabelled texts."""
        soft = teacher.logits(many).softmax(1)
        if not bool((soft.amax(1) > self.threshold).any()):
            raise BadInput(f"the teacher is surer than {self.threshold} of no unlabelled text; lower the threshold")
        targets = soft if self.soft else functional.one_hot(soft.argmax(1), len(names)).float()
        loss = SelfTraining(few, self.meta_from, self.threshold, self.few_lr, self.eps, self.few_batch)
        recipe = Recipe(
            self.changes(), (loss,), (Stage(steps=self.steps, lr=self.lr, batch=self.batch),),
            readout=partial(Words, self._ids), step=UnlessEmpty(),
        )  # fmt: skip
        student = tune(self.model.tower, Data(many, targets, names), recipe, seed=seed)
        self.skipped += loss.skipped
        return student

    def _prompts(self, texts: Sequence[str] | Sequence[Sequence[str]]) -> list[Prompt]:
        most = min(self.length, self.model.most)
        listed = [[item] if isinstance(item, str) else list(item) for item in texts]
        return [self._template.encode(self.model.tokenizer, item, most=most) for item in listed]
