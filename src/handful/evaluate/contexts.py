"""How much of few-shot accuracy is the background: episodes whose shots share a context that the queries do not.

Paper 135: Min Zhang, Haoxuan Li, Fei Wu, Kun Kuang, "MetaCoCo: A New Few-Shot Classification Benchmark with Spurious
Correlation", 2024. Every item has a concept (its class: a dog) and a context (what it is seen with: autumn).

    spurious   support of way k from one context c_k, the c_k all different; queries from other contexts of the concept
    control    the same ways, the same queries; support from the contexts of the queries
    rho        share of the support that is from c_k; the rest is from one second context, so that support and queries
               still share none
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from handful.adapt.parameters import count, finite
from handful.errors import BadInput
from handful.evaluate.indices import Episodes, digest, places

TRIES = 50
"""Rounds in which ways without a context of their own are drawn anew."""
BLOCK = 1 << 23
"""Random keys held at a time."""


@dataclass(frozen=True)
class ContextEpisodes:
    """Paired episodes: with the same ways and queries, ``spurious`` and ``control`` differ in the support alone.

    Attributes:
        spurious, control: see the module.
        context: ``[E, W]``, position of c_k among the sorted names of contexts.
        share: of the spurious support, how much is from c_k.
        skipped: concepts that were left out, sorted.
    """

    spurious: Episodes
    control: Episodes
    context: np.ndarray
    share: float
    skipped: tuple[str, ...]


def context_episodes(
    concept: Sequence[Any] | np.ndarray,
    context: Sequence[Any] | np.ndarray,
    *,
    ways: int = 5,
    shots: int = 1,
    queries: int = 15,
    episodes: int = 600,
    rho: float = 1.0,
    disjoint: bool = True,
    few: Literal["error", "skip"] = "error",
    seed: int = 0,
) -> ContextEpisodes:
    """Draw episodes with a spurious context, and their controls.

    Args:
        concept: n classes.
        context: n contexts.
        ways, shots, queries, episodes: as in `handful.evaluate.episodes`.
        rho: share of the support from the context of the way: of K shots K rho, fractions by chance.
        disjoint: queries share no context with the support; else they come from all contexts.
        few: whether a concept with too few contexts is an error or left out.
        seed: the same seed draws the same episodes.

    Raises:
        BadInput: an item without a context, a context called like a concept, a concept with too few contexts or items
            (named), fewer concepts than ways, or so few contexts that no ways differ in theirs.
    """
    count("ways", ways, 2), count("shots", shots, 1), count("queries", queries, 1), count("episodes", episodes, 1)
    count("seed", seed), finite("rho", rho, least=0, most=1)
    table = _Table.of(concept, context, few, shots, queries, rho, disjoint)
    if ways > len(table.kept):
        raise BadInput(f"{ways} ways asked for, but {len(table.kept)} concepts have items in enough contexts")
    rng = np.random.default_rng(seed)
    classes, major = _contexts_of_ways(table, ways, episodes, rng)
    second = table.second(classes, major, rng) if rho < 1 else np.full_like(major, -1)
    whole = np.floor(rho * shots + 1e-9)
    of_major = (whole + (rng.random(major.shape) < rho * shots - whole)).astype(int)
    rows, where = table.rows, table.context
    step = max(1, BLOCK // (ways * rows.shape[1]))
    parts = []
    for start in range(0, episodes, step):
        part = slice(start, start + step)
        here, at = rows[classes[part]], where[classes[part]]  # [e, W, M]
        is_major, is_second = at == major[part][..., None], at == second[part][..., None]
        real = here >= 0
        first = _pick(here, is_major & real, shots, rng)
        other = _pick(here, is_second & real, shots, rng) if rho < 1 else first
        support = np.where(np.arange(shots) < of_major[part][..., None], first, other)
        outside = real & ~is_major & ~is_second if disjoint else real & ~_among(here, support)
        drawn = _pick(here, outside, queries + shots, rng)
        parts.append((support, drawn[..., :queries], drawn[..., queries:]))
    support, query, control = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    source, kind = digest(np.asarray(concept)), np.int32
    spurious = Episodes(classes.astype(kind), support.astype(kind), query.astype(kind), source)
    return ContextEpisodes(
        spurious=spurious,
        control=Episodes(spurious.classes, control.astype(kind), spurious.query, source),
        context=major,
        share=float(of_major.mean() / shots),
        skipped=table.skipped,
    )


@dataclass(frozen=True)
class _Table:
    """Items by concept, padded with -1: rows and contexts ``[C, M]``.

    ``pairs [C, K, K]`` says which first context of a concept goes with which second one (``[C, K, 1]`` where there is
    no second one); ``kept`` are concepts that have any.
    """

    rows: np.ndarray
    context: np.ndarray
    pairs: np.ndarray
    kept: np.ndarray
    skipped: tuple[str, ...]

    @classmethod
    def of(cls, concept: Any, context: Any, few: str, shots: int, queries: int, rho: float, disjoint: bool) -> _Table:
        if few not in ("error", "skip"):
            raise BadInput(f"few is 'error' or 'skip', not {few!r}")
        if len(concept) != len(context) or not len(concept):
            raise BadInput(f"{len(concept)} concepts do not fit {len(context)} contexts")
        if np.ndim(concept) != 1:
            raise BadInput(f"concepts are a list, one an item, not a table of shape {np.shape(concept)}")
        known, given = named(concept, "concept"), named(context, "context")
        names, y = np.unique(np.asarray(concept), return_inverse=True)  # in the order of `handful.evaluate.sampling`
        contexts, c = np.unique(np.asarray(given), return_inverse=True)
        twice = sorted(set(known) & set(given))
        if twice:
            raise BadInput(f"{twice[0]!r} is a concept and a context; the two must not share names")
        counts = np.zeros((len(names), len(contexts)), dtype=int)
        np.add.at(counts, (y, c), 1)
        full, total = counts >= shots, counts.sum(1)[:, None]
        left = total - counts if disjoint else np.broadcast_to(total - shots, counts.shape)
        pairs = full[:, :, None] & (left >= queries + shots)[:, :, None]  # [C, K, 1]: without a second context
        if rho < 1:
            left = left[:, :, None] - counts[:, None, :] * disjoint
            pairs = pairs & full[:, None, :] & (left >= queries + shots) & ~np.eye(len(contexts), dtype=bool)
        eligible: np.ndarray = np.any(pairs, axis=2)
        enough = eligible.any(axis=1)
        if not enough.all() and few == "error":
            which = int((~enough).argmax())
            wanted = "three contexts" if rho < 1 and disjoint else "two contexts"
            has = f"{int((counts[which] > 0).sum())} contexts and {counts[which].sum()} items"
            raise BadInput(
                f"concept {str(names[which])!r} has {has}: {shots} shots from one and {shots + queries} items of "
                f'others need {wanted} with as many; few="skip" (--skip-few) leaves it out'
            )
        items = np.arange(len(y))
        rows = np.full((len(names), int(total.max())), -1)
        rows[y, places(y, items)] = items
        at = np.where(rows >= 0, c[rows], -1)
        skipped = tuple(str(name) for name in names[~enough])
        return cls(rows, at, pairs, np.flatnonzero(enough), skipped)

    def second(self, classes: np.ndarray, major: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A second context ``[E, W]`` that leaves enough items for the queries and the control."""
        able = self.pairs[classes, major]
        found: np.ndarray = np.where(able, rng.random(able.shape), -1).argmax(axis=2)
        return found


