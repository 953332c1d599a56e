"""Proto-CLIP: probabilities, losses and maps against the authors' numbers, and what they reduce to."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from handful.adapt import head
from handful.adapt.proto_clip import mixed
from handful.adapt.proto_clip_f import aligned, questions
from handful.adapt.query_adapters import KINDS, QueryAdapter
from handful.core.distances import unit
from handful.core.losses import cross_entropy
from handful.core.task import make_task
from handful.errors import BadInput
from handful.testing import CHECKS, check_head


@pytest.fixture
def case(blobs: Any) -> tuple[np.ndarray, np.ndarray, dict[int, np.ndarray]]:
    x, y = blobs(noise=2.0)
    return x, y, dict(enumerate(np.random.default_rng(0).normal(size=(4, 10))))


def rows(x: Any) -> np.ndarray:
    x = np.asarray(x)
    unit_rows: np.ndarray = x / np.linalg.norm(x, axis=-1, keepdims=True)
    return unit_rows


@pytest.mark.paper(60, oracle="a")
@pytest.mark.parametrize("beta", [0.2, 12.0])
def test_its_ends_are_zero_shot_and_the_nearest_centroid(case: Any, beta: float) -> None:
    x, y, text = case
    by_text = head("proto-clip", text=text, alpha=0.0, beta=beta).fit(x, y)
    assert (by_text.predict(x) == head("zero-shot", text=text).fit(x, y).predict(x)).all()
    by_image = head("proto-clip", text=text, alpha=1.0, beta=beta).fit(x, y)
    centroids = rows([rows(x)[y == c].mean(0) for c in range(4)])
    assert (by_image.predict(x) == (rows(x) @ centroids.T).argmax(1)).all()
    np.testing.assert_allclose(by_image.state_["prototypes"], centroids, atol=1e-12)


@pytest.mark.paper(60, oracle="b")
@pytest.mark.parametrize("key", ["proto-clip", "proto-clip-f"])
def test_its_logits_are_log_probabilities(case: Any, key: str) -> None:
    x, y, text = case
    more = {"epochs": 1} if key == "proto-clip-f" else {}
    fitted = head(key, text=text, **more).fit(x, y)
    np.testing.assert_allclose(np.exp(fitted.logits(x)).sum(1), 1, atol=1e-9)
    np.testing.assert_allclose(fitted.predict_proba(x), np.exp(fitted.logits(x)), atol=1e-9)
    flat = head(key, text=text, beta=0.0, **more).fit(x, y)
    np.testing.assert_allclose(flat.predict_proba(x), 0.25, atol=1e-9)


@pytest.mark.paper(60, oracle="c")
def test_probabilities_and_losses_equal_the_authors_code(golden: Any) -> None:
    inputs, expected = golden("proto_clip")
    x, y, q, text = (np.asarray(inputs[name]) for name in ("support", "labels", "query", "text"))
    fitted = head("proto-clip", text=dict(enumerate(text)), alpha=inputs["alpha"], beta=inputs["beta"]).fit(x, y)
    np.testing.assert_allclose(fitted.predict_proba(q), expected["p"], atol=1e-8)
    a, t, real = fitted.state_["prototypes"], torch.as_tensor(text), torch.ones(4, dtype=torch.bool)
    assert float(aligned(a, t, real)) == pytest.approx(expected["l2"])
    assert float(aligned(t, a, real)) == pytest.approx(expected["l3"])
    asked = torch.eye(4, dtype=torch.float64)[inputs["query_labels"]]
    q_rows = torch.as_tensor(q)
    log_p = mixed(q_rows @ a.mT, q_rows @ t.mT, inputs["alpha"], inputs["beta"], real)
    assert float(cross_entropy(log_p, asked, real)) == pytest.approx(expected["l1"])


@pytest.mark.paper(60, oracle="d")
def test_alignment_is_lowest_where_prototypes_agree_and_classes_are_orthogonal() -> None:
    eye, real = torch.eye(5), torch.ones(5, dtype=torch.bool)
    turned = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(0))).Q
    assert float(aligned(eye, eye, real)) < 2e-4 < float(aligned(eye, turned, real))


@pytest.mark.paper(60, oracle="e")
@pytest.mark.parametrize("kind", KINDS)
def test_maps_of_queries_equal_the_authors_modules(golden: Any, kind: Any) -> None:
    inputs, expected = golden("proto_clip")
    adapter = QueryAdapter(kind, 14)
    n = sum(math.prod(size) for size in adapter.sizes)
    weights = torch.as_tensor(0.4 * np.random.default_rng(7).normal(size=n))
    mapped = adapter(weights, torch.as_tensor(inputs["query"], dtype=torch.float64))
    np.testing.assert_allclose(mapped, expected["adapters"][kind], atol=1e-8)
    assert adapter.start(0).shape == (n,)


@pytest.mark.paper(60, oracle="d")
@pytest.mark.parametrize("train_text", [False, True])
def test_training_brings_image_and_text_prototypes_together(case: Any, train_text: bool) -> None:
    x, y, text = case
    real = torch.ones(4, dtype=torch.bool)

    def apart(epochs: int) -> tuple[float, float]:
        made = head("proto-clip-f", text=text, epochs=epochs, lr=1e-2, train_text=train_text, random_state=0)
        fitted = made.fit(x, y)
        p = fitted.predict_proba(x)[np.arange(len(y)), y]
        return float(aligned(fitted.state_["prototypes"], fitted.state_["words"], real)), float(-np.log(p).mean())

    (before, worse), (after, better) = apart(0), apart(30)
    assert after < before
    assert better < worse
    moved = unit(torch.as_tensor(np.stack(list(text.values()))))
    words = head("proto-clip-f", text=text, epochs=2, train_text=train_text).fit(x, y).state_["words"]
    assert torch.allclose(words, moved) != train_text


def test_every_row_but_those_put_aside_is_asked_once_a_pass() -> None:
    y = torch.repeat_interleave(torch.arange(6), torch.tensor([5, 1, 4, 2, 3, 5]))
    task = make_task(torch.randn(20, 3, generator=torch.Generator().manual_seed(0)), y, seed=3)
    steps = torch.stack(list(questions(task, 1)))
    asked = steps.sum(0)
    assert asked.max() == 1
    shots = torch.bincount(y)
    left = torch.zeros(6, dtype=torch.long).index_add(0, y, asked)
    assert ((left >= 1) & (left <= (shots - 1).clamp_min(1))).all()
    classes = [y[step].unique().tolist() for step in steps]
    assert all(1 <= len(c) <= 3 for c in classes if c)
    assert sorted(c for step in classes for c in step) == list(range(6))
    assert torch.equal(torch.stack(list(questions(task, 1))), steps)
    passes = [step.nonzero()[:, 0].tolist() for step in questions(task, 9)]
    assert len({tuple(rows) for rows in passes}) > 20


def test_the_search_trusts_what_is_right(blobs: Any) -> None:
    x, y = blobs()
    wrong = {c: x[y == (c + 1) % 4][0] for c in range(4)}
    fitted = head("proto-clip", text=wrong, alpha="loo", beta="loo").fit(x, y)
    assert float(fitted.state_["alpha"]) > 0.5
    assert (fitted.predict(x) == y).mean() > 0.95


def test_searched_strengths_keep_the_contract() -> None:
    for name in ("precision", "padding", "weights", "leave-one-out"):
        CHECKS[name](head("proto-clip", alpha="loo", beta="loo"))


@pytest.mark.parametrize("kind", KINDS[1:])
def test_other_maps_keep_the_contract(kind: str) -> None:
    drawn = dict.fromkeys(("order", "weights", "soft labels"), "classes and rows are drawn")
    check_head(head("proto-clip-f", adapter=kind, train_text=True, epochs=2), expected_failures=drawn)


@pytest.mark.parametrize(
    ("key", "bad"),
    [
        ("proto-clip", {"alpha": 1.1}),
        ("proto-clip", {"beta": -1.0}),
        ("proto-clip", {"alpha": "cv"}),
        ("proto-clip-f", {"adapter": "conv"}),
        ("proto-clip-f", {"epochs": -1}),
        ("proto-clip-f", {"lr": 0.0}),
    ],
)
def test_parameters_that_make_no_sense_are_refused(case: Any, key: str, bad: dict[str, Any]) -> None:
    x, y, text = case
    with pytest.raises(BadInput, match=f"^{next(iter(bad))} "):
        head(key, text=text, **bad).fit(x, y)
