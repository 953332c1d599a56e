"""What to label next: the rule, and what a replay says of it."""

from __future__ import annotations

import numpy as np
import pytest

from handful.adapt.base import Features
from handful.adapt.prototypes import Prototypes
from handful.errors import BadInput
from handful.evaluate.labelling import pick, replay


def test_sure_items_are_left_and_copies_are_not_picked_twice() -> None:
    proba = np.array([[1.0, 0.0]] * 40 + [[0.5, 0.5]] * 30 + [[0.5, 0.5]])
    x = np.concatenate(
        [np.random.default_rng(0).normal(size=(40, 4)), np.tile([1.0, 0, 0, 0], (30, 1)), [[0, 1.0, 0, 0]]]
    )
    for seed in range(20):
        chosen = pick(proba, x, np.array([3, 3]), 2, seed=seed)
        assert sorted(chosen >= 40) == [True, True]
        assert 70 in chosen  # of thirty copies one, and the only other doubtful item


def test_the_first_pick_is_by_the_square_of_the_gradient() -> None:
    proba = np.array([[0.9, 0.1], [0.5, 0.5]])
    x = np.eye(2)
    first = np.array([pick(proba, x, np.ones(2), 1, seed=seed)[0] for seed in range(3000)])
    expected = 0.5 / (0.5 + 0.02)  # |p - onehot|^2 of the second over both
    assert abs((first == 1).mean() - expected) < 0.015


def test_classes_with_few_labels_come_first() -> None:
    rng = np.random.default_rng(0)
    side = np.repeat([0, 1], 200)
    proba = np.where(np.eye(2)[side] > 0, 0.7, 0.3)
    x = rng.normal(size=(400, 8))
    few = np.mean([(side[pick(proba, x, np.array([30, 1]), 10, seed=s)] == 1).mean() for s in range(10)])
    even = np.mean([(side[pick(proba, x, np.array([10, 10]), 10, seed=s)] == 1).mean() for s in range(10)])
    assert few > even + 0.1


def test_everything_can_be_picked_and_no_more() -> None:
    rng = np.random.default_rng(0)
    proba = rng.dirichlet(np.ones(3), size=7)
    assert sorted(pick(proba, rng.normal(size=(7, 2)), np.zeros(3), 7)) == list(range(7))
    assert sorted(pick(np.eye(2)[[0, 1, 0]], np.ones((3, 2)), np.zeros(2), 3)) == [0, 1, 2]
    with pytest.raises(BadInput, match="cannot be picked"):
        pick(proba, np.ones((7, 2)), np.zeros(3), 8)


def blobs(counts: tuple[int, ...], seed: int = 0) -> tuple[Features, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.repeat([f"c{i}" for i in range(len(counts))], counts)
    x = np.repeat(rng.normal(size=(len(counts), 10)), counts, axis=0) + rng.normal(size=(len(labels), 10))
    return Features(x.astype(np.float32), {}), labels


def test_a_replay_compares_on_items_kept_apart() -> None:
    x, labels = blobs((60, 60, 60))
    found = replay(Prototypes(), x, labels, 12, shots=2, draws=6)
    assert (found.shots, found.n, found.draws, found.tested) == (2, 12, 6, 60)
    assert found.gain.low < found.gain.value < found.gain.high
    assert found.gain.value == pytest.approx(found.picked - found.random)
    assert found == replay(Prototypes(), x, labels, 12, shots=2, draws=6)


def test_a_rare_class_makes_choosing_pay() -> None:
    """One of two classes is a tenth: at random few of its items come up."""
    x, labels = blobs((270, 30), seed=3)
    found = replay(Prototypes(), x, labels, 20, shots=1, draws=20)
    assert found.picked > found.random - 0.02


def test_a_replay_needs_items() -> None:
    x, labels = blobs((2, 2))
    with pytest.raises(BadInput, match="too few for a replay"):
        replay(Prototypes(), x, labels, 5)
