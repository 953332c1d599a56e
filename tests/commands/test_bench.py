"""`bench`: from a source to a comparison; every wrong option named before work is done."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from handful.commands.bench import bench, head_parameters, parse_imbalance
from handful.errors import BadInput
from handful.evaluate import episodes
from handful.evaluate.indices import Episodes
from handful.read import Dataset

SMALL: dict[str, Any] = {"ways": 3, "shots": [1, 3], "queries": 4, "episodes": 40}


@pytest.fixture
def data() -> Dataset:
    rng = np.random.default_rng(0)
    y = np.repeat(["red", "green", "blue", "black"], 12)
    means = {c: rng.normal(size=8) for c in np.unique(y)}
    x = np.stack([means[c] for c in y]) + 0.8 * rng.normal(size=(48, 8))
    return Dataset(x.astype(np.float32), tuple(y.tolist()), "features")


def accuracies(found: Any) -> list[list[float]]:
    return [row.result.accuracy.tolist() for row in found.rows]


def test_rows_come_by_shots_and_head_with_differences_from_the_first(data: Dataset) -> None:
    found = bench(data, heads=["prototypes", "logistic"], **SMALL).as_dict()
    json.dumps(found, allow_nan=False)
    assert [(row["head"], row["shots"]) for row in found["results"]] == [
        ("prototypes", 1), ("logistic", 1), ("prototypes", 3), ("logistic", 3),
    ]  # fmt: skip
    assert (found["reference"], found["ways"], found["episodes"], found["n"], found["classes"]) == (
        "prototypes",
        3,
        40,
        48,
        4,
    )
    first, second = found["results"][:2]
    assert first["difference"] is None
    gap = second["accuracy"]["value"] - first["accuracy"]["value"]
    assert second["difference"]["value"] == pytest.approx(gap)
    assert second["difference"]["low"] <= gap <= second["difference"]["high"]
    assert all(row["seconds"] > 0 and row["batched"] for row in found["results"])


def test_it_is_the_same_as_judging_one_head_alone(data: Dataset) -> None:
    from handful.adapt.prototypes import Prototypes

    found = bench(data, heads=["prototypes"], seed=5, **{**SMALL, "shots": [3]})
    alone = episodes(Prototypes(), data.items, data.labels, ways=3, shots=3, queries=4, episodes=40, seed=5)
    assert accuracies(found) == [alone.accuracy.tolist()]


def test_the_same_seed_gives_the_same_and_saved_episodes_come_back(data: Dataset, tmp_path: Path) -> None:
    one = bench(data, heads=["prototypes"], seed=1, save_episodes=tmp_path / "e.npz", **SMALL)
    two = bench(data, heads=["prototypes"], seed=1, **SMALL)
    other = bench(data, heads=["prototypes"], seed=2, **SMALL)
    again = bench(data, heads=["prototypes"], seed=2, shots=[1, 3], episodes_from=tmp_path / "e.npz")
    assert accuracies(one) == accuracies(two) == accuracies(again)
    assert accuracies(one) != accuracies(other)
    assert (again.setting["ways"], again.setting["queries"], again.setting["episodes"]) == (3, 4, 40)
    with pytest.raises(BadInput, match="5 shots asked for, but the episodes hold 3"):
        bench(data, heads=["prototypes"], shots=[5], episodes_from=tmp_path / "e.npz")


def test_imbalance_and_any_shots(data: Dataset, tmp_path: Path) -> None:
    bench(data, heads=["prototypes"], imbalance="dirichlet:0.5", save_episodes=tmp_path / "e.npz", **SMALL)
    counts = (Episodes.load(tmp_path / "e.npz", np.array(data.labels)).query >= 0).sum(2)
    assert (counts.sum(1) == 12).all() and counts.std() > 1
    found = bench(data, heads=["prototypes"], ways="any", shots=["any"], queries=4, episodes=10).as_dict()
    assert (found["ways"], found["results"][0]["shots"]) == ("any", "any")


def test_parameters_reach_the_head(data: Dataset) -> None:
    plain = bench(data, heads=["prototypes"], **SMALL)
    cosine = bench(data, heads=["prototypes"], set_={"prototypes.metric": "cosine"}, **SMALL)
    assert accuracies(plain) != accuracies(cosine)
    assert cosine.as_dict()["results"][0]["parameters"] == {"metric": "cosine"}
    assert head_parameters(["gda"], {"gda.alpha": "0.1", "gda.shrinkage": "none", "gda.normalize": "false"}) == {
        "gda": {"alpha": 0.1, "shrinkage": "none", "normalize": False}
    }


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"heads": ["prototype"]}, "unknown head 'prototype'; did you mean 'prototypes'"),
        ({"heads": []}, "at least one head"),
        ({"heads": "gda"}, "as a list"),
        ({"heads": ["gda", "gda"]}, "'gda' is named twice"),
        ({"set_": {"gda.alpha": "1"}}, "--set gda.alpha: 'gda' is none of the heads; there are: prototypes"),
        ({"set_": {"prototypes.metrik": "cosine"}}, "no parameter 'metrik'; did you mean 'metric'"),
        ({"set_": {"metric": "cosine"}}, "--set metric: 'metric' is none of the heads"),
        ({"imbalance": "zipf:2"}, "imbalance is 'dirichlet:A'"),
        ({"imbalance": "dirichlet:x"}, "imbalance is 'dirichlet:A'"),
        ({"imbalance": "dirichlet:-1"}, "must be above 0, not -1"),
        ({"shots": []}, "one or more numbers"),
        ({"shots": [1, "any"]}, "'any' alone"),
        ({"shots": [0]}, "shots must be at least 1, not 0"),
        ({"shots": [9]}, "9 shots and 4 queries need 13 items a class, but class 'black' has 12"),
        ({"ways": 5}, "5 ways asked for, but there are 4 classes"),
        ({"out": "r.xlsx"}, "not as 'r.xlsx'"),
        ({"encoder": "minilm"}, "--encoder minilm has nothing to encode"),
        ({"heads": ["zero-shot"]}, "'zero-shot' needs text of every class"),
    ],
)
def test_wrong_options_are_named(data: Dataset, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        bench(data, **{"heads": ["prototypes"], **SMALL, **changed})


def test_nothing_is_written_when_something_is_wrong(data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(BadInput):
        bench(data, heads=["prototypes"], out=tmp_path / "r.json", **{**SMALL, "ways": 9})
    assert not list(tmp_path.iterdir())
    bench(data, heads=["prototypes"], out=tmp_path / "r.json", **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]


def test_imbalance_is_a_number_or_its_name() -> None:
    assert (parse_imbalance(None), parse_imbalance(2.0), parse_imbalance("dirichlet:0.5")) == (None, 2.0, 0.5)


class Tower:
    """Texts as two numbers; class text in the same space."""

    name, modality, dim, outputs = "fake", "text", 2, frozenset({"pooled"})
    identity = fingerprint = "fake"
    aligned, logit_scale = "pooled", 100.0
    seen: list[int]

    def encode(self, items: Any, outputs: Any = ("pooled",), **_: Any) -> np.ndarray:
        self.seen.append(len(items))
        return np.array([[item.count("a"), item.count("b")] for item in items], np.float32) + 0.01

    def class_text(self, sentences: Any, *, cache=True) -> np.ndarray:
        return np.array([[s.count("a"), s.count("b")] for s in sentences], np.float32)


def test_texts_are_encoded_once_and_labels_that_are_words_become_class_text(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    tower = Tower()
    tower.seen = []
    monkeypatch.setattr(sys.modules["handful.commands.bench"], "default_encoder", lambda modality: tower)
    texts = {"aah": [f"a{'b' * (i % 2)}aa{i}" for i in range(8)], "bob": [f"b{'a' * (i % 2)}bb{i}" for i in range(8)]}
    found = bench(texts, heads=["zero-shot", "prototypes"], base=texts, ways=2, shots=[1], queries=3, episodes=5)
    assert tower.seen == [16, 16]
    assert found.rows[0].result.mean.value == 1
    assert found.setting["encoder"] == "fake"


def others(scaled: bool = False) -> Dataset:
    """Classes that are not among those of ``data``."""
    rng = np.random.default_rng(1)
    y = np.repeat(["oak", "elm", "ash"], 12)
    means = {c: rng.normal(size=8) for c in np.unique(y)}
    x = np.stack([means[c] for c in y]) + 0.8 * rng.normal(size=(36, 8))
    return Dataset(x.astype(np.float32), tuple(y.tolist()), "features")


def test_parameters_are_chosen_on_validation_classes_and_tested_on_others(data: Dataset, tmp_path: Path) -> None:
    heads = ["logistic", "prototypes", "matching-networks"]
    out = tmp_path / "r.csv"
    found = bench(data, heads=heads, tune_on=others(), budget=6, set_={"logistic.C": 0.5}, out=out, **SMALL)
    tuning = found.as_dict()["tuning"]
    assert (tuning["classes"], tuning["episodes"], tuning["budget"]) == (3, 40, 6)
    assert [(row["head"], row["shots"], row["tried"]) for row in tuning["chosen"]] == [
        ("logistic", 1, 3), ("logistic", 3, 3), ("prototypes", 1, 3), ("prototypes", 3, 3),
        ("matching-networks", 1, 1), ("matching-networks", 3, 1),
    ]  # fmt: skip
    chosen = {(row["head"], row["shots"]): row["parameters"] for row in tuning["chosen"]}
    for row in found.as_dict()["results"]:
        given = {"C": 0.5} if row["head"] == "logistic" else {}
        assert row["parameters"] == {**given, **chosen[row["head"], row["shots"]]}
    again = bench(
        data, heads=["prototypes"], set_={f"prototypes.{k}": v for k, v in chosen["prototypes", 3].items()}, **SMALL
    )
    assert accuracies(again)[1] == accuracies(found)[4]  # tested on the same episodes as without a search
    assert '""budget"": 6' in out.read_text("utf-8")


def test_validation_classes_are_never_tested(data: Dataset) -> None:
    with pytest.raises(BadInput, match=r"--tune-on: class 'black' and 3 more is tested"):
        bench(data, heads=["prototypes"], tune_on=data, **SMALL)
    with pytest.raises(BadInput, match="--tune-on: 4 ways asked for, but there are 3"):
        bench(data, heads=["prototypes"], tune_on=others(), **{**SMALL, "ways": 4})
    with pytest.raises(BadInput, match="--budget must be at least 1"):
        bench(data, heads=["prototypes"], tune_on=others(), budget=0, **SMALL)
