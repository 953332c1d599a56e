"""A small plug-in that takes a social bias out of a masked language model, learnt once and frozen in later tuning
(188, PEFTDebias: Capturing debiasing information using PEFTs, 2023).

    upstream     the base is frozen, phi learns on texts of one axis (gender, race, religion):
                 cda          words are covered in texts and their counterfactuals (`counterfactual`, `cloze`)
                 adversarial  a head on the first token tells the group, its gradient reversed (`first_token`)
    phi          a sparse update W + M D, found as a lottery ticket: everything learns with the penalty
                 0.1 sum |theta - theta_0| / P, the 1 % of entries that moved most learn once more from theta_0;
                 or low-rank changes, or adapters, or whatever is placed
    downstream   phi goes in before training and stays as it is, all else and a new head learn the task (``"before"``);
                 or phi is added to what was trained without it (``"after"``)

    phi = Debias("gender").fit(model, texts)
    tuned = with_debias(model, phi.delta, Data(prompts, labels))

A file of phi (`save_delta`) is read with `load_delta` inside ``untied(model.tower)``, as a head for words often shares
its table with the model. What comes out is measured by `handful.evaluate.bias` and `handful.evaluate.sentence_pairs`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from handful.core.train import AdamW
from handful.encode.language_tower import LanguageTower
from handful.encode.lm import LanguageModel
from handful.encode.prompt import Prompt
from handful.errors import BadInput
from handful.protocols import Progress
from handful.tune.adapters import Adapter
from handful.tune.cloze import Cloze
from handful.tune.counterfactual import Mode, Rows, counterfactual, refuse_others
from handful.tune.delta import Delta, Placed, fingerprint_of
from handful.tune.fillers import CrossEntropy
from handful.tune.first_token import FirstToken
from handful.tune.loop import tune
from handful.tune.lora import LoRA
from handful.tune.masked import At, Masked, Others, chosen, movement
from handful.tune.own import Own
from handful.tune.recipe import Data, Recipe, Seen, Stage
from handful.tune.sites import Where, sites
from handful.tune.tuned import Tuned

Peft = Literal["sft", "lora", "adapter"]
Way = Literal["cda", "adversarial"]
When = Literal["before", "after", "none"]
PEFTS: Mapping[str, tuple[Placed, ...]] = {
    "lora": (Placed(LoRA(8, 8.0), Where(("q", "v"))),),
    "adapter": (Placed(Adapter("after", 16.0), Where(("down",))),),
}


@dataclass(frozen=True)
class Lasso:
    """``strength sum |f(W) - W| / P`` over all weights that a change is in; P numbers has the model."""

    strength: float
    name = "lasso"
    separable = True

    def __call__(self, seen: Seen) -> Tensor:
        learns = {id(p) for p in seen.learns}
        numbers = sum(p.numel() for p in seen.model.parameters() if id(p) not in learns)
        total = torch.zeros(())
        for module in seen.model.modules():
            if parametrize.is_parametrized(module):
                changed: Any = module.parametrizations
                total = total + sum((getattr(module, name) - changed[name].original).abs().sum() for name in changed)
        return self.strength * total / numbers


@dataclass(frozen=True)
class Debiased:
    """What `Debias.fit` gives.

    Attributes:
        delta: phi, at weights of the model without its head for words.
        losses: of each step of the (last) round.
        rows: texts that were learnt from.
    """

    delta: Delta
    losses: list[float]
    rows: int


@dataclass(frozen=True)
class Debias:
    """See `handful.tune.debias`.

    Args:
        axis: one of `handful.tune.counterfactual.AXES`, or rows of words.
        way: ``"cda"`` or ``"adversarial"``.
        peft: ``"sft"``, ``"lora"``, ``"adapter"``, or what is placed where.
        mode: of `counterfactual`.
        keep: share of the entries that a sparse update has.
        l1: strength of the penalty in both rounds of a sparse update.
        covered: share of covered words.
        cloze: whether ``"adversarial"`` covers words as well.
        reverse: strength of the reversed gradient.
        steps, lr: 10,000 at 5e-5, for ``"adversarial"`` 20,000 at 1e-5; of each round of a sparse update.
        batch: 128 for gender with counterfactuals, else 32.
        length: tokens of a text at most.
        seed: of every draw.
    """

    axis: str | Rows = "gender"
    way: Way = "cda"
    peft: Peft | tuple[Placed, ...] = "sft"
    mode: Mode | None = None
    keep: float = 0.01
    l1: float = 0.1
    covered: float = 0.15
    cloze: bool = False
    reverse: float = 1.0
    steps: int | None = None
    lr: float | None = None
    batch: int | None = None
    length: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        if self.way not in get_args(Way):
            raise BadInput(f"way is 'cda' or 'adversarial', not {self.way!r}")
        if isinstance(self.peft, str) and self.peft not in get_args(Peft):
            raise BadInput(f"peft is 'sft', 'lora', 'adapter', or placed changes, not {self.peft!r}")
        if not (self.l1 >= 0 and self.reverse >= 0):
            raise BadInput(f"l1 and reverse must not be negative: {self.l1} and {self.reverse}")
        if (self.steps is not None and self.steps < 1) or self.length < 3:
            raise BadInput(
                f"steps are at least 1 and length at least 3, two of it special: {self.steps}, {self.length}"
            )

    def fit(
        self, model: LanguageModel, texts: Sequence[str], groups: Sequence[Any] = (), *,
        weights: Mapping[Any, float] | None = None, progress: Progress | None = None,
    ) -> Debiased:  # fmt: skip
        """Learn phi; the model stays as it is.

        Args:
            model: masked.
            texts: of the axis.
            groups: of each text the group of whom it is about, for ``"adversarial"``.
            weights: of each group in the loss, where they are not equally frequent; 1 by default.
            progress: called with (steps done, steps in all) of a round.

        Raises:
            BadInput: the model is not masked; no text has a word of the axis; groups are missing, or are only one.
        """
        if model.kind != "masked":
            raise BadInput(
                f"{model.name!r} is {model.kind}; words are covered, and a first token read, of a masked model"
            )
        if _words(model.tower) is None:
            raise BadInput(f"{model.name!r} has no head for words, so that it cannot say which ones are covered")
        data, recipe = self._learning(model, texts, groups, weights)
        tower = model.tower
        run = partial(tune, tower, data, seed=self.seed, progress=progress)
        with untied(tower):
            if self.peft == "sft":
                sparse = replace(recipe, objectives=(*recipe.objectives, Lasso(self.l1)))
                full = run(replace(sparse, changes=(*inside(tower), *recipe.changes)))
                changes, start = chosen(movement(_phi(full.delta, tower), tower), self.keep)
                found = run(replace(sparse, changes=(*changes, *recipe.changes), start=start))
            else:
                placed = PEFTS[self.peft] if isinstance(self.peft, str) else self.peft
                found = run(replace(recipe, changes=(*placed, *recipe.changes)))
            return Debiased(_phi(found.delta, tower), found.losses, len(data))

    def _learning(
        self, model: LanguageModel, texts: Sequence[str], groups: Sequence[Any], weights: Mapping[Any, float] | None
    ) -> tuple[Data, Recipe]:
        """What is learnt from, and how; the changes are those of the head for words, which is not kept."""
        cda = self.way == "cda"
        stage = Stage(
            steps=self.steps if self.steps is not None else 10_000 if cda else 20_000,
            lr=self.lr if self.lr is not None else 5e-5 if cda else 1e-5,
            batch=self.batch if self.batch is not None else 128 if cda and self.axis == "gender" else 32,
            clip=1.0, update=lambda decay: AdamW(weight_decay=decay),
        )  # fmt: skip
        words = Cloze(model.tokenizer, self.covered)
        if cda:
            if len(groups):
                raise BadInput("groups are for way='adversarial'; counterfactuals need only the texts")
            changed = counterfactual(texts, self.axis, self.mode, seed=self.seed)
            data = Data(prompts_of(model, changed, self.length), torch.zeros(len(changed), dtype=torch.long), ("text",))
            return data, Recipe(self._head(model.tower), (words,), (stage,))
        names = sorted(set(groups), key=str)
        if len(groups) != len(texts) or len(names) < 2:
            raise BadInput(f"{len(texts)} texts need a group each, two different at least; {len(groups)} are given")
        if unknown := [one for one in weights or {} if one not in names]:
            raise BadInput(f"there is a weight for the group {unknown[0]!r}, of which there is no text")
        labels = torch.tensor([names.index(one) for one in groups])
        weight = torch.tensor([(weights or {}).get(one, 1.0) for one in groups])
        data = Data(prompts_of(model, texts, self.length), labels, tuple(map(str, names)), weight)
        head = partial(FirstToken, 0.3, None, self.reverse)
        changes = self._head(model.tower) if self.cloze else ()
        objectives = (CrossEntropy(), words) if self.cloze else (CrossEntropy(),)
        return data, Recipe(changes, objectives, (stage,), readout=head)

    def _head(self, tower: LanguageTower) -> tuple[Placed, ...]:
        """The head for words learns along, but for its table and norms."""
        table = next(name for name, module in tower.named_modules() if module is _words(tower))
        found = {"weight": [name for name in _where(tower, "weight", False) if name != table]}
        found["bias"] = _where(tower, "bias", False)  # the table's bias may be that of the head as well
        return tuple(Placed(Own(), Where((), k, sites=tuple(names), tied=True)) for k, names in found.items() if names)


def with_debias(
    model: LanguageModel, phi: Delta | None, data: Data, *, when: When = "before", epochs: float = 5, lr: float = 2e-5,
    batch: int = 32, seed: int = 0, progress: Progress | None = None,
) -> Tuned:  # fmt: skip
    """A classifier on the first token, all of the model tuned but phi and the norms.

    Args:
        model: the one phi was made for.
        phi: what `Debias` has learnt, of these texts or of others of the same axis.
        data: `prompts_of` texts and their classes; ``weight`` for classes that are rare.
        when: ``"before"`` training, ``"after"`` it, or ``"none"``.
        epochs, lr, batch: of training; the paper takes 5 or 10 epochs and the best state on held-out examples.
        seed: of every draw.
        progress: called with (steps done, steps in all).

    Returns:
        Both as one delta of the model.

    Raises:
        BadInput: phi belongs to another model, or is missing; `when` is none of the three; items are no prompts, or
            of a single class.
    """
    if when not in get_args(When):
        raise BadInput(f"when is 'before', 'after' or 'none', not {when!r}")
    if phi is None and when != "none":
        raise BadInput("there is no plug-in to take in; give phi, or when='none'")
    if len(data.classes) < 2:
        raise BadInput(f"there is a single class, {data.classes[0]!r}: nothing is to be told apart")
    if not all(isinstance(one, Prompt) for one in data.inputs):
        raise BadInput("the items of the data are no prompts; make them of texts with prompts_of")
    tower = model.tower
    stage = Stage(epochs=epochs, lr=lr, batch=batch, clip=1.0)
    with untied(tower):
        first = phi if when == "before" else None
        kept = {f"{h.site}.{h.parameter}": h for h in first.each() if isinstance(h.change, Masked)} if first else {}
        changes = inside(tower, {name: len(h.tensors["at"]) for name, h in kept.items()})
        start = At({name: h.tensors["at"] for name, h in kept.items()})
        recipe = Recipe(changes, stages=(stage,), readout=FirstToken, start=start)
        with _in_place(tower, first):
            tuned = tune(tower, data, recipe, seed=seed, progress=progress)
        both = [tuned.delta] if when == "none" or phi is None else [phi, tuned.delta][:: 1 if when == "before" else -1]
        return replace(tuned, delta=Delta.joined(tower, both))


def prompts_of(model: LanguageModel, texts: Sequence[str], length: int = 256) -> list[Prompt]:
    """Texts as the model takes them, their first ``length`` tokens. Raises `BadInput` for what is no text."""
    refuse_others(texts)
    most = min(length, model.most)
    return [Prompt.of(model.tokenizer.encode(text, truncation=True, max_length=most), None) for text in texts]


def inside(tower: LanguageTower, kept: Mapping[str, int] | None = None) -> tuple[Placed, ...]:
    """Everything in the body of the model learns but its norms; of the parameters in ``kept`` so many entries stay."""
    kept = kept or {}
    placed = [Placed(Others(n), _at(name)) for name, n in kept.items()]
    for kind in dict.fromkeys(name.rpartition(".")[2] for name, _ in tower.named_parameters()):
        if found := tuple(name for name in _where(tower, kind, True) if f"{name}.{kind}" not in kept):
            placed.append(Placed(Own(), Where((), kind, sites=found)))
    return tuple(placed)


@contextmanager
def untied(tower: LanguageTower) -> Iterator[None]:
    """Inside, a head for words that shares the table of words has one of its own, which stays as it is."""
    head, table = _words(tower), tower.body.get_input_embeddings().weight  # type: ignore[operator]
    if head is None or head.weight is not table:
        yield
        return
    head.weight = nn.Parameter(table.detach().clone(), requires_grad=False)
    try:
        yield
    finally:
        head.weight = table


@contextmanager
def _in_place(tower: LanguageTower, phi: Delta | None) -> Iterator[None]:
    """The tower with phi: in its weights where that is possible, else beside them."""
    if phi is None:
        yield
    elif all("weight" in holder.change.modes for holder in phi.each()):
        merged = phi.merge(tower)
        try:
            yield
        finally:
            merged.undo()
    else:
        phi.check_base(tower)
        with phi.attached(tower):
            yield


def _phi(delta: Delta, tower: LanguageTower) -> Delta:
    """What of ``delta`` lies in the body."""
    holders = [holder for holder in delta.each() if _inside(tower, holder.site)]
    return Delta(holders, fingerprint_of(tower, holders))


def _words(tower: LanguageTower) -> Any:
    return tower.body.get_output_embeddings()  # type: ignore[operator]


def _inside(tower: LanguageTower, name: str) -> bool:
    base = getattr(tower.body, "base_model_prefix", "")
    return name.startswith(f"body.{base}.")


def _where(tower: LanguageTower, kind: str, within: bool) -> list[str]:
    """Sites in the body, or outside of it, that have such a parameter and are no norms."""
    every = (site.name for site in sites(tower) if site.role != "norm" and _inside(tower, site.name) == within)
    return [name for name in every if isinstance(getattr(tower.get_submodule(name), kind, None), Tensor)]


def _at(name: str) -> Where:
    site, _, kind = name.rpartition(".")
    return Where((), kind, sites=(site,))
