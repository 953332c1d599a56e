"""`fit` without any label: class names are all a model is made from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from handful.cli.objects import fit_object
from handful.commands.evaluate import evaluate
from handful.commands.fit import fit
from handful.commands.inspect import inspect
from handful.errors import BadInput
from handful.ship.model import Model

NAMES = {
    "r": ["refund", "the customer wants to have the money back"],
    "l": ["login problem", "the customer cannot sign in", "a password does not work"],
}
TEXTS = ["give me my money back", "I cannot sign in", "the password is wrong", "please refund my order"]


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    path = tmp_path / "inbox.csv"
    pl.DataFrame({"message": TEXTS}).write_csv(path)
    return path


@pytest.fixture
def names(tmp_path: Path) -> Path:
    """Several rows a label."""
    path = tmp_path / "names.csv"
    rows = [(label, text) for label, texts in NAMES.items() for text in texts]
    pl.DataFrame(rows, schema=["label", "description"], orient="row").write_csv(path)
    return path


def test_names_and_no_label_make_a_model_that_says_it_was_not_tested(inbox: Path, names: Path, tmp_path: Path) -> None:
    out, page = tmp_path / "m.handful", tmp_path / "m.html"
    model = fit(inbox, class_names=names, out=out, report=page)
    assert Model.load(out).predict(TEXTS) == ["r", "l", "l", "r"]
    card = model.card
    assert card["task"]["n"] == 0 and card["task"]["classes"] == [{"name": "l", "count": 0}, {"name": "r", "count": 0}]
    assert card["estimate"]["accuracy"] is None and "no labels" in card["estimate"]["method"]
    assert card["population"]["kind"] == "uniform" and card["test"] is None
    json.dumps(fit_object(model, None, None), allow_nan=False)
    assert "no labels to compare" in page.read_text("utf-8")
    found = inspect(out)
    assert found["n"] == 0 and found["personal"]["example_vectors"] == 0
    assert evaluate(out, (TEXTS, ["r", "l", "l", "r"])).accuracy.value == 1


def test_labels_are_tested_on_and_not_learnt_from(names: Path) -> None:
    labels = ["r", "l", "l", "r"]
    right, wrong = (fit(TEXTS, y, class_names=names, zero_shot=True) for y in (labels, labels[::-1][:2] + labels[2:]))
    assert all((right.head.state_[k] == wrong.head.state_[k]).all() for k in right.head.state_)
    assert right.card["test"]["assessment"]["accuracy"]["value"] == 1
    assert "none of which was learnt from" in right.card["test"]["source"]
    words = fit({"refund": TEXTS[::3], "login": TEXTS[1:3]}, zero_shot=True)  # labels that are words need no file
    assert words.predict(TEXTS) == ["refund", "login", "login", "refund"]


def test_every_description_of_a_class_reaches_the_head(names: Path) -> None:
    """As [M, Dt] a class: what `cupl`, `vdt` or `label-description` make of them is theirs."""
    learnt = fit(TEXTS, ["r", "l", "l", "r"], class_names=names, head="cupl").head
    templates = 3  # of the encoder: short names are put into each, what is longer stays as it is
    assert {label: len(rows) for label, rows in learnt.text.items()} == {"r": templates + 1, "l": 3 * templates}
    text = np.stack([rows.mean(0) / np.linalg.norm(rows.mean(0)) for _, rows in sorted(learnt.text.items())])
    np.testing.assert_allclose(learnt.state_["text"].numpy(), text, atol=1e-6)
    zero = fit(TEXTS, ["r", "l", "l", "r"], class_names=names, head="cupl", zero_shot=True).head
    assert zero.key == "cupl"
    np.testing.assert_allclose(zero.state_["text"].numpy(), text, atol=1e-6)


def test_published_sentences_name_labels_in_their_own_way(tmp_path: Path) -> None:
    torch.save({"money_back": ["my money back", "a refund"], "log_in": ["sign in", "a password"]}, tmp_path / "s.pt")
    labels = ["Money back", "log in", "log in", "Money back"]
    zero = fit(TEXTS, labels, class_names=tmp_path / "s.pt", zero_shot=True, head="cupl")
    assert zero.classes == ("Money back", "log in") and zero.predict(TEXTS) == labels
    learnt = fit(TEXTS, labels, class_names=tmp_path / "s.pt", head="vdt")
    assert {label: rows.shape for label, rows in learnt.head.text.items()} == dict.fromkeys(zero.classes, (2, 384))


def test_the_pool_or_a_file_may_say_how_often_a_class_occurs(inbox: Path, names: Path) -> None:
    often = fit(inbox, class_names=names, class_prior={"r": 0.99, "l": 0.01})
    plain = fit(inbox, class_names=names)
    assert (often.predict_proba(TEXTS)[:, 1] > plain.predict_proba(TEXTS)[:, 1]).all()
    assert fit(inbox, class_names=names, class_prior="pool").card["population"]["kind"] == "pool"


def test_what_needs_labels_is_refused(inbox: Path, names: Path) -> None:
    for wrong, message in [
        ({"shots": 1}, "--shots needs labelled examples"),
        ({"target_precision": 0.9}, "--target-precision needs"),
        ({"head": "gda"}, "learns from labelled examples; those that need none: cupl, zero-shot"),
        ({"head": "auto", "unlabelled": inbox}, "--unlabelled needs"),
    ]:
        options: dict[str, Any] = wrong
        with pytest.raises(BadInput, match=message):
            fit(inbox, class_names=names, **options)
    with pytest.raises(BadInput, match="is a code"):
        fit({"c1": TEXTS[:2], "c2": TEXTS[2:]}, zero_shot=True)
    with pytest.raises(BadInput, match="features are given"):
        fit(np.eye(4), class_names=names)
    with pytest.raises(BadInput, match="'other' has no class name"):
        fit(TEXTS, ["r", "l", "l", "other"], class_names=names, zero_shot=True)
    with pytest.raises(BadInput, match="label"):
        fit(inbox)
