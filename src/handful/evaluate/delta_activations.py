"""A vector for every fine-tuned model: what it answers to prompts that say nothing (200, Delta Activations, 2025).

    e(f)      mean over probes of the last hidden state at the last token ``[d]``
    Delta(f)  = e(f) - e(base)           compared by cosine

`Read` is what stands for e: of language models `LastToken`, `LastLogits` or `Answers`, of encoders `Pooled`; any other
of a fixed size makes a Delta of its own. The vector belongs to the model, not to its function: one that turns its last
states and turns them back in the head for words answers the same and has another vector.

    index = ModelIndex(model.tower, LastToken.of(model))
    index.add("contracts", delta, {"domain": "law"})
    index.search(index.of_task(data, recipe))     # which of them fits these twenty examples?
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy, deepcopy
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from handful.core.library import Found, Library
from handful.encode.language_tower import LanguageTower
from handful.encode.lm import LanguageModel
from handful.encode.prompt import Prompt
from handful.encode.say import say
from handful.errors import BadInput
from handful.protocols import Encoder
from handful.tune.delta import Delta, attached
from handful.tune.loop import tune
from handful.tune.modes import in_mode
from handful.tune.recipe import Data, Recipe

_AFTER = "\n\n### Instruction:\n{task} Input:{input}\n\n### Response:"
PROBES: tuple[str, ...] = tuple(
    (opening + _AFTER).format(task="Please provide a response.", input="Input.")
    for opening in (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.",
        "The task described below requires a response that completes the request accurately.",
        "Below is a description of a task. Provide a response that aligns with the requirements.",
        "The following instruction outlines a task. Generate a response that meets the specified request.",
        "You are given an instruction and input. Write a response that completes the task as requested.",
    )
)
"""The authors' five, which ask for nothing."""
NEUTRAL = ("This is a text.", "Here is some text.", "A sentence.", "Something is said here.", "Please read this.")
"""Sentences that say nothing, for encoders."""
Read = Callable[[nn.Module], Tensor]
"""From a model ``[d]``; it is read outside of training, without a gradient."""


@dataclass(frozen=True)
class LastToken:
    """e as the paper has it, of a `LanguageTower`; each probe is read alone, so that nothing is filled up.

    Args:
        prompts: the probes.
        layer: of the hidden states, -1 the last, behind the last norm where the model has one.
        token: -1 the last one; ``"mean"`` of all.
    """

    prompts: tuple[Prompt, ...]
    layer: int = -1
    token: int | Literal["mean"] = -1

    def __post_init__(self) -> None:
        if not isinstance(self.layer, int) or not (self.token == "mean" or isinstance(self.token, int)):
            raise BadInput(f"layer is a number, token one or 'mean', not {self.layer!r} and {self.token!r}")

    @classmethod
    def of(
        cls, model: LanguageModel, probes: Sequence[str] = PROBES, *, layer: int = -1,
        token: int | Literal["mean"] = -1, most: int = 256,
    ) -> LastToken:  # fmt: skip
        """Probes as ``model`` reads them, cut after ``most`` tokens."""
        return cls(tuple(_prompts(model, probes, most)), layer, token)

    def __call__(self, tower: nn.Module) -> Tensor:
        rows = []
        for prompt in self.prompts:
            asked = cast(LanguageTower, tower)
            states = asked.body(**asked.inputs([prompt]), output_hidden_states=True).hidden_states
            try:
                h = states[self.layer][0].float()
                rows.append(h.mean(0) if self.token == "mean" else h[self.token])
            except IndexError as error:
                shape = f"{len(states)} layers of states and {len(prompt.ids)} tokens"
                raise BadInput(f"there is no layer {self.layer} or token {self.token}: {shape}") from error
        return torch.stack(rows).mean(0)


