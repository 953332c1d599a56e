"""CLIP-LoRA (006, Low-Rank Few-Shot Adaptation of Vision-Language Models, 2024): both towers change by low rank.

    where     query, key and value of every block of both towers:  W + gamma B A,  gamma = alpha / sqrt r
    readout   z_c = 100 cos(image, text of c), the text tower read anew at every step
    loss      cross-entropy, images cropped and mirrored at random
    steps     500 a shot, 32 images each; AdamW 2e-4, decay 0.01, along a cosine to 1e-6

One recipe for every data set. In the end the changes are merged into the weights and cost nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from handful.errors import BadInput, nearest
from handful.tune.class_texts import PHOTO, SCALE, ClassTexts, checked_templates, names_only
from handful.tune.crops import RandomCrop
from handful.tune.delta import Delta, Holder, Placed
from handful.tune.delta_file import load_delta
from handful.tune.fillers import CrossEntropy, Shuffled
from handful.tune.lora import LoRA
from handful.tune.recipe import Data, Recipe, Stage
from handful.tune.sites import Where, sites
from handful.tune.tuned import Tuned

Tower = Literal["text", "image"]
MATRICES = ("q", "k", "v", "o")


@dataclass(frozen=True)
class ByShots(Shuffled):
    """All rows in a new order, pass after pass; an epoch of a stage is as many steps as a class has images at most."""

    def steps(self, data: Data, epochs: float, batch: int) -> int:
        """``epochs`` times the shots."""
        return round(epochs * int(data.targets.sum(0).max().ceil()))


@dataclass(frozen=True)
class CLIPLoRA:
    """Attention of both towers of a CLIP by low rank, class names read anew at every step (006).

    Args:
        rank: r.
        alpha: of the scale gamma.
        dropout: share of what goes into A that is left out in training.
        rs: gamma = alpha / sqrt r, as the authors' code has it; the paper's formula is alpha / r.
        matrices: which maps of attention change: of ``"q"``, ``"k"``, ``"v"``, ``"o"``.
        towers: which towers change.
        blocks: which blocks of a tower; see `handful.tune.sites.Where`.
        template: a sentence with ``{}`` for the name of a class.
        steps_per_shot: steps for each image of the class that has most.
        lr: learning rate.
        batch: images a step.
        side: of the crops, where images are given larger than the tower takes them.
    """

    rank: int = 2
    alpha: float = 1.0
    dropout: float = 0.25
    rs: bool = True
    matrices: tuple[str, ...] = ("q", "k", "v")
    towers: tuple[Tower, ...] = ("text", "image")
    blocks: str = "all"
    template: str = PHOTO
    steps_per_shot: int = 500
    lr: float = 2e-4
    batch: int = 32
    side: int | None = None

    def __post_init__(self) -> None:
        if self.steps_per_shot < 1:
            raise BadInput(f"steps_per_shot is {self.steps_per_shot}; it must be at least 1")
        for what, some, known in (("matrix", self.matrices, MATRICES), ("tower", self.towers, ("text", "image"))):
            if not some:
                raise BadInput(f"no {what} is named, so that nothing would change; there are {', '.join(known)}")
            for one in some:
                if one not in known:
                    raise BadInput(f"there is no {what} {one!r}{nearest(one, known)}")
        checked_templates([self.template])

    @property
    def placed(self) -> tuple[Placed, ...]:
        """The changes, tower by tower: each of them must have such matrices."""
        lora = LoRA(self.rank, self.alpha, self.dropout, self.rs)
        return tuple(Placed(lora, Where(self.matrices, blocks=self.blocks, towers=(t,))) for t in self.towers)

    def readout(self) -> ClassTexts:
        """Cosine to the class names; a text tower that does not change is read once."""
        return ClassTexts((self.template,), SCALE, moves="text" in self.towers)

    def recipe(self) -> Recipe:
        """As slots."""
        stage = Stage(
            epochs=self.steps_per_shot, lr=self.lr, batch=self.batch, trains=("delta",),
            rate="cosine", last=1e-6, weight_decay=0.01,
        )  # fmt: skip
        return Recipe(
            self.placed, (CrossEntropy(),), (stage,), augment=(RandomCrop(self.side),), readout=self.readout,
            sampler=ByShots(),
        )  # fmt: skip

    def load(self, path: str | Path, model: nn.Module, classes: Sequence[str]) -> Tuned:
        """What `handful.tune.delta_file.save_delta` wrote of a run with these settings, ready to answer.

        Raises:
            BadInput: the file is damaged, another model's, or of other settings.
        """
        delta = load_delta(path, model)
        self._check(path, delta, model)
        readout = self.readout()
        readout.begin(model, names_only(classes), torch.Generator())
        return Tuned(model, delta, readout.eval(), tuple(classes))

    def _check(self, path: str | Path, delta: Delta, model: nn.Module) -> None:
        holders = [holder for holder in delta.holders if isinstance(holder, Holder)]
        for holder in holders:
            if not isinstance(holder.change, LoRA) or holder.parameter != "weight":
                site = f"{holder.site}.{holder.parameter}"
                raise BadInput(f"{path} changes {site} by {holder.change.key!r}, not a weight by 'lora'")
            for setting in ("rank", "alpha", "rs"):
                there, here = getattr(holder.change, setting), getattr(self, setting)
                if there != here:
                    raise BadInput(f"{path} has {setting} {there}, these settings {here}")
        wanted = {site for placed in self.placed for site in placed.where.find(model)}
        found = {site for site in sites(model) if site.name in {holder.site for holder in holders}}
        for what in ("tower", "role", "block"):
            there, here = (sorted({getattr(site, what) for site in some}) for some in (found, wanted))
            if there != here:
                raise BadInput(f"{path} changes the {what}s {_listed(there)}, these settings {_listed(here)}")
        if found != wanted:
            raise BadInput(f"{path} changes {len(found)} matrices, these settings {len(wanted)}")


def _listed(some: Sequence[object]) -> str:
    return ", ".join(map(str, some)) or "none"
