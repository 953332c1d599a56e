"""What to label next: the rule, and what a replay says of it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from handful.adapt.base import Features
from handful.adapt.prototypes import Prototypes
from handful.errors import BadInput
from handful.evaluate.labelling import pick, replay


def test_what_many_are_like_comes_first_and_copies_are_not_picked_twice() -> None:
    x = np.concatenate([np.random.default_rng(0).normal(size=(40, 4)), np.tile([1.0, 0, 0, 0], (30, 1))])
    for seed in range(5):
        chosen = pick(np.full((70, 2), 0.5), x, np.array([3, 3]), 5, seed=seed)
        assert chosen[0] >= 40  # one of thirty copies stands for all
        assert (chosen[1:] < 40).all()


def test_the_first_pick_is_the_one_that_items_in_need_are_nearest_to() -> None:
    rng = np.random.default_rng(1)
    x, proba, counts = rng.normal(size=(12, 3)), rng.dirichlet(np.ones(3), 12), np.array([1, 4, 0])
    h = x / np.linalg.norm(x, axis=1, keepdims=True)
    apart = np.linalg.norm(h[:, None] - h[None], axis=2)
    width = np.median([np.sort(row)[12 // 4] ** 2 for row in apart])
    worth = []
    for j in range(12):
        total = 0.0
        for i in range(12):
            need = sum(p / (1 + n) for p, n in zip(proba[i], counts, strict=True))
            total += need * math.exp(-(apart[i, j] ** 2) / (2 * width))
        worth.append(total)
    assert pick(proba, x, counts, 4)[0] == int(np.argmax(worth))


def test_each_cluster_gets_one_before_any_gets_two() -> None:
    """And one nearer to its middle than most: what stands for many is what few labels are best spent on."""
    rng = np.random.default_rng(0)
    centres = np.eye(6)
    x = np.repeat(centres, 30, axis=0) + 0.15 * rng.normal(size=(180, 6))
    chosen = pick(np.full((180, 2), 0.5), x, np.ones(2), 6)
    assert sorted(chosen // 30) == list(range(6))
    aside = 1 - (x * np.repeat(centres, 30, axis=0)).sum(axis=1) / np.linalg.norm(x, axis=1)
    assert aside[chosen].mean() < 0.9 * aside.mean()


def test_classes_with_few_labels_come_first() -> None:
    rng = np.random.default_rng(0)
    side = np.repeat([0, 1], 200)
    proba = np.where(np.eye(2)[side] > 0, 0.9, 0.1)
    x = rng.normal(size=(400, 8)) + 2 * np.eye(8)[side]
    few = (side[pick(proba, x, np.array([30, 1]), 10)] == 1).sum()
    even = (side[pick(proba, x, np.array([10, 10]), 10)] == 1).sum()
    assert few >= 8
    assert 3 <= even <= 7


def test_of_a_large_pool_some_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("handful.evaluate.labelling.MOST", 20)
    rng = np.random.default_rng(0)
    proba, x = rng.dirichlet(np.ones(3), 300), rng.normal(size=(300, 4))
    one, other = (pick(proba, x, np.zeros(3), 10, seed=seed) for seed in (0, 1))
    assert len(set(one)) == len(set(other)) == 10
    assert set(one) != set(other)
    with pytest.raises(BadInput, match="at most 20 items"):
        pick(proba, x, np.zeros(3), 21)


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
    assert (found.before, found.n, found.draws, found.tested) == (6, 12, 6, 60)
    assert np.mean(found.gains) == pytest.approx(found.gain.value)
    assert len(set(found.gains)) > 1
    assert found.gain.low < found.gain.value < found.gain.high
    assert found.gain.value == pytest.approx(found.picked - found.random)
    assert found == replay(Prototypes(), x, labels, 12, shots=2, draws=6)


def test_a_replay_starts_from_as_many_labels_of_each_class_as_are_said() -> None:
    x, labels = blobs((60, 60, 60))
    assert replay(Prototypes(), x, labels, 12, shots=np.array([1, 5, 2]), draws=2).before == 8
    assert replay(Prototypes(), x, labels, 12, shots=np.array([1, 500, 2]), draws=2).before == 1 + 28 + 2  # leaves some


def test_choosing_pays() -> None:
    """Classes of three clusters each, one label to begin with: a random choice leaves clusters out."""
    rng = np.random.default_rng(0)
    labels = np.repeat([f"c{i // 3}" for i in range(12)], 40)
    x = np.repeat(rng.normal(size=(12, 10)), 40, axis=0) + 0.5 * rng.normal(size=(480, 10))
    found = replay(Prototypes(), Features(x.astype(np.float32), {}), labels, 12, shots=1, draws=10)
    assert found.picked > found.random + 0.02


def test_a_replay_needs_items() -> None:
    x, labels = blobs((2, 2))
    with pytest.raises(BadInput, match="too few for a replay"):
        replay(Prototypes(), x, labels, 5)
