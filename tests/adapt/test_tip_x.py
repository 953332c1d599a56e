"""TIP-X: divergences against scipy and the authors' numbers, and what the head reduces to."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import entropy

from handful.adapt import head
from handful.adapt.base import Features
from handful.adapt.tip_x import divergence
from handful.core.distances import unit
from handful.errors import BadInput
from handful.testing import CHECKS


@pytest.fixture
def case(blobs: Any) -> tuple[np.ndarray, np.ndarray, dict[int, np.ndarray]]:
    x, y = blobs(noise=2.0)
    return x, y, dict(enumerate(np.random.default_rng(0).normal(size=(4, 10))))


@pytest.mark.paper(35, oracle="a")
def test_without_the_second_opinion_it_is_tip_adapter(case: Any) -> None:
    x, y, text = case
    ours = head("tip-x", text=text, gamma=0.0, alpha=2.0, beta=3.0).fit(x, y)
    theirs = head("tip-adapter", text=text, alpha=2.0, beta=3.0).fit(x, y)
    np.testing.assert_allclose(ours.logits(x), theirs.logits(x), atol=1e-9)
    none = head("tip-x", text=text, gamma=0.0, alpha=0.0).fit(x, y)
    np.testing.assert_allclose(none.logits(x), head("zero-shot", text=text).fit(x, y).logits(x), atol=1e-9)


@pytest.mark.paper(35, oracle="b")
def test_divergence_is_scipys() -> None:
    draw = np.random.default_rng(0)
    p, q = draw.dirichlet(np.ones(5), 7), draw.dirichlet(np.ones(5), 4)
    found = divergence(torch.as_tensor(np.log(p)), torch.as_tensor(np.log(q))).numpy()
    np.testing.assert_allclose(found, entropy(p[:, None], q[None], axis=-1), atol=1e-12)
    own = divergence(torch.as_tensor(np.log(p)), torch.as_tensor(np.log(p)))
    assert own.diagonal().abs().max() < 1e-12
    assert (own >= 0).all()


@pytest.mark.paper(35, oracle="c")
def test_divergences_of_the_support_span_the_range_of_its_cosines(case: Any) -> None:
    x, y, text = case
    state = head("tip-x", text=text).fit(x, y).state_
    scaled = state["scale"] * divergence(state["signature"], state["signature"]) + state["offset"]
    cosines = state["keys"] @ state["keys"].mT
    torch.testing.assert_close(torch.stack(scaled.aminmax()), torch.stack(cosines.aminmax()))


@pytest.mark.paper(35, oracle="d")
def test_what_is_added_to_all_cosines_of_an_item_changes_no_signature() -> None:
    cosines = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    real = torch.ones(3, dtype=torch.bool)
    made = head("tip-x", logit_scale=1.0)
    torch.testing.assert_close(
        made._signature(cosines + torch.arange(5.0)[:, None], real), made._signature(cosines, real)
    )


@pytest.mark.paper(35, oracle="e")
def test_equals_the_authors_code(golden: Any) -> None:
    inputs, expected = golden("tip_x")
    strengths = {name: inputs[name] for name in ("alpha", "beta", "gamma", "temperature")}
    fitted = head("tip-x", text=dict(enumerate(np.asarray(inputs["text"]))), **strengths)
    fitted.fit(np.asarray(inputs["support"]), np.asarray(inputs["labels"]))
    query, state = np.asarray(inputs["query"]), fitted.state_
    prior = torch.as_tensor(100 * query @ np.asarray(inputs["text"]).T)
    unlike = divergence(fitted._signature(prior, state["real"]), state["signature"])
    np.testing.assert_allclose(unlike, expected["divergence"], atol=1e-8)
    scaled = state["scale"] * divergence(state["signature"], state["signature"]) + state["offset"]
    np.testing.assert_allclose(scaled, expected["scaled"], atol=1e-8)
    np.testing.assert_allclose(fitted.logits(query), expected["logits"], atol=1e-6)


def test_divergences_that_are_all_the_same_tell_nothing(blobs: Any) -> None:
    x, y = blobs(ways=2)
    same = dict.fromkeys(range(2), x[0])
    ours = head("tip-x", text=same, gamma=9.0).fit(x, y)
    np.testing.assert_allclose(ours.logits(x), head("tip-x", text=same, gamma=0.0).fit(x, y).logits(x), atol=1e-9)


def test_divergences_that_differ_by_rounding_only_tell_nothing() -> None:
    draw = np.random.default_rng(0)
    x, y, text = draw.normal(size=(80, 10)), np.arange(80) % 40, dict(enumerate(draw.normal(size=(40, 16))))
    aligned = draw.normal(size=16) * draw.uniform(0.5, 2, (80, 1))  # one direction: the class texts see no difference
    for dtype in (np.float64, np.float32):
        items = Features(x.astype(dtype), {"aligned": aligned.astype(dtype)})
        assert float(head("tip-x", text=text).fit(items, y).state_["scale"]) == 0


@pytest.mark.parametrize("temperature", [0.5, 0.005])
def test_short_numbers_tell_signatures_apart(temperature: float) -> None:
    draw = np.random.default_rng(0)
    words = unit(torch.as_tensor(draw.normal(size=64) + 0.9 * draw.normal(size=(100, 64)))).numpy()  # all rather alike
    y = np.arange(200) % 100
    x = draw.normal(size=64) + 2 * words[y] + 0.8 * draw.normal(size=(200, 64))
    made = {"text": dict(enumerate(words)), "alpha": 0.0, "gamma": 30.0, "temperature": temperature}
    long, short = (head("tip-x", **made).fit(x.astype(d), y).logits(x.astype(d)) for d in (np.float64, np.float32))
    np.testing.assert_allclose(short, long, atol=2e-3)


@pytest.mark.parametrize("check", ["precision", "padding", "weights"])
def test_searched_strengths_keep_the_contract(check: str) -> None:
    CHECKS[check](head("tip-x", alpha="loo", beta="loo", gamma="loo"))


def test_the_search_prefers_a_cache_that_helps(blobs: Any) -> None:
    x, y = blobs()
    wrong = {c: x[y == (c + 1) % 4][0] for c in range(4)}
    fitted = head("tip-x", text=wrong, alpha="loo", beta="loo", gamma="loo", logit_scale=5.0).fit(x, y)
    assert (fitted.predict(x) == y).mean() > 0.9


@pytest.mark.parametrize("bad", [{"temperature": 0.0}, {"alpha": "cv"}, {"gamma": -1.0}, {"beta": float("inf")}])
def test_parameters_that_make_no_sense_are_refused(case: Any, bad: dict[str, Any]) -> None:
    x, y, text = case
    with pytest.raises(BadInput, match=f"^{next(iter(bad))} "):
        head("tip-x", text=text, **bad).fit(x, y)
