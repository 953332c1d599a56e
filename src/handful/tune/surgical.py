"""184 On Surgical Fine-tuning for Language Encoders, 2023. Which few layers are worth tuning, from a hundred examples.

F          diagonal Fisher information of the encoder under a fresh readout, see `handful.tune.information`
score(l)   sum over the parameter tensors of layer l of |F| (Frobenius)
tuned      the K layers of the highest score, and the readout; embeddings and all else stay
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from handful.errors import BadInput, nearest
from handful.tune.change import Change
from handful.tune.delta import Placed
from handful.tune.fillers import Linear
from handful.tune.information import Information
from handful.tune.loop import tune
from handful.tune.own import Own
from handful.tune.recipe import Data, Readout, Recipe, Stage
from handful.tune.sites import Where, blocks_of, sites
from handful.tune.tuned import Tuned

Score = Literal["norm-sum", "trace", "mean"]


def layer_scores(
    model: nn.Module,
    readout: Readout,
    data: Data,
    *,
    layers: Sequence[str] = (),
    information: Information | None = None,
    score: Score = "norm-sum",
) -> dict[str, float]:
    """How much each layer matters to the answers, by its module's name.

    Args:
        model: the pre-trained encoder.
        readout: fresh, fitted to the number of classes.
        data: labelled examples.
        layers: names of modules; by default the transformer blocks.
        information: how F is taken.
        score: ``"norm-sum"``, the sum of the norms of F's blocks; ``"trace"``, the sum of F; ``"mean"``, its mean.

    Raises:
        BadInput: the model has no blocks that are known, or not these layers; a layer has no parameters.
    """
    if score not in ("norm-sum", "trace", "mean"):
        raise BadInput(f"score is 'norm-sum', 'trace' or 'mean', not {score!r}")
    named = tuple(layers) or blocks_of(model)
    if not named:
        raise BadInput("the model has no transformer blocks that are known; name its layers with layers=")
    parameters: dict[str, Tensor] = {}
    owner: dict[str, str] = {}
    modules = dict(model.named_modules())
    for layer in named:
        if layer not in modules:
            raise BadInput(f"the model has no layer {layer!r}{nearest(layer, modules)}")
        mine = {f"{layer}.{name}": p for name, p in modules[layer].named_parameters() if p.is_floating_point()}
        if not mine:
            raise BadInput(f"the layer {layer} has no parameters")
        for name in sorted(mine.keys() & owner.keys()):
            raise BadInput(f"{name} is in {owner[name]} and in {layer}; layers must not lie in each other")
        parameters |= mine
        owner |= dict.fromkeys(mine, layer)
    f = (information or Information()).diagonal(model, readout, data, parameters)
    out = dict.fromkeys(named, 0.0)
    count = dict.fromkeys(named, 0)
    for name, block in f.items():
        out[owner[name]] += float(block.norm() if score == "norm-sum" else block.sum())
        count[owner[name]] += block.numel()
    return {layer: out[layer] / count[layer] for layer in named} if score == "mean" else out


@dataclass(frozen=True)
class Surgical:
    """Only the layers are tuned that matter most to the task (184).

    Args:
        k: how many layers.
        layers: among which; the transformer blocks by default.
        change: what learns there: their parameters themselves, or a low-rank change of their maps.
        score, information: see `layer_scores`.
        lr, epochs, batch, warmup, weight_decay: of AdamW with a linear decay.
    """

    k: int = 5
    layers: tuple[str, ...] = ()
    change: Change = field(default_factory=Own)
    score: Score = "norm-sum"
    information: Information = field(default_factory=Information)
    lr: float = 5e-5
    epochs: float = 10
    batch: int = 32
    warmup: float = 0.06
    weight_decay: float = 0.01

    def scores(self, model: nn.Module, data: Data, seed: int = 0) -> dict[str, float]:
        """The score of each layer under a fresh readout."""
        readout = Linear()
        readout.begin(model, data, torch.Generator().manual_seed(seed))
        return layer_scores(
            model, readout, data, layers=self.layers, information=self.information, score=self.score
        )  # fmt: skip

    def recipe(self, model: nn.Module, scores: Mapping[str, float]) -> Recipe:
        """What tunes the ``k`` layers of the highest score.

        Raises:
            BadInput: ``k`` is not 1 to the number of layers.
        """
        if not 1 <= self.k <= len(scores):
            raise BadInput(f"k is {self.k}; the model has {len(scores)} layers, so it must be 1 to {len(scores)}")
        chosen = sorted(scores, key=lambda layer: -scores[layer])[: self.k]
        inside = re.compile("|".join(rf"{re.escape(layer)}(?:\.|$)" for layer in chosen))
        where = tuple(site.name for site in sites(model) if inside.match(site.name))
        if isinstance(self.change, Own):
            changes: tuple[Placed, ...] = tuple(
                Placed(Own(), Where((), name, sites=tuple(s for s in where if _has(model, s, name))))
                for name in dict.fromkeys(name.rpartition(".")[2] for name, _ in model.named_parameters())
                if any(_has(model, s, name) for s in where)
            )
        else:
            linear = {site.name for site in Where().find(model)}
            changes = (Placed(self.change, Where((), sites=tuple(s for s in where if s in linear))),)
        stage = Stage(
            epochs=self.epochs, lr=self.lr, batch=self.batch, warmup=self.warmup, weight_decay=self.weight_decay,
            clip=1.0,
        )  # fmt: skip
        return Recipe(changes, stages=(stage,), readout=Linear)

    def fit(self, model: nn.Module, data: Data, seed: int = 0) -> Tuned:
        """Score the layers on ``data`` and tune the best."""
        return tune(model, data, self.recipe(model, self.scores(model, data, seed)), seed=seed)


def ranking_stability(
    model: nn.Module, data: Data, recipe: Recipe, steps: Sequence[int] = (10, 100), surgical: Surgical | None = None
) -> dict[int, float]:
    """Spearman's correlation of the layers' scores after so many steps of ``recipe`` with those before any.

    The recipe's first stage is run at a constant rate from the beginning for each number of steps, over the same rows.
    """
    from scipy.stats import spearmanr

    which = surgical or Surgical()
    before = which.scores(model, data)
    out = {}
    for many in steps:
        first = recipe.stages[0]
        stage = Stage(
            steps=many, lr=first.lr, batch=first.batch, rate="constant", weight_decay=first.weight_decay,
            update=first.update, trains=first.trains,
        )  # fmt: skip
        tuned = tune(model, data, Recipe(recipe.changes, recipe.objectives, (stage,), readout=recipe.readout))
        kept = tuned.merge()
        try:
            after = layer_scores(
                model, tuned.readout, data, layers=which.layers, information=which.information, score=which.score
            )
        finally:
            kept.undo()
        out[many] = float(spearmanr(list(before.values()), list(after.values())).statistic)
    return out


def _has(model: nn.Module, site: str, parameter: str) -> bool:
    return isinstance(getattr(model.get_submodule(site), parameter, None), nn.Parameter)
