"""Tables of every format, their columns, and what is said when they cannot be used."""

from __future__ import annotations

import hashlib
import json

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handful.errors import BadInput
from handful.read import read, write_table
from handful.read.formats import read_table
from handful.read.tables import frame_of

SUFFIXES = ["csv", "tsv", "jsonl", "json", "parquet", "xlsx"]
TEXTS = ["my card, please", 'said "no"\ttwice', "two\nlines", "=1+1", " blank around ", "ünï ☃ 猫", "_x0041_", "a\rb"]


@pytest.fixture
def frame():
    return frame_of({"id": [f"{i:03d}" for i in range(8)], "text": TEXTS, "label": ["a", "b"] * 3 + ["", ""]})


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_comes_back_verbatim(frame, suffix, tmp_path):
    path = tmp_path / f"t.{suffix}"
    write_table(frame, path)
    data = read(path)
    assert data.items == TEXTS
    assert data.labels == ("a", "b") * 3 + (None, None)
    assert data.modality == "text"
    assert (data.label_column, data.item_columns) == ("label", ("text",))
    assert data.table is not None
    assert data.table.columns == ["id", "text", "label"]
    assert data.table["id"].to_list() == frame["id"].to_list()
    assert data.provenance.sources == (str(path),)
    assert data.provenance.sha256 == {path.name: hashlib.sha256(path.read_bytes()).hexdigest()}
    assert len(data.pool) == 2
    assert data.where[0].startswith(path.name)


@pytest.mark.parametrize("suffix", ["jsonl", "json", "parquet", "xlsx"])
def test_types_are_kept(suffix, tmp_path):
    frame = frame_of({"text": ["x", "y"], "n": [1, None], "share": [1, 2.5], "ok": [True, False], "big": [2**60, 1]})
    write_table(frame, tmp_path / f"t.{suffix}")
    back = read_table(tmp_path / f"t.{suffix}", "t").frame
    assert back["n"].to_list() == [1, None]
    assert back["share"].to_list() == [1.0, 2.5]
    assert back["ok"].to_list() == [True, False]
    assert [int(v) for v in back["big"]] == [2**60, 1]


def test_rows_of_json_are_numbered_by_line_and_nested_values_stay(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text('{"text": "x", "tags": ["p"], "m": {"a": 1}}\n\n{"text": "y", "m": {"b": 2}}\n', encoding="utf-8")
    data = read(path)
    assert data.where == ("t.jsonl line 1", "t.jsonl line 3")
    assert data.table is not None
    assert data.table["tags"].to_list() == [["p"], None]
    assert [json.loads(v) for v in data.table["m"]] == [{"a": 1}, {"b": 2}]


def test_json_of_other_shapes(tmp_path):
    path = tmp_path / "t.json"
    path.write_text('{"refund": ["money back"], "login": ["cannot sign in", "locked out"]}', encoding="utf-8")
    assert read(path).labels == ("refund", "login", "login")
    path.write_text('["one", "two"]', encoding="utf-8")
    assert read(path).items == ["one", "two"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"text": "x"}\n{"text": "y"', ["t.jsonl line 2", "not JSON"]),
        ('{"text": "x"}\n[1]\n', ["t.jsonl line 2", "an array"]),
        ('{"text": "x", "text": "y"}\n', ["t.jsonl line 1", "'text' is there twice"]),
        ("[" * 100_000, ["t.jsonl line 1"]),
        ('{"text": ' + "9" * 5000 + "}", ["t.jsonl line 1"]),
        ("\n\n", ["t.jsonl", "no rows"]),
    ],
)
def test_broken_json(text, said, tmp_path, refused):
    path = tmp_path / "t.jsonl"
    path.write_text(text, encoding="utf-8")
    with refused(*said):
        read(path)


