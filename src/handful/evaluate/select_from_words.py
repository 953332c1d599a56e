"""Choose a pre-trained model for a task described in words, and say how accurate it will be, without any image.

Paper 082: Zohar, Huang, Wang, Yeung, "LOVM: Language-Only Vision Model Selection", 2023. A regression learns from
models whose accuracy is known on other data sets:

    accuracy  ~  scores from text (`handful.evaluate.text_scores`) and accuracy on ImageNet      to predict
    accuracy - mean over models of the data set  ~  the same                                     to rank

It is judged by leaving one data set out at a time:

    recall  |5 predicted best and 5 truly best| / 5
    tau     Kendall's tau-b, on average ranks cut to integers, of the models in both lists; 0 where they share < 3
    l1      over the predicted 5, |mean of predicted - true| ("published") or the mean of |predicted - true| ("mae")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import stats
from sklearn.base import clone
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.linear_model import Lasso, LinearRegression
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPRegressor
from sklearn.svm import SVR

from handful.errors import BadInput, nearest

TOP, FEWEST = 5, 6
"""Models that count, and how many a ranking needs."""
FOLDS = 10
"""Of the search in a grid."""
DEFAULT = ("IN-score", "inter_close")
GRIDS: dict[str, tuple[Any, dict[str, list[Any]]]] = {
    "lasso": (Lasso(), {"alpha": [0.01, 0.1, 1.0]}),
    "boosting": (
        GradientBoostingRegressor(random_state=0),
        {"loss": ["absolute_error", "huber", "quantile"], "alpha": [0.01, 0.1, 0.9]},
    ),
    "svr": (SVR(), {"kernel": ["poly", "rbf", "sigmoid"], "degree": [2, 4, 5]}),
    "mlp": (
        MLPRegressor(random_state=0),
        {"hidden_layer_sizes": [(100,), (10,), (5,)], "learning_rate_init": [0.001, 0.01, 0.1]},
    ),
}
"""What else can predict, and the grid each is chosen from."""


@dataclass(frozen=True)
class ScoreTable:
    """Models on data sets: scores that need no image, and accuracies. Made by `score_table`.

    Attributes:
        datasets, models, scores: names, D, M and F of them.
        values: ``[D, M, F]``.
        accuracy: ``[D, M]``, or recall, 0 to 1.
    """

    datasets: tuple[str, ...]
    models: tuple[str, ...]
    scores: tuple[str, ...]
    values: np.ndarray
    accuracy: np.ndarray

    def of(self, scores: Sequence[str]) -> np.ndarray:
        """``[D, M, f]``, some of the scores."""
        unknown = next((name for name in scores if name not in self.scores), None)
        if unknown is not None or not scores:
            raise BadInput(f"no score {unknown!r}{nearest(str(unknown), self.scores)}" if scores else "no scores named")
        return self.values[..., [self.scores.index(name) for name in scores]]


@dataclass(frozen=True)
class Selection:
    """Models for one task, best first.

    Attributes:
        task: its name.
        models: ranked.
        predicted: of each: accuracy, or how far above the mean of all models.
        relative: which of the two.
    """

    task: str
    models: tuple[str, ...]
    predicted: tuple[float, ...]
    relative: bool

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {**vars(self), "models": list(self.models), "predicted": list(self.predicted)}


@dataclass(frozen=True)
class Verdict:
    """How well predictions choose, the mean over data sets and each; tau is NaN where ranks are all equal."""

    recall: float
    tau: float
    l1: float
    recalls: tuple[float, ...]
    taus: tuple[float, ...]
    l1s: tuple[float, ...]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        plain = {key: list(value) if isinstance(value, tuple) else value for key, value in vars(self).items()}
        return {**plain, "taus": [None if np.isnan(tau) else tau for tau in self.taus]}


def score_table(
    datasets: Sequence[str], models: Sequence[str], scores: Mapping[str, Sequence[float]], accuracy: Sequence[float]
) -> ScoreTable:
    """A table from rows, one for each pair of data set and model.

    Args:
        datasets, models: of each row.
        scores: by name, of each row.
        accuracy: of each row, 0 to 1.

    Raises:
        BadInput: rows that are missing, stand there twice or have no number, fewer than six models, percent.
    """
    columns = [np.asarray(column, float) for column in (*scores.values(), accuracy)]
    if len({len(datasets), len(models), *map(len, columns)}) != 1 or not len(datasets):
        raise BadInput("datasets, models, scores and accuracy are columns of one length")
    (d, rows), (m, columns_) = (np.unique(np.asarray(names), return_inverse=True) for names in (datasets, models))
    if len(m) < FEWEST:
        raise BadInput(f"{len(m)} models: a ranking is judged by at least {FEWEST}")
    count = np.zeros((len(d), len(m)), int)
    np.add.at(count, (rows, columns_), 1)
    if (count != 1).any():
        i, j = np.argwhere(count != 1)[0]
        raise BadInput(f"{count[i, j]} rows of data set {d[i]} and model {m[j]}: give exactly one")
    values = np.empty((len(d), len(m), len(columns)))
    values[rows, columns_] = np.stack(columns, axis=1)
    if not np.isfinite(values).all():
        i, j, k = np.argwhere(~np.isfinite(values))[0]
        raise BadInput(f"{[*scores, 'accuracy'][k]} of data set {d[i]} and model {m[j]} is missing")
    right = values[..., -1]
    if not ((right >= 0) & (right <= 1)).all():
        raise BadInput(
            f"accuracies are shares from 0 to 1, not {right.min():g} to {right.max():g}: divide percent by 100"
        )
    return ScoreTable(tuple(d.tolist()), tuple(m.tolist()), tuple(scores), values[..., :-1], right)


def rank_models(
    table: ScoreTable,
    task: str,
    task_scores: Mapping[str, Sequence[float]],
    scores: Sequence[str] = DEFAULT,
    *,
    relative: bool = True,
    regressor: Any = "linear",
) -> Selection:
    """Rank the table's models for a task of which only scores are known.

    Args:
        table: other data sets.
        task: its name, which must not be in the table.
        task_scores: by name, of each model of the table.
        scores: which to use.
        relative: rank, rather than predict accuracy.
        regressor: see `predict_left_out`.

    Raises:
        BadInput: the task is a data set of the table (its accuracies would leak), scores that are missing.
    """
    if task in table.datasets:
        raise BadInput(f"data set {task!r} is in the table it would be predicted from: leave it out")
    x = table.of(scores)
    missing = next((name for name in scores if name not in task_scores), None)
    if missing is not None:
        raise BadInput(f"the task has no score {missing!r}{nearest(missing, task_scores)}")
    if odd := next((name for name in scores if len(task_scores[name]) != len(table.models)), None):
        raise BadInput(f"{len(task_scores[odd])} task scores {odd!r} of {len(table.models)} models: one of each")
    new = np.array([task_scores[name] for name in scores], float).T
    if not np.isfinite(new).all():
        raise BadInput("a task score is missing: each model needs all of them")
    predicted = _fit_predict(x, _target(table.accuracy, relative), new, regressor)
    order = np.argsort(-predicted, kind="stable")
    return Selection(task, tuple(table.models[i] for i in order), tuple(predicted[order].tolist()), relative)


def predict_left_out(
    table: ScoreTable, scores: Sequence[str] = DEFAULT, *, relative: bool = True, regressor: Any = "linear"
) -> np.ndarray:
    """Predictions ``[D, M]`` for each data set from all the others.

    Args:
        table: see `score_table`.
        scores: which to use.
        relative: predict how far a model is above the data set's mean (to rank), rather than its accuracy.
        regressor: ``"linear"``, one of `GRIDS` (chosen by ten folds), or any scikit-learn regressor.
    """
    x, y, every = table.of(scores), _target(table.accuracy, relative), np.arange(len(table.datasets))
    if len(every) < 2:
        raise BadInput("one data set can not be predicted from others: give at least two")
    return np.stack([_fit_predict(x[every != d], y[every != d], x[d], regressor) for d in every])


def judge_selection(
    predicted: Any, true: Any, *, top: int = TOP, l1: Literal["published", "mae"] = "published"
) -> Verdict:
    """Judge predictions ``[D, M]`` by true accuracies ``[D, M]``; see the head of this file.

    Raises:
        BadInput: shapes that differ, fewer than six models, missing numbers.
    """
    p, y = np.asarray(predicted, float), np.asarray(true, float)
    if top < 1:
        raise BadInput(f"top is how many models count, at least 1, not {top}")
    if p.shape != y.shape or p.ndim != 2 or not len(p) or p.shape[1] < max(FEWEST, top):
        raise BadInput(f"predicted {p.shape} and true {y.shape} are not [D, M] of at least {max(FEWEST, top)} models")
    if not (np.isfinite(p).all() and np.isfinite(y).all()):
        raise BadInput("predictions or accuracies are missing")
    if l1 not in ("published", "mae"):
        raise BadInput(f"unknown l1 {l1!r}; there are: published, mae")
    recalls, taus, errors = [], [], []
    for guess, truth in zip(p, y, strict=True):
        best, really = (np.argsort(-values, kind="stable")[:top] for values in (guess, truth))
        both = np.intersect1d(best, really)
        recalls.append(len(both) / top)
        ranks = [stats.rankdata(-values[both]).astype(int) for values in (truth, guess)]
        taus.append(float(stats.kendalltau(*ranks).statistic) if len(both) > 2 else 0.0)
        off = (guess - truth)[best]
        errors.append(float(abs(off.mean()) if l1 == "published" else np.abs(off).mean()))
    known = [tau for tau in taus if not np.isnan(tau)]
    tau = float(np.mean(known)) if known else 0.0
    return Verdict(float(np.mean(recalls)), tau, float(np.mean(errors)), tuple(recalls), tuple(taus), tuple(errors))


def _target(accuracy: np.ndarray, relative: bool) -> np.ndarray:
    return accuracy - accuracy.mean(axis=1, keepdims=True) if relative else accuracy


def _fit_predict(x: np.ndarray, y: np.ndarray, new: np.ndarray, regressor: Any) -> np.ndarray:
    if isinstance(regressor, str):
        if regressor != "linear" and regressor not in GRIDS:
            raise BadInput(f"unknown regressor {regressor!r}{nearest(regressor, ['linear', *GRIDS])}")
        model = LinearRegression()
        if regressor != "linear":
            if y.size < FOLDS:
                raise BadInput(f"{regressor} is chosen by {FOLDS} folds, and there are {y.size} rows: use 'linear'")
            model = GridSearchCV(*GRIDS[regressor], cv=FOLDS, scoring="neg_mean_squared_error")
    else:
        model = clone(regressor)
    fitted = model.fit(x.reshape(-1, x.shape[-1]), y.ravel())
    answer: np.ndarray = fitted.predict(new)
    return answer
