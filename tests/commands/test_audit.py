"""`audit` on files: columns, copies of what was learnt from, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

import handful
from handful.errors import BadInput
from handful.ship.model import Model

ROWS = [
    ("give me my money back", "refund", "north"),
    ("Give me my money back!", "refund", "south"),
    ("cannot sign in", "login", "south"),
    ("my parcel is late", "delivery", "north"),
    ("where is my package", "delivery", ""),
    ("nothing to see", "", "north"),
]


@pytest.fixture
def checked(tmp_path: Path) -> Path:
    path = tmp_path / "checked.csv"
    pl.DataFrame(ROWS, schema=["message", "queue", "site"], orient="row").write_csv(path)
    return path


def test_columns_copies_and_repeats(model: Model, learnt_from: Path, checked: Path) -> None:
    found = handful.audit(model, checked, by="site", against=learnt_from)
    assert (found.n, found.units) == (5, 4)  # the unlabelled row is left aside, the repeated text counts once
    assert found.overlap is not None
    assert (found.overlap.copies, found.overlap.repeats, found.overlap.same_file) == (1, 1, False)
    assert found.quoted is not None and found.assessment.accuracy.value == 1
    assert found.leanings[0].column == "site" and found.gaps[0].small == ("(empty)", "north", "south")
    json.dumps(found.as_dict(), allow_nan=False)
    values = {"site": [row[2] or "(empty)" for row in ROWS]}
    assert handful.audit(model, checked, by=values, against=learnt_from).as_dict()["gaps"] == found.as_dict()["gaps"]


def test_the_very_file(model: Model, learnt_from: Path) -> None:
    found = handful.audit(model, learnt_from)
    assert [f.verdict for f in found.findings if f.check == "overlap"] == ["problem"]


@pytest.mark.parametrize(
    ("by", "complaint"),
    [
        ("sit", "no column 'sit'; did you mean 'site'"),
        ("queue", "column of the label"),
        ({"site": ["a"]}, "1 values of 'site' for 6 items"),
    ],
)
def test_bad_columns(model: Model, checked: Path, by: object, complaint: str) -> None:
    with pytest.raises(BadInput, match=complaint):
        handful.audit(model, checked, by=by)


def test_bad_sources(model: Model, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="not a table"):
        handful.audit(model, (["cannot sign in"], ["login"]), by="site")
    with pytest.raises(BadInput, match="'spam' is none of the model's classes"):
        handful.audit(model, (["cannot sign in"], ["spam"]))
    path = tmp_path / "t.csv"
    path.write_text("message\nhello\n", encoding="utf-8")
    with pytest.raises(BadInput, match="--label"):
        handful.audit(model, path)
