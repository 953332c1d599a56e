"""Wrong labels are found among right ones."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from handful.adapt import head
from handful.adapt.base import Features
from handful.encode import encoder
from handful.evaluate import cross_fit
from handful.evaluate.suspicious import Suspicion, suspicious_labels


def test_confident_learning_by_hand() -> None:
    proba = np.array(
        [
            [0.90, 0.05, 0.05],  # thresholds: 0.48, 0.85, 0.80
            [0.06, 0.92, 0.02],  # labelled 0, and above the threshold of 1
            [0.10, 0.85, 0.05],
            [0.10, 0.05, 0.85],
            [0.10, 0.15, 0.75],
        ]
    )
    labels = np.array([0, 0, 1, 2, 2])
    everything = np.ones(5, bool)
    assert suspicious_labels(labels, proba, everything) == [Suspicion(1, 0, 1, 0.06, 0.92)]
    proba[1] = [0.06, 0.80, 0.14]  # not as sure as of the items that are labelled 1
    assert suspicious_labels(labels, proba, everything) == []
    proba[1] = [0.20, 0.80, 0.00]  # sure enough against items of 0.70, but 0 is no less likely than half of chance
    proba[2] = [0.20, 0.70, 0.10]
    assert suspicious_labels(labels, proba, everything) == []


def test_the_least_probable_come_first() -> None:
    proba = np.full((8, 2), 0.5)
    proba[:3] = [[0.2, 0.8], [0.01, 0.99], [0.1, 0.9]]
    found = suspicious_labels(np.zeros(8, np.int64) + (np.arange(8) > 5), proba, np.ones(8, bool))
    assert [each.row for each in found] == [1, 2, 0]
    assert {(each.given, each.suggested) for each in found} == {(0, 1)}


def test_items_without_a_verdict_are_not_suspected() -> None:
    proba = np.array([[np.nan, np.nan], [0.9, 0.1], [0.01, 0.99], [0.2, 0.8], [np.nan, np.nan]])
    labels, judged = np.array([0, 0, 0, 1, 1]), np.array([False, True, True, True, False])
    assert [each.row for each in suspicious_labels(labels, proba, judged)] == [2]
    assert suspicious_labels(labels, proba, np.zeros(5, bool)) == []


def test_a_class_that_is_not_judged_is_not_suggested() -> None:
    proba = np.array([[0.01, 0.01, 0.98], [0.98, 0.01, 0.01], [0.01, 0.98, 0.01]])
    assert suspicious_labels(np.array([0, 0, 1]), proba, np.ones(3, bool)) == []


@pytest.fixture(scope="module")
def found_in_banking(shared_data: Path) -> tuple[np.ndarray, np.ndarray, int]:
    """Eight texts of 30 classes, a tenth of them mislabelled: which are, which are found, and how many before."""
    with (shared_data / "banking77" / "train.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    classes = sorted({row["category"] for row in rows})[:30]
    texts = [[row["text"] for row in rows if row["category"] == name][:8] for name in classes]
    x = Features(encoder("minilm").encode([text for some in texts for text in some]), {})
    right = np.repeat(np.arange(30), 8)
    rng = np.random.default_rng(0)
    wrong = np.zeros(len(right), bool)
    wrong[rng.permutation(len(right))[:24]] = True
    given = np.where(wrong, (right + rng.integers(1, 30, len(right))) % 30, right)
    return wrong, _suspected(x, given), int(_suspected(x, right).sum())


def _suspected(x: Features, labels: np.ndarray) -> np.ndarray:
    folds = cross_fit(head("kernel-ridge", random_state=0), x, labels)
    assert folds is not None
    p = np.exp(folds.logits - folds.logits.max(axis=1, keepdims=True))
    found = np.zeros(len(labels), bool)
    found[[each.row for each in suspicious_labels(labels, p / p.sum(axis=1, keepdims=True), folds.judged)]] = True
    return found


def test_labels_made_wrong_are_found(found_in_banking: tuple[np.ndarray, np.ndarray, int]) -> None:
    wrong, found, before = found_in_banking
    assert (found & wrong).sum() / wrong.sum() > 0.5
    assert (found & wrong).sum() / found.sum() > 0.7
    assert before <= 0.05 * len(wrong)
