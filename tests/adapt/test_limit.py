"""LIMIT against the authors' attention, what it reduces to, and how its tasks are made."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from handful.adapt import head
from handful.adapt.growing import drawn_means
from handful.adapt.limit import WEIGHTS, Tasks, attended, fake_rows
from handful.core.task import Query
from handful.errors import BadInput


@pytest.fixture
def fitted(blobs: Any) -> Any:
    x, y = blobs(ways=5)
    return head("limit-fscil", epochs=2, tasks=2).fit(x, y)


def tensors(given: dict[str, Any]) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    weights = {name: torch.tensor(rows, dtype=torch.float64) for name, rows in given["weights"].items()}
    return weights, *(torch.tensor(given[name], dtype=torch.float64) for name in ("rows", "query"))


@pytest.mark.parametrize(("form", "temperature"), [("cosine", 16.0), ("dot", 0.5)])
def test_equals_the_authors_attention(golden: Any, form: Any, temperature: float) -> None:
    given, want = golden("limit_fscil")
    weights, rows, query = tensors(given)
    found = attended(weights, rows, query, torch.ones(len(rows), dtype=torch.bool))
    got = Tasks(form, temperature, 1, 1, False).logits(*found)
    np.testing.assert_allclose(got, want[form], atol=1e-9)


def test_equals_the_authors_chain_of_tasks(golden: Any) -> None:
    given, want = golden("limit_fscil")
    weights, rows, query = tensors(given)
    support = torch.tensor(given["support"], dtype=torch.float64)
    for classes, logits in zip(given["replaced"], want["chain"], strict=True):
        chosen = torch.zeros(len(rows), dtype=torch.bool)
        chosen[classes] = True
        answered, query = attended(weights, fake_rows(rows, support, chosen), query, torch.ones_like(chosen))
        got = Tasks("cosine", 16.0, 1, 1, True).logits(answered, query)
        np.testing.assert_allclose(got, logits, atol=1e-9)


@pytest.mark.paper(181, oracle="a")
def test_attention_that_says_nothing_leaves_the_nearest_mean_after_layer_norm(fitted: Any, blobs: Any) -> None:
    q, _ = blobs(ways=5, shots=20, seed=1)
    for name in ("out", "bias"):
        fitted.state_[name] = torch.zeros_like(fitted.state_[name])

    def normed(rows: Tensor) -> Tensor:
        return torch.nn.functional.layer_norm(rows, rows.shape[-1:], fitted.state_["gain"], fitted.state_["shift"])

    unit = torch.nn.functional.normalize
    rows = normed(fitted.state_["prototype"])
    want = 16 * unit(normed(unit(torch.tensor(q), dim=-1) * 10**0.5), dim=-1) @ unit(rows, dim=-1).mT
    np.testing.assert_allclose(fitted.logits(q), want, atol=1e-9)


@pytest.mark.paper(181, oracle="b")
def test_classes_in_another_order_give_the_logits_in_another_order(fitted: Any, blobs: Any) -> None:
    q = torch.tensor(blobs(ways=5, seed=1)[0])
    order = torch.tensor([3, 0, 4, 1, 2])
    moved = {**fitted.state_, **{name: fitted.state_[name][order] for name in ("prototype", "mass")}}
    got = fitted.answer(moved, Query(q))
    torch.testing.assert_close(got, fitted.answer(fitted.state_, Query(q))[:, order], atol=1e-6, rtol=0)


@pytest.mark.paper(181, oracle="c")
def test_a_query_does_not_see_the_others(fitted: Any, blobs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    q, _ = blobs(ways=5, seed=1)
    together = fitted.logits(q)
    np.testing.assert_allclose(fitted.logits(q[:1]), together[:1], atol=1e-9)
    monkeypatch.setattr("handful.adapt.limit.MOST", 400)
    np.testing.assert_allclose(fitted.logits(q), together, atol=1e-9)


@pytest.mark.paper(181, oracle="d")
def test_classes_that_play_new_ones_have_the_means_of_drawn_examples() -> None:
    draw = torch.Generator().manual_seed(0)
    x, codes = torch.randn(12, 3, generator=draw), torch.arange(12) % 4
    y = torch.nn.functional.one_hot(codes).float()
    one, two = drawn_means(x, y, 1, draw), drawn_means(x, y, 2, draw)
    for c in range(4):
        own = x[codes == c]
        assert (own == one[c]).all(1).sum() == 1
        pairs = (own.sum(0) - own) / 2  # of three examples, two are the mean without the third
        assert (pairs - two[c]).abs().amax(1).min() < 1e-6
    torch.testing.assert_close(drawn_means(x, y, 9, draw), torch.stack([x[codes == c].mean(0) for c in range(4)]))
    chosen = torch.tensor([True, False, False, True])
    rows = torch.randn(4, 3, generator=draw)
    fake = fake_rows(rows, one, chosen)
    assert torch.equal(fake[chosen], one[chosen]) and torch.equal(fake[~chosen], rows[~chosen])


def test_training_fits_the_tasks(blobs: Any) -> None:
    x, y = blobs(ways=6, shots=8, noise=1.5)

    def likelihood(**params: Any) -> float:
        model: Any = head("limit-fscil", random_state=0, **params).fit(x, y)
        one = drawn_means(torch.tensor(x), torch.nn.functional.one_hot(torch.tensor(y)).double(), 1, torch.Generator())
        model.state_["prototype"] = torch.nn.functional.normalize(one, dim=-1) * 10**0.5
        p = model.predict_proba(x)
        return float(np.log(p[np.arange(len(y)), y]).mean())

    trained = likelihood(lr=0.1, epochs=30, milestones=(20,), tasks=2)
    assert trained > likelihood(epochs=0) + 0.05


def test_the_chain_changes_what_is_learnt(blobs: Any) -> None:
    x, y = blobs(ways=5)
    plain, chained = (
        head("limit-fscil", epochs=2, tasks=2, lr=0.1, reference_chain=chain).fit(x, y).state_
        for chain in (False, True)
    )
    assert any(not torch.allclose(plain[name], chained[name]) for name in WEIGHTS)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"form": "angle"}, "form is one of"),
        ({"temperature": 0.0}, "temperature must be"),
        ({"way": 6}, "way is 6, but only 5 classes"),
        ({"sampled": 0}, "sampled must be"),
        ({"gamma": 0.0}, "gamma must be"),
        ({"milestones": (-1,)}, "milestones must be"),
        ({"milestones": 3}, "milestones is a list of epochs"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(blobs: Any, params: dict[str, Any], message: str) -> None:
    x, y = blobs(ways=5)
    with pytest.raises(BadInput, match=message):
        head("limit-fscil", **params).fit(x, y)
