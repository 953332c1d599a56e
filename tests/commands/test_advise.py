"""`advise`: methods that can run, encoders judged on the same items."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import handful
from handful.adapt import head
from handful.adapt.base import Features
from handful.cli import main
from handful.commands import advise
from handful.errors import BadInput
from handful.evaluate.encoder_choice import compare_encoders


def items(spread: float, n: int = 60, seed: int = 0) -> tuple[Features, np.ndarray]:
    y = np.arange(n) % 3
    means = 3 * np.eye(3, 6)
    x = means[y] + spread * np.random.default_rng(seed).normal(size=(n, 6))
    return Features(x.astype(np.float32), {}), np.array(["a", "b", "c"])[y]


def test_the_better_encoder_comes_first_with_a_test() -> None:
    (good, y), (bad, _), (same, _) = items(0.8), items(4.0), items(0.8, seed=1)
    found = compare_encoders({"bad": bad, "good": good}, y, head("logistic"))
    assert [score.name for score in found.scores] == ["good", "bad"] and found.shown
    best, worst = found.scores
    assert best.behind is None and worst.behind is not None and worst.p is not None and worst.p < 0.05
    assert worst.behind.value == pytest.approx(best.accuracy.value - worst.accuracy.value)
    assert not compare_encoders({"one": good, "other": same}, y, head("logistic")).shown
    assert not compare_encoders({"one": good}, y, head("logistic")).shown


def test_groups_are_never_on_both_sides_and_are_what_counts() -> None:
    x, y = items(2.5, 120)
    groups = np.arange(120) // 6
    copies = Features(np.repeat(x.x[::6], 6, axis=0), {})
    labels = np.repeat(y[::6], 6)
    labels[:60], labels[60:] = "a", "b"
    alone = compare_encoders({"e": copies}, labels, head("prototypes"))
    together = compare_encoders({"e": copies}, labels, head("prototypes"), groups=groups)
    assert together.scores[0].accuracy.high - together.scores[0].accuracy.low > 1.5 * (
        alone.scores[0].accuracy.high - alone.scores[0].accuracy.low
    )


def test_encoders_that_cannot_be_judged() -> None:
    x, y = items(1.0)
    with pytest.raises(BadInput, match="no encoder"):
        compare_encoders({}, y, head("logistic"))
    with pytest.raises(BadInput, match="60 rows of features but 59 labels"):
        compare_encoders({"e": x}, y[:-1], head("logistic"))
    with pytest.raises(BadInput, match="label a few more"):
        compare_encoders({"e": x.take(np.arange(3))}, y[:3], head("logistic"))


class Tower:
    """Texts as counts of letters; the poor one sees one letter only."""

    modality, outputs = "text", frozenset({"pooled"})
    aligned, logit_scale = None, 100.0

    def __init__(self, name: str) -> None:
        self.name = self.identity = self.fingerprint = name
        self.letters = "ab" if name != "poor" else "x"
        self.dim = len(self.letters)

    def encode(self, items: Any, outputs: Any = ("pooled",), **_: Any) -> np.ndarray:
        return np.array([[item.count(c) for c in self.letters] for item in items], np.float32) + 0.01


TEXTS = {"a": [f"a{'a' * (i % 3)}{i}" for i in range(9)], "b": [f"b{'b' * (i % 3)}{i}" for i in range(9)]}


def test_built_in_encoders_and_those_that_are_named_are_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(advise, "make_encoder", Tower)
    found = handful.advise_encoder(TEXTS, encoders=["poor", "minilm"])
    assert [score.name for score in found.scores] == ["minilm", "poor"]
    assert found.scores[0].accuracy.value == 1 and found.shown
    assert found.setting["items"] == 18 and found.setting["head"] == "logistic"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head": "zero-shot"}, "needs nothing but labels; 'zero-shot' needs more"),
        ({"head": "pt-map"}, "needs nothing but labels"),
        ({"head": "logistics"}, "unknown head 'logistics'"),
        ({"folds": 1}, "at least 2"),
        ({"encoders": ["efficientnet-lite0"]}, "reads image, but the source holds text"),
    ],
)
def test_wrong_requests_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        handful.advise_encoder(TEXTS, **change)


def test_features_have_no_encoder(tmp_path: Path) -> None:
    np.savez(tmp_path / "f.npz", X=np.eye(4), y=np.array(list("abab")))
    with pytest.raises(BadInput, match="the source holds features"):
        handful.advise_encoder(str(tmp_path / "f.npz"))


def test_methods_from_what_there_is() -> None:
    found = handful.advise_method(have=["unlabelled", "class-names", "background"], shots=5)
    assert found[0].card.key == "auto" and {"pt-map", "tip-adapter"} <= {a.card.key for a in found}
    with pytest.raises(BadInput, match="is a list"):
        handful.advise_method(have="class-names")


def test_the_commands_print(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["advise", "method", "--have", "unlabelled,class-names,background", "--shots", "5"]) == 0
    out = capsys.readouterr().out
    assert "methods can run with 5 examples a class and unlabelled, class-names, background" in out
    assert "Start with auto" in out
    assert main(["advise", "method", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["methods"][0]["head"] == "auto" and "tip-adapter" not in {m["head"] for m in shown["methods"]}
    assert main(["advise", "method", "--cost", "closed-form", "--json"]) == 0
    assert {m["cost"] for m in json.loads(capsys.readouterr().out)["methods"]} == {"closed form"}
    assert main(["advise", "method", "--have", "money"]) == 2
    assert "no head knows what to do with 'money'" in capsys.readouterr().err

    monkeypatch.setattr(advise, "make_encoder", Tower)
    path = tmp_path / "t.csv"
    path.write_text("text,label\n" + "".join(f"{t},{c}\n" for c, ts in TEXTS.items() for t in ts), encoding="utf-8")
    assert main(["advise", "encoder", str(path), "--encoder", "poor"]) == 0
    out = capsys.readouterr().out
    assert "minilm is better than each of the others" in out and "best" in out
    assert main(["advise", "encoder", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["encoders"][0]["encoder"] == "minilm"
