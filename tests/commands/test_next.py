"""`next`: rows to label, and the way back as one more source of `fit`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from handful.commands.fit import fit
from handful.commands.next import next_
from handful.errors import BadInput
from handful.ship.model import Model

POOL = ["give me my money back", "cannot sign in", "my parcel is still not here", "hello there", "wrong password again"]


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """Six messages, one of which has a label."""
    path = tmp_path / "pool.csv"
    rows = [(str(i), text, "") for i, text in enumerate(POOL)] + [("9", "refund please", "refund")]
    pl.DataFrame(rows, schema=["id", "message", "queue"], orient="row").write_csv(path)
    return path


def test_the_filled_file_is_one_more_source(model: Model, learnt_from: Path, pool: Path, tmp_path: Path) -> None:
    out = tmp_path / "label_me.csv"
    found = next_(model, pool, n=3, out=out)
    written = pl.read_csv(out)
    assert written.columns == ["id", "message", "queue", "handful_suggested", "handful_confidence"]
    assert written["queue"].null_count() == 3
    assert found.label_column == "queue" and found.pool == 5
    assert set(written["message"]) <= set(POOL)
    assert set(written["handful_suggested"]) <= set(model.classes)

    nothing_new = fit([learnt_from, out], text="message", label="queue", head="prototypes")
    assert nothing_new.card["task"]["n"] == 9
    written.with_columns(queue=pl.col("handful_suggested")).write_csv(out)
    again = fit([learnt_from, out], text="message", label="queue", head="prototypes")
    assert again.card["task"]["n"] == 12


def test_columns_of_ours_are_not_taken_for_texts(tmp_path: Path, learnt_from: Path) -> None:
    """A table whose only column of texts has an unusual name is still read once columns were added."""
    odd = pl.read_csv(learnt_from).rename({"message": "what_they_wrote", "queue": "label"})
    odd.write_csv(tmp_path / "odd.csv")
    model = fit(tmp_path / "odd.csv", head="prototypes")
    pl.DataFrame({"what_they_wrote": POOL}).write_csv(tmp_path / "new.csv")
    next_(model, tmp_path / "new.csv", n=2, out=tmp_path / "l.csv")
    filled = pl.read_csv(tmp_path / "l.csv").with_columns(label=pl.lit("refund"))
    filled.write_csv(tmp_path / "l.csv")
    assert fit([tmp_path / "odd.csv", tmp_path / "l.csv"], head="prototypes").card["task"]["n"] == 11


def test_pictures_are_named_as_seen_from_the_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for folder, names in (("known/dark", "abc"), ("known/light", "abc"), ("new", "defg")):
        (tmp_path / folder).mkdir(parents=True)
        for name in names:
            pixels = rng.integers(0, 100, (32, 32, 3)) + (150 if "light" in folder else 0)
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / folder / f"{name}.png")
    model = fit(tmp_path / "known", head="prototypes")
    (tmp_path / "todo").mkdir()
    out = tmp_path / "todo" / "label_me.csv"
    found = next_(model, tmp_path / "new", n=2, out=out)
    assert all(name.startswith("../new/") for name in found.table["file"])
    pl.read_csv(out).with_columns(label=pl.lit("dark")).write_csv(out)
    assert fit([tmp_path / "known", out], head="prototypes").card["task"]["n"] == 8


def test_all_there_is_when_more_is_asked_for_and_the_same_twice(model: Model, pool: Path) -> None:
    found = next_(model, pool, n=100)
    assert sorted(found.table["message"]) == sorted(POOL)
    assert found.table.equals(next_(model, pool, n=100).table)


def test_a_replay_on_labelled_items(model: Model, tmp_path: Path) -> None:
    words = {"refund": "money back", "login": "password", "delivery": "parcel"}
    verbs = ["my", "the", "no", "a"] * 3
    rows = [(f"{verb} {word} {i}", label) for label, word in words.items() for i, verb in enumerate(verbs)]
    pl.DataFrame(rows, schema=["message", "queue"], orient="row").write_csv(tmp_path / "old.csv")
    pl.DataFrame({"message": POOL}).write_csv(tmp_path / "new.csv")
    found = next_(model, tmp_path / "new.csv", n=3, replay=tmp_path / "old.csv")
    assert found.replay is not None
    assert found.replay.n == 3 and found.replay.draws == 20
    assert found.replay.gain.low <= found.replay.gain.value <= found.replay.gain.high
    assert found.as_dict()["replay"]["n"] == 3


def test_what_is_refused(model: Model, pool: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="at least 1"):
        next_(model, pool, n=0)
    pl.DataFrame({"message": ["refund"], "queue": ["refund"]}).write_csv(tmp_path / "done.csv")
    with pytest.raises(BadInput, match="nothing to choose from"):
        next_(model, tmp_path / "done.csv")
    with pytest.raises(BadInput, match="exists"):
        next_(model, pool, out=pool)
