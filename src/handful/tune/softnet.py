"""SoftNet: classes that come later move only the weights that the base classes hardly need.

Paper 057: Kang, Yoon, Madjid, Hwang, Yoo, "On the Soft-Subnetwork for Few-shot Class Incremental Learning", 2022. A
score s stands beside every weight of a convolution or linear map; the share c of them with the largest |s| is *major*:

    base        y = (m * W) x,   m = 1 where major, else u ~ Uniform(0, 1), drawn anew at each step (0 without ``soft``)
                cross-entropy over W and s;   the gradient of s is that of m
    afterwards  m stays, with one draw of u; a prototype a class is the mean of its features
    later       only the minor W of some layers move, by the cross-entropy of
                cos(z, p) / tau,   p over means of the new classes (in the batch) and prototypes of the old ones
    answers     the class with the nearest prototype
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from handful.adapt.parameters import count, finite
from handful.core.distances import cosine, sqeuclidean
from handful.core.gaussians import class_means
from handful.core.train import SGD
from handful.errors import BadInput, nearest
from handful.tune.class_texts import refuse_empty
from handful.tune.delta import Delta, Placed
from handful.tune.fillers import Linear
from handful.tune.later import features_of, refuse_later
from handful.tune.loop import tune
from handful.tune.own import Own, Statistics
from handful.tune.recipe import Data, Recipe, Seen, Stage
from handful.tune.sites import Where, is_linear, named, refuse_bare
from handful.tune.subnet import FromBase, Minor, SoftSubnet, minor_of


@dataclass(frozen=True)
class AmongAll:
    """Cross-entropy of ``cos(z, p) / tau`` over the new classes' means in the batch and the old prototypes.

    Args:
        old: prototypes ``[C, d]``.
        tau: temperature.
    """

    old: Tensor
    tau: float = 0.1
    name = "among-all"
    separable = False

    def __call__(self, seen: Seen) -> Tensor:
        z = functional.normalize(seen.features, dim=-1)
        means, mass = class_means(z, (seen.weight[:, None] * seen.targets).to(z))
        every = torch.cat([means, functional.normalize(self.old, dim=-1)])
        there = torch.cat([mass > 0, torch.ones_like(self.old[:, 0], dtype=torch.bool)])
        logits = (cosine(z, every) / self.tau).masked_fill(~there, -torch.inf)
        each = functional.cross_entropy(logits, seen.labels, reduction="none")
        return seen.mean(each)


@dataclass
class SoftNetFSCIL:
    """An encoder that learns base classes, then further ones from a few examples of each; see `handful.tune.softnet`.

    Args:
        encoder: gives features ``[n, d]``; it stays as it is, what is learnt is in ``delta``.
        tune_layers: a regular expression searched in the names of the maps that move for later classes.
        capacity, soft: see `SoftSubnet`.
        skip: names of maps that are never masked.
        temperature: tau.
        metric: by which the nearest prototype is found, ``"euclidean"`` as in the authors' options, or ``"cosine"``.
        epochs, lr, batch: of the base classes; from the middle on the rate is ``lr`` times ``gamma``.
        gamma: see ``epochs``.
        grow_epochs, grow_lr: of later classes, all their examples at each step.
        weight_decay: of all steps; momentum is 0.9.
        seed: of every draw.

    Attributes (after ``fit_base``):
        classes: names of all classes seen.
        prototypes: ``[C, d]``.
        delta: what was learnt about the encoder.
    """

    encoder: nn.Module
    tune_layers: str = "layer3"
    capacity: float = 0.9
    soft: bool = True
    skip: Sequence[str] = ()
    temperature: float = 0.1
    metric: Literal["euclidean", "cosine"] = "euclidean"
    epochs: int = 240
    lr: float = 0.1
    gamma: float = 0.01
    batch: int = 256
    grow_epochs: int = 15
    grow_lr: float = 1e-3
    weight_decay: float = 5e-4
    seed: int = 0
    classes: tuple[str, ...] = ()
    prototypes: Tensor = field(init=False)
    delta: Delta = field(init=False)

    def __post_init__(self) -> None:
        for name in ("temperature", "epochs", "lr", "gamma", "grow_epochs", "grow_lr", "weight_decay"):
            finite(name, getattr(self, name), least=0)
        for name, least in (("batch", 1), ("seed", 0)):
            count(name, getattr(self, name), least)
        SoftSubnet(self.capacity)
        if isinstance(self.skip, str) or not isinstance(self.skip, Sequence):
            raise BadInput(f"skip is a list of names of maps, not {self.skip!r}")
        if not isinstance(self.tune_layers, str):
            raise BadInput(f"tune_layers is a regular expression, not {self.tune_layers!r}")
        named("tune_layers", self.tune_layers)
        if self.temperature == 0:
            raise BadInput(f"temperature must be above 0, not {self.temperature}")
        if self.metric not in ("euclidean", "cosine"):
            raise BadInput(f"metric is 'euclidean' or 'cosine', not {self.metric!r}")

    def fit_base(self, data: Data) -> SoftNetFSCIL:
        """Learn the base classes: all weights, their scores, norms and statistics.

        Raises:
            BadInput: the encoder has no map, none that ``tune_layers`` names, or parameters outside of its modules; a
                class has no example.
        """
        refuse_empty(data)
        masked = [name for name in self._maps() if name not in self.skip]
        self._moving(masked)
        half = self.epochs / 2
        stages = tuple(self._stage(half, lr, self.batch) for lr in (self.lr, self.lr * self.gamma))
        changes = (Placed(SoftSubnet(self.capacity, self.soft), Where((), sites=tuple(masked))), *self._rest(masked))
        found = tune(self.encoder, data, Recipe(changes, stages=stages, readout=Linear), seed=self.seed)
        self._base = self.delta = found.delta
        self._entries = {
            holder.site: minor_of(holder)
            for holder in self._base.each()
            if isinstance(holder.change, SoftSubnet) and self._moves(holder.site)
        }
        self.classes, self.prototypes = data.classes, self._means(data)
        return self

    def partial_fit(self, data: Data) -> SoftNetFSCIL:
        """Learn further classes from a few examples of each; those of the classes before are not needed.

        Raises:
            BadInput: there are no base classes; a class is known already, or has no example.
        """
        refuse_later(self.classes, data)
        moving = {site: entries for site, entries in self._entries.items() if len(entries["at"])}
        if moving:  # at capacity 1 nothing is minor
            merged = self.delta.merge(self.encoder)
            try:
                changes = tuple(Placed(Minor(len(e["at"])), Where((), sites=(site,))) for site, e in moving.items())
                stage = self._stage(self.grow_epochs, self.grow_lr, len(data))
                objectives = (AmongAll(self.prototypes, self.temperature),)
                recipe = Recipe(changes, objectives, (stage,), start=FromBase(moving))
                found = tune(self.encoder, data, recipe, seed=self.seed + len(self.classes))
            finally:
                merged.undo()
            for holder in found.delta.each():
                self._entries[holder.site] = {name: t.detach() for name, t in holder.tensors.items()}
            # The minor entries are written, not added to, so that the last delta holds what those before it did.
            self.delta = Delta.joined(self.encoder, [self._base, found.delta])
        self.classes, self.prototypes = self.classes + data.classes, torch.cat([self.prototypes, self._means(data)])
        return self

    @torch.no_grad()
    def features(self, inputs: Tensor | Sequence[Any], batch: int = 64) -> Tensor:
        """``[n, d]`` of the encoder as it is now."""
        return features_of(self.encoder, self.delta, inputs, batch)

    def logits(self, inputs: Tensor | Sequence[Any]) -> Tensor:
        """``[n, C]``: less the squared distance to each prototype, or the cosine by tau."""
        if not self.classes:
            raise BadInput("there are no prototypes yet: call fit_base first")
        z = self.features(inputs)
        if self.metric == "cosine":
            return cosine(z, self.prototypes) / self.temperature
        return -sqeuclidean(z, self.prototypes)

    def predict(self, inputs: Tensor | Sequence[Any]) -> list[str]:
        """The name of the nearest class of each item."""
        return [self.classes[c] for c in self.logits(inputs).argmax(1).tolist()]

    def _means(self, data: Data) -> Tensor:
        z = self.features(data.inputs)
        return class_means(z, data.weighted.to(z))[0]

    def _stage(self, epochs: float, lr: float, batch: int) -> Stage:
        return Stage(epochs=epochs, lr=lr, batch=batch, rate="constant", update=lambda _: SGD(0.9, self.weight_decay))

    def _maps(self) -> list[str]:
        kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
        return [name for name, part in self.encoder.named_modules() if isinstance(part, kinds) or is_linear(part)]

    def _moves(self, site: str) -> bool:
        return named("tune_layers", self.tune_layers).search(site) is not None

    def _moving(self, masked: Sequence[str]) -> None:
        """Raise `BadInput` where no map is masked, none of them is to move later, or a parameter is in no module."""
        refuse_bare(self.encoder)
        if not masked:
            raise BadInput("the encoder has no convolution and no linear map that could be masked")
        for name in self.skip:
            if name not in self._maps():
                raise BadInput(f"skip: the encoder has no map {name!r}{nearest(name, self._maps())}")
        if not any(self._moves(name) for name in masked):
            raise BadInput(f"tune_layers {self.tune_layers!r} names none of the maps: {', '.join(masked[:8])}")

    def _rest(self, masked: Sequence[str]) -> tuple[Placed, ...]:
        """All other parameters learn as they are, and normalisations count the statistics of the base classes."""
        kinds: dict[str, list[str]] = {}
        for name, _ in self.encoder.named_parameters():
            site, _, kind = name.rpartition(".")
            if not (kind == "weight" and site in masked):
                kinds.setdefault(kind, []).append(site)
        counted = [
            n for n, part in self.encoder.named_modules() if isinstance(getattr(part, "running_mean", 0), Tensor)
        ]
        own = [Placed(Own(), Where((), kind, sites=tuple(at), tied=True)) for kind, at in kinds.items()]
        own += [
            Placed(Statistics(), Where((), k, sites=tuple(counted))) for k in ("running_mean", "running_var") if counted
        ]
        return tuple(own)
