"""Answers that follow an attribute beyond the class."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import mutual_info_score

from handful.errors import BadInput
from handful.evaluate.leaning import Leaning, _information, leaning


def planted(seed: int, follow: float, n: int = 300) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, answers, attribute: the attribute goes with the class, and a share ``follow`` of answers go with it."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    a = np.where(rng.random(n) < 0.6, y, rng.integers(0, 3, n))
    h = np.where(rng.random(n) < 0.75, y, rng.integers(0, 3, n))
    return y, np.where(rng.random(n) < follow, a, h), a


def found(seed: int, follow: float) -> Leaning:
    return leaning(*planted(seed, follow), draws=300, seed=seed)


def test_information_is_the_mean_over_classes() -> None:
    y, h, a = planted(0, 0.3)
    mean = sum((y == k).mean() * mutual_info_score(h[y == k], a[y == k]) for k in range(3))
    assert _information(y, h, np.stack([a, a[::-1]]))[0] == pytest.approx(mean, abs=1e-12)


def test_an_attribute_that_goes_with_the_class_is_no_evidence() -> None:
    p = np.array([found(seed, 0.0).p for seed in range(120)])
    assert (p < 0.05).mean() < 0.1 and np.median(p) == pytest.approx(0.5, abs=0.15)
    assert found(0, 0.0).association > 0.4


def test_answers_that_follow_are_found_and_the_errors_name_it() -> None:
    lean = found(0, 0.4)
    assert lean.p < 0.01 and lean.share > 0.1
    assert lean.pull is not None and lean.pull_by_chance is not None and lean.pull.low > lean.pull_by_chance


def test_answers_that_are_the_attribute_are_all_of_it() -> None:
    y, _, a = planted(0, 0.0)
    assert leaning(y, a, a, draws=200).share > 0.9


def test_one_item_of_each_unit() -> None:
    y, h, a = planted(0, 0.0, 80)
    units = np.repeat(np.arange(80), 10)
    lean = leaning(*(np.repeat(part, 10) for part in (y, h, a)), units=units, draws=100)
    once = leaning(y, h, a, draws=100)
    assert (lean.n, lean.errors, lean.association) == (80, once.errors, once.association)
    assert lean.p == pytest.approx(once.p, abs=0.2)


def test_without_errors_there_is_nothing_to_say() -> None:
    y, _, a = planted(0, 0.0)
    lean = leaning(y, y, a, draws=50)
    assert (lean.p, lean.share, lean.pull) == (1.0, 0.0, None)
    json.dumps(lean.as_dict(), allow_nan=False)


def test_bad_input() -> None:
    with pytest.raises(BadInput, match="one value only"):
        leaning([0, 1], [0, 1], ["x", "x"])
    with pytest.raises(BadInput, match="do not fit together"):
        leaning([0, 1], [0, 1, 1], ["x", "y"])
    with pytest.raises(BadInput, match="at least one draw"):
        leaning([0, 1], [0, 1], ["x", "y"], draws=0)


def test_a_value_that_no_unit_is_drawn_of_says_nothing() -> None:
    site, units = np.array(["a"] * 9 + ["b"]), np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 8])
    drawn = [leaning(["x", "y"] * 5, ["x"] * 10, site, units=units, seed=seed, draws=20) for seed in range(8)]
    assert {found.n for found in drawn} == {9}
    alone = [found for found in drawn if found.association == 0]
    assert alone and all((found.p, found.share) == (1, 0) for found in alone)
