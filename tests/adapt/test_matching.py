"""Matching against what paper 154's sheet says it must equal."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.neighbors import KNeighborsClassifier

from handful.adapt.matching import MatchingNetworks
from handful.errors import BadInput


@pytest.mark.paper(154, oracle="a")
def test_cold_attention_to_one_example_a_class_is_the_nearest_by_cosine(blobs: Any) -> None:
    x, y = blobs(ways=6, shots=1)
    q, _ = blobs(ways=6, shots=30, seed=1)
    cold = MatchingNetworks(temperature=1e-3).fit(x, y)
    np.testing.assert_allclose(cold.predict_proba(q).sum(1), 1, atol=1e-6)
    want = KNeighborsClassifier(1, metric="cosine", algorithm="brute").fit(x, y).predict(q)
    assert np.array_equal(cold.predict(q), want)


@pytest.mark.paper(154, oracle="b")
def test_the_order_of_the_support_leaves_p_unchanged(blobs: Any) -> None:
    x, y = blobs(shots=(5, 2, 3, 1))
    order = np.random.default_rng(0).permutation(len(x))
    straight = MatchingNetworks().fit(x, y).predict_proba(x)
    np.testing.assert_allclose(MatchingNetworks().fit(x[order], y[order]).predict_proba(x), straight, atol=1e-6)


@pytest.mark.paper(154, oracle="e")
@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_is_the_softmax_of_cosines(blobs: Any, temperature: float) -> None:
    x, y = blobs(shots=(5, 2, 3, 1))
    q, _ = blobs(seed=1)
    p = softmax(cosine_similarity(q, x) / temperature, axis=1) @ np.eye(4)[y]
    logits = MatchingNetworks(temperature=temperature).fit(x, y).logits(q)
    np.testing.assert_allclose(np.exp(logits), p + 1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "bad",
    [{"normalize": "query"}, {"temperature": 0.0}, {"temperature": "warm"}, {"epsilon": 0.0}, {"epsilon": None}],
    ids=str,
)
def test_parameters_that_make_no_sense_are_refused(blobs: Any, bad: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=f"^{next(iter(bad))} "):
        MatchingNetworks(**bad).fit(*blobs())


def test_only_the_support_made_unit(blobs: Any) -> None:
    x, y = blobs()
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    p = softmax(x @ unit.T, axis=1) @ np.eye(4)[y]
    np.testing.assert_allclose(np.exp(MatchingNetworks(normalize="support").fit(x, y).logits(x)), p + 1e-6, atol=1e-6)
