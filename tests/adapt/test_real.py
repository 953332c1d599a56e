"""REAL-Linear against the authors' numbers, and what it reduces to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from handful.adapt import head
from handful.core.distances import unit
from handful.core.task import ClassText, Query, make_task
from handful.errors import BadInput
from handful.testing import check_head


@pytest.fixture
def case(blobs: Any) -> tuple[np.ndarray, np.ndarray, dict[int, np.ndarray]]:
    x, y = blobs(noise=1.5)
    return x, y, dict(enumerate(np.random.default_rng(0).normal(size=(4, 3, 10))))


@pytest.mark.paper(40, oracle="a", part="linear")
def test_it_lies_on_the_line_from_zero_shot_to_the_trained_head(case: Any) -> None:
    x, y, text = case

    def logits(wise: float) -> Any:
        return head("real", text=text, wise=wise, iterations=80, lr=1e-2).fit(x, y).logits(x)

    zero_shot, trained = logits(0.0), logits(1.0)
    np.testing.assert_allclose(zero_shot, head("zero-shot", text=text).fit(x, y).logits(x), atol=1e-9)
    assert np.abs(trained - zero_shot).max() > 1
    np.testing.assert_allclose(logits(0.3), 0.3 * trained + 0.7 * zero_shot, atol=1e-8)


@pytest.mark.paper(40, oracle="b", part="linear")
def test_sentences_alone_keep_their_classes() -> None:
    draw = torch.Generator().manual_seed(0)
    centres = torch.randn(5, 1, 16, generator=draw, dtype=torch.float64)
    vectors = unit(centres + 0.3 * torch.randn(5, 4, 16, generator=draw, dtype=torch.float64))
    text = ClassText(vectors, torch.ones(5, 4, dtype=torch.bool))
    support = torch.randn(5, 16, generator=draw, dtype=torch.float64)
    task = make_task(support, torch.arange(5), text=text, query=Query(vectors.flatten(0, 1)))
    alone = replace(task, weight=torch.zeros(5, dtype=torch.float64))
    for iterations in (0, 80):
        logits = head("real", wise=1.0, iterations=iterations, lr=1e-2).logits(alone)
        assert torch.as_tensor(logits).argmax(-1).tolist() == torch.arange(5).repeat_interleave(4).tolist()


@pytest.mark.paper(40, oracle="f", part="linear")
def test_a_few_examples_raise_classes_the_text_is_wrong_about() -> None:
    draw = np.random.default_rng(0)
    centres = draw.normal(size=(10, 32))
    y = np.repeat(np.arange(10), 16)
    x, new = (centres[y] + 0.8 * draw.normal(size=(160, 32)) for _ in range(2))
    tail = np.arange(7, 10)
    text = centres + 0.3 * draw.normal(size=centres.shape)
    text[tail] = 0.15 * centres[tail] + draw.normal(size=(3, 32))
    given, inside = {"text": dict(enumerate(text)), "logit_scale": 50.0}, np.isin(y, tail)
    before = head("zero-shot", **given).fit(x, y).predict(new) == y
    after = head("real", iterations=200, lr=1e-2, **given).fit(x, y).predict(new) == y
    assert after[inside].mean() > before[inside].mean() + 0.3
    assert after[~inside].mean() > before[~inside].mean() - 0.05


def test_equals_the_authors_code(golden: Any) -> None:
    inputs, expected = golden("real")
    text = dict(enumerate(np.asarray(inputs["sentences"])))
    fitted = head("real", text=text, **{name: inputs[name] for name in ("iterations", "lr", "wise")})
    fitted.fit(np.asarray(inputs["support"]), np.asarray(inputs["labels"]))
    np.testing.assert_allclose(fitted.logits(np.asarray(inputs["query"])), expected["logits"], atol=1e-6)


def test_steps_of_a_few_rows_are_drawn_by_the_seed(case: Any) -> None:
    x, y, text = case

    def weight(seed: int) -> Any:
        fitted = head("real", text=text, batch_size=5, iterations=30, lr=1e-2, random_state=seed).fit(x, y)
        return fitted.state_["weight"].numpy()

    assert np.array_equal(weight(1), weight(1))
    assert not np.array_equal(weight(1), weight(2))


def test_ten_passes_over_the_examples_unless_told_otherwise(case: Any) -> None:
    x, y, text = case
    same = head("real", text=text, batch_size=4, iterations=60).fit(x, y).logits(x)
    np.testing.assert_array_equal(head("real", text=text, batch_size=4).fit(x, y).logits(x), same)


def test_all_rows_in_one_step_keep_the_contract() -> None:
    check_head(head("real", iterations=60, wise=1.0, lr=1e-3))


@pytest.mark.parametrize("bad", [{"wise": 1.5}, {"iterations": -1}, {"lr": 0.0}, {"batch_size": 0}], ids=str)
def test_parameters_that_make_no_sense_are_refused(case: Any, bad: dict[str, Any]) -> None:
    x, y, text = case
    with pytest.raises(BadInput, match=f"^{next(iter(bad))} "):
        head("real", text=text, **bad).fit(x, y)
