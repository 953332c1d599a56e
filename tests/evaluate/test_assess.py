"""`assess` against scikit-learn, against hand-made cases, and for what its intervals promise."""

from __future__ import annotations

import itertools
import json
import time

import numpy as np
import pytest
from sklearn import metrics as oracle

from handful.core.intervals import Estimate, wilson
from handful.errors import BadInput
from handful.evaluate import assess
from handful.evaluate.assessment import Assessment

METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "log_loss", "calibration_error")


def answers(n: int, c: int, seed: int = 0, strength: float = 2.0) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Labels, the probabilities an ideal classifier of noisy logits gives, and class names."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, c, n)
    logits = rng.normal(size=(n, c))
    logits[np.arange(n), true] += strength
    proba = np.exp(strength * logits)
    names = [f"class {i:02d}" for i in range(c)]
    return np.array(names)[true], proba / proba.sum(1, keepdims=True), names


def values(found: Assessment) -> list[float]:
    return [getattr(found, name).value for name in METRICS]


def test_values_agree_with_scikit_learn() -> None:
    labels, proba, names = answers(300, 7)
    predicted = np.array(names)[proba.argmax(1)]
    found = assess(labels, proba, names)
    precision, recall, f1, n = oracle.precision_recall_fscore_support(labels, predicted, labels=names)
    assert found.accuracy.value == pytest.approx(oracle.accuracy_score(labels, predicted))
    assert found.balanced_accuracy.value == pytest.approx(oracle.balanced_accuracy_score(labels, predicted))
    assert found.macro_f1.value == pytest.approx(oracle.f1_score(labels, predicted, average="macro"))
    assert found.log_loss.value == pytest.approx(oracle.log_loss(labels, proba, labels=names))
    np.testing.assert_array_equal(found.confusion, oracle.confusion_matrix(labels, predicted, labels=names))
    np.testing.assert_allclose([score.precision.value for score in found.per_class], precision)
    np.testing.assert_allclose([score.recall.value for score in found.per_class], recall)
    np.testing.assert_allclose([score.f1.value for score in found.per_class], f1)
    assert [score.n for score in found.per_class] == n.tolist()


def test_calibration_error_is_the_gap_of_its_bins() -> None:
    labels, proba, names = answers(400, 5)
    found = assess(labels, proba, names)
    gap = sum(part.n * abs(part.confidence - part.accuracy.value) for part in found.reliability) / 400
    assert found.calibration_error.value == pytest.approx(gap)
    assert sum(part.n for part in found.reliability) == 400
    assert [part.n for part in found.reliability] == [pytest.approx(400 / 15, abs=1.01)] * 15
    ends = [(part.low, part.high) for part in found.reliability]
    assert all(low <= high < nxt for (low, high), (nxt, _) in itertools.pairwise(ends))


def test_equal_confidences_share_a_bin() -> None:
    proba = np.tile([0.8, 0.2], (200, 1))
    found = assess(["a"] * 160 + ["b"] * 40, proba, ["a", "b"])
    assert len(found.reliability) == 1
    assert found.calibration_error.value == pytest.approx(0, abs=1e-12)


def test_a_class_without_items_has_no_recall_and_does_not_count() -> None:
    labels = ["a", "a", "b", "b"]
    proba = np.array([[0.9, 0.1, 0, 0], [0.4, 0.3, 0.3, 0], [0.1, 0.8, 0.1, 0], [0, 0.2, 0.8, 0]])
    found = assess(labels, proba, ["a", "b", "never there", "never said"])
    assert found.balanced_accuracy.value == pytest.approx(0.75)
    assert found.macro_f1.value == pytest.approx((1 + 2 / 3 + 0) / 3)
    missing, silent = found.per_class[2:]
    assert (missing.n, missing.recall, missing.precision.value, missing.f1.value) == (0, None, 0.0, 0.0)
    assert (silent.recall, silent.precision, silent.f1) == (None, None, None)
    assert [(cell.true, cell.predicted, cell.n, cell.rate) for cell in found.confused] == [
        ("b", "never there", 1, wilson(1, 2))
    ]


def test_f1_is_as_sure_as_the_share_it_stands_for() -> None:
    labels, proba, names = answers(120, 3)
    found = assess(labels, proba, names)
    hit, n = found.confusion[0, 0], found.confusion[0].sum() + found.confusion[:, 0].sum()
    share = wilson(hit, n - hit)
    assert found.per_class[0].f1.low == pytest.approx(2 * share.low / (1 + share.low))
    assert found.per_class[0].f1.high == pytest.approx(2 * share.high / (1 + share.high))


