"""Local descriptors: the image-to-class measure, the norm, and the filter that leaves a shared background out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from handful.adapt import head
from handful.adapt.base import Features
from handful.adapt.fafd import CrossNorm, nearest_mean, neighbourhoods
from handful.errors import BadInput


def maps(n: int, ways: int = 3, places: int = 9, width: int = 6, seed: int = 0) -> tuple[Features, np.ndarray]:
    """Items whose descriptors lie around one centre a class."""
    draw = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(ways, width))
    y = np.arange(n) % ways
    local = centres[y][:, None] + draw.normal(size=(n, places, width))
    return Features(local.mean(1), {"local": local}), y


def backgrounds(n: int, draw: np.random.Generator) -> tuple[Features, np.ndarray, np.ndarray]:
    """Items of which 14 of 20 places show the same noise, in a tint of the item, whatever the class; and the others."""
    fixed = np.random.default_rng(5)
    noise, centres = 2 * fixed.normal(size=32), fixed.normal(size=(4, 32))
    y = np.arange(n) % 4
    local = centres[y][:, None] + 3 * draw.normal(size=(n, 20, 32))
    local[:, :14] = noise + 0.5 * draw.normal(size=(n, 1, 32))
    order = draw.permuted(np.tile(np.arange(20), (n, 1)), axis=1)
    local = np.take_along_axis(local, order[..., None], 1)
    return Features(local.mean(1), {"local": local}), y, order >= 14


@pytest.mark.paper(49, oracle="a")
def test_without_filter_and_norm_it_is_the_measure_of_dn4() -> None:
    support, y = maps(7)
    query, _ = maps(4, seed=1)
    got = head("fafd-ldwr", k=3, filter=None, norm="l2").fit(support, y).logits(query)

    def length_one(a: np.ndarray) -> np.ndarray:
        return a / np.linalg.norm(a, axis=-1, keepdims=True)

    want = np.zeros((4, 3))
    for i, item in enumerate(length_one(query.views["local"])):
        for c in range(3):
            bank = length_one(support.views["local"])[y == c].reshape(-1, 6)
            for descriptor in item:
                want[i, c] += np.sort(bank @ descriptor)[-3:].sum()
    np.testing.assert_allclose(got * 9 * 3, want, atol=1e-5)


@pytest.mark.paper(49, oracle="b")
@pytest.mark.parametrize("norm", ["cross", "l2"])
def test_where_a_descriptor_stands_does_not_matter(norm: str) -> None:
    support, y = maps(6)
    query, _ = maps(5, seed=1)
    draw = np.random.default_rng(2)

    def mixed(items: Features) -> Features:
        order = draw.permuted(np.tile(np.arange(9), (len(items), 1)), axis=1)[..., None]
        return Features(items.x, {"local": np.take_along_axis(items.views["local"], order, 1)})

    plain = head("fafd-ldwr", norm=norm).fit(support, y).logits(query)
    np.testing.assert_allclose(head("fafd-ldwr", norm=norm).fit(mixed(support), y).logits(mixed(query)), plain)


@pytest.mark.paper(49, oracle="c")
def test_the_ends_of_the_cross_norm_are_the_usual_norms() -> None:
    local = torch.randn(4, 9, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    norm = CrossNorm(6).double()
    with torch.no_grad():
        norm.gain.copy_(torch.linspace(0.5, 2, 6))
        norm.shift.copy_(torch.linspace(-1, 1, 6))
        norm.mix.fill_(100.0)
        spatial = torch.nn.functional.instance_norm(local.mT).mT
        torch.testing.assert_close(norm(local), spatial, atol=1e-6, rtol=0)
        norm.mix.fill_(-100.0)
        channel = torch.nn.functional.layer_norm(local, (6,), norm.gain, norm.shift)
        torch.testing.assert_close(norm(local), channel, atol=1e-6, rtol=0)
        norm.mix.fill_(0.0)
        torch.testing.assert_close(norm(local), (spatial + channel) / 2, atol=1e-6, rtol=0)


@pytest.mark.paper(49, oracle="d")
@pytest.mark.parametrize("norm", ["cross", "l2"])
def test_a_background_that_all_classes_share_is_left_out(norm: str) -> None:
    draw, filtered, plain, left, seen = np.random.default_rng(0), [], [], [], []
    for _ in range(10):
        (support, y, _), (query, truth, front) = backgrounds(20, draw), backgrounds(100, draw)
        fitted = head("fafd-ldwr", norm=norm).fit(support, y)
        importance = fitted.descriptor_importance(query)
        kept = importance > importance.mean(1, keepdims=True)
        left.append(1 - kept[~front].mean())
        seen.append(kept[front].mean())
        filtered.append(fitted.score(query, truth))
        plain.append(head("fafd-ldwr", norm=norm, filter=None).fit(support, y).score(query, truth))
    assert np.mean(left) >= 0.9
    assert np.mean(seen) >= 0.7
    assert np.mean(filtered) > np.mean(plain) + 0.04


def test_importance_is_that_of_the_sheet() -> None:
    support, y = maps(6)
    got = head("fafd-ldwr", norm="l2", neighbourhood=2).fit(support, y).descriptor_importance(support)
    local = support.views["local"] / np.linalg.norm(support.views["local"], axis=-1, keepdims=True)
    prototype = np.stack([local[y == c].reshape(-1, 6).mean(0) for c in range(3)])
    item = local[4]
    like = item @ item.T - 3 * np.eye(9)
    near = np.stack([(item[i] + item[np.argsort(like[i])[-2:]].sum(0)) / 3 for i in range(9)])
    cos = near @ prototype.T / np.linalg.norm(near, axis=1)[:, None] / np.linalg.norm(prototype, axis=1)
    want = np.exp(cos) / np.exp(cos).sum(1, keepdims=True)
    np.testing.assert_allclose(got[4], want.max(1), atol=1e-9)


def test_a_trained_norm_is_used_and_kept() -> None:
    support, y = maps(9)
    norm = CrossNorm(6)
    with torch.no_grad():
        norm.conv.copy_(torch.diag(torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0, 0.0])))
        norm.mix.fill_(100.0)
    fitted = head("fafd-ldwr", cross_norm=norm).fit(support, y)
    other = Features(support.x, {"local": support.views["local"].copy()})
    other.views["local"][..., 3:] = 1.0
    np.testing.assert_allclose(fitted.logits(support), fitted.logits(other), atol=1e-12)
    kinds = np.arange(3)
    again = type(fitted).restore(fitted.parameters(), kinds, fitted.state_, fitted.n_features_in_)
    np.testing.assert_array_equal(again.logits(support), fitted.logits(support))
    with pytest.raises(BadInput, match="a CrossNorm of width 5"):
        head("fafd-ldwr", cross_norm=CrossNorm(5)).fit(support, y)


def test_columns_count_as_often_as_they_weigh() -> None:
    cos = torch.tensor([[0.9, 0.5, 0.1, 0.7]])
    mass = torch.tensor([[1.0, 0.0], [2.0, 0.0], [1.0, 0.5], [0.0, 1.0]])
    torch.testing.assert_close(nearest_mean(cos, mass, 2), torch.tensor([[(0.9 + 0.5) / 2, (0.7 + 0.05) / 1.5]]))


def test_the_one_that_says_most_stays_where_all_say_the_same() -> None:
    y = np.array([0, 1])
    local = np.repeat(np.eye(2, 4)[:, None], 5, axis=1)
    same = Features(local.mean(1), {"local": local})
    fitted = head("fafd-ldwr", norm="l2").fit(same, y)
    assert (fitted.state_["mass"].sum((1, 2)) > 0).all()
    np.testing.assert_allclose(fitted.logits(same), np.eye(2), atol=1e-12)


def test_an_item_of_one_place_has_no_neighbours() -> None:
    local = torch.ones(2, 1, 3)
    assert torch.equal(neighbourhoods(local, 3), local)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"k": 0}, "k must be"),
        ({"k": 10}, "maps of 9 places: k is 10"),
        ({"neighbourhood": -1}, "neighbourhood must be"),
        ({"norm": "batch"}, "norm is one of"),
        ({"filter": "fixed"}, "filter is 'adaptive' or None"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(params: dict[str, Any], message: str) -> None:
    support, y = maps(6)
    with pytest.raises(BadInput, match=message):
        head("fafd-ldwr", **params).fit(support, y)


def test_descriptors_that_do_not_fit_are_refused() -> None:
    support, y = maps(6)
    fitted = head("fafd-ldwr", norm="l2").fit(support, y)
    with pytest.raises(BadInput, match="view 'local'"):
        head("fafd-ldwr").fit(support.x, y)
    with pytest.raises(BadInput, match=r"view 'local' has width 5, but .* knows 6"):
        fitted.predict(Features(support.x, {"local": support.views["local"][..., :5]}))
    with pytest.raises(BadInput, match="width 5, those of the examples have 6"):
        fitted.descriptor_importance(Features(support.x, {"local": support.views["local"][..., :5]}))
