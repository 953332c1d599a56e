"""`handful tune --recipe lm-bff …`: a language model that is asked is a model as any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_lm

import handful
from handful.commands.evaluate import evaluate
from handful.commands.grow import grow
from handful.commands.inspect import inspect
from handful.commands.predict import predict
from handful.commands.tune import tune
from handful.commands.tuned import Tuner
from handful.encode.asking import Answers
from handful.errors import BadInput
from handful.evaluate import Assessment
from handful.ship.model import Model

THINGS = ["the film", "the story", "a long film", "it", "the plot", "the actors", "a review", "the news"]
TEXTS = [f"{x} was {how}" for how in ("great and moving", "dull and bad") for x in THINGS]
LABELS = ["fine"] * 8 + ["not so"] * 8
NAMES = {"fine": "great", "not so": "terrible"}
NEW = ["it was very moving", "a bad plot , a dull story"]
KEYS = {
    "lm-bff": ("masked", "lm-bff:steps=25,lr=2e-2"),
    "perfect": ("masked", "perfect:steps=20,lr=1e-2,reduction=4"),
    "t-few": ("seq2seq", "t-few:steps=10"),
    "in-context": ("seq2seq", "in-context:shots=3"),
    "hierverb": ("masked", "hierverb:epochs=3,lr=1e-3,length=48"),
    "lora": ("causal", "lm-bff:learns=lora,steps=10,lr=1e-2,template=*sent_0*_it_was"),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A language model of each kind."""
    kinds = ("masked", "causal", "seq2seq")
    return {kind: f"hf:{tiny_lm.save(kind, tmp_path_factory.mktemp(kind))}" for kind in kinds}


@pytest.fixture(scope="module", params=list(KEYS))
def made(request: Any, folders: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Model]:
    kind, key = KEYS[request.param]
    out = tmp_path_factory.mktemp("model") / "m.handful"
    how: dict[str, Any] = {"near_duplicates": False, "cache": False}
    model = tune(TEXTS, LABELS, recipe=key, encoder=folders[kind], class_names=NAMES, out=out, **how)
    return folders[kind], out, model


def test_it_is_a_model_as_any_other(made: tuple[str, Path, Model], tmp_path: Path) -> None:
    folder, path, model = made
    again = handful.load(path, folder)
    np.testing.assert_array_equal(again.predict_proba(NEW), model.predict_proba(NEW))
    assert set(again.predict(NEW)) <= {"fine", "not so"} and model.classes == ("fine", "not so")
    assert predict(again, NEW)["handful_label"].to_list() == again.predict(NEW)
    found = evaluate(again, (TEXTS, LABELS))
    assert isinstance(found, Assessment) and found.n == 16
    assert "accuracy" in model.card["estimate"] and model.card["estimate"]["accuracy"]["value"] >= 0
    assert model.card["head"]["why"] == "it belongs to the recipe, and was learnt along with the encoder"
    again.report(tmp_path / "r.html")
    again.save(tmp_path / "n.handful")
    assert (tmp_path / "n.handful").read_bytes() == path.read_bytes()


def test_inspect_says_how_it_is_asked_and_what_it_gives_away(made: tuple[str, Path, Model]) -> None:
    _, path, model = made
    told = inspect(path)
    recipe = model.card["tuning"]["recipe"].partition(":")[0]
    if recipe in ("perfect", "hierverb"):
        assert told["asked"] == {"template": None, "answers": None, "shown": 0}
    else:
        assert told["asked"]["answers"] == ["great", "terrible"] and "sent_0" in told["asked"]["template"]
    shown = 3 if recipe == "in-context" else 0
    assert told["asked"]["shown"] == shown and told["personal"]["texts"] is bool(shown)
    assert any(text.encode() in path.read_bytes() for text in TEXTS) is False  # packed
    assert (f"{shown} examples stand in the model as text" in told["tuning"]) is bool(shown)


def test_a_file_opens_no_folder_by_itself(
    made: tuple[str, Path, Model], folders: dict[str, str], tmp_path: Path
) -> None:
    folder, path, _ = made
    with pytest.raises(BadInput, match="a file does not choose what is opened: name it yourself with --encoder"):
        handful.load(path).predict(NEW)
    other = next(one for one in folders.values() if one != folder)
    with pytest.raises(BadInput, match="this model was made with encoder"):
        handful.load(path, other).predict(NEW)
    with pytest.raises(BadInput, match="'minilm' is no language model"):
        handful.load(path, "minilm").predict(NEW)


