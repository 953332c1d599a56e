"""`Model`: the same answers after a file as before it, and no file that chooses what runs."""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from handful.adapt import head
from handful.errors import BadInput
from handful.read import from_arrays
from handful.ship import model as ship_model
from handful.ship.bundle import DESCRIPTION, TENSORS
from handful.ship.model import Model, class_text_vectors, load

CLASSES = ("invoice", "login", "refund")


def features(n: int = 30, d: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Three clouds of points and their labels."""
    rng = np.random.default_rng(seed)
    codes = np.arange(n) % len(CLASSES)
    return (2 * np.eye(len(CLASSES), d)[codes] + rng.normal(size=(n, d))).astype(np.float32), np.asarray(CLASSES)[codes]


def fitted(key: str = "gda", **params: Any) -> Model:
    """A small model of features."""
    x, y = features()
    return Model(
        head(key, random_state=0, **params).fit(x, y), None, "", 1.7, {"task": {"n": len(y)}}, seconds={"fit": 0.1}
    )


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A small model in a file."""
    path = tmp_path / "m.handful"
    fitted().save(path)
    return path


Edit = Callable[[dict[str, Any]], object]


def edit(path: Path, change: Edit) -> Path:
    """Change the description inside a model file."""
    with zipfile.ZipFile(path) as archive:
        description, tensors = json.loads(archive.read(DESCRIPTION)), archive.read(TENSORS)
    change(description)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(DESCRIPTION, json.dumps(description))
        archive.writestr(TENSORS, tensors)
    return path


@pytest.mark.parametrize("key", ["gda", "logistic", "prototypes", "kernel-ridge"])
def test_a_file_gives_the_same_probabilities_bit_by_bit(tmp_path: Path, key: str) -> None:
    model, (query, _) = fitted(key), features(seed=1)
    model.save(tmp_path / "m.handful")
    again = load(tmp_path / "m.handful")
    assert np.array_equal(model.predict_proba(query), again.predict_proba(query))
    assert again.predict(query) == model.predict(query)
    assert (again.classes, again.scale, again.card) == (model.classes, model.scale, model.card)
    again.save(tmp_path / "again.handful")
    assert (tmp_path / "again.handful").read_bytes() == (tmp_path / "m.handful").read_bytes()


def test_time_leaves_no_trace_in_the_file(tmp_path: Path) -> None:
    quick, slow = fitted(), fitted()
    slow.seconds = {"fit": 99.0}
    quick.save(tmp_path / "quick.handful")
    slow.save(tmp_path / "slow.handful")
    assert (tmp_path / "quick.handful").read_bytes() == (tmp_path / "slow.handful").read_bytes()


def test_probabilities_are_the_softmax_of_scaled_logits() -> None:
    model, (query, _) = fitted(), features(seed=1)
    logits = 1.7 * np.asarray(model.head.logits(query), dtype=np.float64)
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert np.allclose(model.predict_proba(query), expected, atol=1e-12)
    assert model.predict_proba(query).shape == (30, 3)
    assert model.classes == CLASSES


def test_evaluate_counts_labelled_items_only() -> None:
    model, (query, labels) = fitted(), features(seed=1)
    some = [label if i % 2 else None for i, label in enumerate(labels)]
    assessment = model.evaluate(query, some)  # type: ignore[arg-type]
    right = [a == b for a, b in zip(model.predict(query), some, strict=True) if b is not None]
    assert assessment.as_dict()["n"] == 15
    assert assessment.as_dict()["accuracy"]["value"] == pytest.approx(np.mean(right))


def test_evaluate_refuses_what_it_cannot_judge() -> None:
    model, (query, labels) = fitted(), features(seed=1)
    with pytest.raises(BadInput, match="no item has a label"):
        model.evaluate(query, [None] * len(query))  # type: ignore[list-item]
    with pytest.raises(BadInput, match=r"'parcel' is none of the model's classes: invoice, login, refund"):
        model.evaluate(query, ["parcel", *labels[1:]])


def test_a_model_of_features_refuses_texts() -> None:
    with pytest.raises(BadInput, match="reads features, but the source holds text"):
        fitted().predict(["where is my refund?"])


class Tower:
    """An encoder of texts: counts of six letters."""

    name, modality, dim = "letters", "text", 6
    outputs = frozenset({"pooled"})
    aligned, logit_scale = "pooled", 10.0
    fingerprint = "f" * 64

    def __init__(self, identity: str = "a" * 64) -> None:
        self.identity = identity

    def encode(
        self, items: Sequence[str], outputs: Sequence[str] = ("pooled",), views: int = 1, **_: Any
    ) -> np.ndarray:
        return np.array([[item.count(c) for c in "aeinou"] for item in items], np.float32)

    def class_text(self, sentences: Sequence[str], *, cache: bool = True) -> np.ndarray:
        x = self.encode(sentences)
        return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9)


