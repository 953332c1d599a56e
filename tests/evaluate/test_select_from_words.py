"""Models chosen from words alone."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from handful.errors import BadInput
from handful.evaluate.select_from_words import (
    ScoreTable,
    judge_selection,
    predict_left_out,
    rank_models,
    score_table,
)
from handful.evaluate.text_scores import TEXT_SCORES, scores_of_embeddings, text_scores

ALL = ("IN-score", *TEXT_SCORES)


def lovm(folder: Path, target: str) -> ScoreTable:
    """35 models on 23 data sets, from orrzohar/LOVM."""
    with (folder / "lovm" / "eval_table_features.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    scores = {name: [float(row[name]) for row in rows] for name in ALL}
    names = [row["dataset"] for row in rows], [row["model_fullname"] for row in rows]
    return score_table(*names, scores, [float(row[target]) for row in rows])


@pytest.mark.paper(82, oracle="a")
@pytest.mark.parametrize(
    ("target", "recall", "tau", "l1"),
    [("acc1", 0.4522, 0.1768, 0.2204), ("mean_per_class_recall", 0.5043, 0.1855, 0.2280)],
)
def test_the_imagenet_baseline(shared_data: Path, target: str, recall: float, tau: float, l1: float) -> None:
    table = lovm(shared_data, target)
    guess = np.broadcast_to(table.accuracy[table.datasets.index("imagenet1k")], table.accuracy.shape)
    verdict = judge_selection(guess, table.accuracy)
    assert (verdict.recall, verdict.l1) == pytest.approx((recall, l1), abs=1e-3)
    assert verdict.tau == pytest.approx(tau, abs=1e-3)


TIES = 0.2 / 23 + 1e-3


@pytest.mark.paper(82, oracle="b")
@pytest.mark.parametrize(
    ("target", "scores", "recall", "tau", "l1"),
    [
        ("acc1", ["text-f1"], 0.226, 0.058, 0.1764),
        ("acc1", ["intra_close"], 0.252, -0.014, None),
        ("acc1", ["IN-score", "text-f1"], 0.452, 0.223, None),
        ("acc1", ["IN-score", "inter_close"], 0.461, 0.096, None),
        ("acc1", ["inter_close", "intra_close"], None, None, 0.1438),
        ("acc1", ["IN-score", "inter_close", "intra_close"], None, None, 0.1402),
        ("acc1", list(ALL), 0.426, 0.046, 0.1678),
        ("mean_per_class_recall", ["IN-score", "superclass_metric", "inter_close"], 0.548, 0.197, None),
        ("mean_per_class_recall", ["superclass_metric", "inter_close", "intra_close"], None, None, 0.1414),
    ],
)
def test_predictions_of_the_paper(
    shared_data: Path, target: str, scores: list[str], recall: float | None, tau: float | None, l1: float | None
) -> None:
    table = lovm(shared_data, target)
    if recall is not None:
        verdict = judge_selection(predict_left_out(table, scores), table.accuracy)
        assert verdict.recall == pytest.approx(recall, abs=TIES)
        assert verdict.tau == pytest.approx(tau, abs=1e-3)
    if l1 is not None:
        verdict = judge_selection(predict_left_out(table, scores, relative=False), table.accuracy)
        assert verdict.l1 == pytest.approx(l1, abs=1e-3)


@pytest.mark.paper(82, oracle="c")
def test_perfect_and_reversed() -> None:
    true = np.random.default_rng(0).random((4, 9))
    perfect = judge_selection(true, true)
    assert (perfect.recall, perfect.tau, perfect.l1) == pytest.approx((1, 1, 0))
    upside_down = true.copy()
    for row, values in zip(upside_down, true, strict=True):
        best = np.argsort(-values)[:5]
        row[best] = values[best[::-1]]
    verdict = judge_selection(upside_down, true)
    assert (verdict.recall, verdict.tau, verdict.l1) == pytest.approx((1, -1, 0))
    assert judge_selection(upside_down, true, l1="mae").l1 > 0
    assert json.loads(json.dumps(verdict.as_dict()))["taus"] == pytest.approx([-1.0] * 4)


@pytest.mark.paper(82, oracle="d")
def test_captions_equal_to_the_template_are_all_right() -> None:
    names = ["cat", "dog", "fox"]
    vector = {f"a photo of {name}": row for name, row in zip(names, np.eye(3, 4) + 0.1, strict=True)}
    captions = {name: [f"a photo of {name}"] for name in names}
    twice = {name: [f"a photo of {name}"] * 2 for name in names}
    got = text_scores(
        lambda texts: np.array([vector[text] for text in texts]), names, captions, twice, ["a photo of {c}"], sigma=0
    )
    assert got["text-acc1"] == got["text-f1"] == 1
    assert got["inter_close"] == pytest.approx(1) and got["superclass_metric"] == pytest.approx(1)
    rows = np.array(list(vector.values()))
    cosine = rows[0] @ rows[1] / (rows[0] @ rows[0])
    assert got["intraclass_sim"] == pytest.approx(cosine) and got["intra_close"] == pytest.approx(cosine)


def test_noise_lowers_what_captions_get_right_and_is_seeded() -> None:
    w = np.eye(5)
    data = [np.tile(row, (40, 1)) for row in w]
    noisy = scores_of_embeddings(w, data, data, sigma=0.5, seed=0)
    assert 0.3 < noisy["text-acc1"] < 1 and noisy == scores_of_embeddings(w, data, data, sigma=0.5, seed=0)
    assert noisy["inter_close"] == pytest.approx(1)
    with pytest.raises(BadInput, match="needs a seed"):
        scores_of_embeddings(w, data, data)


def toy(seed: int = 0) -> ScoreTable:
    draw = np.random.default_rng(seed)
    x = draw.random((6, 8, 2))
    rows = [(f"d{i}", f"m{j}") for i in range(6) for j in range(8)]
    columns = {"IN-score": x[..., 0].ravel().tolist(), "inter_close": x[..., 1].ravel().tolist()}
    y = 0.2 + 0.5 * x[..., 0] + 0.1 * x[..., 1]
    return score_table([d for d, _ in rows], [m for _, m in rows], columns, y.ravel().tolist())


def test_a_linear_law_is_found() -> None:
    table = toy()
    assert predict_left_out(table, relative=False) == pytest.approx(table.accuracy)
    scores = {"IN-score": np.linspace(0, 1, 8), "inter_close": np.zeros(8)}
    chosen = rank_models(table, "new", scores, relative=False)  # type: ignore[arg-type]
    assert chosen.models[0] == "m7" and chosen.predicted[0] == pytest.approx(0.7)
    assert json.loads(json.dumps(chosen.as_dict()))["models"][-1] == "m0"
    lasso = predict_left_out(table, relative=False, regressor="lasso")
    assert np.abs(lasso - table.accuracy).mean() < np.abs(table.accuracy.mean() - table.accuracy).mean()


def test_refusals() -> None:
    table = toy()
    scores = {"IN-score": [0.1] * 8, "inter_close": [0.1] * 8}
    with pytest.raises(BadInput, match="data set 'd3' is in the table"):
        rank_models(table, "d3", scores)
    with pytest.raises(BadInput, match="no score 'inter'; did you mean 'inter_close'"):
        predict_left_out(table, ["inter"])
    with pytest.raises(BadInput, match="7 task scores 'inter_close' of 8 models"):
        rank_models(table, "new", {**scores, "inter_close": [0.1] * 7})
    with pytest.raises(BadInput, match="a task score is missing"):
        rank_models(table, "new", {**scores, "inter_close": [np.nan] * 8})
    with pytest.raises(BadInput, match="chosen by 10 folds, and there are 8 rows"):
        two = [name for name in ("a", "b") for _ in range(8)], [f"m{i}" for i in range(8)] * 2
        predict_left_out(score_table(*two, {"IN-score": [0.1] * 16}, [0.1] * 16), ["IN-score"], regressor="svr")
    with pytest.raises(BadInput, match="unknown regressor"):
        predict_left_out(table, regressor="ridge")
    names = ["d"] * 6, [f"m{i}" for i in range(6)]
    with pytest.raises(BadInput, match="2 rows of data set d and model m0"):
        score_table(["d"] * 7, [*names[1], "m0"], {"a": [0.1] * 7}, [0.1] * 7)
    with pytest.raises(BadInput, match="5 models: a ranking"):
        score_table(names[0][:5], names[1][:5], {"a": [0.1] * 5}, [0.1] * 5)
    with pytest.raises(BadInput, match="a of data set d and model m0 is missing"):
        score_table(*names, {"a": [np.nan] + [0.1] * 5}, [0.1] * 6)
    with pytest.raises(BadInput, match="divide percent by 100"):
        score_table(*names, {"a": [0.1] * 6}, [50] * 6)
    with pytest.raises(BadInput, match="class 'b' has no captions"):
        text_scores(lambda texts: np.ones((len(texts), 2)), ["a", "b"], {"a": ["x"]}, {}, ["{c}"], sigma=0)
    said = {"a": ["x"], "b": "a photo"}
    with pytest.raises(BadInput, match="captions of class 'b' are a list, not the one text 'a photo'"):
        text_scores(
            lambda texts: np.ones((len(texts), 2)), ["a", "b"], said, {"a": ["x"], "b": ["x"]}, ["{c}"], sigma=0
        )
    for wrong in (np.full((1, 2), np.nan), np.ones((1, 3))):
        with pytest.raises(BadInput, match="embeddings are finite, all of width 2"):
            scores_of_embeddings(np.eye(2), [np.ones((1, 2)), wrong], [np.ones((1, 2))] * 2, sigma=0)
    with pytest.raises(BadInput, match="sigma is a finite number from 0"):
        scores_of_embeddings(np.eye(2), [np.ones((1, 2))] * 2, [np.ones((1, 2))] * 2, sigma=-1)
    with pytest.raises(BadInput, match="are not \\[D, M\\]"):
        judge_selection(np.ones((2, 3)), np.ones((2, 3)))
    with pytest.raises(BadInput, match="top is how many models count"):
        judge_selection(np.ones((2, 7)), np.ones((2, 7)), top=0)
