"""EASY's soft k-means against the authors' numbers, and what it reduces to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn.frozen import FrozenEstimator
from sklearn.neighbors import NearestCentroid
from sklearn.pipeline import make_pipeline

from handful.adapt import head
from handful.adapt.inputs import read_background
from handful.adapt.transforms import Chain
from handful.core.task import Query, make_task
from handful.errors import BadInput

SHOTS, QUERIES = 2, 4


def centred(x: np.ndarray, mean: np.ndarray) -> np.ndarray:
    moved = x - mean
    return np.asarray(moved / np.linalg.norm(moved, axis=-1, keepdims=True))


@pytest.mark.paper(8, oracle="e", part="transductive")
@pytest.mark.parametrize("how", ["|ME", "ME|ME", "|PEME", "ME|"])
def test_equals_the_authors_code(golden: Any, how: str) -> None:
    inputs, expected = golden("easy_softkmeans")
    features, base = np.asarray(inputs["features"]), np.asarray(inputs["base"]).reshape(-1, 6)
    before, letters = how.split("|")
    y, width = np.repeat(np.arange(3), SHOTS), features.shape[-1]
    for classes, items, distance in zip(inputs["classes"], inputs["items"], expected[how], strict=True):
        run = np.stack([features[c][rows] for c, rows in zip(classes, items, strict=True)])
        x, q = run[:, :SHOTS].reshape(-1, width), run[:, SHOTS:].reshape(-1, width)
        made = make_pipeline(FrozenEstimator(Chain.letters(before).fit(base)), head("easy", letters=letters)).fit(x, y)
        logits = made[-1].logits(made[:-1].transform(q))
        np.testing.assert_allclose(logits, -5 * np.square(distance), atol=1e-6)
    if how == "ME|":  # base features may be given to the head as well
        own = head("easy", center="base", background=base).fit(x, y)
        np.testing.assert_allclose(own.logits(q), logits, atol=1e-9)


@pytest.mark.paper(8, oracle="a", part="transductive")
def test_one_by_one_it_is_the_nearest_centroid_of_processed_features(blobs: Any) -> None:
    x, y = blobs(noise=1.5)
    q, base = blobs(shots=40, noise=1.5, seed=1)[0], blobs(seed=2)[0]
    for given, mean in (({"center": "base", "background": base}, base.mean(0)), ({}, x.mean(0))):
        want = NearestCentroid().fit(centred(x, mean), y).predict(centred(q, mean))
        assert np.array_equal(head("easy", transductive=False, **given).fit(x, y).predict(q), want)


@pytest.mark.paper(8, oracle="b", part="transductive")
@pytest.mark.parametrize(("scale", "shift"), [(0.1, 5.0), (30.0, -2.0)])
@pytest.mark.parametrize("center", ["run", "base"])
def test_translation_and_scale_of_everything_change_nothing(
    blobs: Any, center: str, scale: float, shift: float
) -> None:
    x, y = blobs()
    q, base = blobs(seed=1)[0], blobs(seed=2)[0]
    plain = head("easy", center=center, background=base).fit(x, y).logits(q)
    moved = head("easy", center=center, background=scale * base + shift).fit(scale * x + shift, y)
    np.testing.assert_allclose(moved.logits(scale * q + shift), plain, atol=1e-8)


@pytest.mark.paper(8, oracle="c", part="transductive")
def test_hot_and_cold_are_hard_and_no_k_means(blobs: Any) -> None:
    x, y = blobs(ways=3, noise=1.2)
    q = blobs(ways=3, shots=20, noise=1.2, seed=1)[0]
    mean = np.concatenate([x, q]).mean(0)
    z, support = centred(q, mean), centred(x, mean)
    means = np.stack([support[y == c].mean(0) for c in range(3)])
    for _ in range(4):
        distance = np.square(z[:, None] - means).sum(-1)
        member = np.eye(3)[distance.argmin(1)]
        means = np.stack([(support[y == c].sum(0) + member[:, c] @ z) / (6 + member[:, c].sum()) for c in range(3)])
    sharp = head("easy", temperature=1e7, n_iter=4).fit(x, y)
    np.testing.assert_allclose(np.asarray(sharp.logits(q)) / -1e7, distance, atol=1e-8)
    np.testing.assert_allclose(sharp.frozen(q).state_["mean"], means, atol=1e-8)
    flat = head("easy", temperature=1e-12, n_iter=4).fit(x, y).frozen(q).state_["mean"]
    shared = np.stack([(support[y == c].sum(0) + z.sum(0) / 3) / (6 + len(z) / 3) for c in range(3)])
    np.testing.assert_allclose(flat, shared, atol=1e-9)


def test_the_answer_comes_before_the_last_means(blobs: Any) -> None:
    x, y = blobs(ways=3, shots=1, noise=1.2)
    q = blobs(ways=3, shots=20, noise=1.2, seed=1)[0]
    one = head("easy", n_iter=1).fit(x, y)
    mean = np.concatenate([x, q]).mean(0)
    z, support = centred(q, mean), centred(x, mean)
    logits = -5 * np.square(z[:, None] - support).sum(-1)
    np.testing.assert_allclose(one.logits(q), logits, atol=1e-9)
    share = softmax(logits, 1)
    means = (support + share.T @ z) / (1 + share.sum(0)[:, None])
    np.testing.assert_allclose(one.frozen(q).logits(q), -5 * np.square(z[:, None] - means).sum(-1), atol=1e-9)


def test_unlabelled_items_move_center_and_means(blobs: Any) -> None:
    x, y = blobs(shots=1, noise=1.5, width=30)
    pool, truth = blobs(shots=60, noise=1.5, width=30)
    few = (head("easy", transductive=False).fit(x, y).predict(pool) == truth).mean()
    many = (head("easy", transductive=False, unlabelled=pool).fit(x, y).predict(pool) == truth).mean()
    assert many > few + 0.2


def test_padding_sways_nothing_with_base_features(blobs: Any) -> None:
    x, y = (torch.as_tensor(a) for a in blobs(ways=3))
    base = blobs(seed=2)[0]
    given = {"weight": torch.tensor([1.0] * 17 + [0.0], dtype=torch.float64)}
    task = make_task(x, y, ways=3, query=Query(x[:4]), **given)
    fitted = head("easy", center="base", background=base).fit(x[:17].numpy(), y[:17].numpy())
    logits = head("easy", center="base").logits(replace(task, background=read_background(base, x)))
    np.testing.assert_allclose(logits, fitted.logits(x[:4].numpy()), atol=1e-9)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"letters": "MQ"}, "unknown letter 'Q'"),
        ({"letters": "MEM"}, "M once at most"),
        ({"letters": None}, "letters are text"),
        ({"center": "support"}, "center is one of"),
        ({"center": "base"}, "needs base features: give background="),
        ({"temperature": 0.0}, "temperature must"),
        ({"n_iter": 0}, "n_iter must"),
        ({"letters": "P"}, "Negative values"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(blobs: Any, bad: dict[str, Any], said: str) -> None:
    x, y = blobs(ways=3)
    with pytest.raises(BadInput, match=said):
        head("easy", **bad).fit(x, y).predict(x)


def test_an_item_at_the_mean_has_no_direction(blobs: Any) -> None:
    x, y = blobs(ways=3)
    base = head("easy", center="base", background=blobs(seed=2)[0]).fit(x, y)
    with pytest.raises(BadInput, match="an item is all zeros once the mean is taken off"):
        base.predict(base.state_["center"].numpy()[None])
    same, labels = np.ones((4, 3)), [0, 0, 1, 1]
    with pytest.raises(BadInput, match="an example is all zeros"):
        head("easy", transductive=False).fit(same, labels)
    with pytest.raises(BadInput, match="an example is all zeros"):
        head("easy").fit(same, labels).predict(same)


def test_an_example_at_the_mean_of_the_support_has_a_direction_from_that_of_the_run() -> None:
    x, items = np.array([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]]), np.array([[0.0, 1.0], [3.0, 1.0], [2.0, 5.0]])
    run = np.concatenate([x, items])
    z = centred(run, run.mean(0))
    nearest = ((z[3:, None] - z[:3]) ** 2).sum(-1).argmin(1)
    for fitted in (head("easy", n_iter=1).fit(x, [0, 1, 2]), head("easy", n_iter=1).fit(x, [0, 1, 2]).frozen(items)):
        assert np.isfinite(fitted.predict_proba(items)).all()
    assert head("easy", n_iter=1).fit(x, [0, 1, 2]).predict(items).tolist() == nearest.tolist()
    head("easy", transductive=False, unlabelled=items).fit(x, [0, 1, 2])
