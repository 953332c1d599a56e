"""The quoted number: corrected, widened, and true of the one model that ships."""

from __future__ import annotations

import math

import numpy as np
import pytest

from handful.adapt.base import Features
from handful.adapt.prototypes import Prototypes
from handful.core.intervals import Estimate, wilson
from handful.evaluate import cross_fit
from handful.evaluate.curve import MODEL, Point
from handful.evaluate.estimate import DECAY, decay, estimate, usual_folds, widened


def blobs(shots: int, ways: int = 4, seed: int = 0, spread: float = 1.6) -> tuple[Features, np.ndarray]:
    """Gaussian classes in 8 dimensions; the means are always the same."""
    means = np.random.default_rng(99).normal(size=(ways, 8))
    labels = np.repeat(np.arange(ways), shots)
    x = means[labels] + spread * np.random.default_rng(seed).normal(size=(len(labels), 8))
    return Features(x.astype(np.float32), {}), labels


def point(shots: int, accuracy: float) -> Point:
    return Point(shots, 0, Estimate(accuracy, 0.0, 1.0))


def test_the_interval_holds_the_accuracy_of_this_model() -> None:
    new, true = blobs(500, seed=10**6)
    held, gaps, widths = 0, [], []
    for seed in range(30):
        x, labels = blobs(8, seed=seed)
        quoted = estimate(Prototypes(), x, labels, seed=seed)
        assert quoted is not None
        truth = float((Prototypes().fit(x, labels).predict(new) == true).mean())
        held += quoted.accuracy.low <= truth <= quoted.accuracy.high
        gaps.append(quoted.accuracy.value - truth)
        plain = wilson(quoted.accuracy.value * 32, 32)
        widths.append((quoted.accuracy.high - quoted.accuracy.low) / (plain.high - plain.low))
    assert held >= 27
    assert abs(np.mean(gaps)) < 0.03
    assert 1 < np.mean(widths) < 1.3


def test_items_given_three_times_count_once() -> None:
    x, labels = blobs(8)
    again = np.repeat(np.arange(32), 3)
    once = estimate(Prototypes(), x, labels)
    thrice = estimate(Prototypes(), x.take(again), labels[again], again)
    assert once is not None and thrice is not None
    assert abs(once.accuracy.value - thrice.accuracy.value) < 0.1
    width = thrice.accuracy.high - thrice.accuracy.low
    assert 0.9 < width / (once.accuracy.high - once.accuracy.low) < 1.2
    for k in range(thrice.fold.max() + 1):
        assert not set(again[thrice.fold == k]) & set(again[thrice.fold != k])


def test_fewer_shots_in_folds_are_made_up_for() -> None:
    x, labels = blobs(8)
    quoted, first = estimate(Prototypes(), x, labels), cross_fit(Prototypes(), x, labels, folds=8)
    assert quoted is not None and first is not None
    np.testing.assert_array_equal(quoted.logits, first.logits)  # what was judged is from the first deal
    share = (1 - quoted.accuracy.value) / (7 / 8) ** quoted.decay.value  # the mean error of all deals
    assert share * 32 * 3 == pytest.approx(round(share * 32 * 3), abs=1e-9)
    assert "corrected from 88 % of the labels" in quoted.method and "dealt out 3 times" in quoted.method


def test_weights_speak_for_another_population() -> None:
    x, labels = blobs(16)
    plain = estimate(Prototypes(), x, labels)
    values = []
    for c in range(4):
        quoted = estimate(Prototypes(), x, labels, weights=np.where(labels == c, 1.0, 0.0))
        assert quoted is not None and plain is not None
        assert quoted.accuracy.high - quoted.accuracy.low > plain.accuracy.high - plain.accuracy.low
        values.append(1 - quoted.accuracy.value)
    assert plain is not None
    assert np.mean(values) == pytest.approx(1 - plain.accuracy.value, rel=0.05)  # each corrected by its own decay


def test_a_shift_is_what_decides() -> None:
    x, labels = blobs(8)
    quoted = estimate(Prototypes(), x, labels, shift=np.array([100.0, 0, 0, 0]))
    assert quoted is not None
    assert quoted.accuracy.value == pytest.approx(1 - 0.75 * (7 / 8) ** quoted.decay.value)


def test_all_right_is_not_certain() -> None:
    x, labels = blobs(6, spread=0.01)
    quoted = estimate(Prototypes(), x, labels)
    assert quoted is not None
    assert quoted.accuracy == wilson(24 / MODEL, 24 / MODEL)


def test_one_class_with_two_items_is_no_estimate() -> None:
    x, _ = blobs(1)
    assert estimate(Prototypes(), x, np.array([0, 0, 1, 2])) is None


def test_the_curve_ends_in_the_quoted_number() -> None:
    x, labels = blobs(8)
    quoted = estimate(Prototypes(), x, labels)
    assert quoted is not None
    assert [(p.shots, p.n) for p in quoted.curve] == [(1, 4), (2, 8), (4, 16), (8, 32)]
    assert quoted.curve[-1].accuracy == quoted.accuracy


def test_the_same_seed_gives_the_same_number() -> None:
    x, labels = blobs(7)
    first, again, other = (estimate(Prototypes(), x, labels, seed=seed) for seed in (0, 0, 1))
    assert first is not None and again is not None and other is not None
    assert first.accuracy == again.accuracy and first.curve == again.curve
    assert not np.array_equal(first.fold, other.fold)


@pytest.mark.parametrize(
    ("counts", "folds"),
    [((8, 8), 8), ((5, 5, 5), 5), ((2, 2), 2), ((40, 50), 9), ((16, 16), 8), ((11, 13, 11), 10), ((1, 3, 3), 3)],
)
def test_a_fold_takes_as_many_shots_of_every_class(counts: tuple[int, ...], folds: int) -> None:
    codes = np.repeat(np.arange(len(counts)), counts)
    assert usual_folds(codes, np.arange(len(codes))) == folds
    assert usual_folds(np.repeat(codes, 3), np.repeat(np.arange(len(codes)), 3)) == folds


def test_decay_is_the_slope_when_there_are_many_errors() -> None:
    curve = [point(shots, 1 - 0.5 * shots**-0.8) for shots in (1, 2, 4, 8)]
    found = decay(curve, 0.5 * 14.0**-0.8, 14.0, 1e6)
    assert found.value == pytest.approx(0.8, abs=1e-3)
    assert found.high - found.low < 0.05


@pytest.mark.parametrize("curve", [[], [point(1, 0.5)], [point(4, 1.0)]])
def test_decay_is_the_usual_one_without_a_curve(curve: list[Point]) -> None:
    b, spread = DECAY
    assert decay(curve, 0.1, 14.0, 1000.0) == Estimate(b, b - spread, b + spread)


def test_decay_lies_between_when_errors_are_few() -> None:
    curve = [point(4, 0.5)]
    few, many = (decay(curve, 0.1, 8.0, n) for n in (20.0, 2000.0))
    assert DECAY[0] < few.value < many.value < math.log(5) / math.log(2)
    assert many.high - many.low < few.high - few.low < 2 * DECAY[1]


def test_a_curve_that_falls_corrects_nothing() -> None:
    assert decay([point(4, 0.9)], 0.5, 8.0, 1e6).value == 0


def test_a_second_error_widens() -> None:
    assert widened(0.8, 50, 0.0) == wilson(40, 50)
    narrow, wide = widened(0.8, 50, 0.0), widened(0.8, 50, 0.05)
    assert wide.low < narrow.low and wide.high > narrow.high and wide.value == 0.8
    assert widened(1.0, 50, 0.0) == wilson(50, 50)
