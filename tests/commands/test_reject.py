"""A model that answers "none of these": what `fit` chooses, the file keeps, and `predict`, `inspect`, reports tell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from handful.adapt.base import Features
from handful.adapt.reject.outliers import DAFOSRejecter
from handful.commands.fit import fit
from handful.commands.inspect import inspect
from handful.commands.predict import predict, predict_lines
from handful.errors import BadInput
from handful.read import from_arrays
from handful.ship.bundle import read_bundle, write_bundle
from handful.ship.model import Model

WIDTH = 8
KINDS = ("energy", "probability", "distance", "gpam")


def items(classes: list[int], each: int, seed: int = 0) -> np.ndarray:
    """Items around one corner of a cube a class."""
    rng = np.random.default_rng(seed)
    return 5 * np.eye(WIDTH)[np.repeat(classes, each)] + rng.normal(size=(len(classes) * each, WIDTH))


LABELS = [f"k{c}" for c in np.repeat(range(4), 8)]
KNOWN, ALIEN = items([0, 1, 2, 3], 8), items([5, 6], 15, 1)


def fitted(kind: str = "distance", **more: Any) -> Model:
    return fit(KNOWN, LABELS, head="gda", **{"reject": kind, "false_alarms": 0.1, **more})


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_learnt_kept_and_answers(kind: str, tmp_path: Path) -> None:
    out = tmp_path / "m.handful"
    model = fitted(kind, out=out, other="nothing")
    again = Model.load(out)
    new, alien = items([0, 1, 2, 3], 30, 7), items([4, 7], 30, 8)
    for asked, low, high in ((new, 0, 0.3), (alien, 0.5, 1)):
        answers = again.predict(asked)
        assert answers == model.predict(asked)
        assert low <= np.mean([answer == "nothing" for answer in answers]) <= high
    assert again.predict_proba(new).shape == (120, 4)
    card = again.card["reject"]
    assert (card["kind"], card["other"], card["asked"]) == (kind, "nothing", 0.1)
    assert json.loads(json.dumps(card, allow_nan=False)) == card
    assert again.card == model.card


def test_a_kind_that_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DAFOSRejecter.__init__.__kwdefaults__, "episodes", 20)
    out = tmp_path / "m.handful"
    model = fitted("dafos-net", out=out, negatives=ALIEN)
    again, asked = Model.load(out), np.concatenate([KNOWN, ALIEN])
    assert again.predict(asked) == model.predict(asked)
    answers = np.array(again.predict(asked))
    assert np.mean(answers[32:] == "other") > np.mean(answers[:32] == "other") + 0.3
    assert again.card["reject"]["kind"] == "dafos-net"
    with pytest.raises(BadInput, match="at least two of them are needed"):
        DAFOSRejecter().fit(Features(KNOWN[::8], {}), np.array(LABELS[::8]))


def test_without_it_nothing_is_rejected() -> None:
    model = fit(KNOWN, LABELS, head="gda")
    assert model.rejection is None and model.card["reject"] is None
    assert set(model.predict(1e3 * ALIEN)) <= set(LABELS)


def test_what_negatives_measure() -> None:
    card = fitted(negatives=ALIEN).card["reject"]
    assert (card["basis"], card["unknown"], card["known"]) == ("negatives", 30, 32)
    assert card["auroc"]["value"] > 0.9 and card["found"]["value"] > 0.5
    assert card["false_alarms"]["value"] <= 0.2


def test_columns_of_predict(tmp_path: Path) -> None:
    model = fitted()
    asked = np.concatenate([items([0], 5, 3), ALIEN])
    table = predict(model, asked, top=2)
    out = table["handful_label"] == "other"
    assert out[5:].mean() > 0.5
    assert table.filter(out)["handful_confidence"].null_count() == out.sum()
    assert table.filter(out)["handful_accepted"].all()
    closed = np.asarray(model.classes)[model.predict_proba(asked).argmax(1)]
    best = np.where(out.to_numpy(), table["handful_top2"].to_numpy(), table["handful_label"].to_numpy())
    assert best.tolist() == closed.tolist()
    assert table.filter(out)["handful_top2_confidence"].null_count() == 0
    strict = predict(model, asked, min_confidence=1.0)
    assert (strict["handful_label"] == "other").sum() == out.sum()


def test_lines_and_texts(tmp_path: Path) -> None:
    kinds = {"pay": "my invoice number {} is too high", "door": "the door of room {} does not shut"}
    texts = {label: [text.format(i) for i in range(8)] for label, text in kinds.items()}
    alien = ["a recipe for pancakes with milk", "who won the match last night"] * 2
    model = fit(texts, head="prototypes", reject="distance", false_alarms=0.2, negatives=alien, near_duplicates=False)
    (records,) = predict_lines(model, [["the door of room 3 does not shut", alien[0]]])
    assert [record["handful_label"] for record in records] == ["door", "other"]
    assert records[1]["handful_confidence"] is None and records[1]["handful_accepted"] is True


def test_negatives_from_a_file(tmp_path: Path) -> None:
    path, source = tmp_path / "n.npz", tmp_path / "k.npz"
    np.savez(path, X=ALIEN)
    np.savez(source, X=KNOWN, y=np.array(LABELS))
    model = fit(source, head="gda", reject="auto", false_alarms=0.1, negatives=path, out=tmp_path / "m.handful")
    assert model.card["reject"]["source"] == str(path)
    found = inspect(tmp_path / "m.handful")
    assert str(path) in found["personal"]["paths"]
    assert found["reject"]["other"] == "other" and found["reject"]["auroc"] == model.card["reject"]["auroc"]


def test_inspect_and_report(tmp_path: Path) -> None:
    out, report = tmp_path / "m.handful", tmp_path / "r.html"
    fitted(out=out, report=report)
    found = inspect(out)
    assert (found["reject"]["kind"], found["reject"]["asked"]) == ("distance", 0.1)
    assert found["personal"]["example_vectors"] == 0
    assert "If an item is none of the classes" in report.read_text("utf-8")
    fit(KNOWN, LABELS, head="gda", out=out, report=report)
    assert inspect(out)["reject"] is None
    assert "If an item is none of the classes" not in report.read_text("utf-8")


def test_class_shares_of_a_population_are_heeded() -> None:
    model = fitted(class_prior={"k0": 0.7, "k1": 0.1, "k2": 0.1, "k3": 0.1})
    assert model.card["reject"]["threshold"] != fitted().card["reject"]["threshold"]


class TestBadInput:
    @pytest.mark.parametrize(
        ("more", "message"),
        [
            ({"reject": "entropy"}, "unknown way to reject 'entropy'"),
            ({"false_alarms": 0.0}, "--false-alarms is a share between 0 and 1, not 0.0"),
            ({"false_alarms": 0.01}, "--false-alarms 0.01 takes 99 labelled items"),
            ({"other": "k1"}, "--other 'k1' is the name of a class"),
            ({"other": " "}, "--other must be a name"),
            ({"reject": None, "false_alarms": 0.05, "other": "none"}, "--other needs --reject"),
            ({"reject": None, "false_alarms": 0.2}, "--false-alarms needs --reject"),
            ({"reject": None, "false_alarms": 0.05, "negatives": ALIEN}, "--negatives needs --reject"),
            ({"negatives": ALIEN[:, :3]}, "--negatives has features of shape"),
            ({"negatives": from_arrays(["some text"])}, "holds text, the labelled items are features"),
            ({"time_limit": 1e-9}, "--reject takes its threshold from labelled items left out in turn"),
        ],
        ids=lambda value: str(value)[:40],
    )
    def test_wishes(self, more: dict[str, Any], message: str) -> None:
        with pytest.raises(BadInput, match=message) as caught:
            fitted(**more)
        assert "\n" not in str(caught.value)

    def test_one_example_a_class(self) -> None:
        with pytest.raises(BadInput, match="no class has a second example"):
            fit(KNOWN[::8], LABELS[::8], head="prototypes", reject="energy")

    @pytest.mark.parametrize(
        "change",
        [
            {"kind": "entropy"},
            {"kind": "energy"},
            {"threshold": "high"},
            {"other": "k1"},
            {"other": 3},
            {"parameters": {"power": 2}},
            None,
        ],
        ids=str,
    )
    def test_a_file_that_does_not_fit_together(self, change: dict[str, Any] | None, tmp_path: Path) -> None:
        out = tmp_path / "m.handful"
        fitted(out=out)
        description, tensors = read_bundle(out)
        description["reject"] = None if change is None else {**description["reject"], **change}
        write_bundle(out, description, tensors)
        with pytest.raises(BadInput) as caught:
            Model.load(out)
        assert "\n" not in str(caught.value)


def test_what_predict_writes_for_a_spreadsheet(tmp_path: Path) -> None:
    model = fitted(other="=none")
    out = tmp_path / "a.csv"
    predict(model, ALIEN, out=out, excel_safe=True)
    assert "'=none" in set(pl.read_csv(out)["handful_label"])
