"""STEEL with adapters of the encoder: learn by choosing among ready ones, with a certificate of the error.

Paper 005: Rezk, Lee, Gouk, Hospedales, Kim, "Model Diffusion for Certifiable Few-shot Transfer Learning", 2025.

    zoo      an adapter theta_t of p numbers for each of T other tasks, all from the same start; M = T hypotheses
    choose   theta* = argmin over the M of the errors on the support, ties by the lower log loss; no gradient
    certify  R(theta*) <= bound(errors, n, M, delta), see `handful.core.certificate`

An adapter says nothing of classes: it answers for any by their names, which it reads with the encoder it belongs to. So
one learnt on other classes is a classifier of the new ones. Linear classifiers in place of adapters:
`handful.adapt.steel`.

    zoo = AdapterZoo.learnt(model, other_tasks, lora_xs())
    chosen = CertifiedSelector(zoo, hypotheses_independent=True).fit(data)
    chosen.certificate_.statement
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from handful.adapt.parameters import count, finite, one_of
from handful.adapt.steel import best_of, clusters
from handful.core.certificate import BOUNDS, Bound, Certificate, risk_certificate
from handful.core.distances import unit
from handful.core.train import SGD
from handful.errors import BadInput
from handful.protocols import Progress
from handful.tune.delta import Delta, Placed
from handful.tune.loop import tune
from handful.tune.lora_sb import BRA
from handful.tune.modes import in_mode
from handful.tune.prompts import PromptTexts
from handful.tune.recipe import Data, Readout, Recipe, Stage
from handful.tune.sites import Where
from handful.tune.tuned import Tuned


class NamedTexts(Readout):
    """``s cos(f(item), f(text of c))``, the texts being the data's ``documents``: item and class by the same encoder.

    Args:
        scale: s.
    """

    def __init__(self, scale: float = 20.0) -> None:
        super().__init__()
        self.scale = scale

    def begin(self, model: nn.Module, data: Data, generator: torch.Generator) -> None:
        """Raises `BadInput` where no class has a text."""
        if not len(data.documents):
            raise BadInput("classes are known by their texts here: give Data documents, one a class")
        self.documents = data.documents

    def forward(self, features: Any, model: nn.Module) -> Tensor:
        words: Tensor = model(self.documents)
        return self.scale * unit(features) @ unit(words).mT


def lora_xs(
    rank: int = 8, *, where: Where | None = None, scale: float = 20.0, steps: int = 50, lr: float = 2e-3,
    batch: int = 32,
) -> Recipe:  # fmt: skip
    """Adapters of a text encoder: LoRA-XS, ``rank^2`` numbers a linear map (2,304 of a MiniLM at rank 8).

    Args:
        rank: of each map.
        where: which maps; all linear ones of the blocks.
        scale: of the cosines to class texts.
        steps, lr, batch: of AdamW on an upstream task.
    """
    changes = (Placed(BRA(rank, basis="weight"), Where() if where is None else where),)
    stage = Stage(steps=steps, lr=lr, batch=batch)
    return Recipe(changes, stages=(stage,), readout=lambda: NamedTexts(scale))


def prompts(template: str = "photo of {}.", *, steps: int = 200, lr: float = 2e-3, batch: int = 32) -> Recipe:
    """Adapters of a CLIP: vectors in place of the words around a class name (1,024 numbers for two words of 512).

    Args:
        template: how many words and where; see `handful.tune.prompts.PromptTexts`.
        steps, lr, batch: of SGD with a cosine on an upstream task, as CoOp has it.
    """
    stage = Stage(steps=steps, lr=lr, batch=batch, rate="cosine", trains=("readout",), update=lambda _: SGD(0.9, 5e-4))
    return Recipe(stages=(stage,), readout=lambda: PromptTexts(template))


@dataclass
class AdapterZoo:
    """Finitely many adapters of one kind of one encoder; fix them before the examples are seen that choose.

    Args:
        model: the encoder; it stays as it is.
        recipe: what an adapter is (changes, readout) and how one learns; see `lora_xs`, `prompts`.
        vectors: the adapters ``[M, p]``: numbers of the changes, then of the readout.
        seed: of the common start, and of the training.
        tasks: what the adapters learnt from, where that is known.
    """

    model: nn.Module
    recipe: Recipe
    vectors: Tensor
    seed: int = 0
    tasks: Sequence[Data] = ()

    def __post_init__(self) -> None:
        if self.vectors.dim() != 2 or not self.vectors.numel():
            raise BadInput(f"a zoo holds vectors [M, p], not an array of shape {tuple(self.vectors.shape)}")
        if not bool(self.vectors.isfinite().all()):
            raise BadInput("the zoo's vectors must be finite numbers")

    @classmethod
    def learnt(
        cls, model: nn.Module, tasks: Sequence[Data], recipe: Recipe, *, seed: int = 0, progress: Progress | None = None
    ) -> AdapterZoo:
        """An adapter for each of ``tasks``, all from the same start.

        Args:
            progress: called with (adapters done, adapters in all).

        Raises:
            BadInput: no tasks; adapters that cannot be compared; as `tune`.
        """
        if not tasks:
            raise BadInput("a zoo learns from other tasks: there are none")
        if recipe.readout is None:
            raise BadInput("the recipe has no readout that answers for classes by their names")
        found: list[Tensor] = []
        for number, task in enumerate(tasks, start=1):
            vector = _vector(tune(model, task, recipe, seed=seed))
            if found and len(vector) != len(found[0]):
                raise BadInput(
                    f"task {number} made {len(vector)} numbers and others {len(found[0])}: an adapter must not depend "
                    "on how many classes there are"
                )
            found.append(vector)
            if progress is not None:
                progress(number, len(tasks))
        return cls(model, recipe, torch.stack(found), seed, tuple(tasks))

    def start(self, data: Data) -> Tuned:
        """The common start, ready to answer for the classes of ``data``.

        Raises:
            BadInput: the zoo's vectors are of another length than its recipe makes.
        """
        assert self.recipe.readout is not None
        generator = torch.Generator().manual_seed(self.seed)
        readout = self.recipe.readout()
        readout.begin(self.model, data, generator)
        delta = Delta.begin(self.model, self.recipe.changes, generator)
        made = Tuned(self.model, delta, readout.eval(), data.classes)
        if len(_vector(made)) != self.vectors.shape[1]:
            p = self.vectors.shape[1]
            raise BadInput(f"the zoo has vectors of {p} numbers, its recipe makes {len(_vector(made))}")
        return made

    def put(self, adapter: Tuned, index: int) -> Tuned:
        """``adapter`` with the numbers of vector ``index`` written into it."""
        with torch.no_grad():
            vector_to_parameters(self.vectors[index].to(_vector(adapter)), _parts(adapter))
        return adapter

    @torch.no_grad()
    def logits(self, data: Data, indices: Sequence[int] | Tensor) -> Tensor:
        """``[m, n, C]`` of the items of ``data`` by the adapters of ``indices``; their labels are not looked at."""
        adapter = self.start(data)
        known = None
        if not self.recipe.changes:  # nothing is changed about what the model makes of the items
            every = torch.split(torch.arange(len(data)), 64)
            with in_mode(False, self.model):
                known = torch.cat([adapter.readout.look(self.model, data.take(rows)) for rows in every])
        out = []
        for index in map(int, indices):
            self.put(adapter, index)
            out.append(adapter.logits(data.inputs) if known is None else adapter.readout(known, self.model))
        return torch.stack(out)


@dataclass
class CertifiedSelector:
    """The adapter of a zoo that errs least on a few examples, and what is certain of its error on new ones.

    Args:
        zoo: the hypotheses.
        delta: chance that the certificate does not hold.
        bound: see `handful.core.certificate`.
        search: ``"all"``, or ``"clusters"``: the middles of clusters first, then the members of the best of them.
        top_clusters: how many are the best.
        hypotheses_independent: say that the zoo was not made with these examples; no certificate without it.
        seed: of the clusters.

    Attributes (after ``fit``):
        chosen: the adapter, as `Tuned`.
        index: which of the zoo.
        errors: on the examples.
        certificate_: see `Certificate`; asking for it raises `BadInput` where its assumptions do not hold.
    """

    zoo: AdapterZoo
    delta: float = 0.05
    bound: Bound = "binomial"
    search: Literal["all", "clusters"] = "all"
    top_clusters: int = 15
    hypotheses_independent: bool = False
    seed: int = 0
    chosen: Tuned = field(init=False)
    index: int = field(init=False)
    errors: int = field(init=False)

    def __post_init__(self) -> None:
        one_of("bound", self.bound, BOUNDS)
        one_of("search", self.search, ("all", "clusters"))
        count("top_clusters", self.top_clusters, 1)
        if finite("delta", self.delta, above=0, most=1) >= 1:
            raise BadInput("delta must be below 1")

    def fit(self, data: Data) -> CertifiedSelector:
        """Choose by ``data``.

        Raises:
            BadInput: an item has several labels or a share of them; as `AdapterZoo.start`.
        """
        if bool(((data.targets != 0) & (data.targets != 1)).any()) or bool((data.targets.sum(1) != 1).any()):
            raise BadInput("errors are counted: give each item one label")
        looked = torch.arange(len(self.zoo.vectors))
        groups = clusters(self.zoo.vectors, self.seed) if self.search == "clusters" else None
        if groups is not None:
            middle, member = groups
            order = self._judged(data, middle)[0].argsort(stable=True)
            looked = torch.isin(member, order[: self.top_clusters]).nonzero()[:, 0]
        at, errors = best_of(*self._judged(data, looked))
        self.index, self.errors = int(looked[at]), round(float(errors))
        self.chosen = self.zoo.put(self.zoo.start(data), self.index)
        self._certificate = self._certified(data)
        return self

    @property
    def certificate_(self) -> Certificate:
        """Raises `BadInput` where an assumption of the certificate does not hold, naming it; before `fit`."""
        found: Certificate | str = getattr(self, "_certificate", "nothing was chosen yet: call fit first")
        if isinstance(found, str):
            raise BadInput(f"no certificate: {found}")
        return found

    def logits(self, inputs: Any) -> Tensor:
        """``[n, C]`` by the chosen adapter."""
        if not hasattr(self, "chosen"):
            raise BadInput("nothing was chosen yet: call fit first")
        return self.chosen.logits(inputs)

    def predict(self, inputs: Any) -> list[str]:
        """The class of each item."""
        return [self.chosen.classes[c] for c in self.logits(inputs).argmax(1).tolist()]

    def _judged(self, data: Data, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Errors and log loss of the adapters ``[m]``."""
        logits, labels = self.zoo.logits(data, indices).double(), data.labels
        errors = (logits.argmax(-1) != labels).sum(-1).double()
        each = functional.cross_entropy(logits.mT, labels.expand(len(logits), -1), reduction="none")
        return errors, each.sum(-1)

    def _certified(self, data: Data) -> Certificate | str:
        if self.hypotheses_independent is not True:
            return "say hypotheses_independent=True if the zoo was not made with these examples"
        if shared := sum(task.shared(data) for task in self.zoo.tasks):
            return f"the zoo learnt from {shared} of these examples; take others"
        if data.weight is not None and len(data.weight.unique()) > 1:  # type: ignore[no-untyped-call]
            return "examples of different weight are no independent draws: give no weight"
        counts = data.targets.sum(0)
        return risk_certificate(
            self.errors, len(data), len(self.zoo.vectors), self.delta, self.bound,
            classes=len(data.classes), balanced=bool((counts == counts[0]).all()),
        )  # fmt: skip


def _parts(adapter: Tuned) -> list[Tensor]:
    return [*adapter.delta.parameters(), *adapter.readout.parameters()]


def _vector(adapter: Tuned) -> Tensor:
    parts = _parts(adapter)
    if not parts:
        raise BadInput("the recipe changes nothing and has a readout without numbers: there is no adapter")
    return parameters_to_vector(parts).detach().clone()
