"""How well a language model answers: chooses among options, or writes; with examples in the prompt or without.

    options     the one with the highest log-likelihood a token; of equal ones one at random
    free text   what the model goes on to say

What judges answers takes an `Answerer`, so that anything that answers can be judged: a model as it is, a tuned one
(`answerer`), a table of answers.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from handful.core.intervals import Estimate, mean_interval, wilson
from handful.encode.lm import LanguageModel
from handful.encode.prompt import Prompt
from handful.encode.say import say
from handful.errors import BadInput
from handful.evaluate.wording import measured
from handful.pretrain.examples import Example, Framing, checked, with_shots
from handful.tune.delta import attached
from handful.tune.tuned import Tuned

Answerer = Callable[[Sequence[Example]], list[str]]
"""An answer to each example."""


def answerer(
    model: LanguageModel,
    tuned: Tuned | None = None,
    framing: Framing | None = None,
    *,
    most: int = 8,
    stop: str | None = "\n",
    seed: int = 0,
) -> Answerer:
    """What asks a language model.

    Args:
        model: of any kind; one that fills masks can only choose.
        tuned: what was learnt about it.
        framing: as it was tuned.
        most, stop: see `say`.
        seed: of what is drawn among equals.
    """
    frame = framing or Framing()

    def ask(examples: Sequence[Example]) -> list[str]:
        out = [""] * len(examples)
        choosing = [i for i, one in enumerate(examples) if one.options]
        writing = [i for i, one in enumerate(examples) if not one.options]
        prompts = prompted(frame, model, examples)
        with attached(tuned.delta if tuned else None, model.tower):
            if choosing:
                found = model.score([prompts[i] for i in choosing], [examples[i].options for i in choosing])
                for i, best in zip(choosing, chosen(found, seed), strict=True):
                    out[i] = examples[i].options[best]
            if writing:
                said = say(model, [prompts[i] for i in writing], most, stop=stop)
                for i, text in zip(writing, said, strict=True):
                    out[i] = text
        return out

    return ask


def prompted(frame: Framing, model: LanguageModel, examples: Sequence[Example]) -> list[Prompt]:
    """What the model is asked. Warns where inputs are cut, at their end, where the question stands."""
    before = frame.cut["inputs"]
    prompts = [frame.prompt(model, one.inputs) for one in examples]
    if cut := frame.cut["inputs"] - before:
        most = min(frame.most_in, model.most - 1)
        told = f"{cut} of {len(examples)} inputs are longer than {most} tokens and cut at their end"
        warnings.warn(f"{told}; show fewer examples, or allow more in Framing(most_in=…)", stacklevel=2)
    return prompts


def chosen(scores: torch.Tensor, seed: int = 0) -> list[int]:
    """The highest of each row ``[n, C]``; of equal ones one at random, so that a blank model is right 1 time in C."""
    best = scores >= scores.amax(1, keepdim=True)
    draw = torch.rand(scores.shape, generator=torch.Generator().manual_seed(seed))
    return torch.where(best, draw, -1.0).argmax(1).tolist()


def right(examples: Sequence[Example], said: Sequence[str], measure: str = "answer") -> np.ndarray:
    """How right each answer is ``[n]``: for options 1 where it is the wanted one, for free text by `measured`."""
    wanted = [one.targets for one in checked(examples, "to judge by")]
    out = measured(said, wanted, measure)
    for i, one in enumerate(examples):
        if one.options:
            if one.targets not in one.options:
                raise BadInput(f"example {i} to judge by wants {one.targets!r}, which is none of its options")
            out[i] = float(said[i] == one.targets)
    return out


def shown(
    queries: Sequence[Example], pool: Sequence[Example], k: int, seed: int = 0, between: str = "\n", apart: str = "\n\n"
) -> list[Example]:
    """The queries, each behind k examples of the pool, drawn anew for each and never itself; as they are for k = 0.

    Raises:
        BadInput: the pool has fewer than k others.
    """
    if k == 0:
        return list(queries)
    rng, out = np.random.default_rng(seed), []
    for query in queries:
        others = [one for one in pool if (one.inputs, one.targets) != (query.inputs, query.targets)]
        if k < 0 or len(others) < k:
            raise BadInput(f"{k} examples are to be shown, but there are {len(others)} beside the query")
        pairs = [(others[i].inputs, others[i].targets) for i in rng.permutation(len(others))[:k]]
        out.append(replace(query, inputs=with_shots(query.inputs, pairs, between, apart)))
    return out


@dataclass(frozen=True)
class Learnt:
    """How well tasks are answered with k examples shown.

    Args:
        k: how many.
        tasks: by name, over draws and queries; queries are what the interval is of.
        mean: over tasks.
    """

    k: int
    tasks: Mapping[str, Estimate]
    mean: Estimate


def in_context(
    answer: Answerer,
    tasks: Mapping[str, tuple[Sequence[Example], Sequence[Example]]],
    k: int = 4,
    seeds: Sequence[int] = (0, 1, 2),
    *,
    measure: str = "answer",
    between: str = "\n",
    apart: str = "\n\n",
) -> Learnt:
    """Judge learning from examples in the prompt, without any update of weights (109).

    Args:
        answer: what is judged.
        tasks: by name queries, and the pool that what is shown is drawn from.
        k: examples that are shown.
        seeds: of draws.
        measure: of free text; see `measured`.
        between, apart: what stands between input and answer, and between examples.

    Raises:
        BadInput: no tasks or seeds; a pool is too small.
    """
    if not tasks or not seeds:
        raise BadInput("give at least one task and one seed")
    found = {}
    for name, (queries, pool) in tasks.items():
        each = [right(queries, answer(shown(queries, pool, k, seed, between, apart)), measure) for seed in seeds]
        found[name] = share(np.mean(each, axis=0))
    means = np.array([one.value for one in found.values()])
    mean = mean_interval(means, within=(0.0, 1.0)) if len(means) > 1 else next(iter(found.values()))
    return Learnt(k, found, mean)


def share(values: np.ndarray) -> Estimate:
    """The mean of values from 0 to 1 ``[n]``: Wilson's interval of right and wrong, else Student's t."""
    if set(np.unique(values)) <= {0.0, 1.0}:
        return wilson(float(values.sum()), len(values))
    return mean_interval(values, within=(0.0, 1.0))
