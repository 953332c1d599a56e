"""APE and APE-T: channel choice against its definition, the authors' numbers, and what they reduce to."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from handful.adapt import head
from handful.adapt.ape import refine_channels
from handful.core.distances import unit
from handful.errors import BadInput
from handful.testing import CHECKS

C, K, D = 4, 3, 16


def rows(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    x = unit(torch.randn(C * K, D, generator=draw, dtype=torch.float64))
    y = torch.eye(C, dtype=torch.float64).repeat_interleave(K, 0)
    text = unit(torch.randn(C, D, generator=draw, dtype=torch.float64))
    return x, y, text, torch.ones(C, dtype=torch.bool)


@pytest.mark.paper(2, oracle="a")
def test_similarity_is_the_mean_over_all_pairs_of_items_of_different_classes() -> None:
    x, y, text, mask = rows()
    items = torch.cat([text[:, None], x.reshape(C, K, D)], 1)
    pairs = [
        items[i, m] * items[j, n]
        for i, j in itertools.permutations(range(C), 2)
        for m, n in itertools.product(range(K + 1), repeat=2)
    ]
    score = -0.6 * torch.stack(pairs).mean(0) + 0.4 * text.var(0)
    assert refine_channels(x, y, text, mask, D, (0.6, 0.4)).tolist() == score.argsort(descending=True).tolist()
    alone = [text[i] * text[j] for i, j in itertools.permutations(range(C), 2)]
    score = -0.2 * torch.stack(alone).mean(0) + 0.8 * text.var(0)
    found = refine_channels(x, y, text, mask, D, (0.2, 0.8), text_only=True)
    assert found.tolist() == score.argsort(descending=True).tolist()


def test_shots_may_be_unequal() -> None:
    x, y, text, mask = rows()
    weight = torch.tensor([1.0, 1, 0, 1, 1, 1, 1, 0, 0, 1, 1, 1], dtype=torch.float64)
    items = [torch.cat([text[[c]], x[(y[:, c] > 0) & (weight > 0)]]) for c in range(C)]
    pairs = [a * b for i, j in itertools.permutations(range(C), 2) for a in items[i] for b in items[j]]
    found = refine_channels(x, y * weight[:, None], text, mask, D, (1.0, 0.0))
    assert found.tolist() == (-torch.stack(pairs).mean(0)).argsort(descending=True).tolist()


@pytest.mark.paper(2, oracle="b")
def test_with_all_channels_and_gamma_0_it_is_tip_adapter(blobs: Any) -> None:
    x, y = blobs(noise=2.0)
    text = dict(enumerate(np.random.default_rng(0).normal(size=(4, 10))))
    ours = head("ape", text=text, n_channels=10, gamma=0.0, alpha=2.0, beta=3.0).fit(x, y)
    theirs = head("tip-adapter", text=text, alpha=2.0, beta=3.0).fit(x, y)
    np.testing.assert_allclose(ours.logits(x), theirs.logits(x), atol=1e-5)


@pytest.mark.paper(2, oracle="c")
@pytest.mark.parametrize("key", ["ape", "ape-t"])
def test_without_a_cache_it_is_zero_shot(blobs: Any, key: str) -> None:
    x, y = blobs(noise=2.0)
    text = dict(enumerate(np.random.default_rng(0).normal(size=(4, 10))))
    untrained = {"epochs": 0} if key == "ape-t" else {}
    fitted = head(key, text=text, alpha=0.0, **untrained).fit(x, y)
    np.testing.assert_allclose(fitted.logits(x), head("zero-shot", text=text).fit(x, y).logits(x), atol=1e-9)


@pytest.mark.paper(2, oracle="d")
def test_finds_the_channels_that_tell_classes_apart() -> None:
    draw = np.random.default_rng(0)
    centres = np.concatenate([np.full((6, 56), 0.5), draw.normal(size=(6, 8))], 1)
    y = np.repeat(np.arange(6), 4)
    x = centres[y] + 0.02 * draw.normal(size=(24, 64))
    fitted = head("ape", text=dict(enumerate(centres)), n_channels=8).fit(x, y)
    assert sorted(fitted.state_["channels"].tolist()) == list(range(56, 64))


@pytest.mark.paper(2, oracle="e")
@pytest.mark.parametrize("key", ["ape", "ape-t"])
def test_equals_the_authors_code(golden: Any, key: str) -> None:
    inputs, expected = golden("ape")
    names = (
        "n_channels",
        "alpha",
        "beta",
        *(("epochs", "lr") if key == "ape-t" else ("gamma", "similarity", "variance")),
    )
    text = dict(enumerate(np.asarray(inputs["text"])))
    fitted = head(key, text=text, **{name: inputs[name] for name in names})
    fitted.fit(np.asarray(inputs["support"]), np.asarray(inputs["labels"]))
    np.testing.assert_allclose(fitted.logits(np.asarray(inputs["query"])), expected[key], atol=1e-6)
    channels = expected["channels" if key == "ape" else "text_channels"]
    assert sorted(fitted.state_["channels"].tolist()) == channels


@pytest.mark.paper(2, oracle="f")
def test_training_lowers_the_loss(blobs: Any) -> None:
    x, y = blobs(noise=2.0)
    text = dict(enumerate(np.random.default_rng(0).normal(size=(4, 10))))

    def loss(epochs: int) -> float:
        fitted = head("ape-t", text=text, epochs=epochs, lr=0.01, logit_scale=10.0).fit(x, y)
        return float(-np.log(fitted.predict_proba(x)[np.arange(len(y)), y]).mean())

    assert loss(30) < loss(5) < loss(0)


@pytest.mark.parametrize("check", ["precision", "padding", "weights"])
@pytest.mark.parametrize("key", ["ape", "ape-t"])
def test_searched_strengths_keep_the_contract(key: str, check: str) -> None:
    more = {"gamma": "loo"} if key == "ape" else {"epochs": 2}
    CHECKS[check](head(key, alpha="loo", beta="loo", **more))


def test_the_search_prefers_a_cache_that_helps(blobs: Any) -> None:
    x, y = blobs()
    wrong = {c: x[y == (c + 1) % 4][0] for c in range(4)}
    fitted = head("ape", text=wrong, alpha="loo", beta="loo", gamma="loo", logit_scale=5.0).fit(x, y)
    assert (fitted.predict(x) == y).mean() > 0.9
    assert float(fitted.state_["alpha"]) > 1


def test_a_parameter_that_plays_no_part_is_none() -> None:
    assert "gamma" in head("ape").get_params()
    assert "gamma" not in head("ape-t").get_params()  # trained weights of the keys stand in its place
    assert "gamma" not in head("ape-t").ranges


@pytest.mark.parametrize("n", [0, 11, -1, 2.5, 0.0, float("nan"), "many", True])
def test_channels_there_are_not_are_refused(blobs: Any, n: Any) -> None:
    x, y = blobs()
    with pytest.raises(BadInput, match="n_channels must be from 1 to the 10 there are"):
        head("ape", text={c: x[y == c][0] for c in range(4)}, n_channels=n).fit(x, y)


@pytest.mark.parametrize(
    ("key", "bad"),
    [
        ("ape", {"alpha": "cv"}),
        ("ape", {"beta": -1.0}),
        ("ape", {"gamma": float("nan")}),
        ("ape", {"variance": float("inf")}),
        ("ape-t", {"epochs": -1}),
        ("ape-t", {"lr": 0.0}),
        ("ape-t", {"batch_size": 0}),
    ],
)
def test_parameters_that_make_no_sense_are_refused(blobs: Any, key: str, bad: dict[str, Any]) -> None:
    x, y = blobs()
    with pytest.raises(BadInput, match=f"^{next(iter(bad))} "):
        head(key, text={c: x[y == c][0] for c in range(4)}, **bad).fit(x, y)
