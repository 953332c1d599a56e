"""Learn from many labelled texts of which some are wrong, such as a language model writes (paper 018, FewGen, step 6).

    Z <- momentum Z + (1 - momentum) p;  q = Z / (1 - momentum^t)      once a pass, p of all texts as the model is now
    kept      argmax q is the label, and max q > threshold; of a class with fewer than `fewest` of these also the more
              likely half of all its texts
    a pass    batch x `interval` kept texts that were not seen; once there are fewer, the rest and the first kept ones
    loss      cross-entropy with smoothed labels + reg KL(q || p)

Laine and Aila, Temporal Ensembling for Semi-Supervised Learning, 2017.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from handful.errors import BadInput, HandfulError
from handful.tune.delta import Delta
from handful.tune.fillers import CrossEntropy
from handful.tune.lm_bff import PromptClassifier
from handful.tune.loop import tune
from handful.tune.prompting import Texts, Words, divergence, everything, listed, refuse_unpaired
from handful.tune.recipe import Data, Recipe, Seen, Stage
from handful.tune.tuned import Tuned


class Ensemble:
    """What the model thought of n texts of C classes over a run, and which of them are learnt next.

    Args:
        labels: as the texts came ``[n]``.
        ways: C.
        momentum, threshold, fewest: see `handful.tune.self_ensemble`; a threshold of 0 keeps all.
    """

    def __init__(
        self, labels: Tensor, ways: int, momentum: float = 0.9, threshold: float = 0.8, fewest: int = 16
    ) -> None:
        if not 0 <= threshold < 1 or not 0 <= momentum < 1:
            raise BadInput(f"threshold and momentum are from 0 to below 1, not {threshold} and {momentum}")
        self.labels, self.momentum, self.threshold, self.fewest = labels, momentum, threshold, fewest
        self.sum, self.count = torch.zeros(len(labels), ways, dtype=torch.float64), 0
        self.unseen = torch.ones(len(labels), dtype=torch.bool)

    def add(self, p: Tensor) -> None:
        """Count what the model thinks now ``[n, C]``."""
        self.sum = self.momentum * self.sum + (1 - self.momentum) * p.double()
        self.count += 1

    @property
    def q(self) -> Tensor:
        """``[n, C]``; rows sum to 1."""
        return (self.sum / (1 - self.momentum**self.count)).float()

    def kept(self) -> Tensor:
        """Which texts are believed ``[n]``."""
        if not self.threshold:
            return torch.ones_like(self.unseen)
        q = self.q
        most, guess = q.max(1)
        kept = (guess == self.labels) & (most > self.threshold)
        for c in range(q.shape[1]):
            own = self.labels == c
            if int((kept & own).sum()) < self.fewest and bool(own.any()):
                middle = q[own, c].sort(descending=True).values[int(own.sum()) // 2]
                kept |= own & (q[:, c] > middle)
        return kept

    def next(self, many: int) -> Tensor:
        """Rows of the next pass, as many as that; see `handful.tune.self_ensemble`."""
        kept = self.kept()
        if not bool(kept.any()):
            raise HandfulError("the classifier believes none of the texts: look at them, or learn from more real ones")
        many = min(many, len(kept))
        rows, every = (kept & self.unseen).nonzero()[:, 0], kept.nonzero()[:, 0]
        if len(rows) < many:
            again = every[: many - len(rows)]
            rows = torch.cat([rows, again])
            self.unseen.fill_(True)
            self.unseen[again] = False
            return rows
        rows = rows[:many]
        self.unseen[rows] = False
        return rows


@dataclass(frozen=True)
class Passes:
    """Fills the slot `sampler`: pass after pass over what is believed, in random order.

    Args:
        ensemble: what the model thought.
        ask: gives p ``[n, C]`` of all texts as the model is now.
        interval: steps between two looks at all texts.
    """

    ensemble: Ensemble
    ask: Callable[[], Tensor]
    interval: int = 200

    def steps(self, data: Data, epochs: float, batch: int) -> int:
        return math.ceil(epochs * min(self.interval, math.ceil(len(data) / batch)))

    def draws(self, data: Data, batch: int, generator: torch.Generator) -> Iterator[Tensor]:
        while True:
            self.ensemble.add(self.ask())
            rows = self.ensemble.next(batch * self.interval)
            order = rows[torch.randperm(len(rows), generator=generator)]
            yield from (order[at : at + batch] for at in range(0, len(order), batch))


@dataclass(frozen=True)
class Consistent:
    """``reg KL(q || p)``, the mean over texts.

    Args:
        ensemble: has q.
        reg: its strength.
    """

    ensemble: Ensemble
    reg: float = 20.0
    name = "consistent"
    separable = True

    def __call__(self, seen: Seen) -> Tensor:
        return self.reg * seen.mean(divergence(self.ensemble.q[seen.rows], seen.logits))


@dataclass
class SelfEnsemble:
    """See `handful.tune.self_ensemble`. Goes on from a classifier that learnt from a few real examples.

    Args:
        classifier: fitted; the paper's with ``smoothing=0.15`` and ``warmup=0.1``. It is what answers afterwards.
        momentum, threshold, fewest: see `Ensemble`.
        reg: strength of the consistency.
        smooth: share of each label that is spread over all classes.
        lr, batch, steps, warmup: of training.
        interval: steps between two looks at all texts, and two scores on held-out examples.
    """

    classifier: PromptClassifier
    momentum: float = 0.9
    threshold: float = 0.8
    fewest: int = 16
    reg: float = 20.0
    smooth: float = 0.15
    lr: float = 5e-6
    batch: int = 16
    steps: int = 6000
    warmup: float = 0.1
    interval: int = 200

    def fit(
        self, texts: Texts, labels: Sequence[Any], dev_texts: Texts = (), dev_labels: Sequence[Any] = ()
    ) -> PromptClassifier:
        """Learn from texts that were written; the classifier itself, changed, is the answer.

        Args:
            texts, labels: written ones.
            dev_texts, dev_labels: real examples held out, by which the best state is kept.

        Raises:
            BadInput: the classifier has not been fitted, or answers with numbers or examples in the prompt.
            HandfulError: none of the texts is believed.
        """
        one = self.classifier
        if one.tuned is None:
            raise BadInput("the classifier has not been fitted: it first learns from a few real examples")
        if one.bounds is not None or one.demos != "none":
            raise BadInput("what is learnt from written texts are classes, without examples in the prompt")
        inputs, targets = one.asked(listed(texts)), one.targets(labels)
        refuse_unpaired(inputs, targets, dev_texts, dev_labels)
        judge = None
        if len(dev_labels):
            judge = partial(one.judged, listed(dev_texts), one.targets(dev_labels))
        data = Data(inputs, targets, tuple(map(str, one.classes)))
        ensemble = Ensemble(data.labels, len(one.classes), self.momentum, self.threshold, self.fewest)
        tower, readout = one.model.tower, one.tuned.readout
        first = one.tuned.delta

        def ask() -> Tensor:
            found = Tuned(tower, Delta([], first.fingerprint), readout, data.classes)
            return found.logits(inputs).softmax(1)

        recipe = Recipe(
            one.changes if one.changes is not None else everything(tower),
            (CrossEntropy(self.smooth), Consistent(ensemble, self.reg)),
            (Stage(steps=self.steps, lr=self.lr, batch=self.batch, warmup=self.warmup, clip=1.0),),
            readout=lambda: Words(one.ids),
            sampler=Passes(ensemble, ask, self.interval),
        )
        merged = first.merge(tower)
        try:
            then = tune(tower, data, recipe, seed=one.seed, judge=judge, judge_every=self.interval)
        finally:
            merged.undo()
        whole = Delta.joined(tower, [first, then.delta])
        one.tuned = Tuned(tower, whole, then.readout, then.classes, [*one.tuned.losses, *then.losses])
        one.score = judge(one.tuned) if judge is not None else None
        return one
