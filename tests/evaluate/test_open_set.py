"""Open-set metrics against counts by hand, scikit-learn and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from handful.errors import BadInput
from handful.evaluate.open_set import (
    conformal_threshold,
    false_positives,
    least_items,
    score_open_set,
    separation,
)

RNG = np.random.default_rng


@pytest.mark.paper(107, oracle="a")
def test_three_classes_by_hand() -> None:
    true = [0, 0, 1, 1, 2, 2, -1, -1, -1, -1]
    said = [0, 1, 1, 1, 2, -1, -1, -1, -1, 0]
    found = score_open_set(true, said, [0, 1, 0, 0, 0, 5, 6, 7, 8, 2])
    assert (found.n, found.unknown) == (10, 4)
    assert found.accuracy == 0.7
    assert found.known_accuracy == pytest.approx(4 / 6)
    assert found.unknown_recall == 0.75
    assert found.harmonic == pytest.approx(2 * (4 / 6) * 0.75 / (4 / 6 + 0.75))
    assert found.none_f1 == pytest.approx(2 * 3 / (2 * 3 + 1 + 1))
    assert found.auroc == pytest.approx(23 / 24)  # only 5 against 2 is the wrong way round
    # closed: of 5 known items given a class, one is wrong, 3 classes: TP + TN = 15 - 2
    assert found.closed_one_vs_rest == pytest.approx(13 / 15)
    # open: 10 items, 3 wrong, 4 classes with "none": 40 - 6
    assert found.open_one_vs_rest == pytest.approx(34 / 40)


@pytest.mark.paper(107, oracle="a")
def test_without_unknown_items_it_is_accuracy() -> None:
    rng = RNG(0)
    true, said = rng.integers(4, size=50), rng.integers(4, size=50)
    found = score_open_set(true, said)
    assert found.accuracy == found.known_accuracy == accuracy_score(true, said)
    assert found.unknown_recall is None and found.harmonic is None and found.auroc is None


def test_f1_of_none_is_scikit_learns() -> None:
    rng = RNG(1)
    true, said = rng.integers(-1, 3, size=80), rng.integers(-1, 3, size=80)
    want = f1_score(true == -1, said == -1)
    assert score_open_set(true, said).none_f1 == pytest.approx(want)
    names = np.array(["a", "b", "c", "other"])
    assert score_open_set(names[true], names[said], unknown="other").none_f1 == pytest.approx(want)


def test_what_does_not_fit_is_refused() -> None:
    for true, said, scores in ([], [], None), ([1, 2], [1], None), ([1, -1], [1, 1], [0.1, np.nan]):
        with pytest.raises(BadInput):
            score_open_set(true, said, scores)
    with pytest.raises(BadInput, match="0 unknown items"):
        separation(np.ones(3), np.array([]))


def test_auroc_is_scikit_learns_and_its_interval_holds_the_truth() -> None:
    from scipy.stats import norm

    truth, held = float(norm.cdf(1.2 / 2**0.5)), 0
    for seed in range(200):
        rng = RNG(seed)
        known, unknown = rng.normal(size=60), rng.normal(1.2, 1, size=40)
        found = separation(known, unknown)
        held += found.low <= truth <= found.high
    assert found.value == roc_auc_score(np.repeat([0, 1], [60, 40]), np.concatenate([known, unknown]))
    assert 180 <= held <= 199


def test_ties_count_half() -> None:
    assert separation(np.zeros(5), np.zeros(4)).value == 0.5


def test_groups_make_the_interval_wider() -> None:
    rng = RNG(0)
    centre = rng.normal(size=10)
    groups = np.repeat(np.arange(10), 20)
    known, unknown = centre[groups] + 0.1 * rng.normal(size=200), rng.normal(1, 1, size=200)
    plain, grouped = separation(known, unknown), separation(known, unknown, groups)
    assert plain.value == grouped.value
    assert grouped.high - grouped.low > 1.5 * (plain.high - plain.low)


def test_perfect_separation_is_not_certain() -> None:
    found = separation(np.arange(10.0), np.arange(20.0, 30))
    assert found.value == 1 and found.low < 0.8
    assert false_positives(np.arange(10.0), np.arange(20.0, 30)).high > 0.2


def test_fpr95_by_hand() -> None:
    known = np.arange(1, 21, dtype=float)  # 19 of 20 are up to 19
    found = false_positives(known, np.array([0.0, 18.5, 19.0, 19.5, 25.0]))
    assert found.value == 3 / 5
    assert found.low < 0.6 < found.high


def test_fpr95_interval_holds_the_truth() -> None:
    from scipy.stats import norm

    truth, held = float(norm.cdf(norm.ppf(0.95) - 2)), 0
    for seed in range(60):
        rng = RNG(seed)
        found = false_positives(rng.normal(size=200), rng.normal(2, 1, size=100), seed=seed)
        held += found.low <= truth <= found.high
    assert held >= 54


class TestThreshold:
    def test_is_the_conformal_quantile(self) -> None:
        scores = RNG(0).permutation(np.arange(1.0, 100))  # n = 99: ceil(100 * 0.95) = 95
        assert conformal_threshold(scores, 0.05) == 95
        assert conformal_threshold(scores, 0.1) == 90

    @pytest.mark.parametrize("share", [0.05, 0.1, 0.2])
    def test_alarms_are_as_asked(self, share: float) -> None:
        alarms = []
        for seed in range(400):
            scores = RNG(seed).normal(size=45)
            at = conformal_threshold(scores[:40], share)
            assert at is not None
            alarms.append((scores[40:] > at).mean())
        assert share - 0.025 < np.mean(alarms) <= share + 0.01

    def test_needs_enough_items(self) -> None:
        assert least_items(0.05) == 19
        assert conformal_threshold(np.arange(18.0), 0.05) is None
        assert conformal_threshold(np.arange(19.0), 0.05) == 18

    def test_a_group_counts_as_one_item(self) -> None:
        scores = np.concatenate([np.arange(19.0), np.full(40, 30.0)])
        groups = np.concatenate([np.arange(19), np.full(40, 19)])
        assert conformal_threshold(scores, 0.05) == 30
        assert conformal_threshold(scores, 0.1, groups=groups) == 18  # one group of 20 above it, and one counted more

    def test_weights_are_those_of_the_population(self) -> None:
        scores = np.arange(100.0)
        heavy = np.where(scores >= 90, 10.0, 1.0)  # what scores high comes often
        plain, weighted = conformal_threshold(scores, 0.1), conformal_threshold(scores, 0.1, heavy)
        assert plain is not None and weighted is not None and weighted > plain
        assert conformal_threshold(scores, 0.1, np.full(100, 3.0)) == plain

    def test_weights_of_zero_do_not_count(self) -> None:
        scores = np.arange(60.0)
        weights = np.where(scores < 30, 1.0, 0.0)
        assert conformal_threshold(scores, 0.1, weights) == conformal_threshold(scores[:30], 0.1)
