"""`demo` works from nothing, twice, and touches nothing that is not its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

import handful.commands.demo as module
from handful.commands.demo import demo
from handful.errors import BadInput
from handful.ship.model import Model

FILES = {
    "tickets.csv",
    "intents.csv",
    "new_tickets.csv",
    "labelled_tickets.csv",
    "tickets.handful",
    "tickets.html",
    "digits.handful",
    "digits.html",
    "digits",
    module.MARK,
}


def test_five_digits_a_class_are_learnt_from_and_all_others_tested_on() -> None:
    names = [name for name, _ in module._digits()]
    learn = [name.split("/")[1] for name in names if name.startswith("learn/")]
    assert len(set(names)) == 1797
    assert sorted(learn) == sorted(list("0123456789") * module.SHOTS)


@pytest.fixture
def few_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    """All digits to learn from, and the first twenty to test on."""
    everything = list(module._digits())
    learn = [entry for entry in everything if entry[0].startswith("learn/")]
    test = [entry for entry in everything if entry[0].startswith("test/")]
    monkeypatch.setattr(module, "_digits", lambda: iter([*learn, *test[:20]]))


def test_from_nothing_and_again(tmp_path: Path, few_digits: None) -> None:
    folder = tmp_path / "demo"
    made = demo(folder)
    assert {p.name for p in folder.iterdir()} == FILES
    assert made.tickets.card["task"]["n"] == 392
    assert made.tickets.card["estimate"]["assessment"]["accuracy"]["value"] > 0.8
    assert made.digits.card["task"]["n"] == 50
    assert made.digits.card["test"]["assessment"]["n"] == 20
    assert len(pl.read_csv(folder / "labelled_tickets.csv")) == len(made.labelled) == 30
    assert Model.load(folder / "digits.handful").classes == tuple("0123456789")

    (folder / "mine.txt").write_text("precious")
    (folder / "new_tickets.csv").write_text("text\nwhere is my parcel\n", encoding="utf-8")
    before = (folder / "digits.handful").read_bytes()
    again = demo(folder)
    assert len(again.labelled) == 1  # an example that was changed is taken as it is
    assert (folder / "mine.txt").read_text() == "precious"
    assert (folder / "digits.handful").read_bytes() == before


@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_is_foreign_stays(tmp_path: Path, what: str) -> None:
    folder = tmp_path / "demo"
    if what == "file":
        folder.write_text("precious")
    else:
        folder.mkdir()
        (folder / "tickets.csv").write_text("precious")
    with pytest.raises(BadInput, match="not made by the demo"):
        demo(folder)
    kept = folder if what == "file" else folder / "tickets.csv"
    assert kept.read_text() == "precious"


def test_an_interrupted_demo_leaves_no_half_set_of_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def some():
        yield "learn/0/1.png", np.zeros((8, 8))
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_digits", some)
    with pytest.raises(KeyboardInterrupt):
        demo(tmp_path / "demo")
    assert {p.name for p in (tmp_path / "demo").iterdir()} == {*module.EXAMPLES, module.MARK}
