"""Base and new classes judged apart."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from scipy.stats import chisquare

from handful.errors import BadInput
from handful.evaluate.incremental import incremental_arrivals, incremental_report, incremental_step


@pytest.mark.paper(175, oracle="f")
def test_an_example_by_hand() -> None:
    #         a a a a  b b  | n n n n  m m
    labels = list("aaaabbnnnnmm")
    answers = list("aaanbannnamb")
    step = incremental_step(labels, answers, ["a", "b"])
    assert step.n == 12
    assert step.accuracy == pytest.approx(8 / 12)
    assert step.base == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert step.novel == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert step.harmonic == pytest.approx(0.625)
    assert step.false_negative == pytest.approx(2 / 6)
    assert step.false_positive == pytest.approx(1 / 6)
    first = incremental_step(list("aabb"), list("aabb"), ["a", "b"])
    report = incremental_report([first, step])
    assert report.average == pytest.approx((1 + 8 / 12) / 2)
    assert report.drop == pytest.approx(4 / 12)
    assert json.loads(json.dumps(report.as_dict()))["steps"][0]["harmonic"] is None


@pytest.mark.paper(175, oracle="f")
def test_with_balanced_classes_accuracy_is_the_weighted_mean_of_base_and_novel() -> None:
    draw = np.random.default_rng(0)
    labels, answers = np.repeat(np.arange(10), 30), draw.integers(0, 10, 300)
    answers = np.where(draw.random(300) < 0.5, labels, answers)
    step = incremental_step(labels, answers, range(7))
    assert step.novel is not None and step.novel != step.base
    assert step.accuracy == pytest.approx(0.7 * step.base + 0.3 * step.novel)


def test_nothing_right_is_zero() -> None:
    step = incremental_step([0, 1], [1, 0], [0])
    assert (step.base, step.novel, step.harmonic, step.false_negative, step.false_positive) == (0, 0, 0, 1, 1)


def test_refusals() -> None:
    with pytest.raises(BadInput, match="one length"):
        incremental_step([0, 1], [0], [0])
    with pytest.raises(BadInput, match="one length"):
        incremental_step([], [], [0])
    with pytest.raises(BadInput, match="no item is of a base class"):
        incremental_step([1, 1], [1, 1], [0])
    with pytest.raises(BadInput, match="no steps"):
        incremental_report([])


LABELS = np.repeat([f"class {i}" for i in range(11)], 20)


@pytest.mark.paper(88, oracle="e", part="method")
def test_a_pool_holds_every_class_seen_alike_and_any_of_its_items() -> None:
    pools = []
    for seed in range(200):
        learnt, steps = incremental_arrivals(LABELS, base=4, way=3, shot=2, pool=5, seed=seed)
        assert len(steps) == 2 and [len(step.seen) for step in steps] == [7, 10]
        for step in steps:
            names, counts = np.unique(LABELS[step.pool], return_counts=True)
            assert set(names) == set(step.seen) and set(counts) == {5}
            assert not set(step.pool) & {*learnt, *steps[0].examples, *steps[1].examples}
        assert set(LABELS[learnt]) == set(steps[0].seen[:4]) and len(learnt) == 40
        pools.append(steps[1].pool)
    item = np.bincount(np.concatenate(pools), minlength=len(LABELS))
    assert chisquare(item[item > -1]).pvalue > 0.001


@pytest.mark.paper(88, oracle="e", part="method")
def test_a_pool_of_new_classes_only_and_examples_of_the_shots_asked_for() -> None:
    _, steps = incremental_arrivals(LABELS, base=4, way=3, shot=2, pool=5, pool_of="new")
    for step in steps:
        assert set(LABELS[step.pool]) == set(step.new)
        assert sorted(LABELS[step.examples]) == sorted([*step.new] * 2)
    first, second = (incremental_arrivals(LABELS, base=4, seed=1)[1][0] for _ in range(2))
    assert np.array_equal(first.pool, second.pool) and first.new == second.new


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"base": 8}, "11 classes make no 8 base classes and 5 new ones"),
        ({"shot": 20}, "20 examples leave none to test"),
        ({"way": 0}, "way must be 1 or more"),
        ({"kept": 1.0}, "kept is a share below 1"),
        ({"pool_of": "old"}, "pool_of 'seen' or 'new'"),
    ],
)
def test_steps_that_cannot_be_drawn(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        incremental_arrivals(LABELS, **{"base": 4, **change})