def test_no_error_in_few_items_is_no_proof() -> None:
    labels = np.array(["a", "b"] * 10)
    proba = np.where((labels == "a")[:, None], [0.99, 0.01], [0.01, 0.99])
    found = assess(labels, proba, ["a", "b"])
    for estimate in (found.accuracy, found.balanced_accuracy, found.macro_f1):
        assert estimate == Estimate(1.0, pytest.approx(wilson(20, 20).low), 1.0)


def test_confused_cells_come_most_frequent_first() -> None:
    labels, proba, names = answers(500, 6, strength=1.0)
    found = assess(labels, proba, names)
    counts = [cell.n for cell in found.confused]
    assert counts == sorted(counts, reverse=True)
    assert sum(counts) == 500 - np.trace(found.confusion)


def test_items_given_three_times_over_as_groups_give_the_intervals_of_single_items() -> None:
    labels, proba, names = answers(150, 4)
    once = assess(labels, proba, names)
    thrice = assess(np.repeat(labels, 3), np.repeat(proba, 3, axis=0), names, groups=np.repeat(np.arange(150), 3))
    blind = assess(np.repeat(labels, 3), np.repeat(proba, 3, axis=0), names)
    assert (thrice.n, thrice.groups, once.groups) == (450, 150, None)
    assert values(thrice)[:4] == pytest.approx(values(once)[:4])
    for name in METRICS[:4]:
        width = [e.high - e.low for e in (getattr(x, name) for x in (once, thrice, blind))]
        assert width[1] == pytest.approx(width[0], rel=0.1)
        assert width[2] < 0.7 * width[0]


def test_weights_that_are_whole_numbers_give_the_values_of_items_repeated() -> None:
    labels, proba, names = answers(200, 4)
    times = np.array([1, 3, 2, 5])[np.searchsorted(names, labels)]
    weighted = assess(labels, proba, names, weights=times)
    repeated = assess(np.repeat(labels, times), np.repeat(proba, times, axis=0), names)
    assert values(weighted)[:4] == pytest.approx(values(repeated)[:4])
    for ours, theirs in zip(weighted.per_class, repeated.per_class, strict=True):
        assert ours.precision.value == pytest.approx(theirs.precision.value)
        assert ours.recall.value == pytest.approx(theirs.recall.value)
        assert ours.f1.value == pytest.approx(theirs.f1.value)
    assert weighted.accuracy.high - weighted.accuracy.low > repeated.accuracy.high - repeated.accuracy.low
    assert weighted.n == weighted.confusion.sum() == 200


def test_weights_that_are_all_alike_change_nothing() -> None:
    labels, proba, names = answers(120, 5)
    groups = np.arange(120) // 2
    for by in (None, groups):
        plain, alike = assess(labels, proba, names, by), assess(labels, proba, names, by, np.full(120, 0.3))
        for name in METRICS:
            wanted = getattr(plain, name).as_dict()
            assert getattr(alike, name).as_dict() == pytest.approx(wanted)
        assert alike.confused[0].rate.as_dict() == pytest.approx(plain.confused[0].rate.as_dict())


def test_weights_of_classes_leave_recall_and_balanced_accuracy_as_they_are() -> None:
    labels, proba, names = answers(200, 4)
    plain = assess(labels, proba, names)
    weighted = assess(labels, proba, names, weights=np.array([0.1, 1, 5, 1])[np.searchsorted(names, labels)])
    assert weighted.balanced_accuracy.value == pytest.approx(plain.balanced_accuracy.value)
    for ours, theirs in zip(weighted.per_class, plain.per_class, strict=True):
        assert ours.recall.as_dict() == pytest.approx(theirs.recall.as_dict())


def test_a_class_that_weighs_nothing_does_not_count() -> None:
    labels, proba, names = answers(90, 3)
    weights = (labels != names[0]).astype(float)
    found, left = assess(labels, proba, names, weights=weights), labels != names[0]
    rest = assess(labels[left], proba[left], names)
    assert values(found)[:4] == pytest.approx(values(rest)[:4])
    json.dumps(found.as_dict(), allow_nan=False)
    assert found.per_class[0].recall.as_dict() == pytest.approx(
        assess(labels, proba, names).per_class[0].recall.as_dict()
    )
    only = assess(labels, proba, names, weights=(np.arange(90) == 3).astype(float))
    json.dumps(only.as_dict(), allow_nan=False)
    assert only.accuracy.high - only.accuracy.low > 0.5


