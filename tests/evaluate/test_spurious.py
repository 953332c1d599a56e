"""Paper 135, MetaCoCo: episodes with a spurious context, and what the context is worth."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm, spearmanr

from handful.adapt.prototypes import Prototypes
from handful.errors import BadInput
from handful.evaluate.contexts import ContextEpisodes, context_episodes
from handful.evaluate.episodic import run
from handful.evaluate.spurious import context_gap, context_table, spurious_shift


def world(concepts: int = 8, contexts: int = 8, each: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Concept and context of each item, every pair ``each`` times."""
    y, c = np.divmod(np.arange(concepts * contexts * each) // each, contexts)
    return np.array([f"concept {k}" for k in y]), np.array([f"context {k}" for k in c])


def drawn(rho: float = 1.0, disjoint: bool = True, shots: int = 4) -> tuple[ContextEpisodes, np.ndarray]:
    concept, context = world()
    found = context_episodes(
        concept, context, ways=3, shots=shots, queries=6, episodes=400, rho=rho, disjoint=disjoint, seed=1
    )
    return found, np.unique(context, return_inverse=True)[1]


@pytest.mark.paper(135, oracle="a")
@pytest.mark.parametrize("rho", [1.0, 0.7, 0.0])
def test_support_and_queries_share_no_context_and_rho_is_the_share(rho: float) -> None:
    found, at = drawn(rho)
    support, query = at[found.spurious.support], at[found.spurious.query]
    control = at[found.control.support]
    assert not (support[..., :, None] == query[..., None, :]).any()
    share = (support == found.context[..., None]).mean()
    assert share == pytest.approx(rho, abs=0.01) == found.share
    assert (np.diff(np.sort(found.context, axis=1)) > 0).all()  # a context a way
    assert not (control == found.context[..., None]).any()


def test_classes_are_right_and_no_item_is_twice() -> None:
    concept = np.unique(world()[0], return_inverse=True)[1]
    for disjoint in (True, False):
        found, _ = drawn(disjoint=disjoint)
        np.testing.assert_array_equal(found.spurious.query, found.control.query)
        for part in (found.spurious, found.control):
            rows = np.concatenate([part.support, part.query], axis=2)
            assert (concept[rows] == part.classes[..., None]).all()
            assert (np.diff(np.sort(rows, axis=2)) > 0).all()
    found, at = drawn(disjoint=False)
    assert (at[found.spurious.query] == found.context[..., None]).any()


@pytest.mark.paper(135, oracle="b")
def test_the_gap_is_none_without_a_context_and_grows_with_it() -> None:
    concept, context = world(6, 6, 20)
    rng = np.random.default_rng(0)
    e, o = rng.normal(size=(6, 32)), rng.normal(size=(6, 32))
    y, c = (np.unique(part, return_inverse=True)[1] for part in (concept, context))
    noise = rng.normal(size=(len(y), 32))
    both = context_episodes(concept, context, ways=4, shots=2, queries=10, episodes=150, seed=0)
    strengths, gaps = np.linspace(0, 0.8, 9), []
    for b in strengths:
        x = (0.6 * e[y] + b * o[c] + noise).astype(np.float32)
        gap = context_gap(*(run(Prototypes(), x, concept, part).accuracy for part in (both.spurious, both.control)))
        gaps.append(gap.gap.value)
        if b == 0:
            assert gap.gap.low < 0.01 and gap.gap.high > -0.01 and abs(gap.gap.value) < 0.015
            json.dumps(gap.as_dict(), allow_nan=False)
    assert spearmanr(strengths, gaps).statistic > 0.95 and gaps[-1] > 0.2


@pytest.mark.paper(135, oracle="b")
def test_two_classes_as_the_error_function_has_it() -> None:
    # Centroids +-(a, b, -b) of concepts on axis 1 and their contexts on axes 2, 3; a query lies at +-(a, 0, 0) + third
    # contexts on axes 4, 5, which are no centroid's: it is right with the chance Phi(a^2 / (s sqrt(a^2 + b^2 / 2))).
    a, b, s, n = 1.0, 1.5, 0.8, 40_000
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, n)
    x = np.zeros((n, 5))
    x[:, 0] = np.where(y == 0, a, -a)
    x[np.arange(n), 3 + rng.integers(0, 2, n)] = b
    x += s * rng.normal(size=x.shape)
    centroids = np.array([[a, b, 0, 0, 0], [-a, 0, b, 0, 0]])
    head = Prototypes(metric="sqeuclidean").fit(centroids.astype(np.float32), ["0", "1"])
    accuracy = float((head.predict(x.astype(np.float32)).astype(int) == y).mean())
    assert accuracy == pytest.approx(norm.cdf(a * a / (s * np.sqrt(a * a + b * b / 2))), abs=0.008)
    assert accuracy < norm.cdf(a / s) - 0.05  # without contexts


