"""Pro2: orthogonal directions of the source data, and what a probe makes of them on a few target examples."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from handful.adapt import head
from handful.core.task import Background, Query, make_task
from handful.errors import BadInput


def gaussians(n: int, width: int = 8, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two classes that share a covariance, and Fisher's direction between them."""
    draw = np.random.default_rng(seed)
    mix = draw.normal(size=(width, width)) + np.eye(width)
    gap, y = draw.normal(size=width), np.arange(n) % 2
    x = draw.normal(size=(n, width)) @ mix + y[:, None] * gap
    return x, y, np.linalg.solve(mix.T @ mix, gap)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(abs(a @ b) / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.paper(112, oracle="a")
@pytest.mark.parametrize("solver", ["joint", "sequential"])
@pytest.mark.parametrize("ways", [2, 3])
def test_directions_of_a_class_are_orthogonal(blobs: Any, solver: str, ways: int) -> None:
    base, kinds = blobs(ways, 30)
    x, y = blobs(3, 4, seed=1)
    rows = head("pro2", background=(base, kinds), n_directions=5, solver=solver).fit(x, y).components_
    assert rows.shape == (5 if ways == 2 else 15, 10)
    gram = np.stack([part @ part.T for part in np.split(rows, len(rows) // 5)])
    off = gram - np.stack([np.diag(np.diag(part)) for part in gram])
    assert np.abs(off).max() < 1e-5
    assert (np.linalg.norm(rows, axis=1) > 0.1).all()


@pytest.mark.paper(112, oracle="b")
def test_the_first_sequential_direction_is_logistic_regression() -> None:
    x, y, _ = gaussians(200)
    fitted = head("pro2", background=(x, y), n_directions=1, solver="sequential", project_C=0.3).fit(x[:20], y[:20])
    source = LogisticRegression(C=0.3, tol=1e-8).fit(x, y)
    assert cosine(fitted.components_[0], source.coef_[0]) > 0.999


@pytest.mark.paper(112, oracle="c")
@pytest.mark.parametrize("solver", ["joint", "sequential"])
def test_with_all_directions_the_probe_is_a_linear_probe(solver: str) -> None:
    x, y, _ = gaussians(300)
    query, truth, _ = gaussians(500)
    few, labels = x[:100], y[:100]
    full = head("pro2", background=(x, y), n_directions=8, solver=solver, probe_C=1e6).fit(few, labels)
    plain = head("logistic", C=1e6).fit(few, labels)
    assert (full.predict(query) == plain.predict(query)).mean() > 0.995
    assert abs(full.score(query, truth) - plain.score(query, truth)) < 0.005


@pytest.mark.paper(112, oracle="d")
@pytest.mark.parametrize(("solver", "steps"), [("sequential", 1), ("joint", 1500)])
def test_the_first_direction_is_fishers(solver: str, steps: int) -> None:
    x, y, fisher = gaussians(4000, seed=2)
    params = {"solver": solver, "n_directions": 2, "project_C": 1e3, "project_steps": steps, "project_decay": 0.0}
    fitted = head("pro2", background=(x, y), **params).fit(x[:20], y[:20])
    assert cosine(fitted.components_[0], fisher) > 0.98


@pytest.mark.paper(112, oracle="e")
@pytest.mark.parametrize("solver", ["joint", "sequential"])
def test_a_cue_that_turns_round_is_turned_round_by_eight_examples(solver: str) -> None:
    draw = torch.Generator().manual_seed(0)

    def rows(y: torch.Tensor, agreement: float) -> torch.Tensor:
        x = torch.randn(*y.shape, 100, generator=draw, dtype=torch.float64)
        sign = 2.0 * y - 1
        cue = torch.where(torch.rand(y.shape, generator=draw) < agreement, sign, -sign)
        x[..., 0] += sign
        x[..., 1] += 2.0 * cue
        return x

    source = torch.arange(5000) % 2
    y, truth = torch.arange(8).expand(50, 8) % 2, torch.arange(200).expand(50, 200) % 2
    task = make_task(
        rows(y, 0.05), y, ways=2, query=Query(rows(truth, 0.05)), background=Background(rows(source, 0.9), source)
    )
    right = [
        float((torch.as_tensor(one.logits(task)).argmax(-1) == truth).double().mean())
        for one in (head("pro2", n_directions=4, solver=solver), head("logistic"))
    ]
    assert right[0] > right[1] + 0.05


def test_fewer_directions_are_the_first_of_many(blobs: Any) -> None:
    base = blobs(3, 30)
    x, y = blobs(3, 4, seed=1)
    many, few = (head("pro2", background=base, n_directions=d).fit(x, y).components_ for d in (4, 2))
    np.testing.assert_allclose(many.reshape(3, 4, 10)[:, :2], few.reshape(3, 2, 10), atol=1e-12)


def test_how_many_directions_are_chosen_by_the_target(blobs: Any) -> None:
    base, kinds = blobs(2, 100, 20, seed=3)
    new, few = blobs(5, 6, 20, noise=0.4, seed=4), blobs(5, 2, 20, seed=4)
    assert head("pro2", background=(base, kinds)).fit(*few).state_["directions"] == 4
    fitted = head("pro2", background=(base, kinds)).fit(*new)
    # One direction cannot tell five classes apart.
    assert fitted.state_["directions"] > 1
    assert fitted.components_.shape[0] == fitted.state_["directions"]
    assert fitted.held(fitted.state_).n_directions == fitted.state_["directions"]


def test_a_class_that_the_source_lacks_is_warned_of(blobs: Any) -> None:
    x, y = blobs(3, 8)
    with pytest.warns(UserWarning, match="no item of class 2"):
        fitted = head("pro2", background=(x[y < 2], y[y < 2]), n_directions=2).fit(x, y)
    assert fitted.predict(x).shape == y.shape
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        head("pro2", background=(x, y), n_directions=2).fit(x[y < 2], y[y < 2])


def test_few_and_many_narrow_rows_side_by_side_are_chosen_for_as_alone(blobs: Any) -> None:
    x, y = (torch.as_tensor(part) for part in blobs(2, 12, 3))
    source = Background(*(torch.as_tensor(part) for part in blobs(2, 30, 3, seed=2)))
    keep = torch.ones(2, len(x), dtype=torch.float64)
    keep[1, 4:12] = keep[1, 16:] = 0  # four of each class: too few to choose by
    task = make_task(x.expand(2, *x.shape), y.expand(2, -1), weight=keep, background=source)
    few = make_task(x[keep[1] > 0], y[keep[1] > 0], background=source)
    both, alone = (head("pro2").adapt(each) for each in (task, few))
    assert int(both["directions"][1]) == int(alone["directions"]) == 3
    torch.testing.assert_close(both["weight"][1], alone["weight"])


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n_directions": 11}, "n_directions is 11, but features of width 10"),
        ({"n_directions": 0}, "n_directions must be"),
        ({"n_directions": "loo"}, "n_directions is a whole number"),
        ({"solver": "both"}, "solver is one of"),
        ({"project_steps": 0}, "project_steps must be"),
        ({"project_lr": 0.0}, "project_lr must be"),
        ({"solver": "sequential", "project_C": -1.0}, "project_C must be"),
        ({"probe_C": 0.0}, "probe_C must be"),
        ({"background": np.ones((3, 10))}, "needs labels of the source data"),
        ({"background": (np.ones((3, 10)), [1, 1, 1])}, "the background has one class only"),
        ({"background": (np.eye(3, 10), [0, 1, 1]), "solver": "sequential", "n_directions": 5}, "in 1 directions only"),
    ],
)
def test_bad_input_is_refused(blobs: Any, params: dict[str, Any], message: str) -> None:
    x, y = blobs(3, 8)
    with pytest.raises(BadInput, match=message):
        head("pro2", **{"background": (x, y), **params}).fit(x, y)
