"""Kernel ridge regression against what paper 140's sheet says it must equal."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
from sklearn.kernel_ridge import KernelRidge as ScikitKernelRidge
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.preprocessing import normalize as unit

from handful.adapt.kernel import KernelRidge, ProKeR
from handful.errors import BadInput


def kernel(a: np.ndarray, b: np.ndarray, beta: float) -> np.ndarray:
    return np.asarray(rbf_kernel(unit(a), unit(b), beta / 2))


def proker(text: np.ndarray, **params: Any) -> ProKeR:
    return ProKeR(text=dict(enumerate(text)), **params)


@pytest.mark.paper(140, oracle="a")
@pytest.mark.parametrize("convention", ["proker", "krr"])
def test_equals_scikit_learn_on_what_zero_shot_gets_wrong(problem: Any, convention: Literal["proker", "krr"]) -> None:
    x, y, q, text = problem
    beta, lam = 2.0, 0.3
    f0, start = unit(q) @ unit(text).T, unit(x) @ unit(text).T
    ridge = ScikitKernelRidge(kernel="precomputed", alpha=lam).fit(kernel(x, x, beta), np.eye(4)[y] - start)
    correction = ridge.predict(kernel(q, x, beta)) * (lam if convention == "proker" else 1)
    got = proker(text, beta=beta, lam=lam, convention=convention).fit(x, y).logits(q)
    np.testing.assert_allclose(got, f0 + correction, atol=1e-5)


@pytest.mark.paper(140, oracle="b")
def test_a_small_ridge_interpolates(problem: Any) -> None:
    x, y, _, text = problem
    got = proker(text, beta=3.0, lam=1e-9, convention="krr").fit(x, y).logits(x)
    np.testing.assert_allclose(got, np.eye(4)[y], atol=1e-5)


@pytest.mark.paper(140, oracle="c")
def test_a_large_ridge_ends_at_zero_shot_or_at_the_plain_average(problem: Any) -> None:
    x, y, q, text = problem
    f0, start = unit(q) @ unit(text).T, unit(x) @ unit(text).T
    np.testing.assert_allclose(proker(text, beta=2.0, lam=1e9, convention="krr").fit(x, y).logits(q), f0, atol=1e-5)
    average = f0 + kernel(q, x, 2.0) @ (np.eye(4)[y] - start)
    np.testing.assert_allclose(proker(text, beta=2.0, lam=1e9).fit(x, y).logits(q), average, atol=1e-5)


@pytest.mark.paper(140, oracle="d")
def test_a_flat_kernel_shifts_all_queries_alike(problem: Any) -> None:
    x, y, q, text = problem
    shift = proker(text, beta=0.0, lam=0.5).fit(x, y).logits(q) - unit(q) @ unit(text).T
    np.testing.assert_allclose(shift, np.repeat(shift[:1], len(q), 0), atol=1e-9)


@pytest.mark.paper(140, oracle="e")
@pytest.mark.parametrize("shots", ["1", "4", "16"])
def test_equals_the_authors_code(golden: Any, shots: str) -> None:
    inputs, expected = golden("proker")
    strengths = inputs["strengths"][shots]
    head = proker(np.asarray(inputs["text"]), beta=strengths["beta"], lam=strengths["lmbda"])
    head.fit(np.asarray(inputs["support"]), np.asarray(inputs["labels"]))
    np.testing.assert_allclose(head.logits(np.asarray(inputs["query"])), expected[shots], atol=2e-5)


@pytest.mark.parametrize(("shots", "pair"), [(1, (3, 0.05)), (2, (2.6, 0.05)), (7, (1.66, 0.07)), (40, (1.7, 0.1))])
def test_published_strengths_by_the_nearest_number_of_shots(blobs: Any, shots: int, pair: tuple[float, float]) -> None:
    x, y = blobs(shots=shots)
    state = proker(np.eye(4, 10)).fit(x, y).state_
    assert (float(state["beta"]), float(state["strength"])) == pytest.approx(pair)


def test_kernel_ridge_is_scikit_learns_on_labels_above_the_flat_guess(problem: Any) -> None:
    x, y, q, _ = problem
    want = ScikitKernelRidge(kernel="precomputed", alpha=0.2).fit(kernel(x, x, 1.5), np.eye(4)[y] - 0.25)
    got = KernelRidge(beta=1.5, alpha=0.2).fit(x, y).logits(q)
    np.testing.assert_allclose(got, want.predict(kernel(q, x, 1.5)), atol=1e-9)


def test_a_single_item_a_class_cannot_be_judged(blobs: Any) -> None:
    x, y = blobs(shots=(1, 5, 5, 5))
    state = KernelRidge().fit(x, y).state_
    assert (float(state["beta"]), float(state["strength"])) == pytest.approx((3.0, 0.1))


def test_a_ridge_below_the_precision_is_refused(blobs: Any) -> None:
    x, y = blobs()
    twice = np.concatenate([x, x]).astype(np.float32)
    with pytest.raises(BadInput, match=r"too small for torch\.float32"):
        KernelRidge(beta=1.0, alpha=1e-12).fit(twice, np.concatenate([y, y]))


def test_a_kernel_that_does_not_fit_into_memory_is_refused(blobs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("handful.adapt.kernel.LIMIT", 1000)
    with pytest.raises(BadInput, match="24 rows needs several matrices"):
        KernelRidge().fit(*blobs())


def test_many_rows_choose_the_same_strength_as_few(blobs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = blobs()
    slow = KernelRidge(beta=3.0, alpha="loo").fit(x, y).state_["strength"]
    monkeypatch.setattr("handful.adapt.kernel.MANY", 2)
    assert KernelRidge(beta=3.0, alpha="loo").fit(x, y).state_["strength"] == slow


@pytest.mark.parametrize("bad", [{"beta": None}, {"beta": -1.0}, {"alpha": [1.0]}, {"alpha": 0.0}], ids=str)
def test_strengths_that_are_none_are_refused(blobs: Any, bad: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=f"^{next(iter(bad))} must be a finite number"):
        KernelRidge(**bad).fit(*blobs())
