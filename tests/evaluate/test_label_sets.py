"""Sets of labels judged: scikit-learn's numbers, honest intervals, folds that leave every label to learn from."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score

from handful.adapt.base import Features
from handful.adapt.multi_label import MultiLabelLogistic
from handful.errors import BadInput
from handful.evaluate.label_set_assessment import MEASURES
from handful.evaluate.label_set_estimate import (
    deal_sets,
    estimate_label_sets,
    known_share,
    quoted,
    spread_of,
    units_with,
)
from handful.evaluate.label_sets import assess_label_sets


def drawn(n: int, labels: int, seed: int, share: float = 0.3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, scores with ties, answers."""
    rng = np.random.default_rng(seed)
    y = (rng.random((n, labels)) < share).astype(int)
    scores = np.round(y + rng.normal(size=y.shape), 1)
    return y, scores, (scores > 0.6).astype(int)


def test_the_numbers_are_scikit_learns() -> None:
    y, scores, said = drawn(80, 6, 0)
    y[:, 4] = 0  # a label that no item has counts in no mean but in micro-F1
    found = assess_label_sets(y, scores, said, list("abcdef"))
    there = y.any(0)
    assert found.micro_f1.value == pytest.approx(f1_score(y, said, average="micro"))
    assert found.macro_f1.value == pytest.approx(f1_score(y[:, there], said[:, there], average="macro"))
    expected = average_precision_score(y[:, there], scores[:, there], average="macro")
    assert found.mean_average_precision.value == pytest.approx(expected)
    assert found.exact_match.value == pytest.approx((y == said).all(1).mean())
    assert found.labels_per_item == pytest.approx(y.sum() / 80)
    for i, score in enumerate(found.per_label):
        assert (score.label, score.n, score.said) == ("abcdef"[i], y[:, i].sum(), said[:, i].sum())
        if i == 4:
            assert score.recall is None and score.average_precision is None and score.f1 is not None
            continue
        assert score.precision is not None and score.recall is not None and score.f1 is not None
        assert score.precision.value == pytest.approx(precision_score(y[:, i], said[:, i]))
        assert score.recall.value == pytest.approx(recall_score(y[:, i], said[:, i]))
        assert score.f1.value == pytest.approx(f1_score(y[:, i], said[:, i]))
        assert score.average_precision is not None
        assert score.average_precision.value == pytest.approx(average_precision_score(y[:, i], scores[:, i]))


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    y, scores, said = drawn(40_000, 5, 1)
    names = ("micro_f1", "macro_f1", "mean_average_precision", "exact_match")
    truth = assess_label_sets(y, scores, said, replicates=2)
    inside = dict.fromkeys(names, 0)
    for part in range(100):
        rows = slice(60 * part, 60 * part + 60)
        found = assess_label_sets(y[rows], scores[rows], said[rows], seed=part)
        for name in names:
            estimate = getattr(found, name)
            inside[name] += estimate.low <= getattr(truth, name).value <= estimate.high
    assert min(inside.values()) >= 88, inside


def test_no_error_among_few_is_no_proof() -> None:
    y, _, _ = drawn(12, 3, 2)
    found = assess_label_sets(y, y, y)
    for estimate in (found.micro_f1, found.macro_f1, found.mean_average_precision, found.exact_match):
        assert estimate.value == 1.0 and estimate.low < 0.9


def test_copies_in_groups_make_intervals_no_narrower() -> None:
    y, scores, said = drawn(50, 4, 3)
    once = assess_label_sets(y, scores, said)
    again = [np.repeat(part, 6, axis=0) for part in (y, scores, said)]
    copied = assess_label_sets(*again, groups=np.repeat(np.arange(50), 6))
    blind = assess_label_sets(*again)
    for name in ("micro_f1", "macro_f1", "exact_match"):
        width, with_copies, unaware = (getattr(a, name).high - getattr(a, name).low for a in (once, copied, blind))
        assert with_copies > 0.85 * width
        assert unaware < 0.6 * width


@pytest.mark.parametrize("seed", range(20))
def test_every_fit_knows_every_label_and_no_group_is_split(seed: int) -> None:
    rng = np.random.default_rng(seed)
    y = (rng.random((40, 12)) < rng.choice([0.05, 0.1, 0.5], 12)).astype(int)
    units = rng.integers(rng.integers(4, 40), size=40)
    units = np.unique(units, return_inverse=True)[1]
    judged = units_with(y, units) >= 2
    fold = deal_sets(y, units, judged, 10, seed)
    assert set(fold) == set(range(fold.max() + 1))
    assert all(len(set(fold[units == unit])) == 1 for unit in range(units.max() + 1))
    for part in range(fold.max() + 1):
        assert y[fold != part][:, judged].any(0).all()


def test_noise_is_not_taken_for_skill() -> None:
    """A head that learns by heart names every label of what it has seen; of what it has not, it knows nothing."""
    rng = np.random.default_rng(0)
    y = (rng.random((60, 4)) < 0.5).astype(int)
    x = rng.normal(size=(60, 200))
    head = MultiLabelLogistic(C=1e3)
    assert (head.fit(x, y).predict(x) == y).all()
    found = estimate_label_sets(head, Features(x, {}), y, list("abcd"), None)
    assert found is not None
    assert found.assessment.exact_match.value < 0.25
    assert found.assessment.mean_average_precision.value < 0.68
    groups = np.repeat(np.arange(60), 2)  # each item twice: without groups its copy gives the answer away
    twice = Features(np.repeat(x, 2, axis=0), {})
    apart = estimate_label_sets(head, twice, np.repeat(y, 2, axis=0), list("abcd"), groups)
    leaking = estimate_label_sets(head, twice, np.repeat(y, 2, axis=0), list("abcd"), None)
    assert apart is not None and leaking is not None
    assert apart.assessment.exact_match.value < 0.25 < 0.5 < leaking.assessment.exact_match.value


