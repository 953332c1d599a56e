"""LFA: Procrustes against scipy, losses and refinement against the authors' numbers, planted rotations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.linalg import orthogonal_procrustes
from scipy.stats import ortho_group

from handful.adapt import head
from handful.adapt.lfa import procrustes
from handful.adapt.lfa_losses import LOSSES, adaptive_reranking
from handful.core.distances import unit
from handful.errors import BadInput


def rows(*shape: int, seed: int = 0) -> torch.Tensor:
    return unit(torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))


@pytest.mark.paper(162, oracle="a")
def test_procrustes_is_scipys_where_the_data_decide() -> None:
    x, target = rows(30, 8), rows(30, 8, seed=1)
    w = procrustes(x, target)
    np.testing.assert_allclose(w, orthogonal_procrustes(x.numpy(), target.numpy())[0], atol=1e-5)
    few = procrustes(x[:3], target[:3])
    torch.testing.assert_close(few.mT @ few, torch.eye(8, dtype=torch.float64), atol=1e-9, rtol=0)
    scores = x[3:] @ few @ target[:3].mT  # of what the data decide, whatever the completion
    other = orthogonal_procrustes(x[:3].numpy(), target[:3].numpy())[0]
    np.testing.assert_allclose(scores, x[3:].numpy() @ other @ target[:3].numpy().T, atol=1e-5)
    assert few.trace() > other.trace()


@pytest.mark.paper(162, oracle="b")
def test_all_of_the_identity_is_zero_shot(blobs: Any) -> None:
    x, y = blobs(noise=2.0)
    text = dict(enumerate(rows(4, 10).numpy()))
    fitted = head("lfa", text=text, beta=1.0, n_iter=0).fit(x, y)
    zero_shot = head("zero-shot", text=text, logit_scale=1 / 0.07).fit(x, y)
    np.testing.assert_allclose(fitted.logits(x), zero_shot.logits(x), atol=1e-9)


@pytest.mark.paper(162, oracle="c")
@pytest.mark.parametrize(("ways", "width"), [(24, 12), (6, 12)])
def test_finds_a_planted_rotation(ways: int, width: int) -> None:
    draw = np.random.default_rng(0)
    turn, text = ortho_group.rvs(width, random_state=1), rows(ways, width).numpy()
    y = np.repeat(np.arange(ways), 4)
    x = text[y] @ turn.T + 0.02 * draw.normal(size=(len(y), width))
    given = {"text": dict(enumerate(text))}
    fitted = head("lfa", beta=0.0, n_iter=0, **given).fit(x, y)
    new = text[y] @ turn.T + 0.02 * draw.normal(size=x.shape)
    assert (fitted.predict(new) == y).all()
    assert (head("zero-shot", **given).fit(x, y).predict(new) == y).mean() < 0.7
    if ways > width:
        assert np.linalg.norm(fitted.state_["transform"].numpy() - turn) < 0.2


@pytest.mark.paper(162, oracle="d")
def test_nothing_is_lost_where_rows_are_at_their_class_text() -> None:
    text, real = torch.eye(5, dtype=torch.float64), torch.ones(5, dtype=torch.bool)
    assert float(adaptive_reranking(text, text, text, real, 3, 4.0)) < 1e-5
    assert float(adaptive_reranking(text.roll(1, 0), text, text, real, 3, 4.0)) > 0.4


@pytest.mark.paper(162, oracle="f")
def test_losses_and_refinement_equal_the_authors_code(golden: Any) -> None:
    inputs, expected = golden("lfa")
    x, y, text = (np.asarray(inputs[name]) for name in ("support", "labels", "text"))
    one_hot, p = torch.eye(10, dtype=torch.float64)[y], torch.as_tensor(text)
    for beta, w in expected["procrustes"].items():
        found = head("lfa", text=dict(enumerate(text)), beta=float(beta), n_iter=0).fit(x, y).state_["transform"]
        np.testing.assert_allclose(found, w, atol=1e-5)
    v = 1.7 * torch.as_tensor(x) @ torch.as_tensor(np.asarray(expected["procrustes"]["0.3"]))
    for kind, loss in expected["losses"].items():
        found = LOSSES[kind](v, p, one_hot, torch.ones(10, dtype=torch.bool), 3, 4.0)
        assert float(found) == pytest.approx(loss, abs=1e-6), kind


@pytest.mark.paper(162, oracle="f")
@pytest.mark.parametrize("matrix", ["refined", "average"])
def test_refinement_equals_the_authors_code(golden: Any, monkeypatch: pytest.MonkeyPatch, matrix: str) -> None:
    inputs, expected = golden("lfa")
    monkeypatch.setattr("handful.adapt.lfa.KEPT", 1.0)
    made = {name: inputs[name] for name in ("beta", "n_iter", "lr")}
    fitted = head(
        "lfa", text=dict(enumerate(inputs["text"])), noise=0.0, dropout=0.0, orthogonal="step", matrix=matrix, **made
    )
    fitted.fit(np.asarray(inputs["support"]), np.asarray(inputs["labels"]))
    np.testing.assert_allclose(fitted.state_["transform"], expected[matrix], atol=1e-4)


def test_the_split_finds_how_far_to_turn() -> None:
    draw = np.random.default_rng(0)
    turn, text = ortho_group.rvs(12, random_state=1), rows(20, 12).numpy()
    y = np.repeat(np.arange(20), 5)
    rotated = text[y] @ turn.T + 0.1 * draw.normal(size=(100, 12))
    noisy = text[y] + 0.6 * draw.normal(size=(100, 12))
    made = head("lfa", text=dict(enumerate(text)), n_iter=0)
    for x, near in ((rotated, turn), (noisy, np.eye(12))):
        w = made.fit(x, y).state_["transform"].numpy()
        assert np.linalg.norm(w - near) < 1.5


@pytest.mark.parametrize("loss", LOSSES)
def test_refinement_helps(blobs: Any, loss: str) -> None:
    x, y = blobs(noise=2.0)
    given = {"text": dict(enumerate(rows(4, 10).numpy())), "beta": 0.9, "loss": loss}

    def explained(n_iter: int) -> float:
        p = head("lfa", n_iter=n_iter, lr=1e-2, **given).fit(x, y).predict_proba(x)
        return float(np.log(p[np.arange(len(y)), y]).mean())

    assert explained(100) > explained(0)


@pytest.mark.parametrize("loss", LOSSES)
def test_padded_classes_and_rows_count_for_nothing(loss: str) -> None:
    v, p, y = rows(6, 5), rows(4, 5, seed=1), torch.eye(4, dtype=torch.float64)[[0, 1, 2, 3, 0, 1]]
    plain = LOSSES[loss](v, p, y, torch.ones(4, dtype=torch.bool), 3, 4.0)
    longer = torch.cat([v, rows(2, 5, seed=2)]), torch.cat([p, rows(1, 5, seed=3)])
    wide = torch.zeros(8, 5, dtype=torch.float64)
    wide[:6, :4] = y
    found = LOSSES[loss](*longer, wide, torch.tensor([True] * 4 + [False]), 3, 4.0)
    torch.testing.assert_close(found, plain)


@pytest.mark.parametrize("orthogonal", ["step", "clip"])
def test_stays_near_a_rotation_when_asked(blobs: Any, orthogonal: str) -> None:
    x, y = blobs(noise=2.0)
    made = {"text": dict(enumerate(rows(4, 10).numpy())), "beta": 0.0, "lr": 2e-2, "n_iter": 60}

    def largest(**more: Any) -> float:
        return float(torch.linalg.matrix_norm(head("lfa", **made, **more).fit(x, y).state_["transform"], 2))

    assert largest(orthogonal=orthogonal) < largest()
    assert largest(orthogonal="clip") <= 1 + 1e-9


@pytest.mark.paper(162, oracle="b")
def test_the_average_over_no_steps_is_where_it_starts(blobs: Any) -> None:
    x, y = blobs()
    text = dict(enumerate(rows(4, 10).numpy()))
    params: dict[str, Any] = {"text": text, "beta": 0.0, "n_iter": 0}
    turned, start = (
        head("lfa", matrix=matrix, **params).fit(x, y).state_["transform"] for matrix in ("refined", "average")
    )
    torch.testing.assert_close(start, torch.eye(10, dtype=start.dtype))
    assert (turned - start).abs().max() > 0.1


@pytest.mark.parametrize(
    "bad",
    [
        {"beta": 1.5},
        {"beta": "loo"},
        {"loss": "hinge"},
        {"matrix": "ema"},
        {"orthogonal": "yes"},
        {"n_iter": -1},
        {"k": 0},
        {"margin_scale": 0.0},
        {"noise": -1.0},
        {"dropout": 1.0},
        {"dropout": None},
        {"lr": 0.0},
        {"weight_decay": -1.0},
    ],
    ids=str,
)
def test_parameters_that_make_no_sense_are_refused(blobs: Any, bad: dict[str, Any]) -> None:
    x, y = blobs()
    with pytest.raises(BadInput, match=f"^{next(iter(bad))} "):
        head("lfa", text=dict(enumerate(rows(4, 10).numpy())), **bad).fit(x, y)
