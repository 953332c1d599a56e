"""Which task to train on first: a ranking of sources for a target of few examples (114, What to Pre-Train on?, 2021).

Every ranker gives each source a score, higher for better; `handful.core.library.ranked` puts them in order, equal ones
by name, and `fused` joins several rankings. `handful.curate.transfer` says how good a ranking was.

    by_size, by_chance                 baselines
    by_vector                          SEmb, TextEmb: cosine of what the texts are about; no training, no labels
    by_task_embedding                  TaskEmb: cosine of what the answers hinge on; `few_shot` after some steps
    by_few_shots                       FSFT: some steps on the target from each source, scored on held-out examples
    by_proxy                           features of the target under each source: kNN, linear, LogME
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from handful.core.library import Found, Library, ranked
from handful.core.softmax_regression import fit_softmax
from handful.curate.task_vectors import TaskEmb, alike
from handful.curate.transfer import Score, Source, _named, accuracy
from handful.errors import BadInput, nearest
from handful.tune.delta import Delta
from handful.tune.fillers import Linear
from handful.tune.loop import tune
from handful.tune.modes import in_mode
from handful.tune.recipe import Data, Recipe, Stage
from handful.tune.tuned import Tuned
from handful.tune.zoo import From

Scores = dict[str, float]


def by_size(sources: Sequence[Source]) -> Scores:
    """How many examples each has."""
    _named(sources)
    return {source.name: float(len(source.data)) for source in sources}


def by_chance(sources: Sequence[Source], seed: int = 0) -> Scores:
    """Random numbers."""
    _named(sources)
    drawn = torch.rand(len(sources), generator=torch.Generator().manual_seed(seed))
    return dict(zip((source.name for source in sources), drawn.tolist(), strict=True))


def by_vector(sources: Sequence[Source], target: Data, vector: Callable[[Data], Tensor]) -> Scores:
    """Cosine of data sets' vectors, such as `text_vector` gives.

    Raises:
        BadInput: no sources; a vector is 0.
    """
    _named(sources)
    library = Library()
    for source in sources:
        library.add(source.name, vector(source.data))
    return {found.name: found.score for found in library.search(vector(target))}


def by_task_embedding(
    model: nn.Module, sources: Sequence[Source], target: Source, embed: TaskEmb | None = None,
    join: Literal["mean", "rrf"] = "rrf",
) -> Scores:  # fmt: skip
    """Cosine of TaskEmb, component by component, joined by their mean or by reciprocal ranks.

    Args:
        model: the frozen encoder.
        sources, target: each with what was learnt on it, delta and readout.
        embed: how.
        join: see `fused`.

    Raises:
        BadInput: a task has nothing learnt; tasks have no component in common.
    """
    _named(sources)
    how = embed or TaskEmb()
    wanted = _embedded(how, model, target)
    return _joined({source.name: alike(_embedded(how, model, source), wanted) for source in sources}, join)


def few_shot_embedding(
    model: nn.Module, sources: Sequence[Source], target: Data, embed: TaskEmb | None = None,
    join: Literal["mean", "rrf"] = "rrf", *, recipe: Recipe | None = None, steps: int = 50, seed: int = 0,
) -> Scores:  # fmt: skip
    """FS-TaskEmb: the target's embedding after some steps from each source, compared with that source's own.

    The arguments are those of `by_task_embedding` and `by_few_shots`; the target needs nothing learnt.
    """
    _named(sources)
    how = embed or TaskEmb()
    found = {}
    for source in sources:
        tuned = few_steps(model, source.learnt(), target, recipe=recipe, steps=steps, seed=seed)
        state = how.of(model, tuned.readout, target, tuned.delta)
        found[source.name] = alike(_embedded(how, model, source), state)
    return _joined(found, join)


def by_few_shots(
    model: nn.Module, sources: Sequence[Source], target: Data, dev: Data, *, recipe: Recipe | None = None,
    steps: int = 50, score: Score = accuracy, seed: int = 0,
) -> Scores:  # fmt: skip
    """FSFT: the score on ``dev`` after ``steps`` steps on ``target`` from each source.

    Args:
        model: the frozen encoder.
        sources: each with a delta.
        target: learnt from.
        dev: scored on.
        recipe: in place of `few_steps`' own.
        steps: 5, 10, 25 or 50 in the paper.
        score: of what came out.
        seed: of the readout and of the rows.
    """
    _named(sources)
    return {
        s.name: score(few_steps(model, s.learnt(), target, recipe=recipe, steps=steps, seed=seed), dev) for s in sources
    }


def few_steps(
    model: nn.Module, start: Delta, target: Data, *, recipe: Recipe | None = None, steps: int = 50, seed: int = 0
) -> Tuned:
    """The target after some steps from ``start`` with a fresh readout: AdamW at 1e-4, 20 examples each, clipped at 1.

    Raises:
        BadInput: steps below 1.
    """
    if steps < 1:
        raise BadInput(f"steps is {steps}; it must be at least 1")
    stage = Stage(steps=steps, lr=1e-4, batch=20, rate="constant", clip=1.0)
    made = recipe or Recipe(tuple(start.placed()), stages=(stage,), readout=Linear)
    return tune(model, target, made | Recipe(start=From(start)), seed=seed)


def by_proxy(
    model: nn.Module, sources: Sequence[Source], target: Data, kind: Literal["knn", "linear", "logme"] = "linear", *,
    k: int = 5, seed: int = 0,
) -> Scores:  # fmt: skip
    """How well simple models tell the target's classes apart on its features under each source.

    ``"knn"`` and ``"linear"`` (logistic regression) learn from a random half and are scored on the other; ``"logme"``
    is the log evidence of a Bayesian linear model for all, an example (You et al., LogME, 2021).

    Args:
        model: gives features ``[n, d]``.
        sources: each with a delta.
        target: its examples.
        kind: see there.
        k: neighbours.
        seed: of the halves.

    Raises:
        BadInput: no such kind; fewer than four examples; k is below 1.
    """
    _named(sources)
    if kind not in ("knn", "linear", "logme"):
        raise BadInput(f"a proxy is 'knn', 'linear' or 'logme', not {kind!r}")
    if len(target) < 4 or k < 1:
        raise BadInput(f"a proxy takes four examples and one neighbour or more: {len(target)} examples, k={k}")
    order = torch.randperm(len(target), generator=torch.Generator().manual_seed(seed))
    learn, held = order[: len(order) // 2], order[len(order) // 2 :]
    out = {}
    for source in sources:
        x, y = features(model, source.learnt(), target), target.targets.double()
        if kind == "logme":
            out[source.name] = logme(x, y)
            continue
        if kind == "knn":
            near = torch.cdist(x[held], x[learn]).topk(min(k, len(learn)), largest=False).indices
            logits = y[learn][near].mean(1)
        else:
            centre, spread = x[learn].mean(0), x[learn].std(0).clamp_min(1e-8)
            z = (x - centre) / spread
            w, b = fit_softmax(z[learn], y[learn], torch.ones(y.shape[1], dtype=torch.bool), 1.0)
            logits = z[held] @ w.mT + b
        out[source.name] = float((logits.argmax(1) == target.labels[held]).float().mean())
    return out


@torch.no_grad()
def features(model: nn.Module, delta: Delta, data: Data, batch: int = 64) -> Tensor:
    """What the model gives for ``data`` with ``delta``, ``[n, d]`` in double precision."""
    with in_mode(False, model), delta.attached(model):
        parts = [model(data.take(rows)) for rows in torch.split(torch.arange(len(data)), batch)]
    return torch.cat(parts).double()


def logme(x: Tensor, y: Tensor, rounds: int = 50) -> float:
    """The log evidence of ``y = x w + e`` an example, its two precisions as likely as can be; the mean over classes.

    Args:
        x: ``[n, d]``, double precision.
        y: ``[n, C]``.
        rounds: of the fixed point of alpha (of w) and beta (of e), at most.
    """
    n, d = x.shape
    u, s, _ = torch.linalg.svd(x, full_matrices=False)
    square = s.square()
    found = []
    for target in y.unbind(1):
        part = u.mT @ target
        rest = (target.square().sum() - part.square().sum()).clamp_min(0)
        alpha, beta = x.new_ones(()), x.new_ones(())
        for _ in range(rounds):
            t = alpha / beta
            known = (square / (t + square)).sum()
            length = (square * part.square() / (t + square).square()).sum().clamp_min(1e-12)
            error = (part.square() * (t / (t + square)).square()).sum() + rest
            alpha, beta = known / length, (n - known) / error.clamp_min(1e-12)
            if float((alpha / beta - t).abs() / t) < 1e-4:
                break
        t = alpha / beta
        length = (square * part.square() / (t + square).square()).sum()
        error = (part.square() * (t / (t + square)).square()).sum() + rest
        evidence = d * alpha.log() + n * beta.log() - beta * error - alpha * length
        evidence -= (alpha + beta * square).log().sum() + (d - len(s)) * alpha.log()
        found.append(0.5 * (evidence - n * torch.log(torch.tensor(2 * torch.pi, dtype=x.dtype))) / n)
    return float(torch.stack(found).mean())


def fused(rankings: Sequence[Mapping[str, float]], constant: float = 60.0) -> Scores:
    """Several rankers as one: ``sum 1 / (constant + rank)``.

    Raises:
        BadInput: there are none; they are of different sources; the constant is below 0.
    """
    if not rankings or not constant >= 0:
        raise BadInput(f"give rankings to join and a constant not below 0: {len(rankings)} rankings, {constant:g}")
    out = dict.fromkeys(rankings[0], 0.0)
    for scores in rankings:
        if scores.keys() != out.keys():
            raise BadInput(f"rankings of different sources cannot be joined: {sorted(scores.keys() ^ out.keys())[0]!r}")
        for one in ranked(scores):
            out[one.name] += 1 / (constant + one.rank)
    return out


def of_kind_first(scores: Mapping[str, float], sources: Sequence[Source], kind: str) -> tuple[Found, ...]:
    """The ranking with all sources of the target's kind before all others. Raises `BadInput` for an unknown source."""
    same = {source.name: source.kind == kind for source in sources}
    if unknown := sorted(set(scores) - set(same)):
        raise BadInput(f"{unknown[0]!r} is ranked, but is none of the sources{nearest(unknown[0], same)}")
    order = sorted(ranked(scores), key=lambda one: not same[one.name])
    return tuple(Found(one.name, one.score, place) for place, one in enumerate(order, start=1))


def _embedded(embed: TaskEmb, model: nn.Module, task: Source) -> dict[str, Tensor]:
    if task.readout is None:
        raise BadInput(f"task {task.name!r} has no readout learnt on it, which TaskEmb takes")
    return embed.of(model, task.readout, task.data, task.learnt())


def _joined(found: Mapping[str, Mapping[str, float]], join: str) -> Scores:
    if join not in ("mean", "rrf"):
        raise BadInput(f"components are joined by 'mean' or 'rrf', not {join!r}")
    if join == "mean":
        return {name: sum(each.values()) / len(each) for name, each in found.items()}
    shared = set.intersection(*(set(each) for each in found.values()))
    return fused([{name: each[part] for name, each in found.items()} for part in sorted(shared)])