def test_labels_with_one_example_are_not_judged() -> None:
    rng = np.random.default_rng(1)
    y = np.zeros((30, 4), dtype=int)
    y[:15, 0], y[10:, 1], y[7, 2] = 1, 1, 1
    y[[3, 4], 3] = 1
    x = y + rng.normal(size=y.shape)
    found = estimate_label_sets(MultiLabelLogistic(), Features(x, {}), y, list("abcd"), None)
    assert found is not None
    assert found.judged.tolist() == [True, True, False, True]
    assert found.assessment.labels == ("a", "b", "d")
    assert np.isfinite(found.logits[:, found.judged]).all()
    copies = np.arange(30)
    copies[4] = 3  # the two of d are one and the same
    again = estimate_label_sets(MultiLabelLogistic(), Features(x, {}), y, list("abcd"), copies)
    assert again is not None and again.assessment.labels == ("a", "b")
    assert estimate_label_sets(MultiLabelLogistic(), Features(x, {}), y[:, [0, 2]], list("ac"), None) is None


def test_probabilities_are_what_the_logits_were_made_from() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(4000, 3)) * 2
    y = (rng.random(truth.shape) < 1 / (1 + np.exp(-truth))).astype(int)
    assert spread_of(4 * truth, y) == pytest.approx((0.25, 0), abs=0.05)
    assert spread_of(truth / 5 - 1, y) == pytest.approx((5, 5), rel=0.1)
    spread, _ = spread_of(np.where(y[:20] > 0, 1.0, -1.0), y[:20])
    assert 1 < spread < 10  # sixty right answers do not make the next one certain


def test_the_quoted_numbers_are_those_of_more_examples_and_less_sure() -> None:
    y, scores, said = drawn(60, 3, 4)
    found = assess_label_sets(y, scores, said)
    known = np.array([0.5, 0.9, 0.9])
    worse = assess_label_sets(y, scores, np.where(np.arange(60)[:, None] % 4 == 0, 1 - said, said))
    told = quoted(found, known, [(worse, known / 2)], 60)
    assert all(told[name].value > getattr(found, name).value for name in told)
    assert all(
        told[name].high - told[name].low > getattr(found, name).high - getattr(found, name).low
        for name in told
        if told[name].high < 1
    )
    flat = quoted(found, known, [(found, known / 2)], 10**6)  # half as many examples do as well: more bring nothing
    assert all(flat[name].value == pytest.approx(getattr(found, name).value, abs=1e-3) for name in flat)
    right = assess_label_sets(y, y, y)
    perfect = quoted(right, known, [(right, known / 2)], 60)["micro_f1"]
    assert perfect.value == 1.0 and perfect.low < 0.95


def test_what_fits_knew_of_a_label_is_what_their_folds_left() -> None:
    y = np.zeros((10, 2), dtype=int)
    y[:4, 0], y[4:6, 1] = 1, 1
    fold = np.array([0, 0, 1, 2, 0, 1, 2, 2, 2, 2])
    # of four items two are in one fold: (2 x 1/2 + 2 x 3/4) / 4; of two items each fit knew the other
    assert known_share(y, np.arange(10), fold).tolist() == pytest.approx([0.625, 0.5])
    units = np.array([0, 0, 1, 2, 3, 4, 5, 6, 7, 8])
    assert known_share(y, units, fold)[0] == pytest.approx(2 / 3)  # three units, each in a fold of its own


@pytest.mark.parametrize("n", [30, 80])
def test_what_is_quoted_holds_for_new_items(n: int) -> None:
    """Heads learnt from few of ten thousand items, and judged on the others."""
    rng = np.random.default_rng(0)
    y = (rng.random((10_000, 5)) < 0.35).astype(int)
    x = y + rng.normal(size=y.shape) * 0.8
    head = MultiLabelLogistic(C=10.0, threshold="f1")
    inside, off = dict.fromkeys(MEASURES, 0), dict.fromkeys(MEASURES, 0.0)
    for draw in range(40):
        rows = np.random.default_rng(draw).permutation(len(x))
        learn, new = rows[:n], rows[n : n + 3000]
        fitted = head.fit(x[learn], y[learn])
        truth = assess_label_sets(y[new], fitted.logits(x[new]), fitted.predict(x[new]), replicates=1)
        found = estimate_label_sets(head, Features(x[learn], {}), y[learn], list("abcde"), None, seed=draw)
        assert found is not None
        for name, estimate in found.quoted.items():
            value = getattr(truth, name).value
            inside[name] += estimate.low <= value <= estimate.high
            off[name] += (estimate.value - value) / 40
    assert min(inside.values()) >= 35, inside
    assert max(map(abs, off.values())) < 0.035, off


def test_names_must_fit() -> None:
    with pytest.raises(BadInput, match="2 labels do not fit Y of shape"):
        assess_label_sets(np.ones((3, 3), int), np.ones((3, 3)), np.ones((3, 3), int), ["a", "b"])
