"""Scores of all models on new questions after running only a few of them.

Paper 173: Shabtay, Maia Polo, Doveh, Lin, Mirza, Choshen, Yurochkin, Sun, Arbelle, Karlinsky, Giryes, "LiveXiv -- A
Multi-Modal Live Benchmark Based on Arxiv Papers Content", 2024.

    P_ij = sigmoid(theta_i - beta_j)                    model i of ability theta answers question j of difficulty beta
    loss = mean over seen ij of -[Y log(P + eps) + (1 - Y) log(1 - P + eps)]
    Y^ = Y where seen, else P;   score of i on a version = mean of Y^_ij over its questions
    to run next: at m percentiles of beta from 5 to 95, the model of largest P (1 - P) on the nearest question; while
    these are fewer than m, the model of largest mean |theta - theta'| to those chosen

``solver="adam"`` is the authors' optimiser: it stops early, and what it predicts then depends on its start.
``solver="exact"`` goes to the optimum, whatever the seed. Questions that were seen by the same models and answered
right equally often have the same beta there, so that they are fitted as one.
"""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Literal

import numpy as np
from scipy import optimize, special

from handful.adapt.parameters import numbers
from handful.errors import BadInput

Solver = Literal["adam", "exact"]
EPS = 1e-5
LR, EPOCHS, FACTOR, PLATEAU, PATIENCE, TOLERANCE = 0.01, 10_000, 0.1, 10, 50, 1e-5
"""Of the authors' Adam: learning rate, epochs at most, what the rate is multiplied with after so many epochs without
progress, epochs without progress before it stops, and what counts as progress there."""
FARTHEST = 20.0
"""|theta| and |beta| at most: what was always or never right would go to infinity."""


@dataclass(frozen=True)
class RaschFit:
    """Abilities and difficulties.

    Attributes:
        ability: theta ``[M]``.
        difficulty: beta ``[Q]``.
        loss: mean over what was seen.
        unseen: models that answered nothing; they were given the mean ability.
    """

    ability: np.ndarray
    difficulty: np.ndarray
    loss: float
    unseen: tuple[int, ...]

    @property
    def proba(self) -> np.ndarray:
        """Probability of a right answer ``[M, Q]``."""
        right: np.ndarray = special.expit(self.ability[:, None] - self.difficulty)
        return right


