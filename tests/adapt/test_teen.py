"""TEEN against the authors' numbers, what it reduces to, and what it is for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError

from handful.adapt import head
from handful.adapt.teen import calibrated
from handful.errors import BadInput
from handful.evaluate.incremental import incremental_step

BASE = 6


@pytest.fixture
def case(blobs: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ten classes, the first six of which are base classes."""
    x, y = blobs(ways=10, noise=1.0)
    return x, y, y < BASE


def grown(case: Any, **params: Any) -> Any:
    x, y, base = case
    return head("teen", **params).fit(x[base], y[base]).grow(x[~base], y[~base])


def unit(x: np.ndarray) -> np.ndarray:
    return np.asarray(x / np.linalg.norm(x, axis=-1, keepdims=True))


@pytest.mark.paper(175, oracle="e")
def test_equals_the_authors_code(golden: Any) -> None:
    given, want = golden("teen")
    means, n, way = np.array(given["means"]), given["base_class"], given["way"]
    got = head("teen", alpha=given["shift_weight"], tau=given["softmax_t"]).fit(means[:n], np.arange(n))
    for start in range(n, len(means), way):
        got.grow(means[start : start + way], np.arange(start, start + way))
    np.testing.assert_allclose(got.state_["prototype"].numpy(), want, atol=1e-6)


@pytest.mark.paper(175, oracle="a")
def test_without_calibration_it_is_the_nearest_class_mean_by_cosine(case: Any, blobs: Any) -> None:
    x, y, _ = case
    q, _ = blobs(ways=10, shots=40, noise=1.0, seed=1)
    want = head("prototypes", metric="cosine").fit(x, y)
    got = grown(case, alpha=0.0)
    assert np.array_equal(got.predict(q), want.predict(q))
    np.testing.assert_allclose(got.logits(q), 32 * want.logits(q), atol=1e-6)


@pytest.mark.paper(175, oracle="b")
def test_a_sharp_softmax_takes_the_nearest_base_class_and_a_flat_one_their_mean(case: Any) -> None:
    x, y, _ = case
    means = unit(np.stack([x[y == c].mean(0) for c in range(10)]))
    base, novel = means[:BASE], means[BASE:]
    nearest = base[(novel @ base.T).argmax(1)]
    sharp = grown(case, alpha=1.0, tau=1e6).state_["prototype"].numpy()[BASE:]
    flat = grown(case, alpha=1.0, tau=0.0).state_["prototype"].numpy()[BASE:]
    np.testing.assert_allclose(sharp, nearest, atol=1e-9)
    np.testing.assert_allclose(flat, np.broadcast_to(unit(base.mean(0)), flat.shape), atol=1e-9)


@pytest.mark.paper(175, oracle="c")
def test_all_calibration_makes_a_new_class_the_copy_of_a_base_class(case: Any) -> None:
    x = case[0]
    logits = grown(case, alpha=1.0, tau=1e6).logits(x)
    gaps = np.abs(logits[:, BASE:, None] - logits[:, None, :BASE]).max(0)
    assert (gaps.min(1) < 1e-6).all()


@pytest.mark.paper(175, oracle="d")
def test_new_classes_may_come_one_by_one_or_together(case: Any) -> None:
    x, y, base = case
    names = np.array(list("qwertyuiop"))[y]
    fitted = head("teen").fit(x[base], names[base])
    for name in "poiu":
        fitted.grow(x[names == name], names[names == name])
    together = head("teen").fit(x[base], names[base]).grow(x[~base], names[~base])
    assert fitted.classes_.tolist() == together.classes_.tolist() == sorted("qwertyuiop")
    np.testing.assert_allclose(fitted.logits(x), together.logits(x), atol=1e-9)
    fitted.check_state()


def test_a_base_class_without_weight_does_not_calibrate() -> None:
    draw = torch.Generator().manual_seed(0)
    novel, base = torch.randn(2, 5, generator=draw), torch.randn(4, 5, generator=draw)
    got = calibrated(novel, base, torch.tensor([1.0, 0.0, 2.0, 1.0]), 0.5, 16.0)
    torch.testing.assert_close(got, calibrated(novel, base[[0, 2, 3]], torch.ones(3), 0.5, 16.0))


def test_tasks_of_a_batch_are_calibrated_apart() -> None:
    draw = torch.Generator().manual_seed(0)
    novel, base = torch.randn(3, 2, 5, generator=draw), torch.randn(3, 4, 5, generator=draw)
    weight = torch.ones(3, 4)
    together = calibrated(novel, base, weight, 0.5, 16.0)
    for i in range(3):
        torch.testing.assert_close(together[i], calibrated(novel[i], base[i], weight[i], 0.5, 16.0))


def test_new_classes_that_lie_near_base_classes_are_missed_less_often() -> None:
    draw = np.random.default_rng(0)
    groups = 2.0 * draw.normal(size=(8, 32))
    centres = groups[np.arange(48) % 8] + 0.8 * draw.normal(size=(48, 32))

    def items(classes: range, shots: int) -> tuple[np.ndarray, np.ndarray]:
        y = np.repeat(classes, shots)
        return centres[y] + 1.5 * draw.normal(size=(len(y), 32)), y

    (x, y), (few, new), (q, true) = items(range(40), 100), items(range(40, 48), 1), items(range(48), 50)
    plain, moved = (
        incremental_step(true, head("teen", alpha=alpha).fit(x, y).grow(few, new).predict(q), range(40))
        for alpha in (0.0, 0.5)
    )
    assert moved.false_negative is not None and plain.false_negative is not None
    assert moved.novel is not None and plain.novel is not None
    assert moved.false_negative < plain.false_negative - 0.02
    assert moved.novel > plain.novel + 0.02


def test_refusals(case: Any) -> None:
    x, y, base = case
    with pytest.raises(NotFittedError):
        head("teen").grow(x, y)
    fitted = head("teen").fit(x[base], y[base])
    with pytest.raises(BadInput, match="class 3 is known already"):
        fitted.grow(x[y >= 3], y[y >= 3])
    with pytest.raises(BadInput, match="features"):
        fitted.grow(x[~base][:, :3], y[~base])
    with pytest.raises(BadInput, match="cancel out"):
        fitted.grow(np.stack([x[0], -x[0]]), [11, 11])
    with pytest.raises(BadInput, match="cancel out"):
        head("teen").fit(np.stack([x[0], -x[0], x[1]]), [0, 0, 1])
    with pytest.raises(BadInput, match=r"^class 'c' has 0 examples"):
        head("teen").fit(np.eye(3), list("abc"), sample_weight=[1, 1, 0])
    assert fitted.classes_.tolist() == list(range(BASE))


@pytest.mark.parametrize("params", [{"alpha": 1.1}, {"alpha": -0.1}, {"tau": -1.0}, {"scale": 0.0}])
def test_parameters_that_make_no_sense_are_refused(case: Any, params: dict[str, float]) -> None:
    x, y, _ = case
    with pytest.raises(BadInput, match=rf"^{next(iter(params))} must be"):
        head("teen", **params).fit(x, y)
