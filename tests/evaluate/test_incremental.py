"""Base and new classes judged apart."""

from __future__ import annotations

import json

import numpy as np
import pytest

from handful.errors import BadInput
from handful.evaluate.incremental import incremental_report, incremental_step


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
