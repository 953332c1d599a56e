"""Out-of-fold logits: every item judged once, by a fit that knows its class and nothing of its group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from handful.adapt.base import Features
from handful.adapt.prototypes import Prototypes
from handful.evaluate import cross_fit
from handful.protocols import Needs

SEEN: list[tuple[np.ndarray, np.ndarray]] = []


@dataclass(eq=False, repr=False, kw_only=True)
class Spy(Prototypes):
    """Notes what it is fitted on; rows are told apart by their first feature."""

    def fit(self, X, y, sample_weight=None):  # type: ignore[no-untyped-def]
        SEEN.append((X.x[:, 0].astype(int), np.asarray(y)))
        return super().fit(X, y, sample_weight)


@dataclass(eq=False, repr=False, kw_only=True)
class TwoShots(Spy):
    needs: ClassVar[Needs] = Needs(min_shots=2)


def features(n: int) -> Features:
    x = np.random.default_rng(0).normal(size=(n, 4)).astype(np.float32)
    x[:, 0] = np.arange(n)
    return Features(x, {})


def held_out(n: int) -> list[np.ndarray]:
    """The rows each fit did not see; forgets the fits."""
    parts = [np.setdiff1d(np.arange(n), rows) for rows, _ in SEEN]
    SEEN.clear()
    return parts


@pytest.fixture(autouse=True)
def forget() -> None:
    SEEN.clear()


@pytest.mark.parametrize("counts", [(5, 5, 5), (2, 2, 2), (8, 3, 2, 9), (2, 1, 4, 1, 7)])
def test_every_item_of_a_class_with_two_is_judged_once(counts: tuple[int, ...]) -> None:
    labels = np.repeat([f"c{i}" for i in range(len(counts))], counts)
    labels = np.random.default_rng(1).permutation(labels)
    found = cross_fit(Spy(), features(len(labels)), labels)
    assert found is not None
    alone = np.isin(labels, [f"c{i}" for i, n in enumerate(counts) if n == 1])
    np.testing.assert_array_equal(found.judged, ~alone)
    fits, held = list(SEEN), held_out(len(labels))
    assert all(set(known) == set(labels) for _, known in fits)
    assert sorted(np.concatenate(held)) == np.flatnonzero(~alone).tolist()
    assert found.folds == len(held) == min(5, max(counts))


def test_logits_are_those_of_the_fit_without_the_fold() -> None:
    labels, x = np.repeat(["a", "b", "c"], 6), features(18)
    found = cross_fit(Spy(), x, labels, seed=3)
    assert found is not None
    for held in held_out(18):
        rest = np.setdiff1d(np.arange(18), held)
        fitted = Prototypes().fit(x.take(rest), labels[rest])
        wanted = fitted.spread(x.take(rest), labels[rest]) * fitted.logits(x.take(held))
        np.testing.assert_allclose(found.logits[held], wanted, rtol=1e-6)


def test_five_shots_make_five_folds_of_one_item_a_class() -> None:
    labels = np.repeat(["a", "b", "c"], 5)
    cross_fit(Spy(), features(15), labels)
    assert all(sorted(labels[held]) == ["a", "b", "c"] for held in held_out(15))


def test_a_group_never_stands_on_both_sides() -> None:
    labels = np.repeat(["a", "b", "c"], 12)
    groups = np.array([f"{label}{i % 4}" for i, label in enumerate(labels)])
    found = cross_fit(Spy(), features(36), labels, groups)
    assert found is not None and found.judged.all()
    for held in held_out(36):
        assert not set(groups[held]) & set(np.delete(groups, held))


def test_groups_that_mix_classes_leave_every_class_known() -> None:
    rng = np.random.default_rng(0)
    for seed in range(20):
        labels, groups = rng.choice(["a", "b", "c", "d"], 40), rng.integers(0, 9, 40)
        found = cross_fit(Spy(), features(40), labels, groups, seed=seed)
        assert found is not None and found.judged.all()
        assert all(set(known) == set(labels) for _, known in SEEN)
        held = held_out(40)
        assert sorted(np.concatenate(held)) == list(range(40))
        assert not any(set(groups[part]) & set(np.delete(groups, part)) for part in held)


def test_a_class_in_one_group_is_not_judged() -> None:
    labels = np.array(["a"] * 6 + ["b"] * 6 + ["c"] * 3)
    groups = np.array([1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 7])
    found = cross_fit(Spy(), features(15), labels, groups)
    assert found is not None
    np.testing.assert_array_equal(found.judged, labels != "c")


def test_a_head_that_needs_two_shots_always_gets_them() -> None:
    labels = np.repeat(["a", "b", "c", "d"], [5, 4, 3, 2])
    found = cross_fit(TwoShots(), features(14), labels)
    assert found is not None
    np.testing.assert_array_equal(found.judged, labels != "d")
    assert all(np.unique(known, return_counts=True)[1].min() >= 2 for _, known in SEEN)


def test_nothing_to_judge_is_none() -> None:
    assert cross_fit(Prototypes(), features(3), np.array(["a", "b", "c"])) is None
    assert cross_fit(Prototypes(), features(4), np.array(["a", "a", "b", "c"])) is None


def test_the_same_seed_deals_the_same_folds() -> None:
    labels = np.repeat(["a", "b"], 8)
    runs = [cross_fit(Prototypes(), features(16), labels, seed=seed) for seed in (0, 0, 1)]
    first, second, other = (run.logits for run in runs if run is not None)
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)