@dataclass(frozen=True)
class LastLogits:
    """The logits of the word behind each probe, in the mean ``[V]``."""

    prompts: tuple[Prompt, ...]

    @classmethod
    def of(cls, model: LanguageModel, probes: Sequence[str] = PROBES, most: int = 256) -> LastLogits:
        """As `LastToken.of`."""
        return cls(tuple(_prompts(model, probes, most)))

    def __call__(self, tower: nn.Module) -> Tensor:
        return torch.cat([tower([prompt]).float() for prompt in self.prompts]).mean(0)


@dataclass(frozen=True)
class Answers:
    """The mean vector that an encoder gives of what the model says to the probes, the likeliest word at a time.

    Args:
        model: the base, for its tokenizer.
        encoder: of texts.
        probes: see `PROBES`.
        tokens: of an answer, at most.
    """

    model: LanguageModel
    encoder: Encoder
    probes: tuple[str, ...] = PROBES
    tokens: int = 32

    def __call__(self, tower: nn.Module) -> Tensor:
        asked = copy(self.model)
        asked.tower = cast(LanguageTower, tower)
        said = say(asked, _prompts(self.model, self.probes, 256), self.tokens, stop=None)
        return (
            torch.from_numpy(np.asarray(self.encoder.encode([one or "." for one in said], cache=False))).float().mean(0)
        )


@dataclass(frozen=True)
class Pooled:
    """The mean of what an encoder's network gives ``[d]``.

    Args:
        inputs: neutral items as it takes them, such as ``encoder.inputs(NEUTRAL)``.
    """

    inputs: Any

    def __call__(self, tower: nn.Module) -> Tensor:
        return cast(Tensor, tower(self.inputs)).float().mean(0)


def _prompts(model: LanguageModel, probes: Sequence[str], most: int) -> list[Prompt]:
    if not probes or most < 1:
        raise BadInput("there is no probe, or none of its tokens is read")
    mask = model.tokenizer.mask_token_id if model.kind == "masked" else None
    ids = [model.tokenizer.encode(text)[: min(most, model.most)] for text in probes]
    return [Prompt.of(some, mask) for some in ids]


@dataclass
class ModelIndex:
    """Fine-tuned models by their vectors.

    Args:
        base: the network that all of them were tuned from; not changed. Of half precision it is read in single.
        read: what is read of it, see `Read`.
    """

    base: nn.Module
    read: Read
    library: Library = field(default_factory=Library)

    def __post_init__(self) -> None:
        self._network = _single(self.base)
        self._base = self._of(self._network, None)

    def vector(self, model: Delta | nn.Module) -> Tensor:
        """Delta ``[d]`` of changes of the base, or of a model that was tuned as a whole.

        Raises:
            BadInput: the changes are another model's; the model has other parameters than the base, or is none.
        """
        if isinstance(model, Delta):
            model.check_base(self._network)
            return self._of(self._network, model) - self._base
        if not isinstance(model, nn.Module):
            raise BadInput(f"a vector is of a Delta or of a network, not of {model!r:.60}")
        mine, theirs = ({n: tuple(p.shape) for n, p in m.named_parameters()} for m in (self.base, model))
        for name in sorted({*mine.items()} ^ {*theirs.items()}):
            raise BadInput(f"the model is no fine-tuned base: {name[0]} differs in shape, or is missing in one")
        return self._of(_single(model), None) - self._base

    def add(self, name: str, model: Delta | nn.Module, about: Mapping[str, object] | None = None) -> Tensor:
        """Keep a model's vector, and give it back. Raises `BadInput` as `vector`; the model is the base unchanged."""
        vector = self.vector(model)
        self.library.add(name, vector, about)
        return vector

    def search(self, vector: Tensor, k: int | None = None) -> tuple[Found, ...]:
        """The nearest models by cosine; see `Library.search`."""
        return self.library.search(vector, k)

    def of_task(self, data: Data, recipe: Recipe, *, seed: int = 0) -> Tensor:
        """Delta of the base tuned on a few examples of a task, as the models of the index were.

        Of their seed too, where a readout begins at random: that of another one turns the vector elsewhere.
        """
        return self.vector(tune(self._network, data, recipe, seed=seed).delta)

    def silhouette(self, label: str = "domain", *, clip: bool = True) -> float:
        """How well models of one label lie together; see `silhouette`. Raises `BadInput` for a model without one."""
        if lacking := [name for name in self.library.vectors if label not in self.library.about[name]]:
            raise BadInput(f"model {lacking[0]!r} has no {label!r}; say it in add(name, model, {{{label!r}: …}})")
        labels = [str(self.library.about[name][label]) for name in self.library.vectors]
        return silhouette(self.library.cosines().numpy(), labels, clip=clip)

    def picture(self) -> np.ndarray:
        """Two coordinates a model ``[n, 2]`` by t-SNE, as the authors draw them. Raises `BadInput` for fewer than 3."""
        from sklearn.manifold import TSNE

        if len(self.library.vectors) < 3:
            raise BadInput(f"a picture takes three models, not {len(self.library.vectors)}")
        rows = torch.stack(list(self.library.vectors.values())).numpy()
        return np.asarray(TSNE(perplexity=2, random_state=42).fit_transform(rows))

    @torch.no_grad()
    def _of(self, model: nn.Module, delta: Delta | None) -> Tensor:
        with in_mode(False, model), attached(delta, model):
            return self.read(model).detach().clone()


