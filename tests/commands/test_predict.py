"""`predict` keeps every row and column, in order, and says what it did to each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from handful.commands.fit import fit
from handful.commands.predict import predict, predict_lines
from handful.errors import BadInput
from handful.read import read
from handful.ship.model import Model

ADDED = ["handful_label", "handful_confidence", "handful_accepted"]


def test_rows_columns_and_order_stay(model: Model, inbox: Path) -> None:
    source = pl.read_csv(inbox, infer_schema=False)
    done = predict(model, inbox)
    assert done.columns == [*source.columns, *ADDED, "handful_given"]
    assert done["id"].to_list() == ["7", "3", "5", "1"]
    assert done["message"].to_list() == source["message"].to_list()
    assert done["handful_label"].to_list() == ["refund", None, "vip", "login"]
    assert done["handful_accepted"].to_list() == [True, False, True, True]
    assert done["handful_given"].to_list() == [False, False, True, False]
    assert done["handful_confidence"].is_null().to_list() == [False, True, True, False]


def test_confidence_is_the_probability_of_the_label(model: Model) -> None:
    texts = ["give me my money back", "cannot sign in"]
    done = predict(model, texts)
    assert done["text"].to_list() == texts
    assert done["handful_confidence"].to_list() == pytest.approx(model.predict_proba(texts).max(axis=1), abs=1e-6)
    assert done["handful_label"].to_list() == model.predict(texts)


def test_below_the_threshold_the_label_is_empty(model: Model) -> None:
    texts = ["give me my money back", "the", "cannot sign in"]
    sure = model.predict_proba(texts).max(axis=1)
    threshold = float(np.sort(sure)[1])
    done = predict(model, texts, min_confidence=threshold)
    accepted = (sure >= threshold).tolist()
    assert done["handful_accepted"].to_list() == accepted
    assert done["handful_label"].is_null().to_list() == [not a for a in accepted]
    assert not done["handful_confidence"].is_null().any()


def test_top_names_the_next_best_in_order(model: Model) -> None:
    done = predict(model, ["give me my money back"], top=3)
    assert done.columns[-4:] == ["handful_top2", "handful_top2_confidence", "handful_top3", "handful_top3_confidence"]
    row = done.row(0, named=True)
    assert {row["handful_label"], row["handful_top2"], row["handful_top3"]} == set(model.classes)
    sure = [row["handful_confidence"], row["handful_top2_confidence"], row["handful_top3_confidence"]]
    assert sure == sorted(sure, reverse=True)
    assert sum(sure) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet", ".xlsx"])
def test_every_format_comes_back(model: Model, inbox: Path, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"done{suffix}"
    done = predict(model, inbox, out=out, top=2)
    again = read(out, text="message", keep_rows=True).table
    assert again is not None
    assert again.columns == done.columns
    assert len(again) == len(done)
    assert [str(v or "") for v in again["handful_label"]] == [v or "" for v in done["handful_label"]]
    assert [float(v) for v in again["handful_confidence"] if v not in (None, "")] == pytest.approx(
        done["handful_confidence"].drop_nulls().to_list()
    )
    with pytest.raises(BadInput, match="--force"):
        predict(model, inbox, out=out)
    predict(model, inbox, out=out, force=True)


def test_columns_of_the_fit_are_used(model: Model, tmp_path: Path) -> None:
    path = tmp_path / "new.csv"
    path.write_text("text,message,label\nignore me,cannot sign in,also ignored\n", encoding="utf-8")
    row = predict(model, path).row(0, named=True)
    assert row["handful_label"] == "login"


def test_a_guessed_label_counts_only_when_the_model_knows_it(model: Model, tmp_path: Path) -> None:
    path = tmp_path / "new.csv"
    path.write_text("message,category\ncannot sign in,urgent\ncannot sign in,refund\n", encoding="utf-8")
    assert predict(model, path)["handful_label"].to_list() == ["login", "refund"]
    asked = predict(model, path, label="category")
    assert asked["handful_label"].to_list() == ["urgent", "refund"]


def test_columns_of_an_earlier_prediction(model: Model, inbox: Path, tmp_path: Path) -> None:
    first = tmp_path / "first.csv"
    predict(model, inbox, out=first, top=2)
    with pytest.raises(BadInput, match="'handful_label'"):
        predict(model, first)
    again = predict(model, first, force=True)
    assert again.columns == predict(model, inbox).columns


def test_frames_and_empty_batches(model: Model) -> None:
    frame = pl.DataFrame({"message": ["cannot sign in", ""], "n": [1, 2]})
    done = predict(model, frame)
    assert done["n"].to_list() == [1, 2]
    assert done["handful_label"].to_list() == ["login", None]
    blank = predict(model, pl.DataFrame({"message": ["", " "]}))
    assert blank["handful_accepted"].to_list() == [False, False]
    assert blank["handful_confidence"].dtype == pl.Float64


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Path]:
    """An image model, and a folder of new images of which one is broken."""
    folder = tmp_path_factory.mktemp("colours")
    for split, n in (("learn", 2), ("new", 1)):
        for label in ("red", "blue"):
            place = folder / split / label if split == "learn" else folder / split
            place.mkdir(parents=True, exist_ok=True)
            for i in range(n):
                Image.new("RGB", (40 + i, 40), label).save(place / f"{label}{i}.png")
    (folder / "new" / "broken.png").write_bytes(b"no image")
    return fit(folder / "learn", head="prototypes"), folder / "new"


def test_images_of_a_folder(colours: tuple[Model, Path]) -> None:
    model, folder = colours
    with pytest.raises(BadInput, match=r"broken\.png"):
        predict(model, folder)
    done = predict(model, folder, skip_bad=True)
    assert done["file"].to_list() == ["blue0.png", "broken.png", "red0.png"]
    assert done["handful_label"].to_list() == ["blue", None, "red"]
    assert done["handful_accepted"].to_list() == [True, False, True]


def test_lines_that_name_images(colours: tuple[Model, Path]) -> None:
    model, folder = colours
    [[record]] = predict_lines(model, [[str(folder / "red0.png")]])
    assert record["file"].endswith("red0.png")
    assert record["handful_label"] == "red"
    with pytest.raises(BadInput, match="line 2"):
        list(predict_lines(model, [[str(folder / "red0.png")], [str(folder / "broken.png")]]))


def test_features(tmp_path: Path) -> None:
    x = np.eye(4).repeat(2, axis=0)
    features = fit(x[:, :3], ["a", "a", "b", "b", "c", "c", "c", "c"], head="prototypes")
    assert predict(features, x[:2, :3])["handful_label"].to_list() == ["a", "a"]
    with pytest.raises(BadInput, match="3 features"):
        predict(features, x)
    bad = x[:3, :3].copy()
    bad[1, 0] = np.nan
    np.savez(tmp_path / "f.npz", X=bad)
    with pytest.raises(BadInput, match="not all numbers"):
        predict(features, tmp_path / "f.npz")
    done = predict(features, tmp_path / "f.npz", skip_bad=True)
    assert done["handful_label"].to_list() == ["a", None, "b"]
    with pytest.raises(BadInput, match="features"):
        next(predict_lines(features, [["x"]]))


def test_lines_answer_batch_by_batch(model: Model) -> None:
    pulled = []

    def batches():
        for batch in (["cannot sign in"], ["", "give me my money back"]):
            pulled.append(batch)
            yield batch

    answers = predict_lines(model, batches(), top=2)
    first = next(answers)
    assert len(pulled) == 1  # nothing is read ahead
    assert [record["handful_label"] for record in first] == ["login"]
    assert [record["handful_label"] for record in next(answers)] == [None, "refund"]
    assert list(first[0])[:2] == ["text", "handful_label"]
