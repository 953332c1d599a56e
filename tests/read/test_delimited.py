from __future__ import annotations

import codecs
import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handful.errors import BadInput
from handful.read import read, write_table
from handful.read.delimited import decode, rows, sniff
from handful.read.tables import frame_of

CELL = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=12)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("text\ncafé".encode(), "text\ncafé"),
        (codecs.BOM_UTF8 + "text\ncafé".encode(), "text\ncafé"),
        ("text\ncafé".encode("utf-16"), "text\ncafé"),
        (codecs.BOM_UTF16_BE + "text\ncafé".encode("utf-16-be"), "text\ncafé"),
        ("text\ncafé “x” €".encode("cp1252"), "text\ncafé “x” €"),
    ],
)
def test_encodings(data, text):
    assert decode(data, "a.csv") == text


def test_binary_is_refused(refused):
    with refused("a.csv", "UTF-8"):
        decode(b"PK\x03\x04\0\0\0\0", "a.csv")
    with refused("a.csv"):
        decode("text".encode("utf-16-le"), "a.csv")


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_separator_is_found(separator):
    text = (
        f"text{separator}label\nhello, you; there{separator}a\n"
        if separator not in ",;"
        else f"text{separator}label\nx{separator}a\n"
    )
    assert sniff(text) == separator
    header, cells, numbers = rows(text, "a.csv")
    assert header == ["text", "label"]
    assert cells[0][1] == "a"
    assert numbers == [2]


def test_one_column_may_hold_separators():
    header, cells, _ = rows("text\nhello, you\nfine; thanks\n\x1fodd, too\n", "a.csv")
    assert header == ["text"]
    assert [c[0] for c in cells] == ["hello, you", "fine; thanks", "\x1fodd, too"]


def test_row_numbers_count_blank_lines_and_quoted_line_breaks_once():
    _, cells, numbers = rows('text,label\n"two\nlines",a\n\nlast,b\n', "a.csv")
    assert cells == [["two\nlines", "a"], ["last", "b"]]
    assert numbers == [2, 4]


def test_stray_quotes_do_not_swallow_rows():
    text = 'text\tlabel\n"oh dear\ta\nsaid "no" twice\tb\nfine\ta\n'
    _, cells, _ = rows(text, "a.tsv", tab_first=True)
    assert cells == [['"oh dear', "a"], ['said "no" twice', "b"], ["fine", "a"]]


def test_ragged_rows_are_refused_with_their_number(refused):
    with refused("a.csv row 3", "3 cells", "header has 2"):
        rows("text,label\nx,a\ny,z,b\n", "a.csv")


def test_a_megabyte_in_a_cell(tmp_path):
    big = "word, " * 180_000
    frame = frame_of({"text": [big, "small"], "label": ["a", "b"]})
    write_table(frame, tmp_path / "big.csv")
    assert read(tmp_path / "big.csv").items == [big, "small"]
    assert csv.field_size_limit() == 131072  # what others see is left alone


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(CELL, CELL), min_size=1, max_size=6))
def test_csv_comes_back_verbatim(table):
    file = io.StringIO(newline="")
    writer = csv.writer(file, quoting=csv.QUOTE_ALL)
    writer.writerows([("text", "label"), *table])
    header, cells, _ = rows(file.getvalue(), "a.csv")
    assert header == ["text", "label"]
    assert [tuple(row) for row in cells] == table


@settings(max_examples=150, deadline=None)
@given(table=st.lists(st.tuples(CELL, CELL), min_size=1, max_size=6), suffix=st.sampled_from(["csv", "tsv", "jsonl"]))
def test_written_tables_come_back_verbatim(table, suffix, tmp_path_factory):
    from handful.read.formats import read_table

    path = tmp_path_factory.mktemp("round") / f"a.{suffix}"
    frame = frame_of({"text": [a for a, _ in table], "label": [b for _, b in table]})
    write_table(frame, path)
    assert read_table(path, path.name).frame.equals(frame)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_table_or_bad_input(data):
    try:
        header, cells, numbers = rows(decode(data, "a.csv"), "a.csv")
    except BadInput as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert len(cells) == len(numbers)
        assert all(len(row) == len(header) for row in cells)


def test_blank_file(refused):
    with refused("a.csv", "nothing but blanks"):
        rows(" \n\n", "a.csv")


def test_real_tables_keep_every_line(shared_data):
    for path in sorted(shared_data.glob("few-shot-text/*/train-16-13.tsv")):
        lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
        data = read(path, skip_bad=True)
        assert len(data) + len(data.provenance.skipped) == len(lines) - 1
        assert data.items[0] == lines[1].split("\t")[0]


def test_banking77(shared_data):
    data = read(shared_data / "banking77" / "train.csv")
    assert len(data) == 10_003
    assert len(data.classes) == 77
    assert data.where[0] == "train.csv row 2"
