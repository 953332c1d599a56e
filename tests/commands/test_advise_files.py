"""`handful advise models`, `raters` and `context`: from files that users have to what they say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

import handful
from handful.adapt.base import Features
from handful.cli import main
from handful.commands.advise_context import _shift
from handful.errors import BadInput
from handful.ship.model import Encoded


def answers(path: Path, ability: dict[str, float], questions: int, seed: int) -> dict[str, float]:
    """A table of right and wrong answers, and the share each model has right."""
    draw = np.random.default_rng(seed)
    difficulty = draw.normal(size=questions)
    rows = {m: (draw.random(questions) < 1 / (1 + np.exp(difficulty - a))).astype(int) for m, a in ability.items()}
    lines = ["model," + ",".join(f"q{j}" for j in range(questions))]
    path.write_text("\n".join([*lines, *(f"{m},{','.join(map(str, r))}" for m, r in rows.items())]), encoding="utf-8")
    return {m: float(r.mean()) for m, r in rows.items()}


ABILITY = {f"model {k}": a for k, a in enumerate(np.linspace(-2, 2, 8))}


def test_models_that_were_not_run_are_predicted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = answers(tmp_path / "may.csv", ABILITY, 300, 0)
    every = answers(tmp_path / "all.csv", ABILITY, 400, 1)
    lines = (tmp_path / "all.csv").read_text(encoding="utf-8").splitlines()
    (tmp_path / "june.csv").write_text("\n".join([lines[0], *(lines[1 + k] for k in (0, 3, 7))]), encoding="utf-8")
    found = handful.advise_models([tmp_path / "may.csv", tmp_path / "june.csv"], rerun=3).as_dict()
    assert found["versions"] == ["may", "june"] and len(found["rerun"]) == 3
    off = []
    for model in found["models"]:
        may, june = model["scores"]
        assert may["measured"] and may["score"] == pytest.approx(first[model["model"]])
        assert june["measured"] == (model["model"] in ("model 0", "model 3", "model 7"))
        gap = abs(june["score"] - every[model["model"]])
        assert gap < (1e-12 if june["measured"] else 0.1)
        off += [] if june["measured"] else [gap]
    assert np.mean(off) < 0.05
    assert main(["advise", "models", str(tmp_path / "may.csv"), str(tmp_path / "june.csv"), "--rerun", "2"]) == 0
    out = capsys.readouterr().out
    assert "8 models on 2 versions" in out and "~" in out and "Run next, with every new model: model" in out
    assert out.index("model 7") < out.index("model 0")


SHEETS = {
    "one.tsv": "image\tgood\tbad\na.png\t[1, 1]\t[0, 0.5]\nb.png\t[1, 0.5]\t[0.5, 0.5]\nc.png\t[0.5, 1]\t[0, 1]\n",
    "two.tsv": "image\tgood\tbad\nb.png\t[1, 1]\t[0, 0.5]\na.png\t[1, 1]\t[0, 0]\nc.png\t[0.5, 1]\t[0, 1]\n",
}


def sheets(folder: Path, **more: str) -> list[str]:
    for name, text in {**SHEETS, **more}.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [str(folder / name) for name in {**SHEETS, **more}]


def test_raters_and_claims(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = handful.advise_raters(sheets(tmp_path), claim=["good > bad", "bad>good"])
    good, bad = found.models
    one, two = (1 + 0.5**0.5 + 0.5**0.5) / 3, (1 + 1 + 0.5**0.5) / 3
    assert good.mean["O"] == pytest.approx((one + two) / 2) and good.sd["O"] == pytest.approx((two - one) / 2)
    assert bad.mean["SC"] == pytest.approx(0.5 / 6) and [claim.holds for claim in found.claims] == [True, False]
    weighted = handful.advise_raters(sheets(tmp_path), overall="weighted").models[0].mean["O"]
    assert weighted == pytest.approx(0.7 * good.mean["SC"] + 0.3 * good.mean["PQ"])
    assert main(["advise", "raters", *sheets(tmp_path), "--claim", "bad>good"]) == 0
    out = capsys.readouterr().out
    assert "2 models rated by 2" in out and "bad better than good: does not hold" in out


CONTEXTS = ("snow", "sand", "grass", "water")


def world(path: Path, told: bool) -> str:
    """Texts of four classes in four contexts, which they tell or not."""
    rows = ["text,label,place"]
    for label in ("cat", "dog", "fox", "owl"):
        for place in CONTEXTS:
            extra = f" in the {place} {place} {place}" if told else ""
            rows += [f"a {label} number {k}{extra},{label},{place}" for k in range(12)]
    path.write_text("\n".join(rows), encoding="utf-8")
    return str(path)


def test_the_gap_of_a_context(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = {"heads": ["prototypes"], "ways": 3, "shots": 2, "queries": 5, "episodes": 60, "context": "place"}
    found = handful.advise_context(world(tmp_path / "w.csv", True), **small)
    none = handful.advise_context(world(tmp_path / "n.csv", False), **small)
    gap = found.gaps["prototypes"]
    assert gap.gap.low > 0.02 and gap.gap.value == pytest.approx(gap.control.value - gap.spurious.value)
    assert abs(none.gaps["prototypes"].gap.value) < gap.gap.value / 2
    assert found.share == 1 and found.shift is None and found.setting["contexts"] == 4
    args = [str(tmp_path / "w.csv"), "--context", "place", "--head", "prototypes,rfs", "--ways", "3"]
    args += ["--shots", "2", "--queries", "5", "--episodes", "20"]
    assert main(["advise", "context", *args]) == 0
    out = capsys.readouterr().out
    assert "192 items in 4 contexts" in out and "one context a class" in out and "rfs" in out


class Seer:
    """An image encoder with a text side: a picture is its place and, half as much, its class."""

    modality, outputs, aligned, logit_scale = "image", frozenset({"pooled", "aligned"}), "aligned", 100.0
    name = identity = fingerprint = "seer"
    words: ClassVar = ["cat", "dog", "fox", "old owl", *CONTEXTS]

    def class_text(self, sentences: list[str], *, cache: bool = True) -> np.ndarray:
        assert all(sentence.startswith("a photo of a ") for sentence in sentences)
        return np.eye(8, dtype=np.float32)[[self.words.index(s.removeprefix("a photo of a ")) for s in sentences]]


def test_images_are_like_the_words_of_their_context() -> None:
    labels = np.repeat(["cat", "dog", "fox", "old_owl"], 4)
    places = np.array(CONTEXTS * 4)
    eye = np.eye(8, dtype=np.float32)
    x = 0.5 * eye[np.repeat(range(4), 4)] + eye[[4 + CONTEXTS.index(place) for place in places]]
    encoded = Encoded(Features(np.zeros((16, 3), np.float32), {"aligned": x}), np.arange(16), ())
    shift = _shift(Seer(), encoded, labels, places)  # type: ignore[arg-type]
    assert shift is not None
    assert shift.concept.value == pytest.approx(0.5 / 1.25**0.5) and shift.context.value == pytest.approx(1 / 1.25**0.5)
    assert shift.ratio == pytest.approx(2)


def test_wrong_files_are_named(tmp_path: Path) -> None:
    answers(tmp_path / "v.csv", ABILITY, 5, 0)
    (tmp_path / "twice.csv").write_text("model,q\na,1\na,0\n", encoding="utf-8")
    (tmp_path / "two.csv").write_text("model,q\na,2\nb,0\n", encoding="utf-8")
    (tmp_path / "bare.csv").write_text("model\na\n", encoding="utf-8")
    for name, said in [
        ("twice", "row 3: model 'a' is there twice"), ("two", "from 0"), ("bare", "one column"), ("none", "no such"),
    ]:  # fmt: skip
        with pytest.raises(BadInput, match=said):
            handful.advise_models([tmp_path / f"{name}.csv"], rerun=1)
    with pytest.raises(BadInput, match="m=9"):
        handful.advise_models([tmp_path / "v.csv"], rerun=9)
    files = sheets(tmp_path, **{"odd.tsv": "image\tgood\tbad\na.png\tlist()\t[0, 0]\n"})
    for given, more, said in [
        (files[:1], {}, "two raters"), (files, {}, "odd.tsv line 2, good"), (files[:2], {"claim": ["good"]}, "'A>B'"),
        (files[:2], {"claim": ["good>fair"]}, "'fair' was not rated"), (files[:2], {"overall": "mean"}, "--overall is"),
    ]:  # fmt: skip
        with pytest.raises(BadInput, match=said):
            handful.advise_raters(given, **more)
    source = world(tmp_path / "w.csv", True)
    small = {"heads": ["prototypes"], "ways": 3, "shots": 2, "queries": 5, "episodes": 10}
    for name, said in [("places", "no column 'places'"), ("label", "the column of the label")]:
        with pytest.raises(BadInput, match=said):
            handful.advise_context(source, context=name, **small)
    with pytest.raises(BadInput, match="need two contexts with as many"):
        handful.advise_context(source, context="place", **{**small, "queries": 40})
    text = Path(source).read_text(encoding="utf-8")
    Path(source).write_text(text + "\na cat,cat,\n", encoding="utf-8")
    with pytest.raises(BadInput, match="labelled item 193 has no 'place'"):
        handful.advise_context(source, context="place", **small)


def test_json_names_its_schema(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers(tmp_path / "v.csv", ABILITY, 20, 0)
    commands = {
        "advise-models": ["models", str(tmp_path / "v.csv")],
        "advise-raters": ["raters", *sheets(tmp_path), "--claim", "good>bad"],
        "advise-context": [
            "context", world(tmp_path / "w.csv", True), "--context", "place", "--head", "prototypes", "--ways", "3",
            "--shots", "2", "--queries", "5", "--episodes", "10",
        ],
    }  # fmt: skip
    from jsonschema import Draft202012Validator
    from referencing import Registry, Resource

    folder = Path(handful.__file__).parent / "schemas"
    schemas = {f.stem: json.loads(f.read_text(encoding="utf-8")) for f in folder.iterdir()}
    registry = Registry().with_resources([(s["$id"], Resource.from_contents(s)) for s in schemas.values()])
    for name, args in commands.items():
        assert main(["advise", *args, "--json"]) == 0
        shown = json.loads(capsys.readouterr().out)
        assert shown["schema"] == f"handful/{name}/1"
        Draft202012Validator(schemas[name], registry=registry).validate(shown)
