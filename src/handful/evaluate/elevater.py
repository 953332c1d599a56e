"""ELEVATER's rules: its split, its metrics and the file of predictions anyone can score.

Paper 063: Li et al., "ELEVATER: A Benchmark and Toolkit for Evaluating Language-Augmented Visual Models", 2022. Each
data set has one metric; the score of a model is their plain mean. A fifth of each class, the first of its rows, chooses
hyper-parameters (see `handful.evaluate.probe`) and is given back for the last training.

    PE = score * exp(-log10(trainable / 1e8 + 1))        parameter efficiency
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from handful.adapt.parameters import count, finite, numbers, several
from handful.errors import BadInput, nearest
from handful.evaluate.generalised import per_class_accuracy
from handful.files import whole_file

Metric = Literal["accuracy", "mean-per-class", "11point-map", "roc-auc"]
METRICS: tuple[str, ...] = ("accuracy", "mean-per-class", "11point-map", "roc-auc")
SHARE = 0.2
METRIC_OF: Mapping[str, Metric] = {
    **dict.fromkeys(("caltech", "flower", "pet", "aircraft"), "mean-per-class"),
    "voc": "11point-map",
    "hateful": "roc-auc",
}
"""Data sets whose name holds one of these have that metric, all others accuracy."""


class Halves(NamedTuple):
    """Rows to fit on and rows to choose by."""

    fit: np.ndarray
    val: np.ndarray


def validation_split(labels: Any) -> Halves:
    """The first ``ceil(n_c / 5)`` rows of each class choose, the others fit; nothing is drawn.

    Args:
        labels: classes ``[n]``, or 0/1 ``[n, C]`` where an item has several: the first items that carry a class whose
            quota of ``ceil(positives / 5)`` is not met are taken, class by class.

    Raises:
        BadInput: labels of another kind, a class with a single item: draw two and see `handful.evaluate.probe.probe`.
    """
    labels = np.asarray(labels)
    if labels.ndim not in (1, 2) or (labels.ndim == 2 and not np.isin(labels, (0, 1)).all()):
        raise BadInput(f"labels are classes [n], or 0/1 [n, C] of several an item, not an array of {labels.shape}")
    if labels.ndim == 2:
        taken = np.zeros(len(labels), dtype=bool)
        for c in range(labels.shape[1]):
            carriers = np.flatnonzero(labels[:, c])
            still = math.ceil(SHARE * len(carriers)) - int(taken[carriers].sum())
            taken[carriers[~taken[carriers]][: max(0, still)]] = True
    else:
        names, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
        if len(counts) and counts.min() < 2:
            single = str(names[counts.argmin()])
            raise BadInput(f"class {single!r} has a single item: none is left to fit on beside the one to choose by")
        order = np.argsort(codes, kind="stable")
        rank = np.empty(len(codes), dtype=int)
        rank[order] = np.arange(len(codes)) - (np.cumsum(counts) - counts)[codes[order]]
        taken = rank < np.ceil(SHARE * counts)[codes]
    if not taken.any() or taken.all():
        raise BadInput("nothing is left to fit on, or nothing to choose by")
    return Halves(np.flatnonzero(~taken), np.flatnonzero(taken))


def score(labels: Any, scores: Any, metric: Metric) -> float:
    """One number from 0 to 1.

    Args:
        labels: class numbers ``[n]``; 0/1 ``[n, C]`` for ``"11point-map"``; 0/1 ``[n]`` for ``"roc-auc"``.
        scores: ``[n, C]``, the larger the likelier; for ``"roc-auc"`` probabilities of class 1, ``[n]`` or the second
            of two columns.
        metric: one of `METRICS`.

    Raises:
        BadInput: shapes that do not fit the metric, scores that are not finite, one class only where two are needed.
    """
    labels, scores = np.asarray(labels), numbers("scores", scores)
    if metric not in METRICS:
        raise BadInput(f"unknown metric {metric!r}{nearest(str(metric), METRICS)}")
    if not labels.ndim or not scores.ndim:
        raise BadInput("labels and scores are lists with one entry an item")
    if not len(scores) or len(labels) != len(scores):
        raise BadInput(f"{len(labels)} labels and {len(scores)} rows of scores do not fit")
    if not np.isfinite(scores).all():
        raise BadInput(f"row {int(np.argwhere(~np.isfinite(scores))[0, 0])} of the scores is not finite")
    if metric == "11point-map":
        if labels.shape != scores.shape or not np.isin(labels, (0, 1)).all():
            raise BadInput(f"mAP needs 0/1 labels of the shape of the scores {scores.shape}, not {labels.shape}")
        kept = labels.any(axis=0)
        if not kept.any():
            raise BadInput("no item carries any class: there is no precision to average")
        return float(np.mean([average_precision(labels[:, c], scores[:, c]) for c in np.flatnonzero(kept)]))
    if labels.ndim != 1:
        raise BadInput(f"{metric} needs one class an item, not labels of shape {labels.shape}: use 11point-map")
    if metric == "roc-auc":
        if scores.ndim > 2 or (scores.ndim == 2 and scores.shape[1] not in (1, 2)):
            raise BadInput(f"roc-auc needs scores of class 1, [n] or the second of two columns, not {scores.shape}")
        return _roc_auc(labels, scores if scores.ndim == 1 else scores[:, -1])
    if scores.ndim != 2 or labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= scores.shape[1]:
        raise BadInput(f"labels are class numbers below the {scores.shape[-1]} columns of the scores")
    answers = scores.argmax(axis=1)
    return per_class_accuracy(labels, answers) if metric == "mean-per-class" else float((answers == labels).mean())


def average_precision(labels: Any, scores: Any) -> float:
    """VOC 2007's: mean over recalls 0, .1, …, 1 of the best precision at that recall or beyond; items of one score are
    found together.

    Raises:
        BadInput: labels that are not 0/1, scores that do not fit them or are not finite, no item of the class.
    """
    labels, scores = np.asarray(labels), numbers("scores", scores)
    if labels.shape != scores.shape or labels.ndim != 1 or not np.isin(labels, (0, 1)).all():
        raise BadInput(f"average precision needs 0/1 labels [n] and scores [n], not {labels.shape} and {scores.shape}")
    if not labels.any() or not np.isfinite(scores).all():
        raise BadInput("average precision needs an item of the class, and finite scores")
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.diff(scores[order], append=np.nan) != 0)
    found = np.cumsum(labels[order])[ends]
    precision, recall = found / (ends + 1), found / found[-1]
    best = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(recall, np.arange(11) / 10 - 1e-12)
    return float(best[at].mean())


def _roc_auc(labels: np.ndarray, scores: np.ndarray) -> float:
    from scipy.stats import rankdata

    positive = labels.astype(bool)
    m = int(positive.sum())
    if not np.isin(labels, (0, 1)).all() or m in (0, len(labels)):
        raise BadInput("the area under the ROC curve needs 0/1 labels with both classes present")
    above = float(rankdata(scores)[positive].sum()) - m * (m + 1) / 2
    return above / (m * (len(labels) - m))


def metric_of(name: str) -> Metric:
    """Which metric a data set of that name has."""
    return next((metric for part, metric in METRIC_OF.items() if part in name.lower()), "accuracy")


def parameter_efficiency(score: float, trainable: int) -> float:
    """``score * exp(-log10(trainable / 1e8 + 1))``: what is left of a score when trained parameters cost.

    Raises:
        BadInput: a negative number of parameters, a score that is no number.
    """
    finite("score", score), count("trainable", trainable)
    return float(score * math.exp(-math.log10(trainable / 1e8 + 1)))


def knowledge_sentences(name: str, templates: Sequence[str], knowledge: Sequence[str] = ()) -> list[str]:
    """``"<template filled> ; <class> , <definition>"`` for each definition and template; without any, and for an empty
    one, the template alone.

    Raises:
        BadInput: no templates, one without a place for the name, definitions that are no list.
    """
    given = several("templates", templates, "a list of texts with {} for the name")
    if odd := [t for t in given if not isinstance(t, str) or "{}" not in t]:
        raise BadInput(f"templates are texts with {{}} for the name, not {odd[0]!r}")
    if not given:
        raise BadInput("no templates are given: one at least, with {} for the name")
    definitions = several("knowledge", knowledge, "a list of definitions")
    tails = [f" ; {name} , {text}" if text else "" for text in definitions] or [""]
    return [template.replace("{}", name) + tail for tail in tails for template in given]


@dataclass(frozen=True)
class Predictions:
    """What a model says of a test set, for anyone to score.

    Attributes:
        predictions: ``[seeds, n, C]``.
        n_shot: shots of a class; 0 for zero-shot, -1 for all.
        num_trainable_params, num_params, num_visual_params, num_backbone_params: sizes, for `parameter_efficiency`.
    """

    model_name: str
    dataset_name: str
    predictions: np.ndarray
    n_shot: int
    rnd_seeds: tuple[int, ...]
    num_trainable_params: int
    num_params: int
    num_visual_params: int
    num_backbone_params: int

    def save(self, path: str | Path) -> None:
        """Write the JSON file, six decimals. Raises `BadInput` where the tensor is not finite ``[seeds, n, C]``."""
        array = _checked(self.predictions, len(self.rnd_seeds))
        content = {**asdict(self), "rnd_seeds": list(self.rnd_seeds), "predictions": np.round(array, 6).tolist()}
        with whole_file(path) as file:
            file.write(json.dumps(content).encode())

    @classmethod
    def load(cls, path: str | Path) -> Predictions:
        """Read what `save` wrote.

        Raises:
            BadInput: no such file, or not one of these.
        """
        try:
            content: Mapping[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
            seeds = tuple(int(seed) for seed in content["rnd_seeds"])
            names = "num_trainable_params", "num_params", "num_visual_params", "num_backbone_params"
            sizes = [int(content[name]) for name in names]
            array = _checked(content["predictions"], len(seeds))
            model, data = str(content["model_name"]), str(content["dataset_name"])
            return cls(model, data, array, int(content["n_shot"]), seeds, *sizes)
        except FileNotFoundError as error:
            raise BadInput(f"no such file: {path}") from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            if isinstance(error, BadInput):
                raise
            raise BadInput(f"{path} holds no predictions: {error}") from error


def score_predictions(found: Predictions, labels: Any, metric: Metric | None = None) -> np.ndarray:
    """Score of each seed ``[seeds]``, by the data set's own metric unless one is given.

    Raises:
        BadInput: another number of items or classes than the labels have.
    """
    labels, predictions = np.asarray(labels), _checked(found.predictions, len(found.rnd_seeds))
    if labels.ndim not in (1, 2) or labels.dtype.kind not in "iub":
        raise BadInput(f"{found.dataset_name}: labels are class numbers [n], or 0/1 [n, C], not {labels.dtype}")
    seeds, n, classes = predictions.shape
    if n != len(labels):
        raise BadInput(f"{found.dataset_name}: predictions for {n} items, but {len(labels)} labels")
    known = labels.shape[1] if labels.ndim == 2 else int(labels.max()) + 1
    if classes < known:
        raise BadInput(f"{found.dataset_name}: predictions for {classes} classes, but labels of {known}")
    metric = metric_of(found.dataset_name) if metric is None else metric
    return np.array([score(labels, predictions[s], metric) for s in range(seeds)])


def _checked(predictions: Any, seeds: int) -> np.ndarray:
    array = numbers("predictions", predictions)
    if array.ndim != 3 or len(array) != seeds or not array.size:
        raise BadInput(f"predictions are [seeds, items, classes] with {seeds} seeds, not {array.shape}")
    if not np.isfinite(array).all():
        raise BadInput(f"predictions of seed {int(np.argwhere(~np.isfinite(array))[0, 0])} are not finite")
    return array