def test_another_encoder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tower = fitted(), Tower()
    model.encoder_name, model.fingerprint = tower.name, tower.identity
    model.save(tmp_path / "m.handful")
    here = {"letters": tower}
    monkeypatch.setattr("handful.encode.encoder", here.__getitem__)
    with pytest.raises(BadInput, match="'letters', which is not part of it"):
        load(tmp_path / "m.handful").predict(["you"])
    monkeypatch.setattr("handful.ship.model.EMBEDDED", ("letters",))
    texts = ["a nice house", "you"]
    assert load(tmp_path / "m.handful").predict_proba(texts).shape == (2, 3)
    here["letters"] = Tower("b" * 64)
    with pytest.raises(BadInput, match=r"made with encoder letters \(a{16}…\), not with the one here \(b{16}…\)"):
        load(tmp_path / "m.handful").predict(texts)


def test_class_text_is_encoded_once_and_given_back_by_label() -> None:
    vectors = class_text_vectors(Tower(), {"x": ["you", "ten"], "empty": [], "y": ["a"]})  # type: ignore[arg-type]
    assert [(label, rows.shape) for label, rows in vectors.items()] == [("x", (2, 6)), ("empty", (0, 6)), ("y", (1, 6))]
    assert np.array_equal(vectors["y"], Tower().class_text(["a"]))


def test_loading_reads_no_encoder(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edit(saved, lambda d: d["encoder"].update(name="hf:../../somewhere", fingerprint="0"))

    def opened(name: str) -> None:
        raise AssertionError(f"loading asked for the encoder {name}")

    monkeypatch.setattr("handful.encode.encoder", opened)
    assert load(saved).encoder_name == "hf:../../somewhere"


def test_an_unknown_head_is_refused(saved: Path) -> None:
    edit(saved, lambda d: d["head"].update(key="gdaa"))
    with pytest.raises(BadInput, match=r"unknown head 'gdaa'; did you mean 'gda'\?"):
        load(saved)


@pytest.mark.parametrize("key", ["evil:Head", "os:system", "handful.adapt.gda:GDA", ":", "evil.sub:Head"])
def test_a_file_does_not_choose_what_is_imported(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    (tmp_path / "evil.py").write_text("raise SystemExit('imported')", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    edit(saved, lambda d: d["head"].update(key=key))
    with pytest.raises(BadInput, match="unknown head"):
        load(saved)
    assert "evil" not in sys.modules


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.pop("head"),
        lambda d: d["head"].update(key=["gda"]),
        lambda d: d["head"].update(key=None),
        lambda d: d["head"].update(parameters=7),
        lambda d: d.update(classes=7),
        lambda d: d.update(classes=["invoice", "login"]),
        lambda d: d.update(classes=["invoice", "login", "refund", "spare"]),
        lambda d: d.update(width="six"),
        lambda d: d.update(width=7),
        lambda d: d.update(width=-6),
        lambda d: d.update(scale="much"),
        lambda d: d.update(encoder="minilm"),
        lambda d: d.pop("encoder"),
        lambda d: d.pop("card"),
    ],
)
def test_a_description_that_does_not_fit_is_one_line(saved: Path, change: Edit) -> None:
    with pytest.raises(BadInput) as caught:
        load(edit(saved, change))
    assert "\n" not in str(caught.value)


def test_parameters_the_head_does_not_have_are_left_out(saved: Path) -> None:
    expected = load(saved).predict_proba(features(seed=1)[0])
    edit(saved, lambda d: d["head"]["parameters"].update(callback="os.system", __class__="evil"))
    assert np.array_equal(load(saved).predict_proba(features(seed=1)[0]), expected)


def test_the_report_is_the_card_with_seconds(tmp_path: Path) -> None:
    fitted().report(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "30 labelled" in page
    assert "fit 0.1" in page


def test_the_module_is_the_public_load() -> None:
    import handful

    assert handful.load is ship_model.load
    assert handful.Model is Model
    assert len(from_arrays(features()[0]).labelled) == 0
