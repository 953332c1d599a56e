"""LFA between an image model and a text model that never met: the wider side is projected."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.linalg import orthogonal_procrustes
from sklearn.random_projection import GaussianRandomProjection

from handful.adapt import head
from handful.adapt.base import Features
from handful.errors import BadInput

PART = "uni-modal"


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def by_scikit_learn(x: np.ndarray, width: int) -> np.ndarray:
    return unit(GaussianRandomProjection(width, random_state=0).fit_transform(unit(x)))


@pytest.fixture(params=["wide images", "wide text"])
def pair(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Items, classes and text of 20 classes, in spaces of 30 and 10 dimensions."""
    draw = np.random.default_rng(0)
    y = np.repeat(np.arange(20), 4)
    wide, narrow = draw.normal(size=(20, 30)), draw.normal(size=(20, 10))
    centre, text = (wide, narrow) if request.param == "wide images" else (narrow, wide)
    return unit(centre)[y] + 0.05 * draw.normal(size=(80, centre.shape[1])), y, text


@pytest.mark.paper(162, oracle="a", part=PART)
def test_procrustes_of_scikit_learns_projection_is_scipys(pair: Any) -> None:
    x, y, text = pair
    made = head("lfa", text=dict(enumerate(text)), beta=0.0, n_iter=0, project=True).fit(x, y)
    a, p = (unit(rows) if rows.shape[1] == 10 else by_scikit_learn(rows, 10) for rows in (x, text))
    w = orthogonal_procrustes(a, p[y])[0]
    np.testing.assert_allclose(made.state_["transform"], w, atol=1e-5)
    np.testing.assert_allclose(made.logits(x), unit(a @ w) @ p.T / 0.07, atol=1e-4)


@pytest.mark.paper(162, oracle="b", part=PART)
def test_all_of_the_identity_is_zero_shot_after_projection(pair: Any) -> None:
    x, y, text = pair
    made = head("lfa", text=dict(enumerate(text)), beta=1.0, n_iter=0, project=True).fit(x, y)
    a, p = (unit(rows) if rows.shape[1] == 10 else by_scikit_learn(rows, 10) for rows in (x, text))
    zero = head("zero-shot", text=dict(enumerate(p)), logit_scale=1 / 0.07).fit(a, y)
    np.testing.assert_allclose(made.logits(x), zero.logits(a), atol=1e-9)


@pytest.mark.paper(162, oracle="c", part=PART)
def test_finds_how_two_spaces_are_turned() -> None:
    """Images are the projection's own inverse image of turned text: unaligned they are at chance."""
    draw = np.random.default_rng(0)
    text, y = unit(draw.normal(size=(20, 10))), np.repeat(np.arange(20), 4)
    turn = np.linalg.qr(draw.normal(size=(10, 10)))[0]
    back = np.linalg.pinv(GaussianRandomProjection(10, random_state=0).fit(np.zeros((1, 30))).components_.T)
    x, new = (text[y] @ turn.T @ back + 0.01 * draw.normal(size=(80, 30)) for _ in range(2))
    given = {"text": dict(enumerate(text)), "project": True, "n_iter": 0}
    assert (head("lfa", beta=1.0, **given).fit(x, y).predict(new) == y).mean() < 0.3
    made = head("lfa", beta=0.0, **given).fit(x, y)
    assert (made.predict(new) == y).mean() > 0.97
    assert np.linalg.norm(made.state_["transform"].numpy() - turn) < 0.3


def test_new_classes_saving_and_no_labels(pair: Any) -> None:
    x, y, text = pair
    given = {"text": dict(enumerate(text)), "project": True, "beta": 0.1}
    few = y < 15
    made = head("lfa", n_iter=3, matrix="average", **given).fit(x[few], y[few])
    assert set(made.predict(x[~few], classes=[15, 16, 17, 18, 19])) <= {15, 16, 17, 18, 19}
    assert made.view_widths() == {}
    again = type(made).restore(made.parameters(), made.classes_, made.state_, made.n_features_in_, made.unseen_)
    again.check_state()
    np.testing.assert_array_equal(again.logits(x), made.logits(x))
    free = head("lfa-unsupervised", n_iter=2, rounds=1, unlabelled=x[40:], **given).fit(x[:40], np.arange(40) % 20)
    np.testing.assert_allclose(
        free.logits(x), head("lfa-unsupervised", n_iter=2, rounds=1, **given).fit_unlabelled(x).logits(x), atol=1e-9
    )


def test_different_widths_are_refused_unless_asked_for(pair: Any) -> None:
    x, y, text = pair
    with pytest.raises(BadInput, match=f"class text has width {text.shape[1]} but the features have {x.shape[1]}"):
        head("lfa", text=dict(enumerate(text))).fit(x, y)
    same = head("lfa", text=dict(enumerate(text)), beta=0.1, n_iter=2)
    aligned = Features(x, {"aligned": np.random.default_rng(1).normal(size=(80, text.shape[1]))})
    want = same.fit(aligned, y).logits(aligned)
    np.testing.assert_array_equal(same.set_params(project=True).fit(aligned, y).logits(aligned), want)
