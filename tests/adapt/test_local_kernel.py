"""Local kernel estimates against plain sums, scikit-learn, Tip-Adapter and the authors' code."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.preprocessing import normalize as unit

from handful.adapt import head
from handful.errors import BadInput
from handful.testing import check_head

PART = "kernel-family"
KINDS = ("tip", "nw", "local-linear")


def kernel(a: np.ndarray, b: np.ndarray, beta: float) -> np.ndarray:
    return np.asarray(rbf_kernel(unit(a), unit(b), beta / 2))


def cache(text: np.ndarray, **params: Any) -> Any:
    return head("kernel-cache", text=dict(enumerate(text)), **params)


@pytest.mark.paper(140, oracle="e", part=PART)
def test_equals_the_authors_code(golden: Any) -> None:
    inputs, expected = golden("kernel_cache")
    data = golden("proker")[0]
    made = cache(np.asarray(data["text"]), kind="tip", alpha=inputs["alpha"] / 100, beta=inputs["beta"])
    made.fit(np.asarray(data["support"]), np.asarray(data["labels"]))
    np.testing.assert_allclose(100 * np.asarray(made.logits(np.asarray(data["query"]))), expected, atol=1e-3)


@pytest.mark.paper(140, oracle="d", part=PART)
@pytest.mark.parametrize("kind", ["tip", "nw"])
def test_a_flat_kernel_shifts_all_queries_alike(problem: Any, kind: str) -> None:
    x, y, q, text = problem
    shift = cache(text, kind=kind, alpha=0.5, beta=0.0).fit(x, y).logits(q) - unit(q) @ unit(text).T
    counts = np.bincount(y).astype(float)
    residual = (np.eye(4)[y] - unit(x) @ unit(text).T).mean(0)
    np.testing.assert_allclose(shift, np.tile(0.5 * (counts if kind == "tip" else residual), (len(q), 1)), atol=1e-9)


@pytest.mark.paper(140, oracle="c", part=PART)
def test_a_large_ridge_makes_the_linear_fit_a_plain_average(problem: Any) -> None:
    x, y, q, text = problem
    given = {"alpha": 1.0, "beta": 2.0}
    average = cache(text, kind="nw", **given).fit(x, y).logits(q)
    np.testing.assert_allclose(
        cache(text, kind="local-linear", ridge=1e9, **given).fit(x, y).logits(q), average, atol=1e-5
    )
    k = kernel(q, x, 2.0)
    residual = np.eye(4)[y] - unit(x) @ unit(text).T
    np.testing.assert_allclose(average, unit(q) @ unit(text).T + k @ residual / k.sum(1, keepdims=True), atol=1e-9)
    summed = head("proker", text=dict(enumerate(text)), beta=2.0, lam=1e9).fit(x, y).logits(q)  # without denominator
    np.testing.assert_allclose(summed, unit(q) @ unit(text).T + k @ residual, atol=1e-5)


def test_the_linear_fit_is_a_weighted_ridge_of_scikit_learn(problem: Any) -> None:
    x, y, q, text = problem
    weight = np.arange(len(y)) % 3 + 0.5
    residual = np.eye(4)[y] - unit(x) @ unit(text).T
    fit = [Ridge(alpha=0.2).fit(unit(x), residual, sample_weight=weight * k) for k in kernel(q, x, 4.0)]
    want = [unit(z[None]) @ unit(text).T + 0.7 * ridge.predict(unit(z[None])) for z, ridge in zip(q, fit, strict=True)]
    made = cache(text, kind="local-linear", alpha=0.7, beta=4.0, ridge=0.2).fit(x, y, sample_weight=weight)
    np.testing.assert_allclose(made.logits(q), np.concatenate(want), atol=1e-7)


def test_many_queries_are_solved_in_parts(problem: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, q, text = problem
    made = cache(text, kind="local-linear", alpha=0.7, beta=4.0).fit(x, y)
    whole = made.logits(q)
    monkeypatch.setattr("handful.adapt.local_kernel.BLOCK", 500)
    np.testing.assert_allclose(made.logits(q), whole, atol=1e-12)


def test_tip_is_tip_adapter_without_logit_scale(problem: Any) -> None:
    x, y, q, text = problem
    tip = head("tip-adapter", text=dict(enumerate(text)), alpha=2.0, beta=3.0).fit(x, y).logits(q)
    got = cache(text, kind="tip", alpha=0.02, beta=3.0).fit(x, y).logits(q)
    np.testing.assert_allclose(got, np.asarray(tip) / 100, atol=1e-9)


def test_far_queries_get_the_zero_shot_answer(problem: Any) -> None:
    x, y, q, text = problem
    for kind in KINDS:
        got = cache(text, kind=kind, alpha=1.0, beta=1e6).fit(x, y).logits(q)
        np.testing.assert_allclose(got, unit(q) @ unit(text).T, atol=1e-9)


@pytest.mark.parametrize("kind", ["tip", "local-linear"])
def test_the_contract_of_heads(kind: str) -> None:
    check_head(head("kernel-cache", kind=kind))


@pytest.mark.parametrize(
    "bad",
    [{"kind": "krr"}, {"alpha": -1.0}, {"alpha": "cv"}, {"beta": float("nan")}, {"ridge": 0.0}],
    ids=str,
)
def test_parameters_that_make_no_sense_are_refused(problem: Any, bad: dict[str, Any]) -> None:
    x, y, _, text = problem
    with pytest.raises(BadInput, match=f"^{next(iter(bad))} "):
        cache(text, **bad).fit(x, y)


def test_too_many_examples_for_a_system_a_query_are_refused(problem: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, _, text = problem
    monkeypatch.setattr("handful.adapt.local_kernel.MOST", 13)
    with pytest.raises(BadInput, match="a system of all 14 examples"):
        cache(text, kind="local-linear").fit(x, y)
    cache(text).fit(x, y)