def test_half_a_surrogate_pair_does_not_stop_the_reader(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text('{"text": "bad \\ud83d end"}\n', encoding="utf-8")
    assert read(path).items == ["bad ? end"]


def test_text_file_is_a_text_a_line(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text("one\n\nthree, too\n", encoding="utf-8")
    data = read(path)
    assert data.items == ["one", "", "three, too"]
    assert data.where[2] == "t.txt line 3"
    assert read(path, text="body", label="intent").items == data.items


@pytest.mark.parametrize("suffix", ["parquet", "xlsx", "json", "csv", "npz", "zip"])
def test_empty_damaged_and_missing_files_are_named(suffix, tmp_path, refused):
    path = tmp_path / f"t.{suffix}"
    with refused("no such file", f"t.{suffix}"):
        read(path)
    path.write_bytes(b"")
    with refused(f"t.{suffix}"):
        read(path)
    path.write_bytes(b"PAR1PK\x03\x04\0\0nonsense\0")
    with refused(f"t.{suffix}"):
        read(path)


@pytest.mark.parametrize("suffix", ["parquet", "xlsx"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_files_cut_short(suffix, share, frame, tmp_path, refused):
    write_table(frame, tmp_path / f"t.{suffix}")
    whole = (tmp_path / f"t.{suffix}").read_bytes()
    (tmp_path / f"cut.{suffix}").write_bytes(whole[: int(len(whole) * share)])
    with refused(f"cut.{suffix}"):
        read(tmp_path / f"cut.{suffix}")


def test_a_close_name_is_suggested(tmp_path, refused):
    (tmp_path / "tickets.csv").write_text("text\nx\n", encoding="utf-8")
    with refused("no such file", "did you mean 'tickets.csv'"):
        read(tmp_path / "ticket.csv")
    with refused("there is no folder"):
        read(tmp_path / "nowhere" / "ticket.csv")


def test_unknown_suffix(tmp_path, refused):
    (tmp_path / "t.docx").write_bytes(b"x")
    with refused("t.docx", ".docx", ".csv", "folders"):
        read(tmp_path / "t.docx")


def test_header_alone(tmp_path, refused):
    (tmp_path / "t.csv").write_text("text,label\n", encoding="utf-8")
    with refused("t.csv", "no rows"):
        read(tmp_path / "t.csv")


def _csv(tmp_path, text, name="t.csv"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("header", "item", "label"),
    [
        ("sentence,category", "sentence", "category"),
        ("id,Utterance,Intent", "Utterance", "Intent"),
        ("title,body,sentiment", "body", "sentiment"),
        ("text,label,label_text", "text", "label_text"),
        ("review text,target", "review text", "target"),
        ("words,class", "words", "class"),
        ("class,anything", "anything", "class"),
        ("whatever", "whatever", None),
    ],
)
def test_columns_are_guessed(header, item, label, tmp_path):
    width = header.count(",") + 1
    data = read(_csv(tmp_path, f"{header}\n{','.join('pqr'[:width])}\n{','.join('stu'[:width])}\n"))
    assert (data.item_columns, data.label_column) == ((item,), label)


def test_columns_that_cannot_be_guessed(tmp_path, refused):
    path = _csv(tmp_path, "a,b,c\n1,2,3\n")
    with refused("t.csv", "--text", "a, b, c"):
        read(path)
    with refused("t.csv", "'txt'", "--text", "a, b, c"):
        read(path, text="txt")
    with refused("t.csv", "'bb'", "--label", "did you mean 'b'"):
        read(path, text="a", label="bb")
    with refused("t.csv", "'b'"):
        read(path, text="b", label="b")
    assert read(path, text="a", label="c").labels == ("3",)
    with refused("t.csv", "--label", "a, b, c"):
        read(path, text="a", require_labels=True)
    with refused("both"):
        read(path, text="a", image="b")


def test_several_text_columns_are_joined(tmp_path):
    path = _csv(tmp_path, "title,body,label\nHello,I am lost,a\n,only body,b\n")
    assert read(path, text=["title", "body"]).items == ["Hello\nI am lost", "only body"]


def test_duplicate_columns(tmp_path, refused):
    with refused("t.csv", "columns 1 and 3", "'text'"):
        read(_csv(tmp_path, "text,label,text\na,b,c\n"))
    with refused("t.csv", "columns 3 and 4 have no name"):
        read(_csv(tmp_path, "text,label,,\na,b,,\n"))
    write_table(frame_of({"text": ["x"], "y": ["a"]}), tmp_path / "t.xlsx")
    import openpyxl

    book = openpyxl.load_workbook(tmp_path / "t.xlsx")
    book.active["B1"] = "text"
    book.save(tmp_path / "t.xlsx")
    with refused("t.xlsx", "columns 1 and 2", "'text'"):
        read(tmp_path / "t.xlsx")


def test_empty_text(tmp_path, refused):
    path = _csv(tmp_path, "text,label\nx,a\n ,b\n,\ny,b\n")
    with refused("t.csv row 3", "'text'", "empty", "--skip-bad"):
        read(path)
    left = read(path, skip_bad=True)
    assert left.items == ["x", "", "y"]  # the unlabelled row is not learnt from, so it stays
    assert len(left.provenance.skipped) == 1
    assert "t.csv row 3" in left.provenance.skipped[0]
    every = read(path, keep_rows=True)
    assert every.items == ["x", " ", "", "y"]
    assert every.usable.tolist() == [True, False, False, True]


def test_no_labels_at_all(tmp_path, refused):
    path = _csv(tmp_path, "text,label\nx,\ny, \n")
    assert read(path).labels == (None, None)
    with refused("t.csv", "'label' is empty"):
        read(path, require_labels=True)


def test_tables_below_each_other(tmp_path, refused):
    first = _csv(tmp_path, "id,text,intent\n1,x,a\n2,y,b\n", "a.csv")
    pool = _csv(tmp_path, "text,when\nz,now\n", "pool.csv")
    data = read(first, pool)
    assert data.items == ["x", "y", "z"]
    assert data.labels == ("a", "b", None)
    assert data.where == ("a.csv row 2", "a.csv row 3", "pool.csv row 2")
    assert data.table is not None
    assert data.table.columns == ["id", "text", "intent", "when"]
    assert data.table["when"].to_list() == [None, None, "now"]
    assert any("pool.csv" in note and "unlabelled" in note for note in data.provenance.notes)
    assert set(data.provenance.sha256) == {"a.csv", "pool.csv"}
    assert read(first, pool, label="intent").labels == data.labels
    with refused("c.csv", "'category'", "'intent'"):
        read(first, _csv(tmp_path, "text,category\nz,a\n", "c.csv"))
    with refused("d.csv", "'text'", "message"):
        read(first, _csv(tmp_path, "message,intent\nz,a\n", "d.csv"))


def test_columns_of_different_types_are_stacked_as_text(tmp_path):
    write_table(frame_of({"text": ["x"], "label": [1]}), tmp_path / "a.jsonl")
    write_table(frame_of({"text": ["y"], "label": ["1"]}), tmp_path / "b.jsonl")
    assert read(tmp_path / "a.jsonl", tmp_path / "b.jsonl").labels == ("1", "1")


def test_files_of_one_name_are_told_apart(tmp_path):
    (tmp_path / "p").mkdir()
    a, b = _csv(tmp_path, "text\nx\n"), _csv(tmp_path / "p", "text\ny\n")
    data = read(a, b)
    assert len(set(data.where)) == 2
    assert len(data.provenance.sha256) == 2


def test_workbook_details(tmp_path, refused):
    import openpyxl

    book = openpyxl.Workbook()
    sheet = book.active
    for row in ([None, None], ["text", "label"], ["x", 1], [None, None], ["y", 2.0]):
        sheet.append(row)
    book.create_sheet("more").append(["text"])
    book.save(tmp_path / "t.xlsx")
    data = read(tmp_path / "t.xlsx")
    assert data.labels == ("1", "2")
    assert data.where == ("t.xlsx row 3", "t.xlsx row 5")
    assert "more" in data.provenance.notes[0]
    sheet["D5"] = "stray"
    book.save(tmp_path / "t.xlsx")
    with refused("t.xlsx row 5", "column 4"):
        read(tmp_path / "t.xlsx")


def test_huge_workbook_is_refused_before_it_is_unpacked(tmp_path, refused, monkeypatch):
    from handful.read import sheets

    write_table(frame_of({"text": ["x" * 10_000]}), tmp_path / "t.xlsx")
    monkeypatch.setattr(sheets, "MAX_UNPACKED", 5_000)
    with refused("t.xlsx", "unpacks to"):
        read(tmp_path / "t.xlsx")


def test_parquet_of_categories_and_numbers(tmp_path):
    frame = pl.DataFrame({"text": ["x", "y", "z"], "label": pl.Series(["a", "b", None], dtype=pl.Categorical)})
    frame.write_parquet(tmp_path / "t.parquet")
    assert read(tmp_path / "t.parquet").labels == ("a", "b", None)


def test_no_source(refused):
    with refused("no source"):
        read()


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
    """The bytes of one small table in each format: written once, since a workbook holds the time it was written."""
    folder, written = tmp_path_factory.mktemp("intact"), {}
    for suffix in ("parquet", "xlsx", "json", "tsv"):
        write_table(frame_of({"text": TEXTS, "label": ["a", "b"] * 4}), folder / f"t.{suffix}")
        written[suffix] = (folder / f"t.{suffix}").read_bytes()
    return written


@settings(max_examples=60, deadline=None)
@given(data=st.data(), suffix=st.sampled_from(["parquet", "xlsx", "json", "tsv"]))
def test_damaged_tables_are_read_or_bad_input(data, suffix, intact, tmp_path_factory):
    path = tmp_path_factory.mktemp("damaged") / f"t.{suffix}"
    blob = bytearray(intact[suffix])
    for _ in range(data.draw(st.integers(1, 4))):
        blob[data.draw(st.integers(0, len(blob) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(blob)
    try:
        assert len(read(path, text="text", keep_rows=True)) > 0
    except BadInput as error:
        assert len(str(error).splitlines()) == 1
