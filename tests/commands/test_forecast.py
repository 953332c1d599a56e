"""`forecast`: from a model's card and from results, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import handful
from handful.commands.fit import fit
from handful.commands.forecast import forecast, weakest
from handful.errors import BadInput

POINTS = [{"shots": s, "accuracy": a, "tested": 500} for s, a in ((1, 0.52), (2, 0.63), (4, 0.72), (8, 0.79))]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of features: five classes of eight, the last two lying on each other."""
    rng = np.random.default_rng(0)
    means = rng.normal(size=(5, 12))
    means[4] = means[3] + 0.3 * rng.normal(size=12)
    labels = np.repeat([f"c{i}" for i in range(5)], 8)
    x = np.repeat(means, 8, axis=0) + rng.normal(size=(40, 12))
    path = tmp_path_factory.mktemp("m") / "m.handful"
    fit(x.astype(np.float32), labels.tolist(), head="prototypes", out=path)
    return path


def test_a_model_forecasts_from_its_card(saved: Path) -> None:
    found = handful.forecast(saved, target=0.7)
    assert (found.now["shots"], found.now["labels"]) == (8, 40)
    assert [(p["times"], p["labels"]) for p in found.ahead] == [(2, 80), (4, 160)]
    for point in found.ahead:
        a = point["accuracy"]
        assert 0 <= a["low"] < a["value"] < a["high"] <= 1
    assert found.need is not None and set(found.need) == {"more", "low", "high"}
    assert {w["class"] for w in found.weakest} <= {"c0", "c1", "c2", "c3", "c4"}
    assert {"c3", "c4"} & {w["class"] for w in found.weakest}
    assert found.as_dict()["now"] == found.now


def test_results_are_read_from_json_csv_and_memory(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(json.dumps(POINTS), encoding="utf-8")
    pl.DataFrame(POINTS).write_csv(tmp_path / "r.csv")
    found = [forecast(source, ways=10).ahead for source in (POINTS, tmp_path / "r.json", tmp_path / "r.csv")]
    assert found[0] == found[1] == found[2]
    counted = [{**p, "n": 10 * p["shots"]} for p in POINTS]
    assert forecast(counted).ahead == found[0]


def test_a_card_gives_the_same_as_its_curve_in_a_file(saved: Path, tmp_path: Path) -> None:
    card = handful.load(saved).card
    (tmp_path / "c.json").write_text(json.dumps({"shots_curve": card["shots_curve"]}), encoding="utf-8")
    assert forecast(tmp_path / "c.json", ways=5).ahead == forecast(saved).ahead


def test_a_target_that_is_reached_needs_nothing_and_one_out_of_reach_is_not_promised() -> None:
    easy, hard = (forecast(POINTS, ways=10, target=t) for t in (0.6, 0.999))
    assert easy.need == {"more": 0, "low": 0, "high": 0}
    assert hard.need is not None and hard.need["more"] is None
    assert any("ask again" in note for note in hard.notes)
    assert hard.power_need is not None and hard.power_need > 1000


def test_more_is_needed_for_more() -> None:
    needs = [forecast(POINTS, ways=10, target=t).need for t in (0.8, 0.82, 0.84)]
    more = [n["more"] for n in needs if n is not None]
    assert 0 < more[0] < more[1] < more[2]
    assert all(n is not None and n["low"] <= n["more"] for n in needs)


def test_the_weakest_classes_take_the_larger_part() -> None:
    recalls = dict(zip("abcd", (0.9, 0.4, 0.7, 0.9), strict=True))
    rows = [{"class": c, "n": 50, "recall": {"value": r, "low": 0, "high": 1}} for c, r in recalls.items()]
    card = {
        "estimate": {"assessment": {"per_class": rows}},
        "task": {"classes": [{"name": c, "count": 50} for c in "abcd"]},
    }
    found = weakest(card, 100)
    assert [w["class"] for w in found] == ["b", "c"]
    assert found[0]["more"] > found[1]["more"] > 0
    assert sum(w["more"] for w in found) <= 102


@pytest.mark.parametrize(
    ("points", "options", "says"),
    [
        (POINTS[:2], {"ways": 10}, "3 different numbers of shots"),
        (POINTS, {}, "--ways"),
        (POINTS, {"ways": 10, "target": 90}, "between 0 and 1"),
        ([{"shots": 1, "acc": 0.5}] * 3, {"ways": 2}, "column called tested"),
        ([{"size": 1, "accuracy": 0.5}] * 3, {"ways": 2}, "columns called shots and accuracy"),
        ([{**p, "accuracy": 100 * p["accuracy"]} for p in POINTS], {"ways": 10}, "percent"),
        ([{**p, "shots": "many"} for p in POINTS], {"ways": 10}, "'many'"),
        (POINTS, {"ways": 1}, "two or more classes"),
        ([*POINTS, {"shots": 64, "tested": 100}], {"ways": 10}, "accuracy at 64 shots holds nothing"),
        ([{"shots": k, "accuracy": {"value": 0.5}} for k in (1, 2, 4)], {"ways": 2}, "low of accuracy at 1 shots"),
    ],
)
def test_what_cannot_be_forecast_is_refused(points: list[dict], options: dict, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        forecast(points, **options)


def test_a_model_without_a_curve_is_refused(tmp_path: Path) -> None:
    model = fit(np.eye(4, dtype=np.float32), ["a", "b", "a", "b"], head="prototypes")
    with pytest.raises(BadInput, match="no curve of three points"):
        forecast(model)
