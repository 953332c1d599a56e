"""What growing did, counted by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from handful.core.intervals import Estimate
from handful.errors import BadInput
from handful.evaluate.growth import growth, harmonic


def proba(answers: str, classes: str) -> np.ndarray:
    return np.stack([np.eye(len(classes))[classes.index(a)] for a in answers])


def test_an_example_by_hand() -> None:
    labels = list("aaaabb" + "nnnmm")
    before = proba("aaabbb" + "abbab", "ab")
    after = proba("aannbb" + "nnamm", "abmn")
    found = growth(labels, before, after, list("ab"), list("abmn"))
    assert found.before is not None and found.base is not None and found.novel is not None
    assert found.before.value == pytest.approx((3 / 4 + 1) / 2)
    assert found.base.value == pytest.approx((2 / 4 + 1) / 2)
    assert found.novel.value == pytest.approx((2 / 3 + 1) / 2)
    assert found.harmonic is not None
    assert found.harmonic.value == pytest.approx(2 * 0.75 * (5 / 6) / (0.75 + 5 / 6))
    assert found.false_negative == pytest.approx(1 / 5)
    assert found.false_positive == pytest.approx(2 / 6)
    assert [(one.name, one.n, one.before, one.after, one.lost, one.won) for one in found.hurt] == [
        ("a", 4, 0.75, 0.5, 1, 0)
    ]
    assert json.loads(json.dumps(found.as_dict()))["hurt"][0]["lost"] == 1


def test_what_has_no_items_is_not_known() -> None:
    old = growth(["a"], proba("a", "ab"), proba("a", "abn"), list("ab"), list("abn"))
    assert (old.novel, old.harmonic, old.false_negative) == (None, None, None)
    new = growth(["n"], proba("a", "ab"), proba("a", "abn"), list("ab"), list("abn"))
    assert (new.before, new.base, new.harmonic, new.false_positive) == (None, None, None, None)
    assert new.false_negative == 1
    with pytest.raises(BadInput, match="class 'x'"):
        growth(["x"], proba("a", "ab"), proba("a", "abn"), list("ab"), list("abn"))
    with pytest.raises(BadInput, match="no items"):
        growth([], np.empty((0, 2)), np.empty((0, 3)), list("ab"), list("abn"))


def test_the_interval_of_the_harmonic_mean_covers_it() -> None:
    draw, inside, n = np.random.default_rng(0), 0, 40
    for _ in range(300):
        right = draw.random((2, n)) < np.array([[0.8], [0.5]])
        sides = []
        for row in right:
            value, half = row.mean(), 1.96 * np.sqrt(row.mean() * (1 - row.mean()) / n)
            sides.append(Estimate(value, value - half, value + half))
        found = harmonic(*sides)
        inside += found.low <= 2 * 0.8 * 0.5 / 1.3 <= found.high
    assert 0.91 < inside / 300 < 0.985


def test_nothing_right_is_zero() -> None:
    nothing = Estimate(0.0, 0.0, 0.4)
    assert harmonic(nothing, nothing) == Estimate(0.0, 0.0, pytest.approx(0.4))
    assert harmonic(Estimate(1.0, 0.5, 1.0), nothing).value == 0