def test_groups_and_weights_together() -> None:
    labels, proba, names = answers(150, 3)
    weights = np.array([1.0, 2, 4])[np.searchsorted(names, labels)]
    once = assess(labels, proba, names, weights=weights)
    groups = np.repeat(np.arange(150), 3)
    thrice = assess(np.repeat(labels, 3), np.repeat(proba, 3, axis=0), names, groups, np.repeat(weights, 3))
    for name in METRICS[:4]:
        width = [e.high - e.low for e in (getattr(x, name) for x in (once, thrice))]
        assert width[1] == pytest.approx(width[0], rel=0.1)


def test_the_same_seed_gives_the_same_numbers_and_groups_may_have_names() -> None:
    labels, proba, names = answers(80, 3)
    groups = [f"customer {i % 20}" for i in range(80)]
    one, two = (assess(labels, proba, names, groups).as_dict() for _ in range(2))
    assert one == two
    assert assess(labels, proba, names, groups, seed=1).as_dict()["macro_f1"] != one["macro_f1"]


def test_the_dictionary_is_json_with_the_promised_keys() -> None:
    labels, proba, names = answers(60, 3)
    found = json.loads(json.dumps(assess(labels, proba, names).as_dict(), allow_nan=False))
    assert list(found) == ["n", "groups", "classes", *METRICS, "per_class", "confusion", "confused", "reliability"]
    estimate = {"value", "low", "high"}
    assert all(set(found[name]) == estimate for name in METRICS)
    assert list(found["per_class"][0]) == ["class", "n", "precision", "recall", "f1"]
    assert list(found["confused"][0]) == ["true", "predicted", "n", "rate"]
    assert list(found["reliability"][0]) == ["low", "high", "n", "confidence", "accuracy"]


@pytest.mark.parametrize(
    ("labels", "proba", "classes", "groups", "message"),
    [
        ([], np.empty((0, 2)), ["a", "b"], None, "no items"),
        (["a"], [[0.5, 0.5, 0.0]], ["a", "b"], None, "do not fit"),
        (["a"], [[0.5, 0.5]], ["a", "a"], None, "1 of them different"),
        (["c"], [[0.5, 0.5]], ["a", "b"], None, "'c' is none of the 2"),
        (["a", "b"], [[0.5, 0.5], [0.5, 0.1]], ["a", "b"], None, "row 1 does not hold probabilities"),
        (["a"], [[np.nan, 0.5]], ["a", "b"], None, "row 0"),
        (["a"], [[0.5, 0.5]], ["a", "b"], ["g", "h"], "1 labels but 2 groups"),
    ],
)
def test_what_cannot_be_judged_is_named(labels, proba, classes, groups, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(BadInput, match=message):
        assess(labels, np.array(proba), classes, groups)


@pytest.mark.parametrize(
    ("weights", "message"),
    [([1.0], "shape"), ([1, -1], "weight 1 is -1"), ([np.nan, 1], "weight 0 is nan"), ([0, 0], "all weights are 0")],
)
def test_what_are_no_weights_is_said(weights: list[float], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        assess(["a", "b"], np.full((2, 2), 0.5), ["a", "b"], weights=weights)


def test_a_thousand_replicates_of_a_large_test_set_take_less_than_a_second() -> None:
    labels, proba, names = answers(3080, 77, strength=3.0)
    assess(labels[:100], proba[:100], names)
    start = time.process_time()
    assess(labels, proba, names)
    assert time.process_time() - start < 1


@pytest.mark.parametrize(("n", "c"), [(60, 3), (200, 8)])
def test_intervals_hold_the_truth(n: int, c: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("handful.evaluate.metrics.REPLICATES", 200)
    truth = assess(*answers(100_000, c, seed=1))
    found = [assess(*answers(n, c, seed=seed)) for seed in range(100, 250)]
    for name in METRICS:
        wanted = 0.002 if name == "calibration_error" else getattr(truth, name).value
        held = np.mean([getattr(x, name).low <= wanted <= getattr(x, name).high for x in found])
        assert held >= 0.88, name


@pytest.mark.parametrize("tilt", [0.5, 1.5])
def test_reweighted_intervals_hold_the_truth_of_the_other_mix(tilt: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("handful.evaluate.metrics.REPLICATES", 200)
    mix = 1 / np.arange(1, 7) ** tilt
    large = answers(100_000, 6, seed=1)
    truth = assess(*large, weights=mix[np.searchsorted(large[2], large[0])])
    held = []
    for seed in range(100, 250):
        labels, proba, names = answers(120, 6, seed=seed)
        found = assess(labels, proba, names, weights=mix[np.searchsorted(names, labels)])
        pairs = [(getattr(found, name), getattr(truth, name).value) for name in METRICS[:4]]
        held.append([estimate.low <= wanted <= estimate.high for estimate, wanted in pairs])
    assert (np.mean(held, axis=0) >= 0.9).all()  # 95 %, less what 150 draws leave to luck; more draws in test_shares
