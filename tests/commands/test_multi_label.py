"""`fit --multi-label` and what its models do."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from handful.commands.audit import audit
from handful.commands.evaluate import evaluate
from handful.commands.fit import fit
from handful.commands.forecast import forecast
from handful.commands.inspect import inspect
from handful.commands.next import next_
from handful.commands.predict import predict, predict_lines
from handful.errors import BadInput
from handful.evaluate.label_set_assessment import LabelSetAssessment
from handful.read import Dataset, read
from handful.ship.bundle import read_bundle, write_bundle
from handful.ship.model import Model

TEXTS = {
    "refund": ["I want my money back", "please refund my last order", "when do I get my refund"],
    "login": ["I cannot sign in to my account", "my password does not work", "locked out of my account"],
    "delivery": ["my parcel has not arrived", "where is my package", "the courier never came"],
}
OTHER = ["what a nice day", "do you sell shoes", "thank you very much"]


def rows(draws: int, seed: int) -> list[tuple[str, str]]:
    """Messages of up to three complaints each, and some of none."""
    rng = np.random.default_rng(seed)
    found = [(text, "-") for text in OTHER]
    for _ in range(draws):
        some = sorted(rng.choice(list(TEXTS), rng.integers(1, 4), replace=False))
        found.append((". ".join(TEXTS[label][rng.integers(3)] for label in some), "; ".join(some)))
    return found


def write(path: Path, table: Sequence[Sequence[str]], header: Sequence[str] = ("message", "about")) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *table])
    return path


HOW: dict[str, Any] = {"label": "about", "multi_label": ";", "none": "-"}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """33 labelled messages, one without a label."""
    return write(tmp_path_factory.mktemp("several") / "t.csv", [*rows(30, 0), ("no label here", "")])


@pytest.fixture(scope="module")
def path(source: Path) -> Path:
    """The model of `source`, saved."""
    out = source.with_name("m.handful")
    fit(source, out=out, test=write(source.with_name("test.csv"), rows(20, 7)), **HOW)
    return out


@pytest.fixture(scope="module")
def model(path: Path) -> Model:
    """And loaded."""
    return Model.load(path)


def test_the_card_says_what_was_learnt_and_how_well(model: Model) -> None:
    card, sets = model.card, model.card["label_sets"]
    assert [row["name"] for row in card["task"]["classes"]] == ["delivery", "login", "refund"] == list(model.classes)
    assert (card["task"]["n"], card["task"]["pool"], sets["without"]) == (33, 1, 3)
    assert card["metric"] == "micro-f1" and card["estimate"] is None and card["head"]["key"] == "multi-label-logistic"
    assert sum(row["count"] for row in card["task"]["classes"]) == round(33 * sets["labels_per_item"])
    for part in ("estimate", "test"):
        found = sets[part]["assessment"]
        assert 0.6 < found["micro_f1"]["value"] <= 1
        assert found["micro_f1"]["low"] < found["micro_f1"]["value"]
        assert [row["label"] for row in found["per_label"]] == ["delivery", "login", "refund"]
    assert "near-duplicates" in sets["estimate"]["groups"]["by"]  # the same words come again


def test_what_is_saved_answers_as_before(model: Model, source: Path) -> None:
    again = fit(source, **HOW)
    texts = [text for text, _ in rows(20, 3)]
    assert again.predict_sets(texts) == model.predict_sets(texts)
    np.testing.assert_allclose(again.predict_proba(texts), model.predict_proba(texts))


def test_labels_come_by_themselves(model: Model) -> None:
    texts = ["I want my money back", "my parcel has not arrived. I cannot sign in to my account", "what a nice day"]
    assert model.predict_sets(texts) == [("refund",), ("delivery", "login"), ()]
    assert model.predict(texts) == ["refund", "delivery;login", "-"]
    proba = model.predict_proba(texts)
    assert proba[1].sum() > 1.2 and proba[2].sum() < 0.8  # no shares of one
    with pytest.raises(BadInput, match="leave out classes="):
        model.predict_proba(texts, classes=["refund", "login"])


def test_probabilities_mean_what_they_say(model: Model) -> None:
    data = [(text, set(label.split("; "))) for text, label in rows(200, 11)]
    proba = model.predict_proba([text for text, _ in data])
    truth = np.array([[label in labels for label in model.classes] for _, labels in data])
    assert abs(proba.mean() - truth.mean()) < 0.08
    sure = proba > 0.9
    assert sure.sum() > 50 and truth[sure].mean() > 0.85


def test_rows_are_labelled_and_keep_labels_of_their_own(model: Model, tmp_path: Path) -> None:
    asked = [("I want my money back", ""), ("   ", ""), ("anything", "refund;login"), ("anything", "-"), ("a", "vip")]
    table = predict(model, write(tmp_path / "new.csv", asked), top=2)
    assert table["handful_label"].to_list() == ["refund", None, "login;refund", "-", "vip"]
    assert table["handful_accepted"].to_list() == [True, False, True, True, True]
    assert table["handful_given"].to_list() == [False, False, True, True, True]
    assert table["handful_top1"].to_list() == ["refund", None, None, None, None]
    assert table["handful_top1_confidence"][0] == table["handful_confidence"][0] > table["handful_top2_confidence"][0]


def test_a_least_probability_takes_the_place_of_the_thresholds(model: Model) -> None:
    texts = [text for text, _ in rows(15, 5)]
    proba = model.predict_proba(texts)
    for least in (0.05, 0.5, 0.95):
        named = predict(model, texts, min_confidence=least)["handful_label"].to_list()
        expected = [";".join(c for c, p in zip(model.classes, row, strict=True) if p >= least) or "-" for row in proba]
        assert named == expected


def test_lines_are_labelled_as_they_come(model: Model) -> None:
    [[first, second]] = predict_lines(model, [["I want my money back", "what a nice day"]])
    assert (first["handful_label"], second["handful_label"]) == ("refund", "-")
    assert second["handful_confidence"] == pytest.approx(1 - model.predict_proba(["what a nice day"]).max(), abs=1e-6)


def test_sets_are_compared_with_sets(model: Model, tmp_path: Path) -> None:
    data = rows(25, 9)
    found = evaluate(model, write(tmp_path / "test.csv", [*data, ("not labelled", "")]), require="recall[login]>=0.01")
    assert isinstance(found, LabelSetAssessment)
    said = model.predict_sets([text for text, _ in data])
    truth = [tuple(label.split("; ")) if label != "-" else () for _, label in data]
    assert found.n == len(data)
    assert found.exact_match.value == pytest.approx(np.mean([a == b for a, b in zip(said, truth, strict=True)]))
    [verdict] = found.verdicts
    having = [row for row, labels in enumerate(truth) if "login" in labels]
    assert verdict.passed and verdict.n == len(having)
    assert verdict.value == pytest.approx(np.mean(["login" in said[row] for row in having]))
    with pytest.raises(BadInput, match="require recall or precision of a label"):
        evaluate(model, tmp_path / "test.csv", require="accuracy>=0.5")
    with pytest.raises(BadInput, match="there is no class 'lgoin'"):
        evaluate(model, tmp_path / "test.csv", require="recall[lgoin]>=0.5")
    with pytest.raises(BadInput, match="label 'vip' is none of the model's labels"):
        evaluate(model, write(tmp_path / "other.csv", [("a", "vip;login"), ("b", "refund")]))


def test_an_empty_cell_is_none_of_them_only_where_it_was_said_so(tmp_path: Path) -> None:
    table = [(text, "" if label == "-" else label) for text, label in rows(20, 1)]
    source = write(tmp_path / "t.csv", table)
    aside = fit(source, label="about", multi_label=";")
    assert (aside.card["task"]["n"], aside.card["task"]["pool"]) == (20, 3)
    taken = fit(source, label="about", multi_label=";", none="", out=tmp_path / "m.handful")
    assert (taken.card["task"]["n"], taken.card["label_sets"]["without"]) == (23, 3)
    answers = predict(tmp_path / "m.handful", source)  # rows with an empty cell are those that are asked about
    assert answers["handful_given"].to_list() == [bool(label) for _, label in table]
    assert answers["handful_label"].to_list()[0] == "" and answers["handful_accepted"].all()
    found = evaluate(tmp_path / "m.handful", write(tmp_path / "test.csv", table[:8]))
    assert found.n == 8


def test_items_in_memory_and_data_sets(source: Path) -> None:
    data = read(source, label="about", multi_label=";", none="-")
    labels = [None if cell is None else cell.split(";") if cell else [] for cell in data.labels]
    one = fit(list(data.items), labels, multi_label=";", none="-")
    two = fit(data, multi_label=";", none="-")
    single = Dataset(data.items, data.labels, "text")
    assert one.card["label_sets"]["estimate"] == two.card["label_sets"]["estimate"]
    assert one.evaluate(["I want my money back"], [["refund"]]).exact_match.value == 1.0  # type: ignore[union-attr]
    with pytest.raises(BadInput, match="has several labels an item: it needs multi_label=';', none='-'"):
        fit(data)
    assert fit(single, multi_label=";").classes == one.classes


def test_features_and_groups(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    y = np.repeat((rng.random((20, 3)) < 0.4).astype(int), 3, axis=0)
    x = np.hstack([y + 0.3 * rng.normal(size=y.shape), np.repeat(rng.normal(size=(20, 30)), 3, axis=0)])
    cells = np.array(["|".join(np.array(["a", "b", "c"])[row > 0]) or "|" for row in y])
    np.savez(tmp_path / "f.npz", X=x, y=cells, groups=np.repeat([f"g{i}" for i in range(20)], 3))
    found = fit(tmp_path / "f.npz", multi_label="|").card["label_sets"]
    assert found["estimate"]["groups"]["count"] == 20 and found["estimate"]["groups"]["largest"] == 3
    assert found["without"] == int((y.sum(1) == 0).sum())


def test_rare_labels_are_learnt_but_not_judged(tmp_path: Path) -> None:
    source = write(tmp_path / "t.csv", [*rows(25, 2), ("my invoice is wrong. I want my money back", "invoice;refund")])
    model = fit(source, **HOW)
    assert model.classes == ("delivery", "invoice", "login", "refund")
    assert model.card["label_sets"]["not_judged"] == ["invoice"]
    assert model.card["label_sets"]["estimate"]["assessment"]["labels"] == ["delivery", "login", "refund"]


def test_too_few_examples_are_not_judged_at_all(tmp_path: Path) -> None:
    source = write(tmp_path / "t.csv", [("I want my money back", "a;b"), ("where is my parcel", "c")])
    model = fit(source, label="about", multi_label=";")
    found = model.card["label_sets"]["estimate"]
    assert found["assessment"] is None and "fewer than two labels have a second example" in found["method"]
    assert model.predict_sets(["anything"])  # it answers, whatever


def test_laso_learns_too(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "laso.handful"
    made = fit(source, head="laso", out=out, **HOW)
    assert made.card["label_sets"]["estimate"]["assessment"]["micro_f1"]["value"] > 0.6
    texts = [text for text, _ in rows(10, 4)]
    assert Model.load(out).predict_sets(texts) == made.predict_sets(texts)


def test_the_metric_chooses_thresholds(source: Path) -> None:
    assert fit(source, metric="exact-match", **HOW).head.get_params()["threshold"] == 0.5
    assert fit(source, metric="macro-f1", **HOW).head.get_params()["threshold"] == "f1"


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"target_precision": 0.9}, "--target-precision does not go with --multi-label: a threshold a label"),
        ({"cost": "costs.csv"}, "--cost does not go with --multi-label"),
        ({"class_prior": "uniform"}, "--class-prior does not go with --multi-label"),
        ({"reject": "auto"}, "--reject does not go with --multi-label"),
        ({"negatives": "x.csv"}, "--negatives does not go with --multi-label"),
        ({"unlabelled": "rows"}, "--unlabelled does not go with --multi-label"),
        ({"transductive": True}, "--transductive does not go with --multi-label"),
        ({"zero_shot": True}, "--zero-shot does not go with --multi-label"),
        ({"class_names": {"a": "b"}}, "--class-names does not go with --multi-label"),
        ({"private": 1.0}, "--private does not go with --multi-label"),
        ({"tune": "lora"}, "recipe 'lora' learns which one class an item is of; those for several labels"),
        ({"shots": 2}, "--shots does not go with --multi-label"),
        ({"metric": "accuracy"}, "--metric accuracy does not go with --multi-label; there are: micro-f1"),
        ({"head": "gda"}, "head 'gda' gives one label an item; those that give several: multi-label-logistic, laso"),
        ({"multi_label": None}, "--none says what a cell without any of the labels holds; it needs --multi-label"),
        ({"multi_label": None, "none": None, "metric": "micro-f1"}, "unknown metric 'micro-f1' without --multi-label"),
    ],
)
def test_what_does_not_go_together_is_refused(source: Path, how: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        fit(source, **{**HOW, **how})


def test_one_label_an_item_needs_no_separator(tmp_path: Path) -> None:
    source = write(tmp_path / "t.csv", [(text, label) for label, texts in TEXTS.items() for text in texts])
    with pytest.raises(BadInput, match=r"no label cell has ';' in it, .* leave out --multi-label"):
        fit(source, **HOW)


def test_commands_of_one_label_say_so(path: Path, source: Path) -> None:
    for act in (lambda: audit(path, source), lambda: next_(path, source, n=2), lambda: forecast(path)):
        with pytest.raises(BadInput, match=r"handful (audit|next|forecast) takes models of one label an item"):
            act()  # type: ignore[no-untyped-call]


def test_inspect_says_so(path: Path) -> None:
    found = inspect(path)["label_sets"]
    assert (found["separator"], found["none"]) == (";", "-")
    assert found["micro_f1"] == Model.load(path).card["label_sets"]["test"]["assessment"]["micro_f1"]


@pytest.mark.parametrize(
    "odd",
    [None, [], {"none": None}, {"separator": "", "none": None}, {"separator": 1, "none": None}, {"separator": ";"}],
)
def test_a_file_that_does_not_say_how_labels_are_written_is_refused(path: Path, tmp_path: Path, odd: Any) -> None:
    description, state = read_bundle(path)
    description["decision"]["sets"] = odd
    write_bundle(tmp_path / "odd.handful", description, state)
    with pytest.raises(BadInput):
        Model.load(tmp_path / "odd.handful")


def test_a_model_of_one_label_cannot_be_made_one_of_several(tmp_path: Path) -> None:
    fit(TEXTS, head="prototypes", out=tmp_path / "one.handful")
    description, state = read_bundle(tmp_path / "one.handful")
    description["decision"]["sets"] = {"separator": ";", "none": None}
    write_bundle(tmp_path / "odd.handful", description, state)
    with pytest.raises(BadInput, match="head and decision differ in labels an item"):
        Model.load(tmp_path / "odd.handful")
