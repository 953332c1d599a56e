"""LP++ against the authors' numbers, and what makes it a descent."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from handful.adapt import head
from handful.errors import BadInput


def test_equals_the_authors_code(golden: Any) -> None:
    inputs, expected = golden("lp")
    fitted = head("lp++", text=dict(enumerate(np.asarray(inputs["text"]))), epochs=inputs["epochs"])
    fitted.fit(np.asarray(inputs["support"]), np.asarray(inputs["labels"]))
    np.testing.assert_allclose(fitted.state_["alpha"], expected["alpha"], atol=1e-7)
    np.testing.assert_allclose(fitted.logits(np.asarray(inputs["query"])), expected["logits"], atol=1e-7)


def test_before_training_it_is_the_text_and_the_sum_of_examples(blobs: Any) -> None:
    x, y = blobs(shots=(2, 5, 3, 4))
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    text = unit[[0, 2, 7, 10]]
    fitted = head("lp++", text=dict(enumerate(text)), epochs=0).fit(x, y)
    cosines = unit @ text.T
    alpha = 250 * np.mean([cosines[y == c, c].mean() for c in range(4)])
    sums = np.stack([unit[y == c].sum(0) for c in range(4)])
    np.testing.assert_allclose(fitted.logits(x), unit @ sums.T + alpha * cosines, atol=1e-9)


def test_training_lowers_the_loss_without_a_rate(blobs: Any) -> None:
    x, y = blobs(noise=1.5)
    text = dict(enumerate(np.random.default_rng(0).normal(size=(4, 10))))

    def loss(epochs: int) -> float:
        p = head("lp++", text=text, epochs=epochs).fit(x, y).predict_proba(x)
        return float(-np.log(p[np.arange(len(y)), y].clip(1e-300)).mean())

    assert loss(300) < loss(20) < loss(0)
    assert (head("lp++", text=text).fit(x, y).predict(x) == y).mean() > 0.95


def test_epochs_below_0_are_refused(blobs: Any) -> None:
    x, y = blobs()
    with pytest.raises(BadInput, match=r"^epochs must be a whole number from 0"):
        head("lp++", text={c: x[y == c][0] for c in range(4)}, epochs=-1).fit(x, y)
