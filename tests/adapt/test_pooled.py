"""What unlabelled items add to `auto`."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from handful.adapt import head, pooled
from handful.adapt.base import Features


def blobs(n: int, seed: int, classes: int = 4, noise: float = 1.6, width: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """``n`` items a class of well-shaped clusters, in the order of their classes."""
    centre = np.random.default_rng(0).normal(size=(classes, width))
    y = np.repeat(np.arange(classes), n)
    x = 2 * centre[y] + noise * np.random.default_rng(seed).normal(size=(len(y), width))
    return x.astype(np.float32), np.array([f"k{c}" for c in y])


def right(fitted: object, x: np.ndarray, y: np.ndarray) -> float:
    return float((fitted.predict(x) == y).mean())  # type: ignore[attr-defined]


@pytest.mark.parametrize("shots", [1, 3])
def test_clusters_in_the_pool_make_few_labels_go_further(shots: int) -> None:
    (test, names), (pool, _) = blobs(100, 1), blobs(100, 2)
    gains = []
    for seed in range(5):
        x, y = blobs(shots, 10 + seed)
        gains.append(
            right(head("auto", unlabelled=pool).fit(x, y), test, names) - right(head("auto").fit(x, y), test, names)
        )
    assert np.mean(gains) > 0.01 and min(gains) > -0.02


def test_an_answer_does_not_depend_on_what_else_is_asked() -> None:
    (x, y), (pool, _), (asked, _) = blobs(3, 1), blobs(50, 2), blobs(10, 3)
    fitted = head("auto", unlabelled=pool).fit(x, y)
    alone = np.concatenate([fitted.logits(asked[[i]]) for i in range(5)])
    np.testing.assert_allclose(alone, fitted.logits(asked)[:5], atol=1e-4)


def test_nothing_is_assumed_of_how_often_a_class_occurs() -> None:
    """Of a pool that is 87 % of one class, most is taken for that class; a balanced share would be 25 %."""
    (x, y), (pool, names) = blobs(3, 1), blobs(100, 3)
    rows = np.concatenate([np.flatnonzero(names == c)[: 100 if c == "k0" else 5] for c in np.unique(names)])
    answers = head("auto", unlabelled=pool[rows]).fit(x, y).predict(pool[rows])
    assert 0.7 < (answers == "k0").mean() < 0.95


def test_a_pool_that_explains_left_out_examples_worse_is_not_trusted() -> None:
    """Clusters that cut across the classes: each class is half of either cluster."""
    rng = np.random.default_rng(0)
    side, tone = rng.integers(0, 2, 400), rng.integers(0, 2, 400)
    x = rng.normal(size=(400, 8)).astype(np.float32)
    x[:, 0] += 8 * (2 * side - 1)
    x[:, 1] += 2 * (2 * tone - 1)
    y = np.where(tone == 1, "good", "bad")
    fitted = head("auto", unlabelled=x[200:]).fit(x[:40], y[:40])
    assert fitted.state_["pool.share"] < 0.5
    assert right(fitted, x[40:200], y[40:200]) > 0.9


def test_two_classes_with_one_example_each_leave_the_pool_alone() -> None:
    (x, y), (pool, _) = blobs(1, 1, classes=2), blobs(50, 2, classes=2)
    fitted, plain = head("auto", unlabelled=pool).fit(x, y), head("auto").fit(x, y)
    np.testing.assert_allclose(fitted.logits(pool), plain.logits(pool), atol=1e-5)


def test_an_example_is_judged_without_itself() -> None:
    """The closed form against class means made anew without the example."""
    torch.manual_seed(0)
    rows = torch.nn.functional.normalize(torch.randn(5, 6, dtype=torch.float64), dim=-1)
    y = torch.nn.functional.one_hot(torch.tensor([0, 0, 1, 1, 2]), 3).double()
    pool = torch.randn(3, 6, dtype=torch.float64)
    got = pooled._without_own(rows, pool + y.mT @ rows, y)
    for n in range(5):
        rest = y.clone()
        rest[n] = 0
        c = torch.nn.functional.normalize(pool + rest.mT @ rows, dim=-1)
        torch.testing.assert_close(got[n], c @ rows[n])


def test_views_of_the_pool_are_read_with_the_features() -> None:
    (x, y), (pool, _) = blobs(3, 1), blobs(50, 2)
    middle = {"middle": x[:, ::2]}
    fitted = head("auto", unlabelled=Features(pool, {"middle": pool[:, ::2]})).fit(Features(x, middle), y)
    assert fitted.predict(Features(x, middle)).tolist() == y.tolist()
    assert "unlabelled items" in fitted.choice_
