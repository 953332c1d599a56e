"""MF-Adapter's local similarity: windows against torch, and what the head reduces to."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize, unfold

from handful.adapt import head
from handful.adapt.base import Features
from handful.adapt.mf_adapter import fitting, local_windows
from handful.errors import BadInput


@pytest.fixture
def case(blobs: Any) -> tuple[Features, np.ndarray, dict[int, np.ndarray]]:
    x, y = blobs(noise=2.0)
    draw = np.random.default_rng(0)
    return Features(x, {"local": draw.normal(size=(24, 49, 3))}), y, dict(enumerate(draw.normal(size=(4, 10))))


@pytest.mark.paper(29, oracle="a")
@pytest.mark.parametrize("dilation", [1, 2, 3, 4, 5])
def test_windows_are_torchs_unfold(dilation: int) -> None:
    maps = torch.randn(2, 121, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = local_windows(maps, 3, dilation)
    columns = unfold(maps.mT.reshape(2, 4, 11, 11), 3, dilation=dilation)  # [n, 4 * 9, positions]
    want = columns.reshape(2, 4, 9, -1).permute(0, 3, 2, 1).flatten(2)  # the same numbers, place by place
    torch.testing.assert_close(found, normalize(want, dim=-1))


@pytest.mark.paper(29, oracle="b")
def test_without_regions_it_is_tip_adapter(case: Any) -> None:
    x, y, text = case
    ours = head("mf-adapter", text=text, eta=0.0, alpha=2.0, beta=3.0).fit(x, y)
    theirs = head("tip-adapter", text=text, alpha=2.0, beta=3.0).fit(x.x, y)
    np.testing.assert_allclose(ours.logits(x), theirs.logits(x.x), atol=1e-9)
    none = head("mf-adapter", text=text, eta=0.0, alpha=0.0).fit(x, y)
    np.testing.assert_allclose(none.logits(x), head("zero-shot", text=text).fit(x.x, y).logits(x.x), atol=1e-9)


@pytest.mark.paper(29, oracle="c")
def test_an_image_that_is_an_example_is_found_again_whole(case: Any) -> None:
    x, y, text = case
    fitted = head("mf-adapter", text=text, alpha=0.0, eta=1.0, logit_scale=0.0).fit(x, y)
    logits = fitted.logits(x)
    np.testing.assert_allclose(logits[np.arange(24), y], 1.0, atol=1e-6)
    assert (np.delete(logits[0], y[0]) < 0.99).all()


@pytest.mark.paper(29, oracle="d")
def test_single_places_may_lie_anywhere(case: Any) -> None:
    x, y, text = case
    fitted = head("mf-adapter", text=text, window=1).fit(x, y)
    order = np.random.default_rng(1).permutation(49)
    moved = Features(x.x, {"local": x.views["local"][:, order]})
    np.testing.assert_allclose(fitted.logits(moved), fitted.logits(x), atol=1e-9)


@pytest.mark.paper(29, oracle="e")
def test_a_small_patch_decides_where_the_whole_does_not() -> None:
    draw = np.random.default_rng(0)
    patches = draw.normal(size=(3, 3, 3, 2)) * 2
    patches -= patches.mean((1, 2), keepdims=True)  # so that the mean of a map tells nothing
    y = np.repeat(np.arange(3), 30)
    maps = 0.3 * draw.normal(size=(90, 8, 8, 2))
    for i, c in enumerate(y):
        top, left = draw.integers(0, 6, 2)
        maps[i, top : top + 3, left : left + 3] += patches[c]
    local, whole = maps.reshape(90, 64, 2), maps.mean((1, 2))
    text = dict(enumerate(np.eye(3)[:, :2] + 0.1))
    shots, rest = np.arange(90) % 30 < 5, np.arange(90) % 30 >= 5
    items = Features(whole, {"local": local})
    regions = {"window": 3, "dilations": [1], "alpha": 0.0, "eta": 1.0, "logit_scale": 0.0}
    fitted = head("mf-adapter", text=text, **regions).fit(items.take(shots), y[shots])
    assert (fitted.predict(items.take(rest)) == y[rest]).mean() > 0.95
    cache = head("tip-adapter", text=text, logit_scale=0.0).fit(whole[shots], y[shots])
    assert (cache.predict(whole[rest]) == y[rest]).mean() < 0.55


def test_many_queries_are_answered_in_parts(case: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, text = case
    fitted = head("mf-adapter", text=text).fit(x, y)
    whole = fitted.logits(x)
    monkeypatch.setattr("handful.adapt.mf_adapter.BLOCK", 1)
    np.testing.assert_allclose(fitted.logits(x), whole, atol=1e-9)


def test_the_search_trusts_regions_that_tell(case: Any) -> None:
    x, y, text = case
    kinds = np.random.default_rng(1).normal(size=(4, 49, 3))
    items = Features(x.x, {"local": kinds[y] + 0.3 * x.views["local"]})
    fitted = head("mf-adapter", text=text, alpha="loo", beta="loo", eta="loo", logit_scale=2.0).fit(items, y)
    assert (fitted.predict(items) == y).mean() == 1.0
    assert float(fitted.state_["eta"]) > 1


@pytest.mark.parametrize(
    ("places", "window", "dilations", "message"),
    [(48, 3, None, "square map"), (4, 3, None, "do not fit"), (49, 3, [4], "do not fit"), (49, 0, None, "window")],
)
def test_maps_that_do_not_fit_are_refused(places: int, window: int, dilations: Any, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        fitting(places, window, dilations)


def test_maps_unlike_those_of_the_support_are_refused(case: Any) -> None:
    x, y, text = case
    fitted = head("mf-adapter", text=text).fit(x, y)
    with pytest.raises(BadInput, match="maps of shape"):
        fitted.predict(Features(x.x, {"local": x.views["local"][:, :25]}))
    with pytest.raises(BadInput, match="view 'local'"):
        head("mf-adapter", text=text).fit(x.x, y)
