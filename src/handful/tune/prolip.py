"""ProLIP where it changes the towers themselves (010, Fine-Tuning CLIP's Last Visual Projector, 2024).

    min_P  CE(y, softmax 100 cos(f, w)) + lambda |P - P0|^2      lambda = 1 / K,  all images each step, 300 steps

P is the last projection of one tower. For images that is `handful.adapt.prolip` without a cache of features; for texts
f stays, and w_c = unit mean_t P h_tc over the templates, h before the projection. What `handful.adapt.prolip` has
learnt on features becomes a change of the tower by `projected`. At test time, P moves for each image alone, one step
towards one sure answer over the surest tenth of 64 views, and goes back to P0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from handful.core.train import Adam
from handful.encode.two_towers import TwoTowers
from handful.errors import BadInput
from handful.tune.at_test import AtTest
from handful.tune.class_texts import PHOTO, SCALE, ClassTexts, names_only, two_towers_of
from handful.tune.crops import RandomCrop
from handful.tune.delta import Delta, Holder, Placed
from handful.tune.difftpt import tpt
from handful.tune.fillers import CrossEntropy
from handful.tune.own import Own
from handful.tune.recipe import Data, Recipe, Seen, Stage
from handful.tune.sites import Where
from handful.tune.tuned import Tuned

Tower = Literal["text", "image"]
TEMPLATES = (
    "itap of a {}.", "a bad photo of the {}.", "a origami {}.", "a photo of the large {}.", "a {} in a video game.",
    "art of the {}.", "a photo of the small {}.",
)  # fmt: skip
"""Seven sentences for ImageNet, which the authors tune with at test time."""
WHOLE = 1 << 30
"""A batch larger than any data: all images each step."""


def projection(tower: Tower) -> Placed:
    """The last projection of a tower as what learns."""
    return Placed(Own(), Where(("projection",), towers=(tower,)))


class ProjectedTexts(ClassTexts):
    """``w_c = unit mean_t P h_tc``: the text tower below its projection is read once, and P at every step."""

    before: Tensor

    def begin(self, model: nn.Module, data: Data, generator: torch.Generator) -> None:
        super().begin(model, data, generator)
        with torch.no_grad():
            before = two_towers_of(model).text_before(self.tokens)
        self.register_buffer("before", before.reshape(len(self.templates), self.classes, -1))

    def _read(self, towers: TwoTowers) -> Tensor:
        return functional.normalize(towers.project_text(self.before).mean(0), dim=-1)


@dataclass(frozen=True)
class Close:
    """``lambda |P - P0|^2`` of the projections that learn, a sum and not a mean.

    Args:
        strength: lambda.
    """

    strength: float
    name = "close"
    separable = True

    def __call__(self, seen: Seen) -> Tensor:
        model, total = two_towers_of(seen.model).model, torch.zeros(())
        for last in (model.text_projection, model.visual_projection):
            if parametrize.is_parametrized(last, "weight"):
                total = total + (last.weight - last.parametrizations["weight"].original).square().sum()
        return self.strength * total


@dataclass(frozen=True)
class ProLIP:
    """The last projection of one tower, kept close to where it was (010).

    Args:
        shots: K, images a class.
        tower: whose projection.
        reg: lambda; ``"1/K"`` and ``"1/K2"`` take it from ``shots``, as the paper does without a validation set.
        epochs: steps on all images, each seen in a new crop.
        lr: of Adam with epsilon 1e-4, along a cosine to 0.
        templates: sentences with ``{}`` for the name of a class.
        side: of the crops, where images are given larger than the tower takes them.
    """

    shots: int = 16
    tower: Tower = "text"
    reg: float | Literal["1/K", "1/K2"] = "1/K"
    epochs: int = 300
    lr: float = 1e-4
    templates: tuple[str, ...] = (PHOTO,)
    side: int | None = None

    def __post_init__(self) -> None:
        if self.shots < 1 or self.epochs < 1:
            raise BadInput(f"shots ({self.shots}) and epochs ({self.epochs}) must be at least 1")
        if self.tower not in ("text", "image"):
            raise BadInput(f"the tower is 'text' or 'image', not {self.tower!r}")
        if isinstance(self.reg, str) and self.reg not in ("1/K", "1/K2"):
            raise BadInput(f"reg is a number, '1/K' or '1/K2', not {self.reg!r}")
        if not isinstance(self.reg, str) and not 0 <= self.reg < float("inf"):
            raise BadInput(f"reg is {self.reg}; it must not be negative")

    @property
    def strength(self) -> float:
        """lambda."""
        if isinstance(self.reg, str):
            return 1 / self.shots if self.reg == "1/K" else 1 / self.shots**2
        return self.reg

    def recipe(self) -> Recipe:
        """As slots."""
        stage = Stage(
            epochs=self.epochs, lr=self.lr, batch=WHOLE, trains=("delta",), rate="cosine",
            update=lambda decay: Adam(eps=1e-4),
        )  # fmt: skip
        texts = ProjectedTexts if self.tower == "text" else ClassTexts
        return Recipe(
            (projection(self.tower),),
            (CrossEntropy(), Close(self.strength)),
            (stage,),
            augment=(RandomCrop(self.side, scale=(0.5, 1.0)),),
            readout=lambda: texts(self.templates, SCALE, moves=self.tower == "text"),
        )


def projected(towers: TwoTowers, change: Tensor, tower: Tower = "image") -> Delta:
    """A change of a tower's last projection as a delta: to merge into the weights, or to be written to a file.

    Args:
        towers: CLIP's; they are not changed.
        change: ``[B, D]``, what is added to the projection as the head has it: ``state_["change"]`` of a fitted
            `handful.adapt.prolip.ProLIP`.
        tower: whose.

    Raises:
        BadInput: the shapes differ; the towers have no such projection.
    """
    delta = Delta.begin(towers, [projection(tower)], torch.Generator())
    (holder,) = delta.holders
    assert isinstance(holder, Holder)
    weight = holder.tensors["P"]  # [D, B], as nn.Linear has it
    if change.mT.shape != weight.shape:
        raise BadInput(f"a change of shape {tuple(change.shape)} does not fit a projection {tuple(weight.mT.shape)}")
    with torch.no_grad():
        weight.add_(change.mT.to(weight))
    return delta


@dataclass(frozen=True)
class TestTimeProLIP:
    """The image projection tuned for each image alone; run it by `handful.tune.at_test.at_test`.

    Args:
        lr: of the one step.
        augmix: mix distorted crops into the views, as for fine-grained classes.
        templates: sentences with ``{}``; each is made unit, their mean too.
    """

    __test__ = False  # no test of pytest's
    lr: float = 1e-4
    augmix: bool = False
    templates: tuple[str, ...] = TEMPLATES

    def how(self, towers: TwoTowers) -> AtTest:
        """TPT's views and choice: 63 crops beside the image, the surest tenth, one step."""
        usual = tpt(self.augmix).how(towers)
        return AtTest(usual.views, usual.select, usual.steps, self.lr)

    def beginning(self, towers: TwoTowers, classes: Sequence[str]) -> Tuned:
        """The towers and a projection that has learnt nothing: zero-shot, at the model's own scale."""
        texts = ClassTexts(self.templates, None, moves=False)
        texts.begin(towers, names_only(classes), torch.Generator())
        delta = Delta.begin(towers, [projection("image")], torch.Generator())
        return Tuned(towers, delta, texts.eval(), tuple(classes))
