"""Bounds on the true error: their definitions, their order, their coverage."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from handful.core.certificate import BOUNDS, risk_bound, risk_certificate, smallest_n
from handful.errors import BadInput


def kl(r: float, R: float) -> float:
    return sum(a * math.log(a / b) for a, b in ((r, R), (1 - r, 1 - R)) if a)


@pytest.mark.paper(5, oracle="a", part="certificate")
@pytest.mark.parametrize("n", [1, 8, 50, 2000])
def test_one_classifier_without_an_error(n: int) -> None:
    assert risk_certificate(0, n).risk == pytest.approx(1 - 0.05 ** (1 / n), abs=1e-9)
    R = risk_certificate(0, n, bound="pac-bayes-kl").risk
    assert -math.log1p(-R) == pytest.approx(math.log(2 * math.sqrt(n) / 0.05) / n, rel=1e-9)


@pytest.mark.parametrize("k", [0, 3, 9])
def test_the_kl_bounds_solve_their_equations(k: int) -> None:
    n, M, delta = 40, 7, 0.1
    R = risk_certificate(k, n, M, delta, "chernoff-kl").risk
    assert kl(k / n, R) == pytest.approx(math.log(M / delta) / n)
    R = risk_certificate(k, n, M, delta, "pac-bayes-kl").risk
    assert kl(k / n, R) == pytest.approx((math.log(M) + math.log(2 * math.sqrt(n) / delta)) / n)


@pytest.mark.paper(5, oracle="b", part="certificate")
def test_the_order_of_the_bounds() -> None:
    n, M, share = np.meshgrid([1, 5, 20, 100, 1000], [1, 10, 20_000], np.linspace(0, 1, 21))
    k = np.floor(share * n)
    binomial, chernoff, hoeffding = (risk_bound(k, n, M, 0.05, b) for b in ("binomial", "chernoff-kl", "hoeffding"))
    assert (binomial <= chernoff + 1e-9).all()
    assert (chernoff <= hoeffding + 1e-9).all()
    assert (binomial >= k / n - 1e-12).all()
    assert (chernoff <= risk_bound(k, n, M, 0.05, "pac-bayes-kl") + 1e-9).all()


@pytest.mark.paper(5, oracle="c", part="certificate")
@pytest.mark.parametrize("bound", BOUNDS)
def test_the_chosen_one_of_many_is_rarely_worse_than_certified(bound: Any) -> None:
    """200 classifiers of known error; each trial chooses the one with the fewest errors on 30 examples."""
    M, n, trials, delta = 200, 30, 20_000, 0.05
    draw = np.random.default_rng(0)
    risk = np.linspace(0.2, 0.7, M)
    errors = draw.binomial(n, risk, size=(trials, M))
    at = errors.argmin(1)
    worse = risk[at] > risk_bound(errors[np.arange(trials), at], n, M, delta, bound)
    assert worse.mean() <= delta + 3 * math.sqrt(delta * (1 - delta) / trials)
    unaware = risk[at] > risk_bound(errors[np.arange(trials), at], n, 1, delta, bound)
    assert unaware.mean() > worse.mean()  # counting one classifier only is not enough


@pytest.mark.paper(5, oracle="d", part="certificate")
@pytest.mark.parametrize(("k", "n"), [(0, 12), (3, 12), (11, 12), (5, 400)])
def test_the_binomial_bound_is_clopper_and_pearson(k: int, n: int) -> None:
    found = risk_certificate(k, n, 20, 0.05).risk
    assert found == pytest.approx(stats.beta.ppf(1 - 0.05 / 20, k + 1, n - k), rel=1e-9)
    assert stats.binom.cdf(k, n, found) == pytest.approx(0.05 / 20, rel=1e-6)


def test_a_huge_set_does_not_run_out_of_digits() -> None:
    assert risk_certificate(0, 100, 10**15).risk == pytest.approx(-math.expm1(math.log(0.05 / 1e15) / 100), rel=1e-9)
    assert risk_certificate(5, 5, 10**15).risk == 1.0


def test_what_it_says() -> None:
    said = risk_certificate(2, 50, 100, classes=5, balanced=True)
    assert not said.vacuous and not said.worse_than_chance
    assert "at most 21.8 %" in said.statement and "one of 100 classifiers" in said.statement
    assert "every class as often" in said.statement
    empty = risk_certificate(5, 5, classes=2)
    assert empty.vacuous and "says nothing" in empty.statement
    weak = risk_certificate(1, 5, classes=2)
    assert not weak.vacuous and weak.worse_than_chance and "Guessing does as well" in weak.statement
    assert weak.as_dict()["worse_than_chance"]
    assert "a classifier fixed" in risk_certificate(0, 5).statement


def test_examples_that_a_certificate_takes() -> None:
    n = smallest_n(0.1, M=20)
    assert risk_certificate(0, n, 20).risk <= 0.1 < risk_certificate(0, n - 1, 20).risk


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 0), "at least 1 example"),
        ((0, 5, 0), "M of at least 1"),
        ((0, 5, 1, 0.0), "delta must be between"),
        ((0, 5, 1, 1.0), "delta must be between"),
        ((6, 5), "errors must be from 0"),
        ((-1, 5), "errors must be from 0"),
        ((float("nan"), 5), "errors must be from 0"),
        ((0.5, 5), "whole number"),
        ((1, 5, 1, 0.05, "best"), "bound is one of"),
    ],
)
def test_refused(arguments: Any, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        risk_certificate(*arguments)
    if arguments[0] == 0.5:
        assert risk_certificate(0.5, 5, bound="pac-bayes-kl").risk > 0.1
