"""How many instructions, and which (paper 185, Jha et al., LIMIT: Less Is More for Instruction Tuning Across Evaluation
Paradigms, 2023): a few thousand, judged both by benchmarks and by how free answers are liked.

    mixes       a small set of open answers, subsets of a large set like textbooks, both together
    A           accuracy on a gauntlet of benchmarks, chance taken off (`handful.evaluate.gauntlet`)
    B           how often its answers are preferred to another model's (`handful.evaluate.preferences`)
    front       mixes that no other beats on one without losing on the other
    advised     the fewest examples within one standard error of the best, on each paradigm and on both
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral
from typing import Any, Literal

import numpy as np
import torch

from handful.core.intervals import mean_interval
from handful.encode.lm import LanguageModel
from handful.errors import BadInput, nearest
from handful.evaluate.gauntlet import Benchmark, Gauntlet, GauntletScores
from handful.evaluate.in_context import answerer, right, shown
from handful.evaluate.preferences import Judge, pairwise_judge
from handful.pretrain.examples import Example, Framing, checked
from handful.pretrain.instruct import Instruct, less_is_more
from handful.pretrain.overlap import refuse_leaks
from handful.protocols import Progress
from handful.tune.delta import attached
from handful.tune.tuned import Tuned

Paradigm = Callable[[Tuned | None], float]
"""The score of what was tuned; of the model as it is for ``None``."""


@dataclass(frozen=True)
class Mix:
    """A set to tune on.

    Args:
        name: of it.
        parts: by name of a set how many of its examples, at random; ``"all"`` for every one.
    """

    name: str
    parts: Mapping[str, int | Literal["all"]]


def mixes(large: str, small: str, sizes: Sequence[int] = (1000, 5000)) -> list[Mix]:
    """The paper's: each set whole, the large one cut down, and the small one together with what is left of it."""
    out = [Mix(small, {small: "all"})]
    out += [Mix(f"{large} {n}", {large: n}) for n in sizes] + [Mix(large, {large: "all"})]
    return out + [Mix(f"{small} + {large} {n}", {small: "all", large: n}) for n in sizes]


def subset(examples: Sequence[Example], size: int | Literal["all"], seed: int, part: int = 0) -> list[Example]:
    """Examples at random; of one seed smaller ones are in larger ones, and another ``part`` has none of this one.

    Raises:
        BadInput: there are not as many; the size is no whole number.
    """
    if size == "all":
        return list(examples)
    if not isinstance(size, Integral) or part < 0:
        raise BadInput(f"a subset is of a number of examples, or 'all', not {size!r}; parts count from 0, not {part}")
    if size < 1 or (part + 1) * size > len(examples):
        raise BadInput(f"a subset of {size} ({part + 1} of a size) is not in a set of {len(examples)}")
    order = np.random.default_rng(seed).permutation(len(examples))
    return [examples[int(i)] for i in order[part * size : (part + 1) * size]]


@dataclass(frozen=True)
class BenchmarkItems:
    """A benchmark with its items.

    Args:
        benchmark: see `Benchmark`; its shots are drawn from ``pool``.
        category: of the gauntlet.
        parts: items, by part; its accuracy is the mean over parts.
        pool: what is shown is drawn from.
        exact: all tokens of the target must be the likeliest, instead of a choice among options.
    """

    benchmark: Benchmark
    category: str
    parts: tuple[Sequence[Example], ...]
    pool: Sequence[Example] = ()
    exact: bool = False


