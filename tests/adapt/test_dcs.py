"""DCS: the rules and the objective of the authors' code, and an annealing that finds the best rules."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone

from handful.adapt.dcs import PATIENT, DCSCalibrator, Schedule, cobias
from handful.adapt.dcs_rules import apply, corrected, objective
from handful.errors import BadInput

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "dcs.json").read_text(encoding="utf-8"))


def draw(n: int, ways: int = 3, *, bias: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels drawn from probabilities, those, and the same with the first class made ``bias`` times likelier."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(ways, 0.4), n)
    y = (p.cumsum(1) > rng.random((n, 1))).argmax(1)
    biased = p * np.where(np.arange(ways) == 0, bias, 1.0)
    return y, p, biased / biased.sum(1, keepdims=True)


def z_of(rules: np.ndarray, p: np.ndarray, y: np.ndarray, n_weights: int, **strengths: float) -> np.ndarray:
    """The objective of each rule vector of ``rules [m, C]``."""
    ways = p.shape[1]
    table = corrected(p.T, n_weights)[rules, np.arange(ways)]  # [m, C, n]
    answers = np.where(table.any(1, keepdims=True), table, p.T).argmax(1)
    given, right = (
        np.stack([(answers == c)[:, m].sum(1) for c, m in places])
        for places in ([(c, slice(None)) for c in range(ways)], [(c, y == c) for c in range(ways)])
    )
    return objective(right.T, given.T, np.bincount(y, minlength=ways), **strengths)


@pytest.mark.paper(179, oracle="a")
def test_the_rules_it_starts_with_change_nothing() -> None:
    _, p, _ = draw(50, 4)
    np.testing.assert_allclose(apply(np.full(4, 48), p, 30), p)
    np.testing.assert_allclose(apply(np.full(4, 17), p, 30), p)


@pytest.mark.paper(179, oracle="b")
def test_every_rule_is_the_one_of_the_authors_code() -> None:
    p = np.array(GOLDEN["inputs"]["p"])
    values = corrected(p, 5)
    np.testing.assert_allclose(values, GOLDEN["expected"]["table"], atol=1e-12)
    dense = corrected(np.linspace(0, 1, 1001), 30)
    assert (dense >= 0).all() and (dense <= 1).all()


@pytest.mark.paper(179, oracle="c")
def test_annealing_finds_what_trying_everything_finds() -> None:
    y, _, p = draw(60, bias=4.0, seed=3)
    every = np.array(list(itertools.product(range(24), repeat=3)))
    strengths = {"alpha": 1.0, "beta": 2.7, "tau": 0.2, "smoothing": 4000.0}
    least = min(z_of(part, p, y, 5, **strengths).min() for part in np.split(every, 24))
    plan = replace(PATIENT, start=50.0, cooling=0.7, stop=1.0)  # hotter, anything goes
    found = [DCSCalibrator(n_weights=5, schedule=plan, random_state=seed).fit(p, y).objective_ for seed in range(10)]
    assert np.isclose(found, least, atol=1e-9).sum() >= 9
    assert min(found) >= least - 1e-9


@pytest.mark.paper(179, oracle="d")
def test_a_planted_bias_is_taken_back() -> None:
    y, _, biased = draw(600, bias=3.0)
    test, good, bad = draw(2000, bias=3.0, seed=1)
    fitted = DCSCalibrator(schedule=Schedule(accepted=20, tried=40), random_state=0).fit(biased, y)
    clean, skewed, restored = good.argmax(1), bad.argmax(1), fitted.predict(bad)
    assert (skewed == test).mean() < (clean == test).mean() - 0.03
    assert (restored == test).mean() > (clean == test).mean() - 0.01
    assert cobias(test, restored) < cobias(test, skewed) - 0.05


@pytest.mark.paper(179, oracle="e")
def test_answers_and_objective_of_the_authors_code() -> None:
    given = GOLDEN["inputs"]
    y, p = np.array(given["labels"]), np.array(given["probabilities"])
    for rules, want in zip(given["rules"], GOLDEN["expected"]["runs"], strict=True):
        answers = apply(np.array(rules), p, 5).argmax(1)
        assert answers.tolist() == want["answers"]
        counts = [np.bincount(part, minlength=4) for part in (y[answers == y], answers, y)]
        for (alpha, beta, tau, k), z in zip(given["strengths"], want["z"], strict=True):
            got = objective(*counts, alpha=alpha, beta=beta, tau=tau, smoothing=k)
            assert got == pytest.approx(z, abs=1e-9)
        assert cobias(y, answers) == pytest.approx(want["cobias"], abs=1e-12)


@pytest.mark.paper(179, oracle="f")
def test_more_steps_are_never_worse() -> None:
    y, _, p = draw(80, 4, bias=3.0)
    plan = Schedule(start=20.0, stop=0.01)
    paths = [DCSCalibrator(schedule=replace(plan, rounds=r), random_state=1).fit(p, y).path_ for r in (1, 5, 50)]
    assert [len(path) for path in paths] == [1, 5, 50]
    np.testing.assert_array_equal(paths[2][:5], paths[1])
    assert (np.diff(paths[2]) <= 0).all() and paths[2][-1] < paths[2][0]


@pytest.mark.parametrize("seed", range(3))
def test_a_few_hundred_examples_do_no_harm(seed: int) -> None:
    y, _, p = draw(200, 5, bias=4.0, seed=seed)
    test, _, skewed = draw(2000, 5, bias=4.0, seed=seed + 10)
    patient, quick = (DCSCalibrator(random_state=0, **how).fit(p, y) for how in ({}, {"schedule": Schedule()}))
    assert patient.objective_ < quick.objective_
    answers = patient.predict(skewed)
    assert (answers == test).mean() > (skewed.argmax(1) == test).mean()
    assert cobias(test, answers) < cobias(test, skewed.argmax(1))


def test_corrected_rows_are_probabilities_and_say_the_same() -> None:
    y, _, p = draw(80, bias=3.0)
    names = np.array(["no", "perhaps", "yes"])
    fitted = DCSCalibrator(random_state=0).fit(p, names[y])
    out = fitted.transform(p)
    np.testing.assert_allclose(out.sum(1), 1)
    assert (names[out.argmax(1)] == fitted.predict(p)).all()
    again = clone(fitted).fit(p, names[y])
    assert (again.rules_ == fitted.rules_).all()


def test_rules_in_words() -> None:
    y, _, p = draw(30, 4)
    fitted = DCSCalibrator(n_weights=4, random_state=0).fit(p, y)
    fitted.rules_ = np.array([5, 18, 20, 22])
    assert [(row["class"], row["level"], row["meaning"]) for row in fitted.explain()] == [
        (0, "sample", "1 at p = 0.5, falling to 0 outside 0.25 to 0.75"),
        (1, "sample", "1 - p"),
        (2, "class", "times 0.5"),
        (3, "class", "unchanged"),
    ]


def test_strengths_are_chosen_by_examples_held_out() -> None:
    y, _, p = draw(300, bias=4.0)
    # Without a weight on anything every rule is as good, so the other choice answers better.
    fitted = DCSCalibrator(alpha=[0.0, 1.0], beta=0.0, tau=0.0, dev=0.4, random_state=0).fit(p, y)
    assert fitted.chosen_ == {"alpha": 1.0, "beta": 0.0, "tau": 0.0, "n_weights": 30}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alpha": -1.0}, "alpha must be"),
        ({"beta": []}, "beta must be a number or several"),
        ({"n_weights": 0}, "n_weights must be"),
        ({"smoothing": 0.0}, "smoothing must be"),
        ({"schedule": Schedule(cooling=1.5)}, "schedule.cooling must be"),
        ({"schedule": {"tried": 3}}, "schedule is a Schedule"),
        ({"tau": (0.0, 1.0)}, "30 examples leave 2 to choose strengths by"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(change: dict[str, Any], message: str) -> None:
    y, _, p = draw(30)
    with pytest.raises(BadInput, match=message):
        DCSCalibrator(**change).fit(p, y)


def test_rows_that_are_no_probabilities_are_refused() -> None:
    y, _, p = draw(30)
    for spoilt in (2 * p, p - 0.5, np.where(p > 0.9, np.nan, p), p[0], [["a"]]):
        with pytest.raises(BadInput, match="probabilities"):
            DCSCalibrator().fit(spoilt, y)
    with pytest.raises(BadInput, match="every class needs some"):
        DCSCalibrator().fit(p[y > 0], y[y > 0])
    fitted = DCSCalibrator(normalize=True, random_state=0).fit(2 * p, y)
    np.testing.assert_allclose(fitted.transform(p), fitted.transform(3 * p))
    with pytest.raises(BadInput, match="the calibrator knows 3"):
        fitted.predict(np.full((2, 2), 0.5))
    with pytest.raises(BadInput, match="one class only"):
        cobias([1, 1], [1, 0])
