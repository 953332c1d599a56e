"""178: curves over budgets, where they cross a target, and models of two layers that learn."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tiny_lm

from handful.core.train import AdamW
from handful.encode.lm import LanguageModel
from handful.errors import BadInput
from handful.evaluate.quick import Curve, band, crossing, sample_efficiency, saving
from handful.pretrain.examples import Example, Framing
from handful.pretrain.instruct import Instruct, quick_learner
from handful.pretrain.quick import InstructionFormat, QuickTask, quick_task

BUDGETS = np.array([10, 100, 200, 1000, 5000], dtype=float)


@pytest.mark.paper(178, oracle="e")
@pytest.mark.parametrize("target", [0.2, 0.5, 0.9])
def test_crossing_of_a_saturating_curve(target: float) -> None:
    rows = np.geomspace(1, 10_000, 400)
    assert crossing(rows, 1 - np.exp(-rows / 300), target) == pytest.approx(-300 * np.log(1 - target), rel=0.01)


@pytest.mark.paper(178, oracle="f")
def test_a_target_that_is_not_reached_is_none() -> None:
    assert crossing(BUDGETS, [0.4] * 5, 0.5) is None
    assert crossing(BUDGETS, [0.6] * 5, 0.5) == pytest.approx(10)
    # One score above the target among lower ones is noise: they are averaged.
    assert crossing(BUDGETS[:3], [0.1, 0.6, 0.2], 0.5) is None
    assert crossing([100, 10], [1.0, 0.0], 0.5) == pytest.approx(10**1.5)  # in log budget, in any order


def curve(scores: np.ndarray, start: str = "a") -> Curve:
    tasks = tuple(f"t{i}" for i in range(scores.shape[1]))
    return Curve(
        start, tuple(map(str, BUDGETS)), BUDGETS, scores, tasks, band(scores), ("",) * len(tasks),
        (False,) * len(tasks), np.zeros(len(tasks)),
    )  # fmt: skip


def test_saving_is_the_ratio_of_budgets() -> None:
    rng = np.random.default_rng(0)
    log = np.log10(BUDGETS)[:, None] / 4
    offset = 0.05 * rng.standard_normal(20)
    quick, slow = curve(log + 0.25 + offset), curve(log + offset)
    found = saving(quick, slow, 0.6)
    assert found.ratio is not None and found.ratio.value == pytest.approx(10, rel=0.05)
    assert found.ratio.low < 10 < found.ratio.high
    missed = saving(quick, slow, 1.05)
    assert missed.first is not None and missed.second is None and missed.ratio is None
    with pytest.raises(BadInput, match="not of the same tasks"):
        saving(quick, curve(log + offset[:5]), 0.6)


def test_the_band_holds_the_mean_of_many_tasks() -> None:
    rng, held = np.random.default_rng(1), 0
    for seed in range(200):
        (one,) = band(rng.beta(2, 2, (1, 40)), replicates=200, seed=seed)
        held += one.low <= 0.5 <= one.high
    assert 0.88 <= held / 200 <= 0.99
    assert band(np.array([[0.3]]))[0].low == 0  # one task tells nothing


@pytest.fixture(scope="module")
def causal() -> LanguageModel:
    model = tiny_lm.tiny("causal", max_position_embeddings=200)
    model.tokenizer.model_max_length = model.most = 200
    return model


def tasks() -> list[QuickTask]:
    rows = [(f"the film {i} was long", ["great"]) for i in range(160)]
    other = [(f"a story {i} was short", ["not good"]) for i in range(160)]
    return [
        quick_task("film", rows, InstructionFormat("Say it."), category="films"),
        quick_task("story", other, InstructionFormat()),
    ]


LEARNS = Instruct(
    lr=1e-2, batch=8, epochs=6, update=lambda decay: AdamW(weight_decay=decay), pack=False,
    framing=Framing(most_in=150, most_out=8),
)  # fmt: skip


def test_more_rows_more_score(causal: LanguageModel) -> None:
    short = [replace(task, test=task.test[:6]) for task in tasks()]
    seen: list[tuple[int, int]] = []
    found = sample_efficiency(
        {"tiny": causal}, short, [1, "all"], settings=LEARNS, most=6, progress=lambda a, b: seen.append((a, b))
    )["tiny"]
    assert found.scores.shape == (2, 2) and seen[-1] == (4, 4)
    assert found.zero.max() < 0.5 and found.scores[1].min() == 1
    assert found.cut == {"inputs": 0, "targets": 0}
    assert found.rows.tolist() == [1, (len(short[0].train) + len(short[1].train)) / 2]
    table = found.table()
    assert [row["budget"] for row in table] == ["0", "1", "all"] and table[2]["films"] == 1
    joint = sample_efficiency({"tiny": causal}, short, ["all"], joint=True, settings=LEARNS, most=6)["tiny"]
    assert joint.scores.min() == 1


def test_texts_that_are_cut_are_counted(causal: LanguageModel) -> None:
    short = [replace(task, test=task.test[:3], train=task.train[:2]) for task in tasks()[:1]]
    narrow = replace(LEARNS, epochs=1, framing=Framing(most_in=4, most_out=8))
    for _ in range(2):  # counted for each run anew
        with pytest.warns(UserWarning, match="3 of 3 inputs are longer than 4 tokens"):
            found = sample_efficiency({"tiny": causal}, short, ["all"], settings=narrow, most=4)["tiny"]
        assert found.cut == {"inputs": 2 + 3 + 3, "targets": 0}  # learnt, asked before and asked after


def test_tasks_that_leak_are_left_out(causal: LanguageModel) -> None:
    rows = [(f"row {i}", ["yes"]) for i in range(20)]
    leaking = quick_task("few", rows, InstructionFormat(), disjoint=False)
    with pytest.raises(BadInput, match="of 1 tasks 0 do not leak"):
        sample_efficiency({"tiny": causal}, [leaking], [1], settings=LEARNS)
    with pytest.raises(BadInput, match="one name"):
        sample_efficiency({"tiny": causal}, [tasks()[0], tasks()[0]], [1], settings=LEARNS)


def test_defaults_are_the_papers() -> None:
    how = quick_learner()
    assert (how.lr, how.epochs, how.batch, how.rate, how.warmup) == (5e-5, 2, 12, "constant", 0)
    assert (how.framing.most_in, how.framing.most_out) == (1024, 128)


@pytest.mark.parametrize(("rows", "scores"), [([1, 2], [0.1]), ([0, 1], [0.1, 0.2]), ([], []), ([1], [np.nan])])
def test_bad_curves(rows: list[float], scores: list[float]) -> None:
    with pytest.raises(BadInput, match="budgets above 0 and as many scores"):
        crossing(rows, scores, 0.5)


def test_a_target_is_a_number() -> None:
    with pytest.raises(BadInput, match="the target is a score, not nan"):
        crossing([1, 2], [0.1, 0.2], float("nan"))


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"batch": 0}, "batch 0"),
        ({"epochs": 0}, "epochs 0"),
        ({"epochs": -1}, "epochs -1"),
        ({"warmup": -1}, "warmup -1"),
        ({"clip": -1.0}, "clip a length above 0"),
        ({"rate": "cosin"}, "rate is constant, linear, cosine, halved or a function, not 'cosin'"),
    ],
)
def test_settings_that_make_no_sense(causal: LanguageModel, settings: dict[str, Any], why: str) -> None:
    with pytest.raises(BadInput, match=why):
        replace(LEARNS, **settings).fit(causal, tasks()[0].train[:2])


def test_examples_are_two_texts(causal: LanguageModel) -> None:
    for wrong in ("a text", Example("a", None), Example(None, "b")):  # type: ignore[arg-type]
        with pytest.raises(BadInput, match="example 0 to learn from must be an Example of two texts"):
            LEARNS.fit(causal, [wrong])  # type: ignore[list-item]