def test_a_standalone_file_needs_no_folder(folders: dict[str, str], tmp_path: Path) -> None:
    found = tune(
        TEXTS, LABELS, recipe="in-context:shots=2", encoder=folders["seq2seq"], class_names=NAMES,
        out=tmp_path / "m.handful", standalone=True, near_duplicates=False, cache=False,
    )  # fmt: skip
    again = handful.load(tmp_path / "m.handful")
    again.encoder_name = "hf:/nowhere"  # its name is not looked up
    np.testing.assert_array_equal(again.predict_proba(NEW), found.predict_proba(NEW))


@pytest.mark.parametrize("key", ["in-context:template=*sent_0*", "t-few:steps=2"])
def test_no_example_is_judged_by_what_was_shown(
    folders: dict[str, str], monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    fits: list[set[str]] = []
    fit, logits = Tuner.fit, Tuner.logits

    def names(tuner: Tuner, rows: Any) -> set[str]:
        return {tuner.material.items[int(i)] for i in rows.views["row"][:, 0]}

    def watched_fit(self: Tuner, rows: Any, labels: Any) -> Tuner:
        fits.append(names(self, rows))
        fitted = fit(self, rows, labels)
        if isinstance(self.reading_, Answers) and "in-context" in key:
            assert {text for text, _ in self.reading_.shown} == fits[-1]
        return fitted

    def watched_logits(self: Tuner, rows: Any) -> Any:
        assert not names(self, rows) & fits[-1]
        return logits(self, rows)

    monkeypatch.setattr(Tuner, "fit", watched_fit)
    monkeypatch.setattr(Tuner, "logits", watched_logits)
    some = [f"{thing} {how}" for how in ("great", "bad") for thing in ("film", "story", "plot", "news")]
    handful.fit(
        some, LABELS[:4] + LABELS[8:12], encoder=folders["seq2seq"], tune=key, class_names=NAMES,
        near_duplicates=False, cache=False,
    )  # fmt: skip
    assert len(fits) == 5


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({}, "--tune lm-bff asks a language model: name it with --encoder hf:FOLDER, hf:NAME or smollm2"),
        ({"encoder": "minilm"}, "encoder 'minilm' is no language model"),
        ({"encoder": "masked", "head": "gda"}, "--tune lm-bff brings a head of its own"),
        ({"encoder": "masked", "unlabelled": ["a film"]}, "leave --unlabelled out"),
        ({"encoder": "masked", "reject": "gpam"}, "learns from features"),
        ({"encoder": "masked", "long": "mean"}, "leave out --long, --crop and --tiles"),
        ({"encoder": "masked", "tune": "lm-bff:template=*sent_0*_is"}, "has no mask; put"),
        ({"encoder": "masked", "class_names": {"fine": "very good", "not so": "bad"}}, "'very good' is 2 tokens"),
        ({"encoder": "masked", "class_names": {"fine": "good", "not so": "good"}}, "have one word, 'good'"),
        ({"encoder": "masked", "tune": "t-few:lenght=3"}, "has no setting 'lenght'"),
        ({"encoder": "masked", "tune": "in-context"}, "a masked model is not prompted with examples"),
        ({"encoder": "causal", "tune": "perfect"}, "take a masked model, not a causal one"),
    ],
)
def test_what_cannot_be_asked_is_refused(folders: dict[str, str], how: dict[str, Any], message: str) -> None:
    asked = {"tune": "lm-bff", "class_names": NAMES, "cache": False, **how}
    if asked.get("encoder") in folders:
        asked["encoder"] = folders[asked["encoder"]]
    with pytest.raises(BadInput, match=message):
        handful.fit(TEXTS, LABELS, **asked)


def test_it_does_not_grow(made: tuple[str, Path, Model]) -> None:
    folder, path, _ = made
    with pytest.raises(BadInput):
        grow(path, (["news about it"] * 2, ["news"] * 2), encoder=folder)
    with pytest.raises(BadInput, match="several labels an item"):
        handful.fit(TEXTS, [["fine"], []] * 8, tune="lm-bff", encoder=folder, multi_label=";")
