"""A linear probe that starts from class text, its two strengths found on training items alone.

Paper 063: Li et al., "ELEVATER", 2022.

    logits = s (W norm(x) + b),   W = class text, b = 0 at the start: without a step this is zero-shot
    norm    unit length; with ``channel_norm`` each channel by mean and variance of the batch instead (batch
            normalisation without weights), as the authors' configuration has it
    s       fixed, or trained as exp(t)
    SGD, momentum 0.9, batches of 64 (one of a single item is passed over), weight decay as a penalty; 10 epochs while
    searching, 50 in the end

Search: each of six learning rates; for each the weight decays 1e-6 … 1e6 on a grid of 97, seven of them first, then the
neighbours 8, 4, 2, 1 steps away from the best so far. The best epoch on the validation items counts. What is scored are
probabilities, the softmax of the logits.

The authors report the best epoch on the *test* items (``published=``); here the last epoch is reported.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.special import softmax
from torch import Tensor

from handful.adapt.parameters import count, finite, numbers, several
from handful.core.distances import unit
from handful.core.train import SGD, batches, descend
from handful.errors import BadInput
from handful.evaluate.elevater import Halves, Metric, score, validation_split

RATES = tuple(np.logspace(-6, -1, 6).tolist())
DECAYS = tuple(np.logspace(-6, 6, 97).tolist())
COARSE = 16
EPOCHS, MORE_EPOCHS = 10, 40
BATCH = 64
EPS = 1e-5
"""Added to the variance of a channel."""


class Found(NamedTuple):
    """The best pair of strengths, its score, and how many were tried."""

    rate: float
    decay: float
    score: float
    tried: int


def search(
    try_out: Callable[[float, float], float],
    rates: tuple[float, ...] = RATES,
    decays: tuple[float, ...] = DECAYS,
    coarse: int = COARSE,
) -> Found:
    """Find the best learning rate and weight decay with few trials; of equals the first is kept.

    Args:
        try_out: score of a rate and a decay, the larger the better.
        rates: all are tried.
        decays: a grid of which every ``coarse``-th is tried, then neighbours of the best at half the distance, …

    Raises:
        BadInput: an empty grid, numbers below 0.
    """
    rates, decays = (
        tuple(finite(name, each, least=0) for each in several(name, values, "a list of numbers"))
        for name, values in (("rates", rates), ("decays", decays))
    )
    if not rates or not decays:
        raise BadInput("the grids of learning rates and weight decays are empty")
    best, tried = Found(rates[0], decays[0], -math.inf, 0), 0
    for rate in rates:
        known: dict[int, float] = {}

        def at(i: int, rate: float = rate, known: dict[int, float] = known) -> float:
            if i not in known:
                known[i] = try_out(rate, decays[i])
            return known[i]

        peak = max(range(0, len(decays), coarse), key=at)
        step = coarse // 2
        while step:
            for i in (max(peak - step, 0), min(peak + step, len(decays) - 1)):
                if at(i) > at(peak):
                    peak = i
            step //= 2
        tried += len(known)
        if known[peak] > best.score:
            best = Found(rate, decays[peak], known[peak], 0)
    return best._replace(tried=tried)


class Probe(NamedTuple):
    """A linear classifier ``scale * (norm(x) @ weight.T + bias)`` of unit rows, or of rows scaled by ``channels``:
    mean and variance ``[2, d]``."""

    weight: np.ndarray
    bias: np.ndarray
    scale: float
    channels: np.ndarray | None = None

    def __call__(self, x: Any) -> np.ndarray:
        """Logits ``[n, C]`` of features ``[n, d]``."""
        x = np.asarray(x, dtype=np.float32)
        if self.channels is None:
            x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
        else:
            x = (x - self.channels[0]) / np.sqrt(self.channels[1] + EPS)
        return np.asarray(self.scale * (x @ self.weight.T + self.bias))


def text_start(text: Any, scale: float = 100.0) -> Probe:
    """The probe before any step: class text ``[C, d]``, unit rows, and no bias."""
    text = numbers("class text", text).astype(np.float32)
    length = np.linalg.norm(text, axis=-1, keepdims=True) if text.ndim == 2 else text
    if text.ndim != 2 or not text.size or not np.isfinite(text).all() or not (length > 0).all():
        raise BadInput(f"class text is a finite array [classes, width] without rows of zeros, not {text.shape}")
    return Probe(text / length, np.zeros(len(text), np.float32), finite("scale", scale, above=0))


def merge_projection(weight: Any, projection: Any) -> np.ndarray:
    """``W P^T [C, d]`` of ``W [C, p]`` and a projection ``x P``, ``P [d, p]``: the same logits before projecting."""
    merged: np.ndarray = np.asarray(weight) @ np.asarray(projection).T
    return merged


def train(
    start: Probe,
    x: Any,
    labels: Any,
    *,
    rate: float,
    decay: float,
    epochs: int,
    seed: int = 0,
    channel_norm: bool = False,
    train_scale: bool = False,
    judge: Callable[[Probe], float] | None = None,
) -> tuple[Probe, float]:
    """The probe after ``epochs``, and its best score by ``judge`` after any of them (NaN without).

    Args:
        x: features ``[n, d]``.
        labels: class numbers ``[n]``, or 0/1 ``[n, C]`` where an item has several.
        channel_norm: scale channels instead of rows; the running mean and variance are kept for later items.
        train_scale: train the scale too.

    Raises:
        BadInput: shapes that do not fit, features that are not finite, labels that are no class of ``start``.
    """
    finite("rate", rate, least=0), finite("decay", decay, least=0), count("epochs", epochs), count("seed", seed)
    raw, y = torch.as_tensor(numbers("features", x).astype(np.float32)), np.asarray(labels)
    if raw.ndim != 2 or raw.shape[1] != start.weight.shape[1] or len(raw) != len(y):
        raise BadInput(f"features {tuple(raw.shape)} and {len(y)} labels do not fit weights {start.weight.shape}")
    if not torch.isfinite(raw).all():
        raise BadInput("features must be finite")
    classes = len(start.weight)
    several = y.ndim == 2 and y.shape[1] == classes and bool(np.isin(y, (0, 1)).all())
    if not several and (y.ndim != 1 or y.dtype.kind not in "iu" or y.min() < 0 or y.max() >= classes):
        raise BadInput(f"labels are class numbers below {classes}, or 0/1 [n, {classes}]")
    target, rows = torch.as_tensor(y), unit(raw)
    running = torch.stack([torch.zeros(raw.shape[1]), torch.ones(raw.shape[1])])

    def losses(parameters: list[Tensor], seen: Tensor) -> Tensor:
        weight, bias, *log_scale = parameters
        scale = log_scale[0].exp() if log_scale else start.scale
        x = rows[seen]
        if channel_norm:  # changes the running values
            mean, variance = running
            x = torch.nn.functional.batch_norm(raw[seen], mean, variance, training=True, eps=EPS)
        logits = scale * (x @ weight.T + bias)
        if several:
            return torch.nn.functional.binary_cross_entropy_with_logits(logits, target[seen].to(logits.dtype))
        return torch.nn.functional.cross_entropy(logits, target[seen].long())

    probe, best, update = start, -math.inf, SGD(0.9, decay)
    parameters = [torch.as_tensor(start.weight), torch.as_tensor(start.bias)]
    parameters += [torch.tensor(math.log(start.scale))] if train_scale else []
    for epoch in range(epochs):
        steps = (seen for seen in batches(torch.arange(len(raw)), 1, BATCH, seed + epoch) if len(seen) > 1)
        parameters = descend(parameters, losses, steps, lambda _: rate, update)
        scale = parameters[2].exp().item() if train_scale else start.scale
        channels = running.numpy().copy() if channel_norm else None
        probe = Probe(parameters[0].numpy(), parameters[1].numpy(), scale, channels)
        if judge is not None:
            best = max(best, judge(probe))
    return probe, best if judge is not None else math.nan


class Tuned(NamedTuple):
    """The final probe, the strengths it was trained with, and, with ``published``, the best score on test items."""

    probe: Probe
    found: Found
    published: float | None


def probe(
    start: Probe,
    x: Any,
    labels: Any,
    *,
    metric: Metric = "accuracy",
    split: Halves | None = None,
    rates: tuple[float, ...] = RATES,
    decays: tuple[float, ...] = DECAYS,
    seed: int = 0,
    channel_norm: bool = False,
    train_scale: bool = False,
    published: tuple[Any, Any] | None = None,
) -> Tuned:
    """Search on the training items, then train on all of them.

    Args:
        start: see `text_start`.
        x, labels: the few-shot training items.
        metric: what the search maximises.
        split: rows to fit on and to choose by; by default those of `validation_split`, and the last training is on
            both. Rows to choose by that are given here are not learnt from at last, as the authors do for one shot: of
            two items drawn of each class one is fitted on and one chooses.
        channel_norm, train_scale: see `train`. The authors scale channels, by default with a scale fixed at 1; then the
            start is no longer zero-shot.
        published: test features and labels, to report what the authors report; leaks the choice of the epoch.

    Raises:
        BadInput: see `validation_split`, `train`, `score`.
    """
    x, labels = numbers("features", x), np.asarray(labels)
    if x.ndim != 2 or labels.ndim not in (1, 2) or len(x) != len(labels):
        raise BadInput(f"features {x.shape} and labels {labels.shape} do not fit: one row of each for every item")
    fit, val = validation_split(labels) if split is None else (np.asarray(rows) for rows in split)
    if any(rows.dtype.kind != "i" or not len(rows) or rows.min() < 0 or rows.max() >= len(x) for rows in (fit, val)):
        raise BadInput(f"split is two lists of rows below {len(x)}: those to fit on, and those to choose by")

    def judge(on_x: Any, on_y: Any) -> Callable[[Probe], float]:
        def judged(probe: Probe) -> float:
            with np.errstate(invalid="ignore", over="ignore"):
                logits = probe(on_x)
            if not np.isfinite(logits).all():
                return 0.0  # a trial that diverges
            return score(on_y, softmax(logits, axis=1), metric)

        return judged

    learn = partial(train, start, seed=seed, channel_norm=channel_norm, train_scale=train_scale)

    def try_out(rate: float, decay: float) -> float:
        on_val = judge(x[val], labels[val])
        return learn(x[fit], labels[fit], rate=rate, decay=decay, epochs=EPOCHS, judge=on_val)[1]

    found = search(try_out, rates, decays)
    everything = np.concatenate([fit, val]) if split is None else fit
    on_test = None if published is None else judge(np.asarray(published[0]), np.asarray(published[1]))
    final, best = learn(
        x[everything],
        labels[everything],
        rate=found.rate,
        decay=found.decay,
        epochs=EPOCHS + MORE_EPOCHS,
        judge=on_test,
    )
    return Tuned(final, found, None if published is None else best)
