"""Prototypes against what paper 092's sheet says they must equal."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid

from handful.adapt.prototypes import Prototypes
from handful.errors import BadInput


@pytest.mark.paper(92, oracle="a")
@pytest.mark.parametrize("shots", [1, 5, (7, 1, 2, 4)])
def test_is_the_nearest_centroid(blobs: Any, shots: Any) -> None:
    x, y = blobs(shots=shots, noise=1.5)
    q, _ = blobs(shots=50, noise=1.5, seed=1)
    want = NearestCentroid(metric="euclidean").fit(x, y).predict(q)
    assert np.array_equal(Prototypes().fit(x, y).predict(q), want)


@pytest.mark.paper(92, oracle="b")
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_linear_form_differs_from_the_distances_by_a_constant_a_query(blobs: Any, temperature: float) -> None:
    x, y = blobs()
    head = Prototypes(temperature=temperature).fit(x, y)
    w, b = head.linear()
    gap = x @ w.T + b - head.logits(x)
    np.testing.assert_allclose(gap, np.repeat(gap[:, :1], 4, 1), atol=1e-5)


@pytest.mark.paper(92, oracle="c")
def test_one_shot_is_the_nearest_neighbour(blobs: Any) -> None:
    x, y = blobs(ways=7, shots=1)
    q, _ = blobs(ways=7, shots=30, seed=1)
    assert np.array_equal(Prototypes().fit(x, y).predict(q), KNeighborsClassifier(1).fit(x, y).predict(q))


@pytest.mark.paper(92, oracle="d")
def test_growing_in_any_order_is_fitting_once(blobs: Any) -> None:
    x, y = blobs()
    y = np.array(["dog", "ant", "cat", "bee"])[y]
    whole = Prototypes().fit(x, y)
    order = np.random.default_rng(0).permutation(len(x))
    start = np.isin(y, ["ant", "dog"])
    grown = Prototypes().fit(x[start], y[start])
    rest = order[~start[order]]
    for part in np.array_split(rest, 4):
        grown.grow(x[part], y[part])
    assert grown.classes_.tolist() == whole.classes_.tolist()
    np.testing.assert_allclose(grown.logits(x), whole.logits(x), atol=1e-6)
    grown.check_state()


def test_cosine_is_between_a_query_and_the_mean_as_it_is(blobs: Any) -> None:
    x, y = blobs()
    means = np.stack([x[y == c].mean(0) for c in range(4)])
    want = (x / np.linalg.norm(x, axis=1, keepdims=True)) @ (means / np.linalg.norm(means, axis=1, keepdims=True)).T
    np.testing.assert_allclose(Prototypes(metric="cosine").fit(x, y).logits(x), want, atol=1e-10)


def test_far_from_the_origin_no_digits_are_lost(blobs: Any) -> None:
    x, y = blobs()
    near, far = Prototypes().fit(x, y), Prototypes().fit((x + 1000).astype(np.float32), y)
    gap = np.abs(near.logits(x) - far.logits((x + 1000).astype(np.float32))).max()
    assert gap < 5e-3 * np.abs(near.logits(x)).max()


def test_a_class_whose_examples_weigh_nothing_is_never_the_answer() -> None:
    from handful.core.task import Query, make_task

    task = make_task(
        torch.eye(3), torch.tensor([0, 1, 2]), weight=torch.tensor([1.0, 1.0, 0.0]), query=Query(torch.eye(3))
    )
    logits = Prototypes().logits(task)
    assert isinstance(logits, torch.Tensor)
    assert logits.argmax(-1).tolist()[:2] == [0, 1]
    assert (logits[:, 2] < -1e30).all()


def test_refusals(blobs: Any) -> None:
    x, y = blobs()
    with pytest.raises(BadInput, match="linear form"):
        Prototypes(metric="cosine").fit(x, y).linear()
    with pytest.raises(BadInput, match="features"):
        Prototypes().fit(x, y).grow(x[:, :3], y)
