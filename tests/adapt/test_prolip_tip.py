"""ProLIP joined with Tip-Adapter-F, against the authors' code and its limits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from handful.adapt import head
from handful.adapt.base import Features
from handful.core.task import ClassText, Query, make_task
from handful.errors import BadInput

PART = "with-tip-adapter-f"


@pytest.fixture
def case(blobs: Any) -> tuple[Features, np.ndarray, dict[int, np.ndarray]]:
    h, y = blobs(noise=2.0, width=12)
    draw = np.random.default_rng(0)
    return Features(h @ draw.normal(size=(12, 8)), {"pre": h}), y, dict(enumerate(draw.normal(size=(4, 8))))


def joined(text: Any, **params: Any) -> Any:
    return head("prolip-tip-adapter-f", text=text, **params)


@pytest.mark.paper(10, oracle="f", part=PART)
def test_equals_the_authors_code(golden: Any) -> None:
    inputs, _ = golden("prolip")
    strengths, expected = golden("prolip_tip")
    views, labels = (torch.as_tensor(np.asarray(inputs[name])) for name in ("views", "labels"))
    h, query = views.flatten(0, 1), torch.as_tensor(np.asarray(inputs["query"]))
    start, text = (torch.as_tensor(np.asarray(inputs[name])) for name in ("projection", "text"))
    task = make_task(
        h @ start,
        labels.repeat(2),
        item=torch.arange(12).repeat(2),
        text=ClassText(text[:, None], torch.ones(4, 1, dtype=torch.bool)),
        views={"pre": h},
        query=Query(query @ start, views={"pre": query}),
    )
    made = head("prolip-tip-adapter-f", epochs=inputs["epochs"], lr=inputs["lr"], **strengths)
    with torch.no_grad():
        state = made.adapt(task)
    np.testing.assert_allclose(state["keys"], expected["keys"], atol=1e-5)
    # The reference's decay pulls the projection to zero, ours its change: at a rate of 0.01 in the fourth digit.
    np.testing.assert_allclose(start + state["change"], expected["projection"], atol=2e-3)
    np.testing.assert_allclose(made.logits(task), expected["logits"], atol=1e-2)


@pytest.mark.paper(10, oracle="a", part=PART)
def test_without_a_cache_a_strong_penalty_is_zero_shot(case: Any) -> None:
    x, y, text = case
    made = joined(text, alpha=0.0, reg=1e6, lr=1e-5).fit(x, y)
    assert made.state_["change"].abs().max() < 1e-4
    assert (made.predict(x) == head("zero-shot", text=text).fit(x.x, y).predict(x.x)).all()


@pytest.mark.paper(10, oracle="b", part=PART)
def test_without_a_rate_it_is_tip_adapter(case: Any) -> None:
    x, y, text = case
    made = joined(text, lr=0.0, epochs=3, alpha=2.0, beta=3.0).fit(x, y)
    tip = head("tip-adapter", text=text, alpha=2.0, beta=3.0).fit(x.x, y)
    np.testing.assert_allclose(made.logits(x), tip.logits(x.x), atol=1e-9)


def test_both_parts_learn_and_explain_the_support(case: Any) -> None:
    x, y, text = case

    def loss(**more: Any) -> float:
        p = joined(text, logit_scale=10.0, epochs=60, **more).fit(x, y).predict_proba(x)
        return float(-np.log(p[np.arange(len(y)), y]).mean())

    assert loss(lr=1e-2) < loss(lr=1e-2, alpha=0.0) < loss(lr=0.0, alpha=0.0)
    frozen = head("tip-adapter", text=text, alpha=1.0, beta=1.0).fit(x.x, y).state_["keys"]
    assert (joined(text, lr=1e-2).fit(x, y).state_["keys"] - frozen).abs().max() > 1e-3


def test_views_of_an_item_are_one_key(case: Any) -> None:
    x, y, text = case
    twice = Features(
        np.concatenate([x.x, 2 * x.x]), {"pre": np.concatenate([x.views["pre"]] * 2)}, np.tile(np.arange(len(y)), 2)
    )
    made = joined(text, epochs=0).fit(twice, np.tile(y, 2))
    assert made.state_["keys"].shape == (len(y), 8) and float(made.state_["value"].sum()) == len(y)


@pytest.mark.parametrize("bad", [{"alpha": -1.0}, {"beta": float("inf")}, {"reg": "1/n"}, {"epochs": -1}], ids=str)
def test_parameters_that_make_no_sense_are_refused(case: Any, bad: dict[str, Any]) -> None:
    x, y, text = case
    with pytest.raises(BadInput, match=f"^{next(iter(bad))} "):
        joined(text, **bad).fit(x, y)


def test_features_that_do_not_fit_are_refused(case: Any) -> None:
    x, y, text = case
    with pytest.raises(BadInput, match="view 'pre'"):
        joined(text).fit(x.x, y)
    with pytest.raises(BadInput, match="the features were made unit"):
        joined(text).fit(Features(x.x / np.linalg.norm(x.x, axis=1, keepdims=True), x.views), y)