@dataclass(frozen=True)
class Forecast:
    """Scores of all models on all versions.

    Attributes:
        models: their names, in the order they first come in.
        scores: ``[V][M]``, of the models that were run on a version as they were, of the others as predicted.
        measured: ``[V][M]``, which were run.
        ability: of each model ``[M]``.
        rerun: the models to run on the next version; new models are always run.
    """

    models: tuple[Hashable, ...]
    scores: tuple[tuple[float, ...], ...]
    measured: tuple[tuple[bool, ...], ...]
    ability: tuple[float, ...]
    rerun: tuple[Hashable, ...]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able where the names are."""
        rows = [list(row) for row in self.scores], [list(row) for row in self.measured]
        return {
            "models": list(self.models),
            "scores": rows[0],
            "measured": rows[1],
            "ability": list(self.ability),
            "rerun": list(self.rerun),
        }


def fit_rasch(answers: Any, seen: Any = None, *, solver: Solver = "adam", seed: int = 0) -> RaschFit:
    """Fit abilities and difficulties.

    Args:
        answers: ``[M, Q]`` from 0 (wrong) to 1 (right); what was not seen may be anything.
        seen: ``[M, Q]`` booleans; by default all that is not NaN.
        solver: ``"adam"`` as the authors have it, or ``"exact"``.
        seed: of the start of ``"adam"``.

    Raises:
        BadInput: shapes that do not fit, answers outside 0 to 1, a question that no model answered.
    """
    y = numbers("answers", answers)
    mask = ~np.isnan(y) if seen is None else np.asarray(seen, bool)
    if y.ndim != 2 or mask.shape != y.shape or not y.size:
        raise BadInput(f"answers and seen are tables [models, questions] of one shape, not {y.shape} and {mask.shape}")
    y = np.where(mask, y, 0.0)
    if not ((y >= 0) & (y <= 1)).all():
        model, question = np.argwhere(~((y >= 0) & (y <= 1)))[0]
        raise BadInput(f"answer of model {model} to question {question} is {y[model, question]:g}, not from 0 to 1")
    empty = np.flatnonzero(~mask.any(axis=0))
    if len(empty):
        raise BadInput(f"no model answered question {empty[0]} ({len(empty)} in all): leave such questions out")
    if solver not in ("adam", "exact"):
        raise BadInput(f"unknown solver {solver!r}; there are: adam, exact")
    theta, beta = _adam(y, mask, seed) if solver == "adam" else _exact(y, mask)
    unseen = np.flatnonzero(~mask.any(axis=1))
    if len(unseen):
        warnings.warn(f"models {unseen.tolist()} answered nothing: given the mean ability", stacklevel=2)
        theta[unseen] = np.delete(theta, unseen).mean()
    p = special.expit(theta[:, None] - beta)
    loss = -(y * np.log(p + EPS) + (1 - y) * np.log(1 - p + EPS))[mask].mean()
    return RaschFit(theta, beta, float(loss), tuple(unseen.tolist()))


def forecast_scores(
    answers: Sequence[Any],
    models: Sequence[Sequence[Hashable]],
    m: int = 5,
    *,
    solver: Solver = "adam",
    seed: int = 0,
) -> Forecast:
    """Scores of every model on every version of a benchmark, and which models to run on the next version.

    Args:
        answers: for each version the answers ``[models run, questions]``, 0 to 1.
        models: for each version the names of the models run, in the order of the rows.
        m: how many models to run next.
        solver: see `fit_rasch`.
        seed: see `fit_rasch`.

    Raises:
        BadInput: lists of different length, a model twice in a version, more models asked for than there are; and what
            `fit_rasch` refuses.
    """
    tables = [numbers("answers", table) for table in answers]
    if len(tables) != len(models) or not tables:
        raise BadInput(
            f"{len(tables)} tables of answers and {len(models)} lists of models: one of each for each version"
        )
    for version, (table, run) in enumerate(zip(tables, models, strict=True)):
        if table.ndim != 2 or len(table) != len(run) or not table.size:
            shapes = f"answers {table.shape} of {len(run)} models"
            raise BadInput(f"version {version}: {shapes}: one row for each, and no version empty")
        if len(set(run)) != len(run):
            raise BadInput(f"version {version}: a model stands there twice")
        if not np.isfinite(table).all():
            raise BadInput(f"version {version}: a model that was run has answered all questions; answers are missing")
    names = list(dict.fromkeys(name for run in models for name in run))
    if not isinstance(m, Integral) or not 1 <= m <= len(names):
        raise BadInput(f"m={m} models to run next, of {len(names)}")
    where = {name: i for i, name in enumerate(names)}
    ends = np.cumsum([table.shape[1] for table in tables])
    y, seen = np.zeros((len(names), ends[-1])), np.zeros((len(names), ends[-1]), bool)
    for table, run, end in zip(tables, models, ends, strict=True):
        rows, columns = np.array([where[name] for name in run]), slice(end - table.shape[1], end)
        y[rows, columns], seen[rows, columns] = table, True
    fit = fit_rasch(y, seen, solver=solver, seed=seed)
    parts = np.split(np.where(seen, y, fit.proba), ends[:-1], axis=1)
    run_on = [[name in run for name in names] for run in map(set, models)]
    return Forecast(
        models=tuple(names),
        scores=tuple(tuple(part.mean(axis=1).tolist()) for part in parts),
        measured=tuple(map(tuple, run_on)),
        ability=tuple(fit.ability.tolist()),
        rerun=tuple(names[i] for i in most_telling(fit.ability, fit.difficulty, m)),
    )


def most_telling(ability: np.ndarray, difficulty: np.ndarray, m: int = 5) -> list[int]:
    """Which m models tell most about the others on new questions; see the head of this file."""
    if not isinstance(m, Integral) or not 1 <= m <= len(ability) or not len(difficulty):
        raise BadInput(f"m={m} models to choose, of {len(ability)}, by {len(difficulty)} questions")
    centres = np.percentile(difficulty, np.linspace(5, 95, m))
    nearest = np.abs(centres[:, None] - difficulty).argmin(axis=1)
    information = -np.abs(ability[:, None] - difficulty[nearest])  # P (1 - P) falls with the distance alone
    chosen: list[int] = np.unique(information.argmax(axis=0)).tolist()
    while len(chosen) < m:
        rest = np.array([i for i in range(len(ability)) if i not in chosen])
        apart = np.abs(ability[chosen][:, None] - ability[rest]).mean(axis=0)
        chosen.append(int(rest[apart.argmax()]))
    return chosen


def _exact(y: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The maximum of the likelihood; equal columns of the sufficient statistic (who saw it, sum) are one."""
    key = np.concatenate([mask, np.round(y.sum(axis=0), 9)[None]]).T
    groups, group = np.unique(key, axis=0, return_inverse=True)
    group = group.ravel()
    n = np.bincount(group) * groups[:, :-1].T
    right = np.stack([np.bincount(group, row, len(groups)) for row in y])
    models, total = len(y), float(n.sum())

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        z = x[:models, None] - x[models:]
        left = (n * special.expit(z) - right) / total
        value = float((n * np.logaddexp(0, z) - right * z).sum() / total)
        return value, np.concatenate([left.sum(axis=1), -left.sum(axis=0)])

    size = models + len(groups)
    options = {"maxiter": 10_000, "maxfun": 100_000, "ftol": 1e-15, "gtol": 1e-9}
    found = optimize.minimize(
        loss, np.zeros(size), jac=True, method="L-BFGS-B", bounds=[(-FARTHEST, FARTHEST)] * size, options=options
    )
    theta, beta = found.x[:models], found.x[models:][group]
    middle = theta[mask.any(axis=1)].mean()
    return theta - middle, beta - middle


def _adam(y: np.ndarray, mask: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    import torch

    from handful.core.train import Adam

    target, seen = torch.as_tensor(y, dtype=torch.float32), torch.as_tensor(mask)
    generator = torch.Generator().manual_seed(seed)
    beta = torch.normal(0.0, 1.0, (y.shape[1],), generator=generator)
    theta = torch.normal(0.0, 1.0, (y.shape[0],), generator=generator)
    update, rate = Adam(), LR
    best = lowest = float("inf")
    waited = stalled = 0
    for _ in range(EPOCHS):
        p = torch.sigmoid(theta[:, None] - beta)
        value = float(-(target * (p + EPS).log() + (1 - target) * (1 - p + EPS).log())[seen].mean())
        slope = ((1 - target) / (1 - p + EPS) - target / (p + EPS)) * p * (1 - p) * seen / int(seen.sum())
        update([beta, theta], (-slope.sum(dim=0), slope.sum(dim=1)), rate)
        if value < lowest * (1 - 1e-4):
            lowest, stalled = value, 0
        else:
            stalled += 1
        if stalled > PLATEAU:
            rate, stalled = (rate * FACTOR if rate * (1 - FACTOR) > 1e-8 else rate), 0
        if value < best - TOLERANCE:
            best, waited = value, 0
        else:
            waited += 1
            if waited >= PATIENCE:
                break
    return theta.double().numpy(), beta.double().numpy()
