"""`fit` learns from what is labelled, says how good that is, and never loses a model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import handful
from handful.commands.fit import fit
from handful.commands.predict import predict
from handful.errors import BadInput
from handful.ship.model import Model

TEXTS = {
    "refund": ["I want my money back", "please refund my last order", "when do I get my refund"],
    "login": ["I cannot sign in to my account", "my password does not work", "locked out of my account"],
}


def blobs(shots: int = 6, classes: int = 3, width: int = 8) -> tuple[np.ndarray, list[str]]:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(classes), shots)
    return 4 * np.eye(width)[labels] + rng.normal(size=(len(labels), width)), [f"k{c}" for c in labels]


def test_a_mapping_of_texts() -> None:
    model = handful.fit(TEXTS, head="prototypes")
    assert model.classes == ("login", "refund")
    assert model.predict(["give me my money back", "wrong password"]) == ["refund", "login"]
    assert model.predict_proba(["x y"]).sum() == pytest.approx(1)


def test_the_card_tells_where_the_model_comes_from(learnt_from: Path, model: Model) -> None:
    task = model.card["task"]
    assert task["sources"] == [str(learnt_from)]
    assert next(iter(task["sha256"].values())) == handful.read.read(learnt_from).provenance.sha256["t.csv"]
    assert (task["n"], task["pool"], task["modality"]) == (9, 0, "text")
    assert task["classes"] == [{"name": name, "count": 3} for name in ("delivery", "login", "refund")]
    assert task["columns"] == {"text": "message", "image": None, "label": "queue"}
    assert model.card["head"]["key"] == "prototypes"
    assert json.loads(json.dumps(model.card, allow_nan=False)) == model.card


def test_the_estimate_is_on_items_not_learnt_from() -> None:
    x, y = blobs()
    shuffled = list(np.random.default_rng(1).permutation(y))
    good, chance = fit(x, y, head="prototypes").card, fit(x, shuffled, head="prototypes").card
    assert good["estimate"]["assessment"]["accuracy"]["value"] > 0.8
    assert chance["estimate"]["assessment"]["accuracy"]["value"] < 0.7
    assert good["estimate"]["assessment"]["n"] == len(x)


def test_one_example_a_class_gives_no_estimate_and_says_why() -> None:
    x, y = blobs(shots=1)
    card = fit(x, y, head="prototypes").card
    assert card["estimate"]["assessment"] is None
    assert "second example" in card["estimate"]["method"]


def test_an_experiment_learns_from_shots_and_tests_on_all_others() -> None:
    x, y = blobs(shots=6)
    model = fit(x, y, head="prototypes", shots=2)
    assert model.card["experiment"]["shots"] == 2
    assert model.card["task"]["n"] == 6
    assert model.card["test"]["assessment"]["n"] == 12


def test_the_seed_decides_the_draw() -> None:
    x, y = blobs(shots=6)
    first, same, other = (fit(x, y, head="prototypes", shots=1, seed=s).head.state_ for s in (1, 1, 2))
    assert all((first[k] == same[k]).all() for k in first)
    assert any((first[k] != other[k]).any() for k in first)


def test_a_test_set_is_never_learnt_from() -> None:
    x, y = blobs()
    with_test = fit(x[::2], y[::2], head="prototypes", test=(x[1::2], y[1::2]))
    without = fit(x[::2], y[::2], head="prototypes")
    assert with_test.card["test"]["assessment"]["n"] == len(x) // 2
    assert all((with_test.head.state_[k] == without.head.state_[k]).all() for k in without.head.state_)


def test_unlabelled_rows_are_the_pool(tmp_path: Path) -> None:
    rows = [(t, label) for label, texts in TEXTS.items() for t in texts] + [("who knows", "")]
    path = tmp_path / "t.csv"
    pl.DataFrame(rows, schema=["text", "label"], orient="row").write_csv(path)
    task = fit(path, head="prototypes").card["task"]
    assert (task["n"], task["pool"]) == (6, 1)


def test_class_names_are_used_when_words_and_left_when_codes() -> None:
    words = fit(TEXTS, head="prototypes").card["class_text"]
    codes = fit({f"c{i}": texts for i, texts in enumerate(TEXTS.values())}, head="prototypes").card["class_text"]
    assert (codes["used"], "codes" in codes["reason"]) == (False, True)
    assert words["reason"] != codes["reason"]
    named = fit(
        {f"c{i}": texts for i, texts in enumerate(TEXTS.values())},
        head="zero-shot",
        class_names={"c0": "money back", "c1": ["sign in", "password"]},
    )
    assert named.predict(["I want a refund", "I cannot sign in"]) == ["c0", "c1"]


def test_same_input_same_bytes_and_it_comes_back(tmp_path: Path) -> None:
    paths = [tmp_path / "a.handful", tmp_path / "b.handful"]
    models = [fit(TEXTS, head="prototypes", out=path, report=path.with_suffix(".html")) for path in paths]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    again = handful.load(paths[0])
    texts = ["my refund please", "cannot log in"]
    assert again.predict_proba(texts) == pytest.approx(models[0].predict_proba(texts))
    assert paths[0].with_suffix(".html").read_text("utf-8").lower().startswith("<!doctype html")
    assert predict(paths[0], texts)["handful_label"].to_list() == again.predict(texts)


def test_a_full_model_replaces_a_full_model_but_an_experiment_does_not(tmp_path: Path) -> None:
    out = tmp_path / "m.handful"
    x, y = blobs()
    fit(x, y, head="prototypes", shots=1, out=out)
    fit(x, y, head="prototypes", shots=2, out=out)  # an experiment replaces an experiment
    fit(x, y, head="prototypes", out=out)
    fit(x, y, head="gda", out=out)
    assert Model.load(out).card["head"]["key"] == "gda"
    with pytest.raises(BadInput, match="full model"):
        fit(x, y, head="prototypes", shots=2, out=out)
    assert Model.load(out).card["head"]["key"] == "gda"


@pytest.mark.parametrize("seed", [-1, 1.5])
def test_a_seed_that_is_none_is_refused(seed: int) -> None:
    x, y = blobs()
    with pytest.raises(BadInput, match="--seed is a whole number, not below 0"):
        fit(x, y, seed=seed)


def test_a_text_that_stands_there_under_two_labels_is_learnt_from() -> None:
    texts = [f"the film was {word}" for word in ("great", "good", "lovely", "awful", "bad", "poor")]
    labels = ["yes", "yes", "yes", "no", "no", "no"]
    model = fit([*texts, texts[0]], [*labels, "no"])
    assert model.predict(texts[1:]) == labels[1:] and model.card["head"]["key"] == "auto"


def test_no_time_for_folds_says_so() -> None:
    x, y = blobs()
    card = fit(x, y, head="prototypes", time_limit=1e-9).card
    assert card["estimate"]["assessment"] is None
    assert "time limit" in card["estimate"]["method"]


@pytest.mark.parametrize("head", ["prototypes", "gda", "kernel-ridge", "logistic", "rfs", "matching-networks"])
def test_every_head_learns_separated_classes_and_is_kept(head: str, tmp_path: Path) -> None:
    x, y = blobs()
    out = tmp_path / "m.handful"
    fit(x, y, head=head, out=out)
    again = Model.load(out)
    assert np.mean(np.array(again.predict(x)) == np.array(y)) > 0.9


@pytest.mark.parametrize("head", ["proker", "tip-adapter", "tip-adapter-f", "zero-shot"])
def test_heads_that_need_class_names_get_them(head: str, tmp_path: Path) -> None:
    out = tmp_path / "m.handful"
    fit(TEXTS, head=head, out=out)
    assert Model.load(out).predict(["give me my money back", "wrong password"]) == ["refund", "login"]
    x, y = blobs()
    with pytest.raises(BadInput, match="class text"):
        fit(x, y, head=head)
