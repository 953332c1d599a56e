"""CALIP against its authors' code and its limits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from handful.adapt import head
from handful.adapt.base import Features
from handful.errors import BadInput

PART = "calip"


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.fixture
def case() -> tuple[Features, np.ndarray, dict[int, np.ndarray]]:
    """Images with nine places, of which a few show the class; text of the classes and of two more."""
    draw = np.random.default_rng(0)
    text, y = unit(draw.normal(size=(6, 8))), np.repeat(np.arange(4), 5)
    places = draw.normal(size=(20, 9, 8))
    places[:, :3] = 2 * text[y][:, None] + 0.5 * places[:, :3]
    return Features(places.mean(1), {"local": places}), y, dict(enumerate(text))


@pytest.mark.paper(35, oracle="e", part=PART)
def test_equals_the_authors_code(golden: Any) -> None:
    _, expected = golden("calip")
    draw = np.random.default_rng(0)
    q, places, text = (unit(draw.normal(size=size)) for size in ((5, 8), (5, 9, 8), (4, 8)))
    asked, y = Features(q, {"local": places}), np.array([0, 1, 2, 3, 0])
    for beta2, beta3 in ((0.7, 0.0), (0.0, 0.3), (1.12, 0.02)):
        made = head("calip", text=dict(enumerate(text)), beta2=beta2, beta3=beta3).fit(asked, y)
        want = 100 * q @ text.T + beta2 * np.array(expected["text"]) + beta3 * np.array(expected["image"])
        np.testing.assert_allclose(made.logits(asked), want, atol=1e-4)


@pytest.mark.paper(35, oracle="a", part=PART)
def test_without_weights_it_is_zero_shot(case: Any) -> None:
    x, y, text = case
    made = head("calip", text=text, beta2=0.0, beta3=0.0).fit(x, y)
    zero = head("zero-shot", text=text).fit(x, y)
    np.testing.assert_allclose(made.logits(x), zero.logits(x), atol=1e-9)
    np.testing.assert_allclose(made.logits(x, [4, 1, 5]), zero.logits(x, [4, 1, 5]), atol=1e-9)


def test_places_help_where_the_image_as_a_whole_does_not(case: Any) -> None:
    x, y, text = case
    dull = Features(x.x + 1.5 * np.random.default_rng(1).normal(size=x.x.shape), x.views)
    known = {c: text[c] for c in range(4)}
    zero = (head("zero-shot", text=known).fit(dull, y).predict(dull) == y).mean()
    chosen = head("calip", text=known, beta2="loo", beta3="loo").fit(dull, y)
    assert (chosen.predict(dull) == y).mean() > zero + 0.1


def test_what_cannot_be_compared_is_refused(case: Any) -> None:
    x, y, text = case
    with pytest.raises(BadInput, match="needs features with a view 'local'"):
        head("calip", text=text).fit(x.x, y)
    with pytest.raises(BadInput, match="view 'local' has width 7, class text 8"):
        head("calip", text=text).fit(Features(x.x, {"local": x.views["local"][..., :7]}), y)
    for bad in ({"beta2": -1.0}, {"beta3": "cv"}):
        with pytest.raises(BadInput, match=f"^{next(iter(bad))} "):
            head("calip", text=text, **bad).fit(x, y)
