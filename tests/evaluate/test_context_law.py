"""Paper 095: accuracy from compute and context, fitted and foretold."""

from __future__ import annotations

import json

import numpy as np
import pytest

from handful.errors import BadInput
from handful.evaluate.context_law import ContextLaw, OneCompute, fit_context_law, training_flops

A, ALPHA, B, BETA = 0.9, 0.35, 0.7, 0.5
C0, N0, LIMIT = 1e22, 800.0, 4000.0


def surface(C: np.ndarray, n: np.ndarray, limit: float = LIMIT) -> np.ndarray:
    grown = (1 - np.exp(-A * (C / C0) ** ALPHA)) * (1 - np.exp(-B * (n / N0) ** BETA))
    return grown / (1 + np.exp(np.clip(n - limit, -500, 500)))


def points(past: bool = True) -> tuple[np.ndarray, np.ndarray]:
    C, n = np.meshgrid([1e21, 1e22, 7e22, 3e23], [20, 80, 300, 900, 2500, *([5000, 9000] if past else [])])
    return C.ravel(), n.ravel().astype(float)


@pytest.fixture(scope="module")
def law() -> ContextLaw:
    C, n = points()
    return fit_context_law(C, n, LIMIT, surface(C, n))


@pytest.mark.paper(95, oracle="a")
def test_a_surface_without_noise_is_found(law: ContextLaw) -> None:
    C, n = np.meshgrid(np.geomspace(1e20, 1e24, 7), np.geomspace(5, 10_000, 9))
    np.testing.assert_allclose(law.predict(C, n, LIMIT), surface(C, n), atol=1e-4)
    p = {name: value.value for name, value in law.parameters.items()}
    assert p["A"] * law.C0 ** -p["alpha"] == pytest.approx(A * C0**-ALPHA, rel=0.01)
    assert p["B"] * law.n0 ** -p["beta"] == pytest.approx(B * N0**-BETA, rel=0.01)
    assert (p["alpha"], p["beta"]) == (pytest.approx(ALPHA, rel=0.01), pytest.approx(BETA, rel=0.01))
    assert law.r2 == pytest.approx(1) and law.mae < 1e-6
    json.dumps(law.as_dict(), allow_nan=False)


@pytest.mark.paper(95, oracle="b")
def test_the_unit_of_compute_does_not_matter() -> None:
    C, n = points()
    y = np.clip(surface(C, n) + np.random.default_rng(0).normal(0, 0.02, len(C)), 0, 1)
    one, other = fit_context_law(C, n, LIMIT, y), fit_context_law(C / 3.7e9, n, LIMIT, y)
    np.testing.assert_allclose(one.predict(C, n, LIMIT), other.predict(C / 3.7e9, n, LIMIT), atol=1e-7)


@pytest.mark.paper(95, oracle="c")
def test_limits(law: ContextLaw) -> None:
    assert law.predict(1e22, 1e-12, LIMIT) == pytest.approx(0, abs=1e-4)
    assert law.predict(1e40, 1e12, 1e15) == pytest.approx(1)
    half, free = law.predict(1e22, LIMIT, LIMIT), law.predict(1e22, LIMIT, 1e9)
    assert half == pytest.approx(free / 2)
    assert law.predict(1e22, 2 * LIMIT, LIMIT) == pytest.approx(0)


@pytest.mark.paper(95, oracle="d")
def test_without_the_penalty_prompts_past_the_limit_are_misjudged() -> None:
    C, n = points()
    y = np.clip(surface(C, n) + np.random.default_rng(0).normal(0, 0.01, len(C)), 0, 1)
    past = n > LIMIT
    error = [
        np.abs(fit_context_law(C, n, LIMIT, y, penalty_width=width).predict(C, n, LIMIT) - y)[past].mean()
        for width in (1.0, np.inf)
    ]
    assert error[1] > 3 * error[0]


@pytest.mark.paper(95, oracle="e")
def test_the_table_of_compute() -> None:
    N = 6_476_271_616
    assert training_flops(N, 2.0e12) == pytest.approx(7.7719e22, rel=1e-3)
    assert training_flops(12_688_184_320, 2.0e12) == pytest.approx(1.5226e23, rel=1e-3)


def test_intervals_hold_the_truth() -> None:
    C, n = points(past=False)
    held, at = [], ([1e22, 1e23], [500.0, 3000.0])
    truth = surface(np.array(at[0]), np.array(at[1]))
    for seed in range(40):
        y = surface(C, n) + np.random.default_rng(seed).normal(0, 0.01, len(C))
        low, high = fit_context_law(C, n, LIMIT, np.clip(y, 0, 1), seed=seed).interval(*at, LIMIT)
        held.append((low <= truth) & (truth <= high))
    assert np.mean(held) > 0.88


def test_one_compute_leaves_its_factor_out() -> None:
    _, n = points()
    with pytest.warns(OneCompute):
        law = fit_context_law(np.full(len(n), 1e22), n, LIMIT, surface(np.array(1e30), n))
    assert list(law.parameters) == ["B", "beta"]
    assert law.parameters["beta"].value == pytest.approx(BETA, rel=0.01)
    low, high = law.interval(1e22, 100.0, LIMIT)
    assert low <= law.predict(1e22, 100.0, LIMIT) <= high


def test_bad_input() -> None:
    C, n = points()
    y = surface(C, n)
    with pytest.raises(BadInput, match="are they per cent"):
        fit_context_law(C, n, LIMIT, 100 * y)
    with pytest.raises(BadInput, match="leave out the scores without a prompt"):
        fit_context_law(C, 0 * n, LIMIT, y)
    with pytest.raises(BadInput, match="3 points do not determine 4 parameters"):
        fit_context_law(C[:3], n[:3], LIMIT, y[:3])
    with pytest.raises(BadInput, match="do not fit"):
        fit_context_law(C, n[:-1], LIMIT, y)
    with pytest.raises(BadInput, match="compute: nan is no number above 0"):
        fit_context_law(np.where(np.arange(len(C)) == 3, np.nan, C), n, LIMIT, y)
    with pytest.raises(BadInput, match="0 points do not determine"):
        fit_context_law([], [], LIMIT, [])
    with pytest.raises(BadInput, match="bounds 3 to 1 of beta"):
        fit_context_law(C, n, LIMIT, y, bounds={"A": (1, 2), "alpha": (0, 1), "B": (1, 2), "beta": (3, 1)})
    with pytest.raises(BadInput, match="bounds of alpha are missing"):
        fit_context_law(C, n, LIMIT, y, bounds={"A": (1, 2)})
    with pytest.raises(BadInput, match="width of the penalty"):
        fit_context_law(C, n, LIMIT, y, penalty_width=0)
    with pytest.raises(BadInput, match="both are above 0"):
        training_flops(0, 1)
