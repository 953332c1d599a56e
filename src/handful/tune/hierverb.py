"""HierVerb: labels in a tree, asked of a masked language model level by level (paper 203, Ji, Lian, Gao, Wang,
Hierarchical Verbalizer for Few-Shot Hierarchical Text Classification, 2023).

    input      It was 1 level: [MASK] 2 level: [MASK] … D level: [MASK]. text
    h_l        last hidden state at mask l;   u_l what the head makes of it before its last map
    z_l        V_l u_l, a row a label, which begins as the words of the label and of those below it (`first_rows`)
    loss       (1 - m) sum_l CE(z_l, y_l) + m MLM + chain(z_D) + c contrast(h)         m = 0.001, c = 0.01
    batch      each text twice, with its own dropout

The losses are in `handful.tune.hierarchical`; `handful.evaluate.hierarchical` scores what `paths` answers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from sklearn.metrics import f1_score
from torch import Tensor, nn

from handful.core.hierarchy import SEPARATOR, Hierarchy
from handful.core.train import AdamW
from handful.encode.asking import leveled
from handful.encode.language_tower import LanguageTower
from handful.encode.lm import LanguageModel
from handful.encode.prompt import Prompt, word_ids
from handful.errors import BadInput, nearest
from handful.tune.cloze import Cloze
from handful.tune.delta import Placed
from handful.tune.hierarchical import Form, chain_loss, contrast_loss, first_rows, level_answers, level_loss
from handful.tune.loop import tune
from handful.tune.prompting import everything, listed, refuse_unpaired
from handful.tune.recipe import Data, Readout, Recipe, Seen, Stage
from handful.tune.samplers import Twice
from handful.tune.tuned import Tuned


class LevelWords(Readout):
    """A map a level from the states at its mask to its labels, ``z_l [B, C_l]``; the logits are those of the leaves.

    Args:
        tree: of the labels.
        words: by label, a path, the tokens of its words.
    """

    def __init__(self, tree: Hierarchy, words: Mapping[str, Sequence[int]]) -> None:
        super().__init__()
        self.tree, self.words = tree, words

    def begin(self, model: nn.Module, data: Data, generator: torch.Generator) -> None:
        assert isinstance(model, LanguageTower)
        table: Tensor = model.body.get_input_embeddings().weight.detach()  # type: ignore[operator]
        means = [torch.stack([table[list(self.words[name])].mean(0) for name in level]) for level in self.tree.levels]
        self.rows = nn.ParameterList(nn.Parameter(rows.clone()) for rows in first_rows(means, self.tree))

    def look(self, model: nn.Module, inputs: Any) -> tuple[Tensor, Tensor]:
        """h and u ``[B, D, d]``."""
        assert isinstance(model, LanguageTower)
        return model.at_masks(inputs, self.tree.depth)

    def levels(self, features: tuple[Tensor, Tensor]) -> list[Tensor]:
        """``z_l`` ``[B, C_l]``, coarse to fine."""
        return [features[1][:, level] @ rows.mT for level, rows in enumerate(self.rows)]

    def forward(self, features: tuple[Tensor, Tensor], model: nn.Module) -> Tensor:
        return self.levels(features)[-1]


@dataclass(frozen=True)
class HierVerbLoss:
    """See `handful.tune.hierverb`.

    Args:
        cloze: the loss of words that are covered.
        mlm: m.
        chain: how the chain is read, see `chain_loss`; ``None`` leaves it out.
        contrast: c.
        falls: a of `contrast_loss`.
    """

    cloze: Callable[[Seen], Tensor]
    mlm: float = 0.001
    chain: Form | None = "nll"
    contrast: float = 0.01
    falls: float = 1.0
    name = "hierverb"
    separable = False

    def __call__(self, seen: Seen) -> Tensor:
        assert isinstance(seen.readout, LevelWords)
        logits, leaves, tree = seen.readout.levels(seen.features), seen.labels, seen.readout.tree
        loss = level_loss(logits, leaves, tree)
        if self.mlm:
            loss = (1 - self.mlm) * loss + self.mlm * self.cloze(seen)
        if self.chain is not None:
            loss = loss + chain_loss(logits[-1], leaves, tree, self.chain)
        if self.contrast:
            loss = loss + self.contrast * contrast_loss(seen.features[0], leaves, tree, self.falls)
        return loss


def check_shares(mlm: float, contrast: float) -> None:
    """Raise `BadInput` for shares of the loss that make no sense."""
    if not 0 <= mlm < 1 or contrast < 0:
        raise BadInput(f"mlm is a share below 1, contrast not negative: {mlm}, {contrast}")


def level_stage(epochs: float, lr: float, rows_lr: float, batch: int) -> Stage:
    """Of training; arguments as of `HierVerbClassifier`."""
    return Stage(
        epochs=epochs, lr=lr, batch=batch, weight_decay=0.01, clip=1.0, update=lambda decay: AdamW(1e-6, decay),
        readout_lr=rows_lr, readout_update=lambda decay: AdamW(1e-6, 0.0),
    )  # fmt: skip


def label_words(tokenizer: Any, tree: Hierarchy, names: Mapping[str, str]) -> dict[str, tuple[int, ...]]:
    """The tokens of each label's words, by its path: those of ``names``, else the last name of the path.

    Raises:
        BadInput: a name that is no label; a label without words.
    """
    every = [name for level in tree.levels for name in level]
    for name in names:
        if name not in every:
            raise BadInput(f"names has {name!r}, which is no label{nearest(name, every)}")
    plain = {name: name.rpartition(SEPARATOR)[2].replace("_", " ") for name in every}
    return {name: word_ids(tokenizer, names.get(name, plain[name])) for name in every}


@dataclass
class HierVerbClassifier:
    """See `handful.tune.hierverb`.

    Args:
        model: masked; its weights stay as they are.
        tree: of the labels; by default that of the labels to learn from.
        names: the words of a label, by its path; by default the last name of the path, ``_`` as a space.
        mlm, chain, contrast, falls: see `HierVerbLoss`.
        answer: how levels are answered, see `level_answers`.
        epochs, lr, rows_lr, batch: of training; both rates fall linearly to 0.
        patience: epochs without a better score on held-out examples after which training ends.
        best: F1 of all labels on the held-out examples by which the state is chosen, ``"macro"`` or ``"micro"``.
        changes: what learns in the model; by default every weight.
        length: tokens at most.
        seed: of every draw.
    """

    model: LanguageModel
    tree: Hierarchy | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    mlm: float = 0.001
    chain: Form | None = "nll"
    contrast: float = 0.01
    falls: float = 1.0
    answer: Literal[0, 1, 2] = 0
    epochs: int = 20
    lr: float = 5e-5
    rows_lr: float = 1e-4
    batch: int = 5
    patience: int = 10
    best: Literal["macro", "micro"] = "macro"
    changes: tuple[Placed, ...] | None = None
    length: int = 512
    seed: int = 0
    tuned: Tuned | None = field(default=None, init=False)
    tree_: Hierarchy | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if self.model.kind != "masked":
            raise BadInput(f"a label a mask is asked of a masked model; {self.model.name!r} is {self.model.kind}")
        check_shares(self.mlm, self.contrast)
        if self.best not in ("macro", "micro"):
            raise BadInput(f"best is 'macro' or 'micro', not {self.best!r}")

    def fit(
        self, texts: Sequence[str], labels: Sequence[str], dev_texts: Sequence[str] = (), dev_labels: Sequence[str] = ()
    ) -> HierVerbClassifier:
        """Learn from a few examples.

        Args:
            texts: n of them.
            labels: the whole path of each, ``"a > b > c"``.
            dev_texts, dev_labels: examples held out, by which the state is chosen (the paper: as many).

        Raises:
            BadInput: paths of different length; a leaf of the tree without an example; a label without words.
        """
        refuse_unpaired(texts, labels, dev_texts, dev_labels)
        tree = self.tree or Hierarchy.of(labels)
        leaves, truth = tree.leaves(labels), tree.leaves(dev_labels)
        if without := sorted({*tree.levels[-1]} - {*labels}):
            raise BadInput(f"label {without[0]!r} has no example to learn from")
        self.tree_ = tree
        data = Data(self._prompts(texts), leaves, tree.levels[-1])
        held = self._prompts(dev_texts)
        judge = partial(self._judged, held, truth) if held else None
        self.tuned = tune(
            self.model.tower, data, self.recipe(tree), seed=self.seed, judge=judge,
            judge_every=math.ceil(len(data) / self.batch), judge_patience=self.patience,
        )  # fmt: skip
        return self

    def recipe(self, tree: Hierarchy) -> Recipe:
        """As slots."""
        loss = HierVerbLoss(Cloze(self.model.tokenizer), self.mlm, self.chain, self.contrast, self.falls)
        stage = level_stage(self.epochs, self.lr, self.rows_lr, self.batch)
        changes = everything(self.model.tower) if self.changes is None else self.changes
        words = label_words(self.model.tokenizer, tree, self.names)
        return Recipe(changes, (loss,), (stage,), readout=lambda: LevelWords(tree, words), sampler=Twice())

    def levels(self, texts: Sequence[str]) -> list[Tensor]:
        """Logits of each level ``[n, C_l]``, coarse to fine. Raises `BadInput` before `fit`."""
        if self.tuned is None:
            raise BadInput("this classifier has not been fitted")
        return self._levels(self._prompts(texts), self.tuned)

    def paths(self, texts: Sequence[str]) -> list[tuple[str, ...]]:
        """The label of each level, by its path, coarse to fine; they need not be parents of each other."""
        logits, tree = self.levels(texts), self._tree
        each = [found.tolist() for found in level_answers(logits, tree, self.answer)]
        return [tuple(tree.levels[level][one] for level, one in enumerate(row)) for row in zip(*each, strict=True)]

    def predict(self, texts: Sequence[str]) -> np.ndarray:
        """The leaf of each text ``[n]``, by its path."""
        return np.array([path[-1] for path in self.paths(texts)])

    @property
    def _tree(self) -> Hierarchy:
        if self.tree_ is None:
            raise BadInput("this classifier has not been fitted")
        return self.tree_

    def _prompts(self, texts: Sequence[str]) -> list[Prompt]:
        items = listed(texts)
        if several := [number for number, item in enumerate(items) if len(item) != 1]:
            raise BadInput(f"item {several[0]} has {len(items[several[0]])} texts; each is one text here")
        return leveled(self.model, [text for (text,) in items], self._tree.depth, self.length)

    def _levels(self, prompts: Sequence[Prompt], tuned: Tuned) -> list[Tensor]:
        assert isinstance(tuned.readout, LevelWords)
        parts = []
        with torch.no_grad(), tuned.delta.attached(tuned.model):
            for at in range(0, len(prompts), 20):
                look = tuned.readout.look(tuned.model, prompts[at : at + 20])
                parts.append(tuned.readout.levels(look))
        return [torch.cat(level) for level in zip(*parts, strict=True)]

    def _judged(self, prompts: Sequence[Prompt], leaves: Tensor, tuned: Tuned) -> float:
        """F1 over the labels of all levels; a text has one label of each, so each level is a question of its own."""
        tuned.model.eval()
        tree, first, said, true = self._tree, 0, [], []
        answers = level_answers(self._levels(prompts, tuned), tree, self.answer)
        for level, found, gold in zip(tree.levels, answers, tree.gold(leaves), strict=True):
            said.append(found + first)
            true.append(gold + first)
            first += len(level)
        return float(
            f1_score(torch.cat(true), torch.cat(said), labels=range(first), average=self.best, zero_division=0)
        )
