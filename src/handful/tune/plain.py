"""Sentence and image encoders tuned by contrast: which numbers move is the only difference between these recipes.

    loss     every pair of a batch of examples, see `handful.tune.contrastive.AllPairs`
    where    `lora`: a low-rank change of every linear map; `full`: every weight; `bitfit`: every bias;
             `film`: scale and shift of every normalisation, which networks of convolutions have too

SetFit contrasts the same pairs, sixteen at a time and each sentence read again for every pair; a batch here holds all
pairs of its sentences for one reading each. Where that does not tell the classes apart (`APART`) it is done once more.

With ``learns="classes"`` there are no pairs: a linear readout learns the classes, at a rate of its own since features
most often have length 1, by cross-entropy; of several labels an item each by itself (`handful.tune.label_sets`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

from handful.errors import BadInput
from handful.tune.contrastive import AllPairs
from handful.tune.delta import Placed
from handful.tune.fillers import CrossEntropy, Linear
from handful.tune.lora import LoRA
from handful.tune.own import Own
from handful.tune.recipe import Recipe, Stage
from handful.tune.samplers import ByClass
from handful.tune.sites import LINEAR, ROLES, Where

EVERYTHING = (Placed(Own(), Where(ROLES)), Placed(Own(), Where(ROLES, "bias")))
"""Full fine-tuning: every weight and bias at a site whose role is known."""


Learns = Literal["pairs", "classes"]
READOUT_LR = 0.1
"""Of the linear readout, with ``learns="classes"``."""
APART = 0.15
"""Loss of pairs above which classes are not told apart yet; cosines of 1/2 throughout come to a quarter."""


def _slots(changes: tuple[Placed, ...], steps: int, lr: float, batch: int, learns: Learns) -> Recipe:
    if learns not in get_args(Learns):
        raise BadInput(f"learns is {' or '.join(map(repr, get_args(Learns)))}, not {learns!r}")
    if learns == "classes":
        stage = Stage(steps=steps, lr=lr, batch=batch, readout_lr=READOUT_LR, warmup=0.1, weight_decay=0.01)
        return Recipe(changes, (CrossEntropy(),), (stage,), readout=Linear)
    stage = Stage(steps=steps, lr=lr, batch=batch, trains=("delta",), warmup=0.1, weight_decay=0.01)
    return Recipe(changes, (AllPairs(),), (stage, replace(stage, above=APART)), sampler=ByClass())


@dataclass(frozen=True)
class Lora:
    """Low-rank changes of all linear maps of the blocks.

    Args:
        rank: of each change.
        alpha: of its scale, alpha / rank.
        steps: of training; as many again where the pairs are not told apart by then.
        lr: learning rate.
        batch: examples a step.
        learns: ``"pairs"`` of examples, or their ``"classes"``.
    """

    rank: int = 8
    alpha: float = 16.0
    steps: int = 20
    lr: float = 1e-3
    batch: int = 32
    learns: Learns = "pairs"

    def recipe(self) -> Recipe:
        """As slots."""
        return _slots(
            (Placed(LoRA(self.rank, self.alpha), Where(LINEAR)),), self.steps, self.lr, self.batch, self.learns
        )


@dataclass(frozen=True)
class Full:
    """Every weight and bias whose role is known; settings as in `Lora`."""

    steps: int = 20
    lr: float = 1e-4
    batch: int = 32
    learns: Learns = "pairs"

    def recipe(self) -> Recipe:
        """As slots."""
        return _slots(EVERYTHING, self.steps, self.lr, self.batch, self.learns)


@dataclass(frozen=True)
class FiLM:
    """Scale and shift of every normalisation (Requeima et al. 2019, Shysheya et al. 2023); settings as in `Lora`."""

    steps: int = 20
    lr: float = 1e-3
    batch: int = 32
    learns: Learns = "pairs"

    def recipe(self) -> Recipe:
        """As slots."""
        norms = tuple(Placed(Own(), Where(("norm",), parameter)) for parameter in ("weight", "bias"))
        return _slots(norms, self.steps, self.lr, self.batch, self.learns)


@dataclass(frozen=True)
class BitFit:
    """Every bias, BitFit (Ben Zaken et al. 2021); settings as in `Lora`."""

    steps: int = 40
    lr: float = 3e-3
    batch: int = 32
    learns: Learns = "pairs"

    def recipe(self) -> Recipe:
        """As slots."""
        return _slots((Placed(Own(), Where(ROLES, "bias")),), self.steps, self.lr, self.batch, self.learns)
