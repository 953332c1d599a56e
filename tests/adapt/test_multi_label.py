"""Several labels a row: label matrices and label sets, thresholds, and agreement with scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.datasets import make_multilabel_classification
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

from handful.adapt import head
from handful.adapt.multi_label import best_f1, label_folds
from handful.core.task import make_task
from handful.errors import BadInput


def data(n: int = 80, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    x, y = make_multilabel_classification(n, 12, n_classes=4, random_state=seed)
    return x / 10, y


def test_each_label_is_scikit_learns_logistic_regression() -> None:
    x, y = data()
    got = head("multi-label-logistic", C=0.5).fit(x, y).logits(x)
    want = [LogisticRegression(C=0.5, tol=1e-10, max_iter=5000).fit(x, column).decision_function(x) for column in y.T]
    np.testing.assert_allclose(got, np.stack(want, 1), atol=2e-3)


def test_label_sets_are_the_matrix_with_names() -> None:
    x, y = data()
    names = np.array(["art", "law", "sea", "war"])
    plain = head("multi-label-logistic").fit(x, y)
    assert plain.classes_.tolist() == [0, 1, 2, 3]
    ways: list[Any] = [
        [set(names[row == 1]) for row in y],
        [names[row == 1].tolist() for row in y],
        pd.DataFrame(y, columns=names),
    ]
    for given in ways:
        fitted = head("multi-label-logistic").fit(x, given)
        assert fitted.classes_.tolist() == names.tolist()
        np.testing.assert_array_equal(fitted.predict(x), plain.predict(x))
    np.testing.assert_array_equal(head("multi-label-logistic").fit(x, sparse.csr_array(y)).predict(x), plain.predict(x))


def test_answers_are_a_matrix_and_survive_a_file() -> None:
    x, y = data()
    fitted = head("multi-label-logistic", threshold=0.3).fit(x, y)
    proba = fitted.predict_proba(x)
    assert proba.shape == y.shape
    np.testing.assert_array_equal(fitted.predict(x), (proba > 0.3).astype(int))
    np.testing.assert_array_equal(fitted.decision_function(x) > 0, proba > 0.3)
    again = type(fitted).restore(fitted.parameters(), fitted.classes_, fitted.state_, fitted.n_features_in_)
    again.check_state()
    np.testing.assert_array_equal(again.predict(x), fitted.predict(x))
    again.state_ = {**again.state_, "threshold": torch.zeros(3)}
    with pytest.raises(BadInput, match="'threshold' has shape"):
        again.check_state()
    assert fitted.spread(x, y) == 1.0


def test_one_label_a_row_is_one_against_the_rest() -> None:
    x, _ = data()
    labels = np.array(["low", "mid", "top"])[np.digitize(x[:, 0], [0.25, 0.4])]
    fitted = head("multi-label-logistic", C=100.0).fit(x, labels)
    assert set(fitted.predict(x)) <= set(labels)
    np.testing.assert_allclose(fitted.predict_proba(x).sum(1), 1, atol=1e-6)
    assert fitted.score(x, labels) > 0.8


def test_thresholds_by_f1_beat_a_half_where_labels_are_rare() -> None:
    x, y = make_multilabel_classification(300, 12, n_classes=6, n_labels=1, random_state=3)
    x, few, test = x / 10, slice(0, 100), slice(100, None)
    plain, chosen = (head("multi-label-logistic", threshold=t).fit(x[few], y[few]) for t in (0.5, "f1"))
    scores = [f1_score(y[test], fitted.predict(x[test]), average="macro") for fitted in (plain, chosen)]
    assert scores[1] > scores[0] + 0.05


def test_the_best_threshold_is_found() -> None:
    draw = np.random.default_rng(0)
    logits, y = draw.normal(size=(30, 3)).round(1), draw.integers(0, 2, (30, 3))
    got = best_f1(torch.tensor(logits), torch.tensor(y, dtype=torch.float64), torch.ones(30, dtype=torch.float64))
    for c in range(3):
        every = [f1_score(y[:, c], logits[:, c] > t) for t in np.arange(-4, 4, 0.05)]
        assert f1_score(y[:, c], logits[:, c] > float(got[c])) == pytest.approx(max(every))


def test_rows_left_out_are_left_out() -> None:
    x, y = data(40)
    task = make_task(torch.tensor(x), torch.tensor(y, dtype=torch.float64))
    one = head("multi-label-logistic")
    fold, left_out = label_folds(task, 5).numpy(), one.leave_one_out(task)
    assert left_out is not None
    assert np.bincount(fold, minlength=5).min() >= 5
    for f in (0, 3):
        rest = head("multi-label-logistic").fit(x[fold != f], y[fold != f])
        np.testing.assert_allclose(left_out.numpy()[fold == f], rest.logits(x[fold == f]), atol=2e-3)


def test_a_label_that_every_row_has_is_answered_by_its_odds() -> None:
    x, y = data(20)
    y[:, 1] = 1
    fitted = head("multi-label-logistic").fit(x, y)
    np.testing.assert_allclose(fitted.predict_proba(x)[:, 1], 20.5 / 21)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([[0, 2], [1, 0], [1, 1]], "has 2 at row 0, column 1"),
        ([[0.0, np.nan], [1, 0], [1, 1]], "has nan at row 0, column 1"),
        ([[0, 1], [1, 0]], "3 rows of features but 2 rows of labels"),
        ([[0, 1], [0, 1], [0, 1]], "no row has the label"),
        ([{"a"}, {"a"}, set()], "1 labels in all"),
        ([{"a"}, {1}, {"b"}], "labels of different kinds"),
        ([["a", "b"], ["a"], []], None),
    ],
)
def test_labels_that_make_no_sense_are_refused(y: Any, message: str | None) -> None:
    x = np.eye(3)
    if message is None:
        assert head("multi-label-logistic").fit(x, y).classes_.tolist() == ["a", "b"]
        return
    with pytest.raises(BadInput, match=message):
        head("multi-label-logistic").fit(x, y)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"C": 0.0}, "C must be"),
        ({"threshold": 0.0}, "threshold must be"),
        ({"threshold": 1}, "threshold must be below 1"),
        ({"threshold": "best"}, "threshold is a probability or 'f1'"),
        ({"threshold": "f1", "folds": 1}, "folds must be"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        head("multi-label-logistic", **params).fit(*data(20))


def test_other_heads_refuse_several_labels() -> None:
    with pytest.raises(BadInput):
        head("prototypes").fit(*data(20))
