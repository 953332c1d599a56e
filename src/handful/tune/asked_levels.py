"""HierVerb as a recipe: classes in a tree, ``a > b > c``, asked of a masked model level by level (203).

What a file keeps is the row of each leaf: the model answers with whole paths. State by held-out examples, the labels of
all levels and other ways to answer are in Python: `handful.tune.hierverb`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from handful.core.hierarchy import SEPARATOR, Hierarchy
from handful.encode.asking import Levels, leveled
from handful.encode.prompt import Prompt
from handful.errors import BadInput
from handful.tune.asked import EVERY, one_hot_head, speaker
from handful.tune.cloze import Cloze
from handful.tune.hierarchical import Form
from handful.tune.hierverb import HierVerbLoss, LevelWords, check_shares, label_words, level_stage
from handful.tune.recipe import Data, Recipe, Seen, Shipped
from handful.tune.samplers import Twice
from handful.tune.sites import refuse_bare


class AskedLevels(LevelWords):
    """Rows of the tree that the classes are, for texts.

    Args:
        length: tokens of a prompt at most.
    """

    def __init__(self, length: int = 512) -> None:
        super().__init__(Hierarchy(()), {})
        self.length = length

    def begin(self, model: nn.Module, data: Data, generator: torch.Generator) -> None:
        """Take the tree. Raises `BadInput` for a model that is not masked, and for classes that are no tree."""
        asked = speaker(model).model
        if asked.kind != "masked":
            raise BadInput(f"hierverb asks at a mask a level: take a masked model, not a {asked.kind} one")
        refuse_bare(model)
        self.tree = Hierarchy.of(data.classes)
        told = zip(data.classes, data.documents, strict=True) if data.documents else ()
        names = {path: str(text).rpartition(SEPARATOR)[2] for path, text in told}
        self.words = label_words(asked.tokenizer, self.tree, names)
        super().begin(asked.tower, data, generator)

    def look(self, model: nn.Module, inputs: Any) -> tuple[Tensor, Tensor]:
        asked = speaker(model).model
        return super().look(asked.tower, self.prompts(model, inputs))

    def prompts(self, model: nn.Module, texts: Sequence[str]) -> list[Prompt]:
        """A mask a level, then the text."""
        return leveled(speaker(model).model, texts, self.tree.depth, self.length)

    def ships(self, model: nn.Module) -> Shipped:
        rows = self.rows[-1].detach()
        return Shipped(*one_hot_head(len(rows)), Levels(rows, self.tree.depth, self.length))


def asked_cloze(seen: Seen) -> Tensor:
    """The loss of words of the prompts that are covered, see `Cloze`."""
    asked = speaker(seen.model).model
    prompts = seen.read_by(AskedLevels).prompts(seen.model, seen.inputs)
    return Cloze(asked.tokenizer)(replace(seen, model=asked.tower, inputs=prompts))


@dataclass(frozen=True)
class AskedHierVerb:
    """A masked model asked at a mask a level, for classes in a tree (203). See `handful.tune.hierverb`.

    Args:
        mlm, chain, contrast, falls, epochs, lr, rows_lr, batch, length: see `HierVerbClassifier`.
    """

    asks: ClassVar[bool] = True
    mlm: float = 0.001
    chain: Form = "nll"
    contrast: float = 0.01
    falls: float = 1.0
    epochs: float = 20
    lr: float = 5e-5
    rows_lr: float = 1e-4
    batch: int = 5
    length: int = 512

    def recipe(self) -> Recipe:
        """As slots."""
        check_shares(self.mlm, self.contrast)
        loss = HierVerbLoss(asked_cloze, self.mlm, self.chain, self.contrast, self.falls)
        stage = level_stage(self.epochs, self.lr, self.rows_lr, self.batch)
        return Recipe(EVERY, (loss,), (stage,), readout=partial(AskedLevels, self.length), sampler=Twice())
