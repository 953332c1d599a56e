"""ProKeR trained with CLAP against the authors' code, scikit-learn, and what holding the text means."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.kernel_ridge import KernelRidge
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.preprocessing import normalize as unit

from handful.adapt import head
from handful.adapt.base import Features
from handful.adapt.proker_clap import ProKeRCLAP, held
from handful.core.task import ClassText, Query, make_task
from handful.errors import BadInput

PART = "with-clap"


def made(text: np.ndarray, **params: Any) -> ProKeRCLAP:
    return ProKeRCLAP(text=dict(enumerate(text)), **params)


@pytest.mark.paper(140, oracle="e", part=PART)
@pytest.mark.parametrize("name", ["published", "far"])
def test_equals_the_authors_training(golden: Any, name: str) -> None:
    """Their loop, with one-hot labels and scaled logits: what CLAP's multipliers are made for."""
    inputs, expected = golden("proker_clap")
    x, y, text, q = (np.asarray(inputs[k]) for k in ("support", "labels", "text", "query"))
    theirs = expected[name]
    fitted = made(text, **{k: theirs[k] for k in ("beta", "lam", "steps", "lr")}).fit(x, y)
    np.testing.assert_allclose(fitted.state_["words"], unit(np.asarray(theirs["prototypes"])), atol=2e-5)
    np.testing.assert_allclose(fitted.logits(q), theirs["logits"], atol=5e-3)
    task = make_task(torch.as_tensor(x), torch.as_tensor(y), ways=4)
    a = held(task.x, task.y, torch.as_tensor(text), task, 100.0)
    np.testing.assert_allclose(a, theirs["held"], atol=1e-5)


@pytest.mark.paper(140, oracle="a", part=PART)
@pytest.mark.parametrize("convention", ["proker", "krr"])
def test_the_correction_is_scikit_learns_for_the_trained_text(problem: Any, convention: Any) -> None:
    x, y, q, text = problem
    beta, lam = 2.0, 0.3 if convention == "proker" else 30.0  # so that something is left to learn
    fitted = made(text, beta=beta, lam=lam, convention=convention, lr=1e-2, steps=80).fit(x, y)
    words = fitted.state_["words"].numpy()
    assert np.abs(words - unit(text)).max() > 0.05
    ridge = KernelRidge(kernel="precomputed", alpha=lam)
    ridge.fit(rbf_kernel(unit(x), unit(x), beta / 2), np.eye(4)[y] - unit(x) @ words.T)
    correction = ridge.predict(rbf_kernel(unit(q), unit(x), beta / 2)) * (lam if convention == "proker" else 1)
    np.testing.assert_allclose(fitted.logits(q), 100 * (unit(q) @ words.T + correction), atol=1e-5)


def test_without_training_it_is_proker(problem: Any) -> None:
    x, y, q, text = problem
    plain = head("proker", text=dict(enumerate(text))).fit(x, y).logits(q)
    np.testing.assert_allclose(made(text, steps=0).fit(x, y).logits(q), 100 * plain, atol=1e-6)


def test_a_text_that_is_right_is_held_and_one_that_is_not_may_go(blobs: Any) -> None:
    """Two classes each: texts amid their items, and texts swapped."""
    x, y = blobs(ways=4, shots=16, width=12, noise=0.3)
    text = np.stack([x[y == c].mean(0) for c in (0, 1, 3, 2)])
    task = make_task(torch.as_tensor(x), torch.as_tensor(y), ways=4)
    a = held(task.x, task.y, torch.as_tensor(unit(text)), task, 100.0)
    assert a[:2].min() > 0.95 and a[2:].max() < 0.05
    fitted = made(text, lam=1e-3, lr=1e-2).fit(x, y)  # next to no correction
    moved = np.linalg.norm(fitted.state_["words"].numpy() - unit(text), axis=1)
    assert moved[2:].min() > 3 * moved[:2].max(), moved
    assert (fitted.predict(x) == y).all()


def test_tasks_of_other_shots_train_as_long_as_alone(blobs: Any) -> None:
    """100 steps for one or two shots, 200 for more, in one batch."""
    x, y = blobs(ways=3, shots=8, width=6)
    text = torch.as_tensor(np.random.default_rng(5).normal(size=(3, 1, 6)))
    text = torch.nn.functional.normalize(text, dim=-1)
    weight = torch.ones(2, len(x), dtype=torch.float64)
    weight[0] = torch.as_tensor([i % 8 < 2 for i in range(len(x))]).double()
    rows, codes = torch.as_tensor(x), torch.as_tensor(y)
    words = ClassText(text, torch.ones(3, 1, dtype=torch.bool))

    def batch(some: list[int]) -> Any:
        n = len(some)
        return make_task(
            rows.expand(n, -1, -1), codes.expand(n, -1), ways=3, weight=weight[some],
            text=ClassText(text.expand(n, -1, -1, -1), words.mask.expand(n, -1, -1)),
            query=Query(rows.expand(n, -1, -1)),
        )  # fmt: skip

    learner = ProKeRCLAP(lr=1e-2)
    both = learner.logits(batch([0, 1]))
    for at, steps in ((0, 100), (1, 200)):
        alone = ProKeRCLAP(lr=1e-2, steps=steps).logits(batch([at]))
        np.testing.assert_allclose(np.asarray(both)[at], np.asarray(alone)[0], atol=1e-8)


def test_pictures_are_compared_in_the_space_of_the_text(blobs: Any) -> None:
    """The kernel is of the features, the text of their view ``aligned``."""
    x, y = blobs(ways=3, width=10)
    seen = Features(x, {"aligned": x[:, :4] ** 3})
    text = np.random.default_rng(0).normal(size=(3, 4))
    fitted = made(text, beta=2.0, lam=0.3).fit(seen, y)
    words, keys = fitted.state_["words"].numpy(), fitted.state_["coefficient"].numpy()
    expected = unit(seen.views["aligned"]) @ words.T + rbf_kernel(unit(x), unit(x), 1.0) @ keys
    np.testing.assert_allclose(fitted.logits(seen), 100 * expected, atol=1e-6)


@pytest.mark.parametrize(
    "bad",
    [{"lam": 0.0}, {"beta": "many"}, {"convention": "ridge"}, {"steps": -1}, {"steps": "many"}, {"lr": 0.0},
     {"batch_size": 0}],
    ids=str,
)  # fmt: skip
def test_parameters_that_make_no_sense_are_refused(problem: Any, bad: dict[str, Any]) -> None:
    x, y, _, text = problem
    with pytest.raises(BadInput, match=f"^{next(iter(bad))} "):
        made(text, **bad).fit(x, y)


def test_text_is_needed(problem: Any) -> None:
    x, y, _, text = problem
    with pytest.raises(BadInput, match="class text"):
        ProKeRCLAP().fit(x, y)
    with pytest.raises(BadInput, match="no class text for 3"):
        made(text[:3]).fit(x, y)