def run_gauntlet(
    model: LanguageModel, tested: Sequence[BenchmarkItems], tuned: Tuned | None = None,
    framing: Framing | None = None, *, weighting: Literal["equal", "size", "log-size"] = "equal",
    learnt: Sequence[Example] = (), seed: int = 0,
) -> GauntletScores:  # fmt: skip
    """Paradigm A.

    Args:
        model, tuned, framing: see `answerer`.
        tested: benchmarks with items.
        weighting: see `Gauntlet`.
        learnt: what was tuned on; a tested task or item among it is refused.
        seed: of what is shown, and of ties.
    """
    results: dict[str, list[float]] = {}
    sizes: dict[str, int] = {}
    categories: dict[str, list[Benchmark]] = {}
    ask = answerer(model, tuned, framing, seed=seed)
    for one in tested:
        categories.setdefault(one.category, []).append(one.benchmark)
        for part in one.parts:
            if learnt:
                refuse_leaks(learnt, part)
            # A text is gone on with as it stands; an answer has a line of its own.
            asked = shown(part, one.pool, one.benchmark.shots, seed, " " if one.exact else "\n")
            hit = exact_continuation(model, asked, tuned, framing) if one.exact else right(part, ask(asked))
            results.setdefault(one.benchmark.key, []).append(float(hit.mean()))
            sizes[one.benchmark.key] = sizes.get(one.benchmark.key, 0) + len(part)
    return Gauntlet(categories, weighting).score(results, sizes)


@torch.no_grad()
def exact_continuation(
    model: LanguageModel, examples: Sequence[Example], tuned: Tuned | None = None, framing: Framing | None = None,
    batch: int = 16,
) -> np.ndarray:  # fmt: skip
    """Whether every token of each target is the likeliest behind those before it ``[n]``; a causal model."""
    frame = replace(framing or Framing(), ends=False)
    rows = [frame.row(model, one) for one in checked(examples, "to judge by")]
    with attached(tuned.delta if tuned else None, model.tower):
        found = [model.tower.certain(rows[at : at + batch]) for at in range(0, len(rows), batch)]
    return torch.cat(found).numpy().astype(float)


def preferred(
    model: LanguageModel, prompts: Sequence[str], other: Sequence[str], judge: Judge,
    framing: Framing | None = None, most: int = 64,
) -> Paradigm:  # fmt: skip
    """Paradigm B: how often what the model says is preferred to the ``other`` answers to the same prompts."""
    asked = [Example(prompt, "?") for prompt in prompts]

    def score(tuned: Tuned | None) -> float:
        said = answerer(model, tuned, framing, most=most, stop=None)(asked)
        return pairwise_judge(prompts, said, other, judge).rate.value

    return score


@dataclass(frozen=True)
class Sweep:
    """What each mix brings.

    Args:
        rows: a row a mix: ``mix``, ``n`` examples, ``epochs``, by paradigm its mean over seeds with ``low`` and
            ``high``, and whether it is on the ``front``.
        advised: by paradigm the mix of the fewest examples within one standard error of the best; under ``"both"`` one
            that is so on every paradigm, ``None`` where there is none.
    """

    rows: list[dict[str, Any]]
    advised: Mapping[str, str | None] = field(default_factory=dict)


