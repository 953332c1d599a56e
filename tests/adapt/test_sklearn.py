"""scikit-learn's own check suite on every head and transform."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from sizes import SMALL
from sklearn.base import BaseEstimator, clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from handful.adapt import HEADS, head, head_class
from handful.adapt.base import Features, Head
from handful.adapt.inputs import PLACES
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
STEPS = "every step sees a few rows, drawn in an order, and a row of weight 2 is one row"
TOGETHER = {"check_methods_subset_invariance": "queries sway each other"}
NEGATIVE = {"check_decision_proba_consistency": "has features below 0, whatever the tag positive_only says"}
PLANE = "has rows of two numbers, of which unit length leaves one"
FLAT = "has rows whose numbers are all the same, which cannot be standardised"
EXPECTED: Mapping[str, Mapping[str, str]] = {
    "simpleshot": {"check_estimators_dtypes": ZEROS},
    "teen": {"check_estimators_dtypes": ZEROS},
    "aldc": {"check_estimators_dtypes": ZEROS, "check_sample_weight_equivalence_on_dense_data": HELD_OUT},
    "dafos-net": {"check_classifiers_train": "a few episodes of two classes teach a small network little"},
    "mamba-fscil": {"check_classifiers_train": "has two numbers a place, and few steps teach a small network little"},
    "fscil-tricks": {"check_estimators_dtypes": ZEROS, "check_sample_weight_equivalence_on_dense_data": STEPS},
    "limit-fscil": {
        "check_estimators_dtypes": ZEROS,
        "check_classifiers_train": PLANE,
        "check_sample_weight_equivalence_on_dense_data": STEPS,
    },
    **{
        key: {**TOGETHER, "check_estimators_dtypes": ZEROS}
        for key in ("bd-cspn", "laplacianshot", "laplacian-clustering", "tim-gd", "tim-adm", "transductive-finetuning")
    },
    "unem": TOGETHER,
    "easy": TOGETHER,
    "cipa": {**TOGETHER, **NEGATIVE},
    "pt-map": {**TOGETHER, **NEGATIVE, "check_classifiers_train": PLANE},
    "putm": {
        **TOGETHER,
        **NEGATIVE,
        "check_classifiers_train": PLANE,
        "check_sample_weight_equivalence_on_dense_data": "a row more is a coordinate more for the network",
    },
    "fafd-ldwr": {"check_classifiers_train": "has rows of two numbers, of which standardising leaves a sign"},
    "laso": {
        "check_sample_weight_equivalence_on_dense_data": STEPS,
        "check_classifiers_train": "unions of rows of two numbers are rows of other classes",
    },
    "pro2": {"check_sample_weight_equivalence_on_dense_data": HELD_OUT},
    "opta": {
        **TOGETHER,
        "check_estimators_dtypes": ZEROS,
        **dict.fromkeys(
            (
                "check_sample_weights_pandas_series",
                "check_sample_weights_not_an_array",
                "check_sample_weights_shape",
                "check_sample_weights_not_overwritten",
                "check_classifier_data_not_an_array",
                "check_classifiers_train",
                "check_fit_check_is_fitted",
            ),
            FLAT,
        ),
    },
    "matching-networks": {"check_estimators_dtypes": ZEROS},
    "rfs": {"check_estimators_dtypes": ZEROS},
    "metaopt": {"check_estimators_dtypes": ZEROS},
    "gda": {"check_estimators_dtypes": ZEROS},
    "gda-unsupervised": {"check_estimators_dtypes": ZEROS},
    "tip-adapter": {"check_estimators_dtypes": ZEROS},
    "tip-x": {"check_estimators_dtypes": ZEROS},
    "calip": {"check_estimators_dtypes": ZEROS},
    "ape": {"check_estimators_dtypes": ZEROS},
    "ape-t": {"check_estimators_dtypes": ZEROS},
    "proto-clip": {"check_estimators_dtypes": ZEROS},
    "lp++": {"check_estimators_dtypes": ZEROS},
    "cupl": {"check_estimators_dtypes": ZEROS},
    "real": {"check_estimators_dtypes": ZEROS},
    "lfa": {"check_estimators_dtypes": ZEROS, "check_sample_weight_equivalence_on_dense_data": STEPS},
    "lfa-unsupervised": {"check_estimators_dtypes": ZEROS, "check_sample_weight_equivalence_on_dense_data": STEPS},
    "label-description": {"check_estimators_dtypes": ZEROS},
    "mf-adapter": {"check_estimators_dtypes": ZEROS},
    "vdt": {"check_estimators_dtypes": ZEROS, "check_sample_weight_equivalence_on_dense_data": STEPS},
    "multi-modal-adapter": {"check_estimators_dtypes": ZEROS},
    **{key: {"check_estimators_dtypes": ZEROS} for key in ("linear-adapter", "prolip", "prolip-tip-adapter-f")},
    "proto-clip-f": {"check_estimators_dtypes": ZEROS, "check_sample_weight_equivalence_on_dense_data": STEPS},
    "amu-tuning": {"check_sample_weight_equivalence_on_dense_data": STEPS},
    "tip-adapter-f": {"check_estimators_dtypes": ZEROS},
    "proker": {"check_estimators_dtypes": ZEROS},
    "proker-clap": {"check_estimators_dtypes": ZEROS},
    "kernel-cache": {
        "check_estimators_dtypes": ZEROS,
        "check_sample_weight_equivalence_on_dense_data": HELD_OUT,
    },
    "kernel-ridge": {
        "check_estimators_dtypes": ZEROS,
        "check_sample_weight_equivalence_on_dense_data": HELD_OUT,
    },
    **{
        key: {"check_sample_weight_equivalence_on_dense_data": STEPS}
        for key in ("devise", "ale", "latem", "zero-shot-prototypes")
    },
    "sje": {
        "check_sample_weight_equivalence_on_dense_data": STEPS,
        "check_classifiers_train": "has signatures of two numbers, of which standardising leaves the order",
    },
    "sse": {
        "check_sample_weight_equivalence_on_dense_data": "an example that is the mean of its class stands on a kink"
    },
    **{
        key: {
            "check_estimators_dtypes": ZEROS,
            "check_sample_weight_equivalence_on_dense_data": "a step counts rows, whatever their weight",
        }
        for key in ("private-logistic", "private-search")
    },
    "steel": {"check_estimators_dtypes": ZEROS},
    "zero-shot": {"check_estimators_dtypes": ZEROS},
    "auto": {"check_estimators_dtypes": ZEROS, "check_sample_weight_equivalence_on_dense_data": HELD_OUT},
}


def with_all(cls: type[Head]) -> type[Head]:
    """The head, finding class text, base items and views for whatever comes: sums of the examples of a class for both,
    and the features again."""
    if not (cls.needs.text or cls.needs.views or cls.needs.background):
        return cls

    def fit(self: Any, X: Any, y: Any, sample_weight: Any = None) -> Any:
        if cls.needs.text:
            self.text = _text(X, y, sample_weight)
        if cls.needs.background:
            means = np.array([*_text(X, y, sample_weight).values()])
            self.background = np.concatenate([means, 1.1 * means]), np.tile(np.arange(len(means)), 2)
        try:
            return cls.fit(self, _with_views(cls, X), y, sample_weight)
        finally:
            self.text = self.background = None

    def logits(self: Any, data: Any, classes: Any = None) -> Any:
        return cls.logits(self, _with_views(cls, data), classes)

    name = f"{cls.__name__}WithAll"
    body = {"fit": fit, "logits": logits, "__init__": cls.__init__, "__module__": __name__}
    globals()[name] = type(name, (cls,), body)  # for pickle
    found: type[Head] = globals()[name]
    return found


def _text(X: Any, y: Any, sample_weight: Any) -> Any:
    try:
        rows, labels = np.asarray(X, dtype=float), np.asarray(y).ravel()
        weight = np.ones(len(labels)) if sample_weight is None else np.asarray(sample_weight, dtype=float)
        at = {label: labels == label for label in np.unique(labels).tolist()}
        return {label: weight[here] @ rows[here] + 1e-9 for label, here in at.items()}
    except (TypeError, ValueError, IndexError):  # what the check suite hands over on purpose: let the head refuse it
        return {0: [1.0]}


def _with_views(cls: type[Head], X: Any) -> Any:
    """The features with the views the head needs; several rows an item are the features, shifted."""
    if not cls.needs.views or isinstance(X, Features):
        return X
    try:
        x = np.asarray(X, dtype=float)
    except (TypeError, ValueError):
        return X  # for the head to refuse
    if x.ndim != 2:
        return X
    several = {name: np.stack([np.roll(x, k, axis=1) for k in range(n)], 1) for name, n in PLACES.items()}
    return Features(X, {name: several.get(name, x) for name in cls.needs.views})


def heads() -> list[Head]:
    """One of every head that is there, remembering its key."""
    out = []
    for key in HEADS:
        try:
            cls = head_class(key)
        except BadInput:
            continue  # written elsewhere
        out.append(with_all(cls)(**SMALL.get(key, {})))
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