def named(values: Any, what: str) -> list[str]:
    """Names without blanks around them. Raises `BadInput` for an item without one."""
    names = ["" if value is None or value != value else str(value).strip() for value in values]
    if "" in names:
        raise BadInput(f"item {names.index('')} has no {what}")
    return names


def _contexts_of_ways(
    table: _Table, ways: int, episodes: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Concepts and contexts ``[E, W]``, all different within an episode; what does not come out is drawn anew."""
    classes, major = np.empty((2, episodes, ways), dtype=int)
    todo = np.arange(episodes)
    for _ in range(TRIES):
        drawn = table.kept[rng.random((len(todo), len(table.kept))).argsort(axis=1)[:, :ways]]
        able = np.asarray(np.any(table.pairs, axis=2))[drawn]  # [e, W, K]
        chosen, good = np.empty(drawn.shape, dtype=int), np.ones(len(todo), bool)
        for way in range(ways):
            keys = np.where(able[:, way], rng.random(able[:, way].shape), -1.0)
            chosen[:, way] = keys.argmax(axis=1)
            good &= keys.max(axis=1) >= 0
            able[np.arange(len(todo)), :, chosen[:, way]] = False
        classes[todo[good]], major[todo[good]] = drawn[good], chosen[good]
        todo = todo[~good]
        if not len(todo):
            return classes, major
    raise BadInput(f"{ways} ways cannot all have a context of their own: too few contexts; fewer ways need fewer")


def _pick(rows: np.ndarray, among: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """``k`` of the ``rows [e, W, M]`` for which ``among`` holds, at random: ``[e, W, k]``."""
    keys = np.where(among, rng.random(rows.shape), 2.0)
    order = np.argsort(keys, axis=-1)[..., :k]
    return np.take_along_axis(rows, order, axis=-1)


def _among(rows: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Which ``rows [e, W, M]`` are among ``chosen [e, W, k]`` of the same way."""
    found: np.ndarray = (rows[..., :, None] == chosen[..., None, :]).any(axis=-1)
    return found
