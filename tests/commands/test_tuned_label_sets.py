"""`handful fit --multi-label --tune`: the encoder learns several labels an item, and is judged without what it saw."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import handful
from handful.commands import tuned_label_sets as module
from handful.commands.compress import compress
from handful.commands.evaluate import evaluate
from handful.commands.inspect import inspect
from handful.commands.tune import tune
from handful.commands.tuned import FOLDS, Tuner
from handful.errors import BadInput
from handful.evaluate.label_set_assessment import LabelSetAssessment
from handful.evaluate.label_set_estimate import Answers
from handful.ship.model import Model
from handful.tune.label_sets import for_label_sets
from handful.tune.recipe import Recipe

THINGS = ["soup", "film", "road", "coat", "song", "shop", "desk", "garden"]
PARTS = {"good": "it was wonderful, I loved it", "dear": "it cost far too much money", "late": "it came a week late"}
SETS = [(), ("good",), ("dear",), ("late",), ("good", "late"), ("dear", "late"), ("dear", "good", "late")]
ROWS = [(f"the {thing}", SETS[(i + j) % len(SETS)]) for i, thing in enumerate(THINGS) for j in range(3)]
TEXTS = [". ".join([what, *(PARTS[label] for label in labels)]) for what, labels in ROWS]
LABELS = [list(labels) for _, labels in ROWS]
SHORT = "lora:learns=classes,steps=4"
HOW: dict[str, Any] = {"multi_label": ";", "near_duplicates": False}


@pytest.fixture(scope="module")
def model() -> Model:
    return handful.fit(TEXTS, LABELS, tune=SHORT, test=(TEXTS[:9], LABELS[:9]), **HOW)


def test_the_encoder_has_changed_and_a_file_keeps_that(model: Model, tmp_path: Path) -> None:
    base = handful.encoder("minilm")
    assert model.encoder is not None and model.delta is not None
    assert not np.allclose(base.encode(TEXTS), model.encoder.encode(TEXTS), atol=1e-3)
    assert model.predict_sets(TEXTS) != [()] * len(TEXTS)
    model.save(tmp_path / "m.handful")
    assert (tmp_path / "m.handful").stat().st_size < 3_000_000
    again = handful.load(tmp_path / "m.handful")
    np.testing.assert_array_equal(again.predict_proba(TEXTS), model.predict_proba(TEXTS))
    assert again.predict_sets(TEXTS) == model.predict_sets(TEXTS)
    found = evaluate(again, (TEXTS, LABELS))
    assert isinstance(found, LabelSetAssessment) and found.micro_f1.value > 0.8
    told = inspect(tmp_path / "m.handful")
    assert "lora:learns=classes" in told["tuning"] and told["label_sets"]["micro_f1"]["value"] > 0
    again.report(tmp_path / "r.html")
    assert "micro-F1 without" in (tmp_path / "r.html").read_text(encoding="utf-8")
    with pytest.raises(BadInput, match="compress takes models of one label an item"):
        compress(again, TEXTS)


def test_the_card_says_what_it_brought(model: Model) -> None:
    card = model.card
    assert card["tuning"]["kept"] and 0 <= card["tuning"]["frozen"] <= 1 and 0 <= card["tuning"]["tuned"] <= 1
    assert f"{FOLDS} fits, each without one part" in card["label_sets"]["estimate"]["method"]
    assert "tuned encoder" in card["head"]["why"]
    json.dumps(card)


def test_no_encoder_is_judged_by_what_it_has_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    fits: list[set[str]] = []
    asked: list[set[str]] = []
    fit, logits = Tuner.fit, Tuner.logits

    def names(tuner: Tuner, rows: Any) -> set[str]:
        return {tuner.material.items[int(i)] for i in rows.views["row"][:, 0]}

    def watched_fit(self: Tuner, rows: Any, labels: Any) -> Tuner:
        fits.append(names(self, rows))
        return fit(self, rows, labels)

    def watched_logits(self: Tuner, rows: Any) -> Any:
        asked.append(names(self, rows))
        assert not asked[-1] & fits[-1]
        return logits(self, rows)

    monkeypatch.setattr(Tuner, "fit", watched_fit)
    monkeypatch.setattr(Tuner, "logits", watched_logits)
    handful.fit(TEXTS, LABELS, tune=SHORT, **HOW)
    assert fits[0] == set(TEXTS) and len(fits) == FOLDS + 1
    assert Counter(text for some in asked for text in some) == Counter(set(TEXTS))


def test_shuffled_labels_are_not_learnt() -> None:
    order = np.random.default_rng(1).permutation(len(LABELS))
    found = handful.fit(TEXTS, [LABELS[i] for i in order], tune="lora:learns=classes,steps=12", **HOW)
    assert found.card["label_sets"]["estimate"]["assessment"]["micro_f1"]["value"] < 0.75  # all labels always: 0.63
    assert found.card["label_sets"]["estimate"]["assessment"]["mean_average_precision"]["low"] < 0.6


def test_auto_takes_what_the_folds_prefer(monkeypatch: pytest.MonkeyPatch) -> None:
    def worse(key: str) -> Recipe:
        return for_label_sets("lora:learns=classes,steps=6,lr=0.5")

    monkeypatch.setattr(module, "for_label_sets", worse)
    found = tune(TEXTS, LABELS, **HOW)
    assert not found.card["tuning"]["kept"] and found.delta is None
    assert found.card["tuning"]["recipe"] == "lora:learns=classes" and found.card["tuning"]["asked"] == "auto"
    base = handful.fit(TEXTS, LABELS, **HOW)
    assert base.encoder is not None
    x = base.encoder.encode(TEXTS)
    np.testing.assert_allclose(found.head.logits(x), base.head.logits(x))
    quick = tune(TEXTS, LABELS, time_limit=0.01, **HOW)
    assert "time does not suffice" in quick.card["tuning"]["sentence"] and not quick.card["tuning"]["kept"]
    assert quick.card["label_sets"]["estimate"]["assessment"] is None


def test_each_fold_is_answered_as_the_others_prefer() -> None:
    frozen, tuned = (Answers(np.full((6, 2), z), np.full((6, 2), s)) for z, s in ((0.0, 0), (1.0, 1)))
    fold, gain = np.array([0, 0, 1, 1, 2, 2]), np.array([9.0, 9, -1, -1, -1, -1])
    found = module._by_the_others(frozen, tuned, fold, gain)
    assert found.logits[:, 0].tolist() == [0, 0, 1, 1, 1, 1]  # only fold 0 gained, so that it is what others see
    assert found.said[:, 1].tolist() == [0, 0, 1, 1, 1, 1]


def test_a_test_set_is_read_by_the_tuned_encoder(model: Model) -> None:
    direct = evaluate(model, (TEXTS[:9], LABELS[:9]))
    assert isinstance(direct, LabelSetAssessment)
    assert model.card["label_sets"]["test"]["assessment"]["micro_f1"] == direct.micro_f1.as_dict()


@pytest.mark.parametrize("key", ["lora", "setfit", "setfit-gradient", "fastfit", "film", "clip-lora"])
def test_recipes_of_one_label_are_refused_in_one_line(key: str) -> None:
    with pytest.raises(BadInput, match=f"recipe '{key}' learns which one class an item is of; .*lora:learns=classes"):
        handful.fit(TEXTS, LABELS, tune=key, **HOW)
