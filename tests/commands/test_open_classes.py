"""Classes that have a name but no example: `fit --class-names`, `predict --classes`, `evaluate --classes`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from handful.cli.objects import evaluate_object, fit_object
from handful.commands.evaluate import evaluate
from handful.commands.fit import fit
from handful.commands.inspect import inspect
from handful.commands.predict import predict, predict_lines
from handful.commands.sources import other_sentences
from handful.errors import BadInput
from handful.evaluate.generalised import gzsl_scores
from handful.ship.encoded import class_text_vectors
from handful.ship.model import Model

LABELS = ["refund", "login"] * 3
TEXTS = [
    "give me my money back",
    "I cannot sign in",
    "please refund my order",
    "the password is wrong",
    "I want the price I paid returned to my account",
    "your site does not let me log in",
]
NAMES = {
    "refund": "the customer wants to have the money back",
    "login": "the customer cannot sign in",
    "delivery": ["the parcel is late", "where is the package?"],
    "allergy": "the customer asks what a food contains",
}
NEW = ["my parcel has still not arrived", "are there nuts in the biscuits?", "the courier never came"]
TRUE = ["delivery", "allergy", "delivery"]


@pytest.fixture(scope="module", params=["gda", "lfa", "linear-adapter"])
def model(request: pytest.FixtureRequest) -> Model:
    return fit(TEXTS, LABELS, class_names=NAMES, head=request.param)


def test_a_model_answers_for_classes_that_have_a_name_only(model: Model, tmp_path: Path) -> None:
    assert model.classes == ("login", "refund") and model.unseen == ("allergy", "delivery")
    model.save(tmp_path / "m.handful")
    again = Model.load(tmp_path / "m.handful")
    assert again.unseen == model.unseen
    assert again.predict(NEW, classes="new") == TRUE
    assert set(again.predict(NEW)) <= {"login", "refund"}  # without being asked it answers as before
    everything = again.predict_proba(NEW + TEXTS[:2], "all")
    assert everything.shape == (5, 4) and np.allclose(everything.sum(1), 1)
    np.testing.assert_array_equal(everything, again.predict_proba(NEW + TEXTS[:2], [*again.classes, *again.unseen]))
    swapped = again.predict_proba(NEW + TEXTS[:2], ["delivery", "login", "refund", "allergy"])
    np.testing.assert_allclose(swapped, everything[:, [3, 0, 1, 2]], atol=1e-7)
    found = inspect(tmp_path / "m.handful")
    assert found["unseen"] == ["allergy", "delivery"] and [c["name"] for c in found["classes"]] == ["login", "refund"]
    assert found["personal"]["class_names"] == ["login", "refund", "allergy", "delivery"]
    assert not any(name.startswith("unseen") for name in found["personal"]["example_tensors"])
    others = model.card["class_text"]["others"]
    assert others["names"] == ["allergy", "delivery"] and others["answered"]
    json.dumps(fit_object(model, None, None), allow_nan=False)


def test_what_is_kept_of_them_is_the_mean_of_their_texts(model: Model) -> None:
    assert model.encoder is not None
    sentences = other_sentences(NAMES, model.classes, model.encoder.templates)
    assert sorted(sentences) == ["allergy", "delivery"] and len(sentences["delivery"]) >= 2
    rows = class_text_vectors(model.encoder, sentences)["delivery"].mean(0)
    np.testing.assert_allclose(model.head.state_["unseen"][1].numpy(), rows / np.linalg.norm(rows), atol=1e-6)


def test_predict_writes_among_the_classes_that_are_asked_for(model: Model) -> None:
    table = predict(model, NEW, classes="new", top=2)
    assert table["handful_label"].to_list() == TRUE
    sure = table["handful_confidence"] + table["handful_top2_confidence"]
    assert np.allclose(sure.to_numpy(), 1, atol=1e-5)  # of two classes
    assert set(predict(model, NEW, classes=["login", "allergy"])["handful_label"]) <= {"login", "allergy"}
    (batch,) = predict_lines(model, [NEW], classes="new")
    assert [record["handful_label"] for record in batch] == TRUE


def test_thresholds_and_none_of_these_are_of_the_fitted_classes() -> None:
    model = fit(TEXTS * 4, LABELS * 4, class_names=NAMES, head="gda", near_duplicates=False, reject="distance")
    assert model.rejection is not None
    table = predict(model, NEW, classes="new")
    assert table["handful_label"].to_list() == TRUE and table["handful_accepted"].all()
    none = predict(model, NEW, classes="new", min_confidence=1.0)
    assert not none["handful_accepted"].any()


def test_evaluate_tells_new_classes_from_the_others(model: Model) -> None:
    data = (NEW + TEXTS[:2], TRUE + LABELS[:2])
    found = evaluate(model, data, classes="all")
    assert found.classes == ("login", "refund", "allergy", "delivery")
    answers = model.predict(data[0], classes="all")
    assert found.generalised == gzsl_scores(data[1], answers, model.classes)
    assert evaluate_object(found, "m", "s")["generalised"]["H"] == found.generalised.H
    new = evaluate(model, (NEW, TRUE), classes="new", require="recall[delivery]>=0.1")
    assert new.accuracy.value == 1 and new.generalised is None and new.verdicts[0].passed
    with pytest.raises(BadInput, match="'allergy' is none of the model's classes"):
        evaluate(model, data)
    with pytest.raises(BadInput, match="'login' is none of the classes that are asked for"):
        evaluate(model, data, classes="new")


def test_a_head_of_examples_says_that_it_cannot(tmp_path: Path) -> None:
    model = fit(TEXTS, LABELS, class_names=NAMES, head="prototypes", out=tmp_path / "m.handful")
    others = model.card["class_text"]["others"]
    assert not others["answered"] and "prototypes learns from examples only" in others["reason"]
    assert inspect(tmp_path / "m.handful")["unseen"] == []
    for classes in (["login", "delivery"], "new"):
        with pytest.raises(BadInput, match="head 'prototypes' learns from examples only; fit with one of class text"):
            predict(tmp_path / "m.handful", NEW, classes=classes)
    assert set(predict(model, NEW, classes="all")["handful_label"]) <= {"login", "refund"}


def test_what_makes_no_sense_is_refused(model: Model) -> None:
    for classes, why in (
        (["login", "login"], "different names"),
        (["login", "zebra"], "class 'zebra' has no examples: beside its examples' classes the model knows allergy"),
    ):
        with pytest.raises(BadInput, match=why):
            model.predict(NEW, classes=classes)
    with pytest.raises(BadInput, match="--top must be between 1 and 2"):
        predict(model, NEW, classes="new", top=3)
    plain = fit(TEXTS, LABELS, head="gda")
    with pytest.raises(BadInput, match=r"'new'.*class names"):
        plain.predict(NEW, classes="new")


def test_a_class_may_be_called_all() -> None:
    """A name goes before the word."""
    names = ["all", "login"] * 3
    assert fit(TEXTS, names, head="gda").predict(NEW, classes=["all"]) == ["all"] * 3
