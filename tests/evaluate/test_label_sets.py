"""Sets of labels judged: scikit-learn's numbers, honest intervals, folds that leave every label to learn from."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score

from handful.adapt.base import Features
from handful.adapt.multi_label import MultiLabelLogistic
from handful.errors import BadInput
from handful.evaluate.label_set_estimate import deal_sets, estimate_label_sets, spread_of, units_with, usual
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


def test_the_spread_takes_back_what_was_added() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(4000, 3)) * 2
    y = (rng.random(truth.shape) < 1 / (1 + np.exp(-truth))).astype(int)
    assert spread_of(4 * truth, y, usual(y)) == pytest.approx(0.25, rel=0.1)
    assert spread_of(truth / 5, y, usual(y)) == pytest.approx(5, rel=0.1)
    perfect = spread_of(np.where(y[:20] > 0, 1.0, -1.0), y[:20], np.zeros(3))
    assert 1 < perfect < 10  # twenty right answers do not make the next one certain


def test_names_must_fit() -> None:
    with pytest.raises(BadInput, match="2 labels do not fit Y of shape"):
        assess_label_sets(np.ones((3, 3), int), np.ones((3, 3)), np.ones((3, 3), int), ["a", "b"])
