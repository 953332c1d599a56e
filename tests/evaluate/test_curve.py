"""Accuracy against shots: what is learnt from, what is judged, and how classes weigh."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from handful.adapt.base import Features
from handful.adapt.prototypes import Prototypes
from handful.errors import BadInput
from handful.evaluate.curve import draw_shots, shots_curve, usual_shots
from handful.protocols import Needs


@dataclass(eq=False, repr=False, kw_only=True)
class TwoShots(Prototypes):
    needs: ClassVar[Needs] = Needs(min_shots=2)


def blobs(counts: tuple[int, ...], spread: float = 1.0, seed: int = 0) -> tuple[Features, np.ndarray]:
    """Gaussian classes in 12 dimensions."""
    rng = np.random.default_rng(seed)
    labels = np.repeat([f"c{i}" for i in range(len(counts))], counts)
    means = rng.normal(size=(len(counts), 12))
    x = np.repeat(means, counts, axis=0) + spread * rng.normal(size=(len(labels), 12))
    return Features(x.astype(np.float32), {}), labels


def test_more_shots_are_better_and_counted() -> None:
    x, labels = blobs((32,) * 6, spread=2.0)
    points = shots_curve(Prototypes(), x, labels, draws=6)
    assert [(p.shots, p.n) for p in points] == [(1, 6), (2, 12), (4, 24), (8, 48), (16, 96)]
    values = [p.accuracy.value for p in points]
    assert values[-1] > values[0] + 0.1
    assert all(p.accuracy.low < p.accuracy.value < p.accuracy.high for p in points)
    assert points[0].as_dict() == {"shots": 1, "n": 6, "accuracy": points[0].accuracy.as_dict()}


@pytest.mark.parametrize(
    ("counts", "shots"), [((8, 8), [1, 2, 4]), ((9, 9, 9), [1, 2, 4, 8]), ((2, 40, 5), [1, 2, 4]), ((1, 1, 7), [])]
)
def test_numbers_of_shots_are_those_half_of_the_classes_have(counts: tuple[int, ...], shots: list[int]) -> None:
    assert usual_shots(np.array(counts)) == shots


def test_a_draw_takes_shots_of_each_class_and_leaves_one() -> None:
    codes = np.repeat([0, 1, 2], [8, 2, 1])
    units, judged = np.arange(11), codes < 2
    learn = draw_shots(codes, units, judged, 4, np.random.default_rng(0))
    assert np.bincount(codes[learn]).tolist() == [4, 1, 1]


def test_a_group_is_learnt_from_or_judged() -> None:
    codes = np.repeat([0, 1, 2], 12)
    units = np.arange(36) // 3
    for seed in range(10):
        learn = draw_shots(codes, units, np.ones(36, dtype=bool), 2, np.random.default_rng(seed))
        assert np.bincount(codes[learn]).tolist() == [6, 6, 6]
        assert not set(units[learn]) & set(units[~learn])


def test_groups_that_mix_classes_leave_every_class_known() -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        codes, units = rng.integers(0, 4, 40), rng.integers(0, 12, 40)
        learn = draw_shots(codes, units, np.ones(40, dtype=bool), 1, rng)
        assert set(codes[learn]) == set(codes)


def test_classes_weigh_as_among_the_labels_or_as_told() -> None:
    """One class is a blob apart and always right, two lie on each other: at few shots what is left over is uneven."""
    rng = np.random.default_rng(0)
    labels = np.repeat(["apart", "b", "c"], [6, 30, 30])
    x = rng.normal(size=(66, 8)) + 40 * (labels == "apart")[:, None]
    features = Features(x.astype(np.float32), {})
    told = shots_curve(Prototypes(), features, labels, shots=[4], draws=8)
    alone = shots_curve(Prototypes(), features, labels, shots=[4], draws=8, weights=(labels == "apart").astype(float))
    assert alone[0].accuracy.value == 1
    assert 6 / 66 + 60 / 66 * 0.4 < told[0].accuracy.value < 6 / 66 + 60 / 66 * 0.6


def test_a_shift_moves_the_answers() -> None:
    x, labels = blobs((12, 12, 12))
    shift = np.array([0.0, -1e6, 0.0])
    point = shots_curve(Prototypes(), x, labels, shots=[4], shift=shift)[0]
    assert point.accuracy.value <= 2 / 3 + 1e-9


def test_heads_that_need_shots_get_them() -> None:
    x, labels = blobs((9, 9))
    assert [p.shots for p in shots_curve(TwoShots(), x, labels)] == [2, 4, 8]


def test_nothing_to_judge_is_no_points() -> None:
    x, labels = blobs((1, 1, 1))
    assert shots_curve(Prototypes(), x, labels) == []


def test_shots_below_one_are_refused() -> None:
    x, labels = blobs((4, 4))
    with pytest.raises(BadInput, match="1 or more, not 0"):
        shots_curve(Prototypes(), x, labels, shots=[0, 2])


def test_time_spent_ends_the_curve() -> None:
    x, labels = blobs((20, 20))
    assert len(shots_curve(Prototypes(), x, labels, budget_seconds=0.0)) == 1


def test_the_same_seed_gives_the_same_points() -> None:
    x, labels = blobs((10, 12, 9), spread=2.0)
    first, again, other = (shots_curve(Prototypes(), x, labels, seed=seed) for seed in (0, 0, 1))
    assert first == again != other