def _single(model: nn.Module) -> nn.Module:
    """The network, or a copy in single precision of one in half."""
    half = any(p.dtype in (torch.float16, torch.bfloat16) for p in model.parameters())
    return deepcopy(model).float() if half else model


def silhouette(cosines: np.ndarray, labels: Sequence[str], *, clip: bool = True) -> float:
    """The mean silhouette of models by ``1 - cosine``; labels of a single model are left out.

    Args:
        cosines: ``[n, n]``.
        labels: n of them.
        clip: distances above 1, of vectors that point away from each other, count as 1, as in the authors' code.

    Raises:
        BadInput: no two labels have two models or more.
    """
    from sklearn.metrics import silhouette_score

    counts = {label: list(labels).count(label) for label in labels}
    kept = [i for i, label in enumerate(labels) if counts[label] >= 2]
    if len({labels[i] for i in kept}) < 2:
        raise BadInput("a silhouette takes two labels with two models each, or more")
    distance = (1 - cosines[np.ix_(kept, kept)]).clip(0, 1 if clip else 2)
    np.fill_diagonal(distance, 0)
    return float(silhouette_score(distance, [labels[i] for i in kept], metric="precomputed"))


def additivity(first: Tensor, second: Tensor, mixed: Tensor) -> dict[str, float]:
    """Cosines with the vector of a model tuned on two data sets together: of the ``sum`` of their own, and of each.

    Raises:
        BadInput: they are not as long as each other.
    """
    if not first.shape == second.shape == mixed.shape or first.dim() != 1:
        shapes = [tuple(v.shape) for v in (first, second, mixed)]
        raise BadInput(f"vectors of one index are as long as each other, not of {shapes}")
    rows = {"sum": first + second, "first": first, "second": second}
    return {name: float(torch.cosine_similarity(row, mixed, dim=0)) for name, row in rows.items()}


def robustness(vectors: Sequence[Tensor]) -> dict[str, float]:
    """How alike the vectors of one task are, tuned in several ways (rate, epochs, order, kind of change): the ``least``
    and the ``mean`` cosine of two of them. Raises `BadInput` for fewer than two.
    """
    if len(vectors) < 2:
        raise BadInput(f"robustness takes two vectors of a task or more, not {len(vectors)}")
    rows = nn.functional.normalize(torch.stack(list(vectors)), dim=1)
    pairs = (rows @ rows.mT)[torch.ones(len(rows), len(rows)).triu(1).bool()]
    return {"least": float(pairs.min()), "mean": float(pairs.mean())}