@pytest.mark.paper(135, oracle="c")
def test_the_shift_of_constructed_embeddings() -> None:
    axes = np.eye(7)
    y, c = np.array([0, 1, 2, 0]), np.array([1, 0, 3, 2])
    alpha, beta = 0.6, 1.7
    x = 5 * (alpha * axes[:3][y] + beta * axes[3:][c])
    shift = spurious_shift(x, 2 * axes[:3], axes[3:], y, c)
    length = np.hypot(alpha, beta)
    assert shift.concept.value == pytest.approx(alpha / length, abs=1e-12)
    assert shift.context.value == pytest.approx(beta / length, abs=1e-12)
    assert shift.ratio == pytest.approx(beta / alpha) and shift.gap.value == pytest.approx((beta - alpha) / length)
    json.dumps(shift.as_dict(), allow_nan=False)


def test_the_table_of_concepts_and_contexts() -> None:
    table = context_table(["a", "a", "b", "b"], ["a", "b", "b", "b"], ["x", "y", "x", "x"])
    np.testing.assert_array_equal(table.accuracy, [[1, 0], [1, np.nan]])
    assert table.worst[0] == "y" and table.worst[1].value == 0 and table.n.sum() == 4
    json.dumps(table.as_dict(), allow_nan=False)


def test_what_is_left_out_and_what_is_refused() -> None:
    concept, context = world(5, 4, 10)
    lone = np.where(concept == "concept 2", "context 0", context)
    with pytest.raises(BadInput, match="concept 'concept 2' has 1 contexts and 40 items"):
        context_episodes(concept, lone, ways=3, queries=5)
    found = context_episodes(concept, lone, ways=3, queries=5, few="skip", episodes=20)
    assert found.skipped == ("concept 2",) and not (found.spurious.classes == 2).any()
    with pytest.raises(BadInput, match="item 0 has no context"):
        context_episodes(concept, ["", *context[1:]])
    with pytest.raises(BadInput, match="item 1 has no context"):
        context_episodes(concept, [context[0], float("nan"), *context[2:]])
    with pytest.raises(BadInput, match="item 0 has no concept"):
        context_episodes([None, *concept[1:]], context)
    with pytest.raises(BadInput, match="'error' or 'skip'"):
        context_episodes(concept, context, few="drop")  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="'concept 1' is a concept and a context"):
        context_episodes(concept, np.where(context == "context 1", "concept 1", context))
    with pytest.raises(BadInput, match="cannot all have a context of their own"):
        context_episodes(*world(5, 4, 20), ways=5, queries=5)
    with pytest.raises(BadInput, match="6 ways asked for, but 5 concepts"):
        context_episodes(concept, context, ways=6, queries=5)
    with pytest.raises(BadInput, match=r"need three contexts with as many; few=.skip. \(--skip-few\)"):
        context_episodes(*world(4, 2, 30), ways=2, queries=5, rho=0.5, shots=2)
    for rho in (1.5, -0.1, float("nan")):
        with pytest.raises(BadInput, match="rho must be a finite number from 0 to 1"):
            context_episodes(concept, context, ways=3, queries=5, rho=rho)
    settings: list[tuple[str, Any]] = [
        ("ways", 1), ("shots", 0), ("queries", 1.5), ("episodes", 2.5), ("seed", -1), ("ways", "3"),
    ]  # fmt: skip
    for name, value in settings:
        with pytest.raises(BadInput, match=f"{name} must be a whole number from"):
            context_episodes(concept, context, **{"ways": 3, "queries": 5, name: value})
    with pytest.raises(BadInput, match="concepts are a list"):
        context_episodes(concept[:, None], context)
    with pytest.raises(BadInput, match="concept 1 has no direction"):
        spurious_shift(np.ones((1, 2)), np.array([[1.0, 0], [0, 0]]), np.ones((1, 2)), [0], [0])
    with pytest.raises(BadInput, match="do not fit"):
        spurious_shift(np.ones((1, 2)), np.ones((1, 3)), np.ones((1, 2)), [0], [0])
    with pytest.raises(BadInput, match="item 1 has no direction"):
        spurious_shift(np.array([[1.0, 0], [np.inf, 0]]), np.eye(2), np.eye(2), [0, 1], [0, 1])
    with pytest.raises(BadInput, match="positions: whole numbers"):
        spurious_shift(np.ones((1, 2)), np.eye(2), np.eye(2), ["dog"], [0])  # type: ignore[list-item]
    with pytest.raises(BadInput, match="positions: whole numbers"):
        spurious_shift(np.ones((1, 2)), np.eye(2), np.eye(2), [0], [0.9])  # type: ignore[list-item]
    with pytest.raises(BadInput, match="no number from 0 to 1"):
        context_gap(np.array([0.5, np.nan]), np.ones(2))
    with pytest.raises(BadInput, match="no number from 0 to 1"):
        context_gap(np.array([55.0, 60.0]), np.array([70.0, 80.0]))  # percents
    with pytest.raises(BadInput, match="item 1 has no context"):
        context_table(["a", "b"], ["a", "b"], ["x", None])
    with pytest.raises(BadInput, match="not paired"):
        context_gap(np.ones(2), np.ones(3))
    with pytest.raises(BadInput, match="do not fit together"):
        context_table(["a"], ["a", "b"], ["x"])


def test_concepts_that_are_numbers_keep_their_order() -> None:
    concept, context = np.divmod(np.arange(12 * 4 * 6) // 6, 4)
    both = context_episodes(concept, [f"context {c}" for c in context], ways=3, queries=4, episodes=50)
    assert (concept[both.spurious.query] == both.spurious.classes[..., None]).all()  # 10 comes after 9
