"""`evaluate` compares with the labels there are, and says when that proves nothing."""

from __future__ import annotations

import warnings
from pathlib import Path

import polars as pl
import pytest

from handful.commands.evaluate import SeenBefore, evaluate
from handful.errors import BadInput
from handful.ship.model import Model


def test_accuracy_is_the_share_of_right_answers(model: Model) -> None:
    texts = ["give me my money back", "cannot sign in", "my parcel is late", "cannot sign in"]
    labels = ["refund", "login", "delivery", "refund"]
    found = evaluate(model, (texts, labels))
    right = sum(a == b for a, b in zip(model.predict(texts), labels, strict=True))
    assert found.n == 4
    assert found.accuracy.value == pytest.approx(right / 4)
    assert found.accuracy.low < found.accuracy.value < found.accuracy.high


def test_a_mapping_and_the_columns_of_the_fit(model: Model, tmp_path: Path) -> None:
    assert evaluate(model, {"refund": ["give me my money back"], "login": ["cannot sign in"]}).n == 2
    path = tmp_path / "t.csv"
    rows = [("x", "cannot sign in", "spam", "login"), ("y", "where is it", "spam", "")]
    pl.DataFrame(rows, schema=["text", "message", "label", "queue"], orient="row").write_csv(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = evaluate(model, path)
    assert found.n == 1  # the unlabelled row is left aside
    assert found.accuracy.value == 1


def test_the_examples_learnt_from_prove_nothing(model: Model, learnt_from: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.csv"
    copy.write_bytes(learnt_from.read_bytes())
    with pytest.warns(SeenBefore, match="in this very file"):
        evaluate(model, copy)


def test_nothing_to_compare_with(model: Model, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("message\nhello\n", encoding="utf-8")
    with pytest.raises(BadInput, match="--label"):
        evaluate(model, path)
