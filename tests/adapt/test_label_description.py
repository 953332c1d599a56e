"""A classifier from descriptions of the labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from handful.adapt import head
from handful.errors import BadInput


@pytest.fixture
def case() -> tuple[np.ndarray, np.ndarray, dict[int, np.ndarray]]:
    centres, draw = np.random.default_rng(4).normal(size=(4, 10)), np.random.default_rng(5)
    common = 4 * draw.normal(size=10)  # how texts are written, which says nothing of their class
    y = np.repeat(np.arange(4), 20)

    def written(classes: np.ndarray) -> np.ndarray:
        n = len(classes)
        rows: np.ndarray = centres[classes] + draw.normal(size=(n, 1)) * common + 0.4 * draw.normal(size=(n, 10))
        return rows

    return written(y), y, {c: written(np.full(8, c)) for c in range(4)}


@pytest.mark.paper(77, oracle="a", part="frozen-features")
def test_without_steps_it_is_zero_shot(case: Any) -> None:
    x, y, text = case
    fitted = head("label-description", text=text, steps=0).fit(x, y)
    np.testing.assert_allclose(fitted.logits(x), head("zero-shot", text=text).fit(x, y).logits(x), atol=1e-9)


def test_learns_what_tells_the_descriptions_apart(case: Any) -> None:
    x, y, text = case
    zero_shot = (head("zero-shot", text=text).fit(x, y).predict(x) == y).mean()
    fitted = head("label-description", text=text, steps=300, lr=1e-2, logit_scale=20.0).fit(x, y)
    rows, classes = np.concatenate([text[c] for c in range(4)]), np.repeat(np.arange(4), 8)
    assert (fitted.predict(rows) == classes).all()
    assert (fitted.predict(x) == y).mean() > zero_shot + 0.1


@pytest.mark.paper(77, oracle="d", part="frozen-features")
def test_descriptions_that_share_words_with_texts_are_enough() -> None:
    """Vectors of a toy vocabulary, and a way of writing beside them that says nothing of the class."""
    draw = np.random.default_rng(0)
    table, way = draw.normal(size=(24, 64)), draw.normal(size=64)

    def texts(each: int) -> np.ndarray:
        words = np.concatenate([draw.choice(6, (each, 3)) + 6 * c for c in range(4)])
        rows: np.ndarray = table[words].mean(1) + 8 * draw.normal(size=(len(words), 1)) * way
        return rows

    x, y, described = texts(50), np.repeat(np.arange(4), 50), texts(8).reshape(4, 8, 64)
    text = dict(enumerate(described))
    before = (head("label-description", text=text, steps=0).fit(x, y).predict(x) == y).mean()
    after = head("label-description", text=text, steps=500, lr=1e-2, logit_scale=20.0).fit(x, y).predict(x) == y
    assert before < 0.5 and after.mean() > 0.9


@pytest.mark.parametrize("bad", [{"steps": -1}, {"lr": 0.0}], ids=str)
def test_parameters_that_make_no_sense_are_refused(case: Any, bad: dict[str, Any]) -> None:
    x, y, text = case
    with pytest.raises(BadInput, match=f"^{next(iter(bad))} "):
        head("label-description", text=text, **bad).fit(x, y)
