"""Which items make up an episode: indices first, drawn once, the same for every head.

N-way K-shot (paper 154, Vinyals et al., "Matching Networks for One Shot Learning", 2016); any-way any-shot
(Triantafillou et al., "Meta-Dataset", 2020); imbalanced queries (Veilleux et al., "Realistic Evaluation of Transductive
Few-Shot Learning", 2021): class proportions ~ Dirichlet(alpha), counts by largest remainder, so that they add up.

Within a class every item is equally likely, as paper 111 ("A Closer Look at Few-shot Classification Again", 2023) asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from handful.errors import BadInput
from handful.evaluate.indices import Count, Episodes, digest

ANY_WAYS = (5, 50)
ANY_SUPPORT, ANY_CLASS = 500, 100
"""Meta-Dataset's bounds: ways of an episode, items of a support set, what one class adds to its size."""
BLOCK = 1 << 23
"""How many numbers a permutation table holds at a time."""


def draw(
    labels: Sequence[Any] | np.ndarray,
    *,
    ways: Count,
    shots: Count,
    queries: int,
    episodes: int,
    seed: int,
    imbalance: float | None = None,
) -> Episodes:
    """Draw episodes from n labels.

    Args:
        labels: one an item.
        ways: classes an episode; ``"any"`` draws 5 to 50 of them (as many as there are).
        shots: support items a class; ``"any"`` draws Meta-Dataset's unbalanced numbers.
        queries: query items a class; with ``shots="any"`` at most half of the smallest class of the episode.
        episodes: E.
        seed: the same seed draws the same episodes on every machine.
        imbalance: Dirichlet concentration of the class proportions among the ``ways * queries`` queries (2 is usual);
            a class gives no more than it has, the others make up for it. ``None``: balanced.

    Raises:
        BadInput: more ways than classes, or a class with too few items, named.
    """
    names, codes = np.unique(np.asarray(labels), return_inverse=True)
    sizes = np.bincount(codes)
    _check_request(names, sizes, ways, shots, queries, episodes, imbalance)
    of_ways, of_classes, of_counts, of_rows = np.random.default_rng(seed).spawn(4)

    many = np.full(episodes, ways) if ways != "any" else _any_ways(len(names), episodes, of_ways)
    width = int(many.max())
    classes = choose(np.full(episodes, len(names)), width, of_classes)
    real = np.arange(width) < many[:, None]
    size = np.where(real, sizes[classes], 0)

    if shots == "any":
        query_count = np.minimum(queries, np.where(real, size // 2, size.max()).min(axis=1))[:, None] * real
        shot_count = _any_shots(size, query_count, real, of_counts)
    else:
        shot_count, query_count = shots * real, queries * real
    if imbalance is not None:
        proportions = np.maximum(of_counts.standard_gamma(imbalance, real.shape), 1e-300) * real
        query_count = apportion(proportions, query_count.sum(axis=1), size - shot_count)

    most = int((shot_count + query_count).max())
    picks = choose(size.ravel(), most, of_rows).reshape(*size.shape, most)
    by_class = np.argsort(codes, kind="stable")
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    rows = by_class[np.minimum(starts[classes][..., None] + picks, len(codes) - 1)]
    return Episodes(
        np.where(real, classes, -1).astype(np.int32),
        _part(rows, np.zeros_like(shot_count), shot_count),
        _part(rows, shot_count, query_count),
        digest(labels),
    )


def choose(sizes: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """``k`` different numbers below each of ``sizes [R]``, in random order ``[R, k]``.

    The first k steps of a Fisher-Yates shuffle, all rows at once. Numbers beyond a row's size are meaningless.
    """
    widest, out = int(sizes.max()), np.empty((len(sizes), k), dtype=np.int32)
    step = max(1, BLOCK // widest)
    for start in range(0, len(sizes), step):
        size = sizes[start : start + step]
        row = np.arange(len(size))
        jump = rng.random((len(size), k))
        deck = np.tile(np.arange(widest, dtype=np.int32), (len(size), 1))
        for i in range(k):
            j = i + (jump[:, i] * np.maximum(size - i, 1)).astype(np.int64)
            deck[row, j], deck[:, i] = deck[:, i], deck[row, j]
        out[start : start + step] = deck[:, :k]
    return out


def apportion(proportions: np.ndarray, total: np.ndarray, most: np.ndarray) -> np.ndarray:
    """Whole numbers ``[E, W]`` in ``proportions [E, W]`` that add up to ``total [E]``, none above ``most [E, W]``.

    Largest remainder; what a full class cannot take is shared among the others in their proportions.
    """
    counts = np.zeros_like(most)
    while (left := total - counts.sum(axis=1)).any():
        room = counts < most
        weight = proportions * room
        quota = weight / np.maximum(weight.sum(axis=1, keepdims=True), 1e-300) * left[:, None]
        whole = np.floor(quota).astype(most.dtype)
        by_remainder = np.argsort(np.where(room, whole - quota, np.inf), axis=1, kind="stable")
        rank = np.argsort(by_remainder, axis=1, kind="stable")
        counts = np.minimum(counts + whole + (rank < (left - whole.sum(axis=1))[:, None]), most)
    return counts


def _any_ways(classes: int, episodes: int, rng: np.random.Generator) -> np.ndarray:
    low, high = ANY_WAYS
    return rng.integers(min(low, classes), min(high, classes) + 1, episodes)


def _any_shots(size: np.ndarray, queries: np.ndarray, real: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Shots ``[E, W]``: a support size with at least one item a class, dealt out in the classes' proportions times a
    factor between 1/2 and 2."""
    left = size - queries
    beta = rng.random(len(size))[:, None]
    wish = (np.floor(beta * np.minimum(ANY_CLASS, left) + 1) * real).sum(axis=1, keepdims=True)
    support = np.minimum(wish, ANY_SUPPORT)
    share = size * np.exp(rng.uniform(np.log(0.5), np.log(2), size.shape))
    share = share / share.sum(axis=1, keepdims=True)
    wanted = np.floor(share * (support - real.sum(axis=1, keepdims=True))).astype(np.int64) + 1
    counts: np.ndarray = np.minimum(wanted, left) * real
    return counts


def _part(rows: np.ndarray, first: np.ndarray, count: np.ndarray) -> np.ndarray:
    """``count [E, W]`` of ``rows [E, W, n]`` from position ``first [E, W]`` on, padded with -1."""
    step = np.arange(max(1, int(count.max())))
    where = np.minimum(first[..., None] + step, rows.shape[-1] - 1)
    taken = np.take_along_axis(rows, where, axis=-1)
    return np.where(step < count[..., None], taken, -1).astype(np.int32)


def _check_request(
    names: np.ndarray,
    sizes: np.ndarray,
    ways: Count,
    shots: Count,
    queries: int,
    episodes: int,
    imbalance: float | None,
) -> None:
    wanted = {"ways": (ways, 2), "shots": (shots, 1), "queries": (queries, 1), "episodes": (episodes, 1)}
    for what, (number, least) in wanted.items():
        if number != "any" and (isinstance(number, str) or number < least):
            raise BadInput(f"{what} must be at least {least}, not {number}")
    if imbalance is not None and not 0 < imbalance < np.inf:
        raise BadInput(f"the Dirichlet concentration of the imbalance must be above 0, not {imbalance}")
    if len(names) < 2:
        raise BadInput("episodes need at least two classes")
    if ways != "any" and int(ways) > len(names):
        raise BadInput(f"{ways} ways asked for, but there are {len(names)} classes")
    small = int(sizes.argmin())
    few = 2 if shots == "any" else int(shots) + queries
    if sizes[small] < few:
        why = "any number of shots and a query" if shots == "any" else f"{shots} shots and {queries} queries"
        raise BadInput(f"{why} need {few} items a class, but class {str(names[small])!r} has {sizes[small]}")
