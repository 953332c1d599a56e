"""RIFF: a paraphraser learns to say texts in such words that a frozen classifier is right (paper 037, Najafi and Fyshe,
RIFF: Learning to Rephrase Inputs for Few-shot Fine-tuning of Language Models, 2024).

    R_j     = log P(y | z_j) - log P(y | x) of m rewrites z_j of x, standardised over j, which takes log P(y | x) out
              again; or log P(y | z_j) as it is
    mml     - mean_x log sum_j exp(log P(z_j | x) + R_j)
    pg      - mean_x mean_j w_j log P(z_j | x) R_j
    kl      + beta mean_x mean_j (log P(z_j | x) - log P_0(z_j | x) + 1) log P(z_j | x), the difference as a number

    policy        rewrites of          w_j          beside
    "kl"          the paraphraser      P / P_0      the term kl
    "on"          the paraphraser      1
    "off"         P_0, as it was       P / P_0      mml: - log P_0(z_j | x) in the sum

The rewrites are then used by `handful.generate.rephrased`.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from handful.core.train import AdamW
from handful.encode.language_tower import normalised
from handful.encode.prompt import Question
from handful.errors import BadInput
from handful.generate.paraphrase import Paraphraser, Way, likelihood
from handful.protocols import Progress
from handful.tune.delta import Placed
from handful.tune.loop import tune
from handful.tune.prompting import everything, one_hot, refuse_unpaired
from handful.tune.recipe import Data, Recipe, Seen, Stage
from handful.tune.tuned import Tuned

Policy = Literal["kl", "on", "off"]
Believes = Callable[[Sequence[str]], Tensor]
"""Gives log P(y | text) of n texts ``[n, C]``."""


@dataclass(frozen=True)
class Rewarded(Question):
    """A text with its rewrites as answers.

    Args:
        told: log P(y | z_j), of each.
        kept: log P_0(z_j | x), of each.
    """

    told: tuple[float, ...] = ()
    kept: tuple[float, ...] = ()


def standardised(rewards: Tensor) -> Tensor:
    """``(R - mean) / std`` over the rewrites of each text ``[n, M]``; 0 where all are alike, but for rounding."""
    if rewards.shape[1] < 2:
        raise BadInput("the reward of a single rewrite cannot be standardised; take several, or zscore=False")
    centred = rewards - rewards.mean(1, keepdim=True)
    alike = centred.abs().amax(1, keepdim=True) <= 1e-5 * rewards.abs().amax(1, keepdim=True)
    return torch.where(alike, 0.0, centred / (rewards.std(1, keepdim=True) + 1e-12))


@dataclass(frozen=True)
class Rephrasing:
    """The loss above.

    Args:
        loss: ``"mml"`` or ``"pg"``.
        zscore: whether rewards are standardised.
        kl: beta, of the policy ``"kl"``.
        policy: see above.
    """

    loss: Literal["mml", "pg"] = "mml"
    zscore: bool = True
    kl: float = 0.1
    policy: Policy = "kl"
    name = "rephrasing"
    separable = True

    def __post_init__(self) -> None:
        if self.loss not in ("mml", "pg") or self.policy not in get_args(Policy) or self.kl < 0:
            raise BadInput(
                f"loss is mml or pg, policy one of {', '.join(get_args(Policy))}, kl not below 0: {self.loss!r}, "
                f"{self.policy!r}, {self.kl}"
            )

    def __call__(self, seen: Seen) -> Tensor:
        log_p = normalised(seen.features, 0.0)
        told, kept = (log_p.new_tensor([getattr(item, name) for item in seen.inputs]) for name in ("told", "kept"))
        return self.of(log_p, told, kept)

    def of(self, log_p: Tensor, told: Tensor, kept: Tensor) -> Tensor:
        """Of log P(z_j | x), log P(y | z_j) and log P_0(z_j | x), ``[n, M]`` each."""
        reward = standardised(told) if self.zscore else told
        ratio = log_p.detach() - kept
        if self.loss == "mml":
            loss = -(log_p + reward - (kept if self.policy == "off" else 0)).logsumexp(1).mean()
        else:
            w = 1.0 if self.policy == "on" else ratio.exp()
            loss = -(w * log_p * reward).mean()
        return loss + self.kl * ((ratio + 1) * log_p).mean() if self.policy == "kl" else loss


@dataclass
class RIFF:
    """See `handful.generate.riff`.

    Args:
        paraphraser: what learns; its model stays as it is, see `fit`.
        believes: the classifier, such as `RephrasedClassifier.believes`; it does not learn.
        loss, zscore, kl, policy: see `Rephrasing`.
        m: rewrites a text.
        way: how they are drawn, see `handful.generate.paraphrase`.
        lr, batch, epochs, weight_decay: of training, by AdamW with AMSGrad at one rate.
        check: steps between two scores on held-out examples.
        changes: what learns of the paraphraser; by default every weight.
        seed: of every draw.
    """

    paraphraser: Paraphraser
    believes: Believes
    loss: Literal["mml", "pg"] = "mml"
    zscore: bool = True
    kl: float = 0.1
    policy: Policy = "kl"
    m: int = 8
    way: Way = "mixed"
    lr: float = 1e-5
    batch: int = 8
    epochs: float = 100
    weight_decay: float = 1e-4
    check: int = 8
    changes: tuple[Placed, ...] | None = None
    seed: int = 0
    tuned: Tuned | None = field(default=None, init=False)

    def fit(
        self, texts: Sequence[str], labels: Sequence[Any], classes: Sequence[Any], dev_texts: Sequence[str] = (),
        dev_labels: Sequence[Any] = (), progress: Progress | None = None,
    ) -> Tuned:  # fmt: skip
        """Learn on the few examples of the task.

        Args:
            texts, labels: of the examples.
            classes: what the columns of ``believes`` are.
            dev_texts, dev_labels: examples held out; the state is kept with which most of them are told by their
                diverse rewrites alone.
            progress: see `tune`.

        Returns:
            What was learnt. ``with tuned.delta.attached(paraphraser.model.tower):`` it rewrites by it;
            ``tuned.merge()`` writes it into the model.

        Raises:
            BadInput: a label that is no class; one rewrite and standardised rewards.
        """
        refuse_unpaired(texts, labels, dev_texts, dev_labels)
        if self.zscore and self.m < 2:
            raise BadInput("the reward of a single rewrite cannot be standardised; take several, or zscore=False")
        tower = self.paraphraser.model.tower
        self._kept = copy.deepcopy(tower).eval().requires_grad_(False)
        data = Data(list(texts), one_hot(labels, classes, "column"), tuple(map(str, classes)))
        self._labels, self._ways, judge = data.labels, len(classes), None
        if len(dev_labels):
            judge = partial(self._judged, list(dev_texts), one_hot(dev_labels, classes, "column").argmax(1))
        recipe = Recipe(
            self.changes if self.changes is not None else everything(tower),
            (Rephrasing(self.loss, self.zscore, self.kl, self.policy),),
            (
                Stage(
                    epochs=self.epochs, lr=self.lr, batch=self.batch, rate="constant", weight_decay=self.weight_decay,
                    update=lambda decay: AdamW(weight_decay=decay, amsgrad=True),
                ),
            ),
            augment=(self._rewarded,),
        )  # fmt: skip
        self.tuned = tune(tower, data, recipe, seed=self.seed, judge=judge, judge_every=self.check, progress=progress)
        return self.tuned

    @torch.no_grad()
    def _judged(self, texts: list[str], labels: Tensor, tuned: Tuned) -> float:
        """How many of the texts are told by their rewrites."""
        with tuned.delta.attached(tuned.model), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # few different rewrites are no news at every score
            found = self.paraphraser.sample(texts, self.m, "diverse", self.seed)
        log_p = self._believed(found)
        return float((log_p.mean(1).argmax(1) == labels).float().mean())

    def _believed(self, found: Sequence[Sequence[str]]) -> Tensor:
        """log P(y | z_j) ``[n, m, C]``. Raises `BadInput` for other columns than the classes."""
        believed = self.believes([one for some in found for one in some])
        wanted = (len(found) * self.m, self._ways)
        if tuple(believed.shape) != wanted:
            raise BadInput(f"believes gave an array of shape {tuple(believed.shape)}; for these texts it is {wanted}")
        return believed.view(len(found), self.m, -1)

    @torch.no_grad()
    def _rewarded(self, inputs: Any, rows: Tensor, generator: torch.Generator) -> list[Rewarded]:
        """Rewrites of the texts of a step, drawn as the policy is now, and what they brought: the slot `augment`."""
        own, texts = self.paraphraser, list(inputs)
        writer = own if self.policy != "off" else copy.copy(own)
        if self.policy == "off":
            writer.model = copy.copy(own.model)
            writer.model.tower = self._kept
        found = writer.rewrites(texts, self.m, self.way, generator)
        asked = [own.question(text, some) for text, some in zip(texts, found, strict=True)]
        kept = likelihood(self._kept, asked).tolist()
        believed = self._believed(found)
        told = believed[torch.arange(len(texts)), :, self._labels[rows]].tolist()
        of = zip(asked, told, kept, strict=True)
        return [Rewarded(q.prompt, q.answers, tuple(t), tuple(k)) for q, t, k in of]
