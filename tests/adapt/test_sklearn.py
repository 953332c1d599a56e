"""scikit-learn's own check suite on every head and transform."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from sklearn.base import BaseEstimator, clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from handful.adapt import HEADS, head, head_class
from handful.adapt.base import Head
from handful.adapt.transforms import (
    Center,
    Chain,
    ChannelPower,
    Power,
    Relu,
    SquareRoot,
    Transform,
    Unit,
)
from handful.errors import BadInput

ZEROS = "has a row of zeros, which has no direction"
HELD_OUT = "leave-one-out takes a row of weight 2 out whole, of two equal rows only one"
EXPECTED: Mapping[str, Mapping[str, str]] = {
    "matching-networks": {"check_estimators_dtypes": ZEROS},
    "rfs": {"check_estimators_dtypes": ZEROS},
    "gda": {"check_estimators_dtypes": ZEROS},
    "tip-adapter": {"check_estimators_dtypes": ZEROS},
    "tip-adapter-f": {"check_estimators_dtypes": ZEROS},
    "proker": {"check_estimators_dtypes": ZEROS},
    "kernel-ridge": {
        "check_estimators_dtypes": ZEROS,
        "check_sample_weight_equivalence_on_dense_data": HELD_OUT,
    },
    "zero-shot": {"check_estimators_dtypes": ZEROS},
    "auto": {"check_estimators_dtypes": ZEROS, "check_sample_weight_equivalence_on_dense_data": HELD_OUT},
}


def with_text(cls: type[Head]) -> type[Head]:
    """The head, finding class text for whatever labels come: the means of their examples."""

    def fit(self: Any, X: Any, y: Any, sample_weight: Any = None) -> Any:
        try:
            rows, labels = np.asarray(X, dtype=float), np.asarray(y).ravel()
            weight = np.ones(len(labels)) if sample_weight is None else np.asarray(sample_weight, dtype=float)
            at = {label: labels == label for label in np.unique(labels).tolist()}
            self.text = {label: weight[here] @ rows[here] + 1e-9 for label, here in at.items()}
        except (
            TypeError,
            ValueError,
            IndexError,
        ):  # what the check suite hands over on purpose: let the head refuse it
            self.text = {0: [1.0]}
        try:
            return cls.fit(self, X, y, sample_weight)
        finally:
            self.text = None

    name = f"{cls.__name__}WithText"
    globals()[name] = type(name, (cls,), {"fit": fit, "__init__": cls.__init__, "__module__": __name__})  # for pickle
    found: type[Head] = globals()[name]
    return found


def heads() -> list[Head]:
    """One of every head that is there, remembering its key."""
    out = []
    for key in HEADS:
        try:
            cls = head_class(key)
        except BadInput:
            continue  # written elsewhere
        out.append((with_text(cls) if cls.needs.text else cls)())
    return out


def expected(estimator: BaseEstimator) -> dict[str, str]:
    """Checks that the nature of the estimator forbids, with the reason."""
    return dict(EXPECTED.get(getattr(estimator, "key", ""), {}))


@parametrize_with_checks(heads(), expected_failed_checks=expected)
def test_heads(estimator: BaseEstimator, check: Any) -> None:
    check(estimator)


TRANSFORMS: list[Transform] = [
    Unit(),
    Center(),
    Power(),
    Power(signed=True),
    SquareRoot(),
    Relu(),
    ChannelPower(),
    ChannelPower(signed=False),
    Chain.letters("ME"),
    Chain.letters("RPEME"),
]


@pytest.mark.filterwarnings("ignore:the features are centred")
@parametrize_with_checks(TRANSFORMS)
def test_transforms(estimator: BaseEstimator, check: Any) -> None:
    check(estimator)


def test_heads_work_inside_model_selection(blobs: Any) -> None:
    x, y = blobs()
    search = GridSearchCV(make_pipeline(Unit(), head("logistic")), {"logistic__C": [0.01, 1.0]}, cv=3).fit(x, y)
    assert search.best_score_ > 0.8
    assert cross_val_score(head("gda"), x, y, cv=3).mean() > 0.8


@pytest.mark.parametrize("key", [key for key in HEADS if key != "auto"])
def test_parameters_survive_cloning(key: str) -> None:
    original = head(key, random_state=3, logit_scale=7.0)
    assert clone(original).get_params() == original.get_params()