def budget_sweep(
    model: LanguageModel,
    sets: Mapping[str, Sequence[Example]],
    candidates: Sequence[Mix],
    paradigms: Mapping[str, Paradigm],
    *,
    settings: Instruct | None = None,
    epochs: Sequence[float] = (),
    dev: Sequence[Example] = (),
    seeds: Sequence[int] = (0, 1, 2),
    tested: Sequence[Example] = (),
    progress: Progress | None = None,
) -> Sweep:
    """Tune on each mix and score it on every paradigm.

    Args:
        model: causal or seq2seq; it is as it was afterwards.
        sets: by name.
        candidates: see `mixes`.
        paradigms: see `Paradigm`.
        settings: of tuning; the paper's by default.
        epochs: numbers of passes to choose from for each mix, by the loss on ``dev``.
        dev: examples for that choice; none of them in a set.
        seeds: of subsets and of training.
        tested: examples of the paradigms; one of them in a set, by name or 13 words in a row, is refused.
        progress: called with (runs done, runs in all).

    Raises:
        BadInput: no candidates, paradigms or seeds; two mixes of one name; a mix names no set, or more than it has;
            epochs to choose from without ``dev``; one of ``dev`` is in a set; a score is no number.
    """
    if not candidates or not paradigms or not seeds:
        raise BadInput("give at least one mix, one paradigm and one seed")
    if len({mix.name for mix in candidates}) < len(candidates):
        raise BadInput("two mixes have one name")
    for mix in candidates:  # before anything is learnt
        if not mix.parts:
            raise BadInput(f"mix {mix.name!r} is of no set")
        for name, size in mix.parts.items():
            if name not in sets:
                raise BadInput(f"mix {mix.name!r} is of a set {name!r} that is not given{nearest(name, sets)}")
            checked(subset(sets[name], size, 0), f"of mix {mix.name!r}")
    if len(epochs) > 1 and not dev:
        raise BadInput("to choose how many passes, give examples for the choice: dev")
    chosen_by = {(one.inputs, one.targets) for one in dev}
    for name, some in sets.items():
        if twice := sum((one.inputs, one.targets) in chosen_by for one in some):
            raise BadInput(f"{twice} examples of set {name!r} are in dev too; more passes would always seem to help")
    if tested:
        for some in sets.values():
            refuse_leaks(some, tested)
    how, rows = settings or less_is_more(), []
    scores = np.empty((len(candidates), len(paradigms), len(seeds)))
    for number, mix in enumerate(candidates):
        for at, seed in enumerate(seeds):
            learnt = [one for name, size in mix.parts.items() for one in subset(sets[name], size, seed)]
            if at == 0:
                passes = _passes(model, learnt, how, epochs, dev, seed)
            tuned = replace(how, epochs=passes).fit(model, learnt, seed=seed)
            scores[number, :, at] = [score(tuned) for score in paradigms.values()]
            if not np.isfinite(scores[number, :, at]).all():
                given = dict(zip(paradigms, scores[number, :, at].tolist(), strict=True))
                raise BadInput(f"a paradigm gave what is no number for mix {mix.name!r}: {given}")
            if progress is not None:
                progress(number * len(seeds) + at + 1, len(candidates) * len(seeds))
        rows.append({"mix": mix.name, "n": len(learnt), "epochs": passes})
    means = scores.mean(2)
    for row, mean, each in zip(rows, means, scores, strict=True):
        row.update({name: mean_interval(each[p]).as_dict() for p, name in enumerate(paradigms)})
        row["front"] = bool(not ((means >= mean).all(1) & (means > mean).any(1)).any())
    return Sweep(rows, _advised(rows, scores, tuple(paradigms)))


@torch.no_grad()
def loss_on(
    model: LanguageModel, examples: Sequence[Example], tuned: Tuned, framing: Framing, batch: int = 16
) -> float:
    """Mean of -log p over the tokens of the targets."""
    items = framing.items(model, checked(examples, "to choose by"))
    total, count = 0.0, 0
    with tuned.delta.attached(model.tower):
        for at in range(0, len(items), batch):
            found = model.tower(items[at : at + batch])
            known = found > float("-inf")
            total, count = total - float(found[known].sum()), count + int(known.sum())
    return total / count


def _passes(
    model: LanguageModel, learnt: Sequence[Example], how: Instruct, epochs: Sequence[float], dev: Sequence[Example],
    seed: int,
) -> float:  # fmt: skip
    """How many passes a mix gets: of several those with the least loss on ``dev``."""
    if len(epochs) < 2:
        return epochs[0] if epochs else how.epochs

    def loss(n: float) -> float:
        return loss_on(model, dev, replace(how, epochs=n).fit(model, learnt, seed=seed), how.framing)

    return min(epochs, key=loss)


def _advised(rows: Sequence[Mapping[str, Any]], scores: np.ndarray, names: Sequence[str]) -> dict[str, str | None]:
    """See `Sweep`."""
    means, many = scores.mean(2), scores.shape[2]
    error = scores.std(2, ddof=1) / many**0.5 if many > 1 else np.zeros_like(means)
    best = means.argmax(0)
    near = means >= (means - error)[best, np.arange(len(names))]
    sizes = np.array([row["n"] for row in rows])

    def fewest(fits: np.ndarray) -> str | None:
        return str(rows[int(np.flatnonzero(fits)[sizes[fits].argmin()])]["mix"]) if fits.any() else None

    return {**{name: fewest(near[:, p]) for p, name in enumerate(names)}, "both": fewest(near.all(1))}
