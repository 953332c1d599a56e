"""Tip-Adapter against numbers its authors' code gave."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from handful.adapt import head
from handful.adapt.zero_shot import ZeroShot


@pytest.mark.parametrize("key", ["tip-adapter", "tip-adapter-f"])
def test_equals_the_authors_code(golden: Any, key: str) -> None:
    inputs, expected = golden("tip_adapter")
    training = {"epochs": inputs["epochs"], "lr": inputs["lr"]} if key == "tip-adapter-f" else {}
    text = dict(enumerate(np.asarray(inputs["text"])))
    fitted = head(key, text=text, alpha=inputs["alpha"], beta=inputs["beta"], **training)
    fitted.fit(np.asarray(inputs["support"]), np.asarray(inputs["labels"]))
    np.testing.assert_allclose(fitted.logits(np.asarray(inputs["query"])), expected[key], atol=1e-6)


def test_without_a_cache_is_zero_shot(blobs: Any) -> None:
    x, y = blobs()
    text = {c: x[y == c][0] for c in range(4)}
    none = head("tip-adapter", text=text, alpha=0.0).fit(x, y)
    np.testing.assert_allclose(none.logits(x), ZeroShot(text=text).fit(x, y).logits(x), atol=1e-12)


def test_training_lowers_the_loss_and_leaves_the_support_better_explained(blobs: Any) -> None:
    x, y = blobs(noise=2.0)
    text = dict(enumerate(np.random.default_rng(0).normal(size=(4, 10))))

    def loss(epochs: int) -> float:
        fitted = head("tip-adapter-f", text=text, alpha=3.0, beta=3.0, epochs=epochs, lr=0.01).fit(x, y)
        return float(-np.log(fitted.predict_proba(x)[np.arange(len(y)), y]).mean())

    untrained = head("tip-adapter", text=text, alpha=3.0, beta=3.0).fit(x, y).predict_proba(x)
    assert loss(0) == pytest.approx(float(-np.log(untrained[np.arange(len(y)), y]).mean()))
    assert loss(30) < loss(5) < loss(0)


def test_more_rows_than_a_step_holds_are_drawn_by_the_seed(blobs: Any) -> None:
    x, y = blobs()
    text = {c: x[y == c][0] for c in range(4)}

    def keys(seed: int) -> Any:
        fitted = head("tip-adapter-f", text=text, batch_size=5, epochs=2, random_state=seed).fit(x, y)
        return fitted.state_["keys"].numpy()

    assert np.array_equal(keys(1), keys(1))
    assert not np.array_equal(keys(1), keys(2))


def test_the_search_follows_the_reference_grid(blobs: Any) -> None:
    x, y = blobs(noise=2.0)
    state = head("tip-adapter", text={c: x[y == c][0] for c in range(4)}, alpha="loo", beta="loo").fit(x, y).state_
    grid = [0.1 + i * (top - 0.1) / 20 for top in (3.0, 7.0) for i in range(20)]
    assert min(abs(float(state["alpha"]) - value) for value in grid[:20]) < 1e-6
    assert min(abs(float(state["beta"]) - value) for value in grid[20:]) < 1e-6
    few = head("tip-adapter", text={c: x[y == c][0] for c in range(4)}, alpha="loo").fit(x[::6], y[::6]).state_
    assert float(few["alpha"]) == pytest.approx(1.17)
