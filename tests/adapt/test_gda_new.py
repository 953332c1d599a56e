"""Gaussian discriminants of classes known by their text alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from handful.adapt import head
from handful.adapt.base import Features
from handful.adapt.gda_new import synthesised
from handful.errors import BadInput

NEW = [4, 5, 6]


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.fixture
def case() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Examples of four classes, their labels, text of those and of three more, queries."""
    draw = np.random.default_rng(0)
    centre, y = draw.normal(size=(4, 8)), np.repeat(np.arange(4), 20)
    x, text = unit(centre[y] + draw.normal(size=(80, 8))), unit(centre + draw.normal(size=(4, 8)))
    return x, y, np.concatenate([text, unit(draw.normal(size=(3, 8)))]), unit(draw.normal(size=(5, 8)))


@pytest.mark.paper(65, oracle="d", part="base-to-new")
def test_equals_the_authors_code(golden: Any, case: Any) -> None:
    inputs, expected = golden("gda_base_to_new")
    x, y, text, q = case
    made = head("gda", alpha=inputs["alpha"], shrinkage="classes", text=dict(enumerate(text))).fit(x, y)
    for name, classes in (("base", [0, 1, 2, 3]), ("new", NEW)):
        gap = np.asarray(made.logits(q, classes)) - np.asarray(expected[name])
        # The reference adds log(1/C) to every class, times alpha: the same for all.
        np.testing.assert_allclose(gap, -inputs["alpha"] * np.log(1 / len(classes)), rtol=1e-4)


@pytest.mark.paper(65, oracle="e", part="base-to-new")
def test_alpha_goes_from_zero_shot_to_the_gaussians_of_new_classes(case: Any) -> None:
    x, y, text, _ = case
    q = np.random.default_rng(1).normal(size=(200, 8))
    given = {"text": dict(enumerate(text))}
    zero = head("zero-shot", **given).fit(x, y)
    made = head("gda", alpha=0.0, **given).fit(x, y)
    np.testing.assert_allclose(made.logits(q, NEW), zero.logits(q, NEW), atol=1e-9)

    k = 64
    near = [x[np.argsort(-(x @ t), kind="stable")[:k]] for t in text[4:]]
    mean = [np.concatenate([v, np.tile(t, (16, 1))]).mean(0) for v, t in zip(near, text[4:], strict=True)]
    scatter = [(v - t).T @ (v - t) for v, t in zip(near, text[4:], strict=True)]
    p = np.mean([8 * np.linalg.pinv(s + np.trace(s) / (k - 1) * np.eye(8)) for s in scatter], 0)
    plain = np.stack([unit(q) @ p @ mu - mu @ p @ mu / 2 for mu in mean], 1)
    much = head("gda", alpha=1e9, **given).fit(x, y)
    assert np.array_equal(much.predict(q, NEW), np.array(NEW)[plain.argmax(1)])
    assert not np.array_equal(much.predict(q, NEW), zero.predict(q, NEW))


def test_weights_count_as_rows_and_few_rows_are_all_taken() -> None:
    draw = np.random.default_rng(0)
    x, text = torch.as_tensor(unit(draw.normal(size=(70, 5)))), torch.as_tensor(unit(draw.normal(size=(3, 5))))
    weight = torch.ones(70, dtype=torch.float64)
    weight[:3], weight[3] = 2, 0
    twice = torch.cat([x[:3], x[:3], x[4:]])
    for got, want in zip(synthesised(x, weight, text), synthesised(twice, torch.ones(72).double(), text), strict=True):
        torch.testing.assert_close(got, want)
    w, b = synthesised(x[:1], weight[:1], text)
    assert w.isfinite().all() and b.isfinite().all()


def test_side_by_side_with_seen_classes_and_after_saving(case: Any) -> None:
    x, y, text, q = case
    made = head("gda", priors="empirical", text=dict(enumerate(text))).fit(x, y)
    both = np.asarray(made.logits(q, [5, 0, 6]))
    np.testing.assert_allclose(both[:, [1]], np.asarray(made.logits(q))[:, :1], atol=1e-9)
    np.testing.assert_allclose(both[:, [0, 2]], made.logits(q, [5, 6]), atol=1e-9)
    again = type(made).restore(made.parameters(), made.classes_, made.state_, made.n_features_in_, made.unseen_)
    again.check_state()
    np.testing.assert_array_equal(again.logits(q, NEW), made.logits(q, NEW))
    again.state_ = {**again.state_, "unseen_bias": torch.zeros(2)}
    with pytest.raises(BadInput, match="'unseen_bias' has shape"):
        again.check_state()


def test_classes_that_cannot_be_known_are_refused(case: Any) -> None:
    x, y, text, q = case
    with pytest.raises(BadInput, match="class 4 is not known"):
        head("gda").fit(x, y).predict(q, [0, 4])
    assert np.array_equal(head("gda").fit(x, y).predict(q, [0, 3]) % 3, np.zeros(5))
    narrow = Features(x, {"aligned": x[:, :6]})  # text has a space of its own, in which there are no examples
    made = head("gda", text={c: t[:6] for c, t in enumerate(text)}).fit(narrow, y)
    with pytest.raises(BadInput, match="class 4 is not known"):
        made.predict(Features(q, {"aligned": q[:, :6]}), [0, 4])
