from __future__ import annotations

import datetime
import json

import openpyxl
import polars as pl
import pytest

from handful.errors import HandfulError
from handful.read import read, write_table
from handful.read.tables import frame_of
from handful.read.writing import defused


def test_unknown_suffix(tmp_path, refused):
    with refused("out.html", ".csv, .tsv, .jsonl, .json, .parquet, .xlsx"):
        write_table(frame_of({"text": ["x"]}), tmp_path / "out.html")
    with refused("without suffix"):
        write_table(frame_of({"text": ["x"]}), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_failure_leaves_the_old_file_alone(tmp_path, monkeypatch):
    path = tmp_path / "t.csv"
    path.write_bytes(b"old")
    from handful.read import writing

    def full(frame, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(writing.WRITERS, ".csv", full)
    with pytest.raises(HandfulError, match="No space left"):
        write_table(frame_of({"text": ["x"]}), path)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["t.csv"]


def test_workbooks_hold_no_formulas(tmp_path):
    write_table(frame_of({"=a": ["=1+1", "+x", "@y"], "n": [1, 2, 3]}), tmp_path / "t.xlsx")
    sheet = openpyxl.load_workbook(tmp_path / "t.xlsx").active
    assert [[cell.data_type for cell in row] for row in sheet.iter_rows()] == [["s", "s"]] + [["s", "n"]] * 3
    assert sheet["A2"].value == "=1+1"


def test_workbooks_refuse_what_they_cannot_hold(tmp_path, refused, monkeypatch):
    with refused("row 2 column 'text'", "32,767", ".parquet"):
        write_table(frame_of({"text": ["x" * 40_000]}), tmp_path / "t.xlsx")
    from handful.read import writing

    monkeypatch.setattr(writing, "XLSX_ROWS", 3)
    with refused("rows"):
        write_table(frame_of({"text": ["x"] * 3}), tmp_path / "t.xlsx")
    assert list(tmp_path.iterdir()) == []


def test_values_of_every_type_can_be_written(tmp_path):
    now = datetime.datetime(2024, 5, 17, 12, 30)
    frame = pl.DataFrame(
        {
            "text": ["x", None],
            "when": [now, None],
            "zoned": [now.replace(tzinfo=datetime.UTC), None],
            "day": [now.date(), None],
            "list": [[1, 2], None],
            "struct": [{"a": "b"}, None],
            "bytes": [b"\0\1", None],
            "nan": [float("nan"), 0.1],
            "cat": pl.Series(["p", None], dtype=pl.Categorical),
            "big": [2**60 + 1, -(2**60)],
        }
    )
    for suffix in ("csv", "tsv", "jsonl", "json", "parquet", "xlsx"):
        path = tmp_path / f"t.{suffix}"
        write_table(frame, path)
        back = read(path, text="text", keep_rows=True).table
        assert back is not None
        assert back.columns == frame.columns
        assert back["text"].to_list() in (["x", ""], ["x", None])
        assert str(back["big"][0]) == str(2**60 + 1)
        assert str(back["when"][0]).replace(" ", "T").startswith("2024-05-17T12:30:00")
        assert (back["list"][0] if suffix == "csv" else "[1, 2]") == "[1, 2]"
    for line in (tmp_path / "t.jsonl").read_text(encoding="utf-8").splitlines():
        json.loads(line, parse_constant=pytest.fail)


def test_csv_is_plain(tmp_path):
    write_table(frame_of({"text": ["a", "b, c"], "label": ["x", None]}), tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_bytes() == b'text,label\na,x\n"b, c",\n'


@pytest.mark.parametrize(
    "text",
    [
        "=1+1",
        "+cmd|' /C calc'!A0",
        "-2+3",
        "@SUM(A1)",
        "  =1",
        "\t=1",
        "\tx",
        "\rx",
        "＝1+1",
        "＠x",
        "\ufeff=1",
        "- a list",
    ],
)
def test_excel_safe_prefixes_what_may_be_computed(text):
    frame = defused(frame_of({text: [text, None]}))
    assert frame.columns == [f"'{text}"]
    assert frame.to_series().to_list() == [f"'{text}", None]


@pytest.mark.parametrize("text", ["", "a=b", "'=1", "-1.5", "+3", "-1,234.50", "1e-5", "-12 %", "x\n=1", "ü", "−5"])
def test_excel_safe_leaves_the_rest_alone(text):
    assert defused(frame_of({"text": [text]}))["text"].to_list() == [text]


def test_excel_safe_keeps_numbers_numbers_and_names_apart():
    frame = pl.DataFrame({"=a": [-1, 2], "'=a": [-0.5, None], "c": pl.Series(["=x", "y"], dtype=pl.Categorical)})
    safe = defused(frame)
    assert safe.columns == ["''=a", "'=a", "c"]
    assert safe["''=a"].to_list() == [-1, 2]
    assert safe["c"].to_list() == ["'=x", "y"]


def test_excel_safe_is_for_sheets(tmp_path, refused):
    frame = frame_of({"text": ["=1+1"]})
    for suffix in ("csv", "tsv", "xlsx"):
        path = tmp_path / f"t.{suffix}"
        write_table(frame, path, excel_safe=True)
        assert read(path, text="text", keep_rows=True).table["text"].to_list() == ["'=1+1"]
    for suffix in ("jsonl", "json", "parquet"):
        with refused("--excel-safe", ".xlsx"):
            write_table(frame, tmp_path / f"t.{suffix}", excel_safe=True)
