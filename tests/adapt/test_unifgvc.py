"""UniFGVC's retrieval against scikit-learn, and where descriptions decide."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from handful.adapt import head
from handful.adapt.base import Features
from handful.adapt.unifgvc import references
from handful.errors import BadInput
from handful.testing import check_head


def unit(x: np.ndarray) -> np.ndarray:
    rows: np.ndarray = x / np.linalg.norm(x, axis=-1, keepdims=True)
    return rows


@pytest.fixture
def case(blobs: Any) -> tuple[Features, np.ndarray, Features]:
    x, y = blobs(noise=2.0)
    text, _ = blobs(noise=2.0, width=7, seed=1)
    draw = np.random.default_rng(2)
    return (
        Features(x, {"description": text}),
        y,
        Features(draw.normal(size=(30, 10)), {"description": draw.normal(size=(30, 7))}),
    )


@pytest.mark.paper(186, oracle="a")
def test_nearest_is_the_nearest_neighbour_by_image_or_by_text(case: Any) -> None:
    x, y, new = case
    for lam, rows, asked in ((1.0, x.x, new.x), (0.0, x.views["description"], new.views["description"])):
        neighbour = KNeighborsClassifier(1, metric="cosine").fit(rows, y)
        for beta in (0.5, 9.0):
            fitted = head("unifgvc", aggregate="nearest", lam=lam, beta=beta).fit(x, y)
            assert (fitted.predict(new) == neighbour.predict(asked)).all()


@pytest.mark.paper(186, oracle="a")
def test_mean_is_the_nearest_class_mean_of_the_joined_features(case: Any) -> None:
    x, y, new = case

    def joined(items: Features) -> np.ndarray:
        return np.concatenate([unit(items.x), unit(items.views["description"])], 1) / np.sqrt(2)

    means = unit(np.stack([joined(x)[y == c].mean(0) for c in range(4)]))
    for beta in (0.5, 9.0):
        fitted = head("unifgvc", beta=beta).fit(x, y)
        assert (fitted.predict(new) == (joined(new) @ means.T).argmax(1)).all()
        np.testing.assert_allclose(np.exp(fitted.logits(new)), np.exp(-beta * (1 - joined(new) @ means.T)), atol=1e-9)


@pytest.mark.paper(186, oracle="b")
def test_the_score_is_a_weighted_sum_of_both_likenesses(case: Any) -> None:
    x, _, new = case
    one = Features(x.x[[0, 6, 12, 18]], {"description": x.views["description"][[0, 6, 12, 18]]})
    fitted = head("unifgvc", lam=0.3, beta=1.0).fit(one, np.arange(4))
    both = 0.3 * unit(new.x) @ unit(one.x).T
    both = both + 0.7 * unit(new.views["description"]) @ unit(one.views["description"]).T
    np.testing.assert_allclose(fitted.logits(new), both - 1, atol=1e-9)


@pytest.mark.paper(186, oracle="c")
def test_true_descriptions_settle_what_images_leave_open() -> None:
    draw = np.random.default_rng(0)
    kind, detail = np.repeat(np.arange(2), 40), np.tile(np.repeat(np.arange(2), 20), 2)
    y = 2 * kind + detail
    look, words = draw.normal(size=(2, 16)), draw.normal(size=(2, 8))
    x = look[kind] + 0.1 * draw.normal(size=(80, 16))
    items = Features(x, {"description": words[detail]})
    shots, rest = np.arange(80) % 20 < 4, np.arange(80) % 20 >= 4

    def accuracy(lam: float) -> float:
        fitted = head("unifgvc", lam=lam).fit(items.take(shots), y[shots])
        return float((fitted.predict(items.take(rest)) == y[rest]).mean())

    assert accuracy(1.0) < 0.65
    assert accuracy(0.5) == 1.0


@pytest.mark.paper(186, oracle="d")
def test_references_are_of_the_closest_other_classes(blobs: Any) -> None:
    x, y = blobs(ways=7, shots=3)
    rows, labels = torch.as_tensor(x), torch.as_tensor(np.eye(7)[y])
    own = torch.as_tensor(y)
    chosen = references(rows, labels, rows, 5, own=own)
    classes = own[chosen]
    assert (classes != own[:, None]).all()
    assert all(len(set(row)) == 5 for row in classes.tolist())
    means = unit(np.stack([unit(x)[y == c].mean(0) for c in range(7)]))
    closest = [
        [c for c in row if c != own_class][:5]
        for row, own_class in zip((-unit(x) @ means.T).argsort(1), y, strict=True)
    ]
    assert classes.tolist() == [[int(c) for c in row] for row in closest]
    assert torch.equal(references(rows, labels, rows, 5, own=own), chosen)
    assert not torch.equal(references(rows, labels, rows, 5, own=own, seed=1), chosen)
    assert references(rows, labels, rows, 99).shape == (21, 7)


def test_an_item_without_a_description_is_compared_by_its_image(case: Any) -> None:
    x, y, new = case
    bare = Features(new.x, {"description": np.zeros((30, 7))})
    by_both = head("unifgvc", aggregate="nearest").fit(x, y)
    by_image = head("unifgvc", aggregate="nearest", lam=1.0).fit(x, y)
    assert (by_both.predict(bare) == by_image.predict(bare)).all()


def test_nearest_keeps_the_contract() -> None:
    check_head(head("unifgvc", aggregate="nearest", lam=0.3))


@pytest.mark.parametrize("bad", [{"lam": 1.1}, {"beta": 0.0}, {"aggregate": "median"}], ids=str)
def test_parameters_that_make_no_sense_are_refused(case: Any, bad: dict[str, Any]) -> None:
    x, y, _ = case
    with pytest.raises(BadInput, match=f"^{next(iter(bad))} "):
        head("unifgvc", **bad).fit(x, y)


def test_descriptions_of_other_axes_or_width_are_refused(case: Any) -> None:
    x, y, query = case
    with pytest.raises(BadInput, match=r"view 'description' holds numbers \[n, d\], not float64 of shape"):
        head("unifgvc").fit(Features(x.x, {"description": x.views["description"][:, 0]}), y)
    short = Features(query.x, {"description": query.views["description"][:, :-1]})
    with pytest.raises(BadInput, match="view 'description' has width"):
        head("unifgvc").fit(x, y).predict(short)
