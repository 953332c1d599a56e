"""Groups by a column, by the names of files, and of items in memory."""

from __future__ import annotations

import zipfile

import numpy as np
import polars as pl
import pytest

from handful.read import from_arrays, read

TICKETS = "text,label,customer\nwhere is it,late,ann\nnot here,late, ann \nlog in,login,\nno login,login,bob\n"


@pytest.fixture
def tickets(tmp_path):
    path = tmp_path / "tickets.csv"
    path.write_text(TICKETS, encoding="utf-8")
    return path


@pytest.fixture
def scans(tmp_path, picture):
    """Scans of two patients in two classes, and one without a patient, as a folder and as an archive."""
    names = ["ill/p1_a.png", "ill/p1_b.png", "ill/p2_a.png", "well/p2_b.png", "well/spare.png"]
    for name in names:
        (tmp_path / "scans" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "scans" / name).write_bytes(picture())
    with zipfile.ZipFile(tmp_path / "scans.zip", "w") as archive:
        for name in names:
            archive.writestr(name, picture())
    return tmp_path / "scans"


def test_a_column_groups_rows(tickets):
    data = read(tickets, group="customer")
    assert data.groups == ("ann", "ann", "tickets.csv row 4 alone", "bob")
    assert data.provenance.notes == ("2 groups by column 'customer'; 1 item names none and stands alone",)
    assert read(tickets).groups is None


def test_the_column_of_groups_is_never_guessed(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("message,topic,ticket\nx,a,1\ny,a,1\nz,b,2\n", encoding="utf-8")
    data = read(path, group="ticket")
    assert data.item_columns == ("message",)
    path.write_text("text,category,intent\nx,a,1\ny,a,1\nz,b,2\n", encoding="utf-8")
    assert read(path).label_column == "intent"
    assert read(path, group="intent").label_column == "category"
    path.write_text("words,who,label\nx,1,a\ny,1,a\nz,2,b\n", encoding="utf-8")
    assert read(path, group="who").items == ["x", "y", "z"]


def test_a_column_cannot_be_two_things(tickets, refused):
    with refused("tickets.csv", "'label' (--group)", "the label already"):
        read(tickets, label="label", group="label")
    with refused("tickets.csv", "'text' (--group)", "what is to be labelled"):
        read(tickets, text="text", group="text")
    with refused("no column 'custmer' (--group)", "did you mean", "customer"):
        read(tickets, group="custmer")


def test_a_column_that_names_no_group(tmp_path, refused):
    path = tmp_path / "t.csv"
    path.write_text("text,label,who\nx,a,\ny,b, \n", encoding="utf-8")
    with refused("'who' (--group)", "empty in every row"):
        read(path, group="who")


def test_a_group_is_one_name(refused):
    frame = pl.DataFrame({"text": ["x", "y"], "label": ["a", "b"], "who": [[1], [1, 2]]})
    with refused("frame row 0", "the group", "list"):
        read(frame, group="who")


def test_numbers_are_names(tmp_path):
    frame = pl.DataFrame({"text": ["x", "y", "z"], "label": ["a", "a", "b"], "who": [7.0, None, 7.0]})
    assert read(frame, group="who").groups == ("7", "frame row 1 alone", "7")


def test_one_name_in_two_tables_is_one_group(tickets, tmp_path):
    more = tmp_path / "more.csv"
    more.write_text("text,label,customer\nstill not here,late,ann\nfine,login,\n", encoding="utf-8")
    plain = tmp_path / "plain.csv"
    plain.write_text("text,label\nhello,login\n", encoding="utf-8")
    data = read(tickets, more, plain, group="customer")
    assert data.groups is not None
    assert data.groups.count("ann") == 3
    assert len(set(data.groups)) == 5


@pytest.mark.parametrize("suffix", ["", ".zip"])
def test_names_of_files_group_them(suffix, scans):
    source = scans.with_suffix(suffix)
    data = read(source, group_regex=r"(p\d+)_")
    assert data.groups == ("p1", "p1", "p2", "p2", f"{source.name}: well/spare.png alone")
    note = r"2 groups by --group-regex '(p\\d+)_'; 1 item names none and stands alone"
    assert data.provenance.notes == (note,)
    assert read(source, group_regex=r"p\d+_").groups[:3] == ("p1_", "p1_", "p2_")
    assert read(source, group_regex=r"^(?:ill|well)/p").groups[:4] == ("ill/p", "ill/p", "ill/p", "well/p")


def test_a_part_of_the_name_that_is_not_there_stands_alone(scans):
    assert read(scans, group_regex=r"/(?:p(\d))?").groups[3:] == ("2", "scans: well/spare.png alone")


def test_texts_in_folders_are_files_too(tmp_path):
    for name in ("spam/ann-1.txt", "spam/ann-2.txt", "ham/bob-1.txt"):
        (tmp_path / "mail" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mail" / name).write_text("hello", encoding="utf-8")
    assert read(tmp_path / "mail", group_regex="([a-z]+)-").groups == ("bob", "ann", "ann")


def test_images_that_a_table_names_are_files_too(tmp_path, picture):
    (tmp_path / "p1_a.png").write_bytes(picture())
    (tmp_path / "p1_b.png").write_bytes(picture())
    (tmp_path / "t.csv").write_text("file,label,who\np1_a.png,x,ann\np1_b.png,y,bob\n", encoding="utf-8")
    assert read(tmp_path / "t.csv", group_regex=r"p\d").groups == ("p1", "p1")


def test_a_column_counts_before_file_names(tmp_path, picture, scans):
    (tmp_path / "p1_a.png").write_bytes(picture())
    (tmp_path / "t.csv").write_text("file,label,who\np1_a.png,x,ann\n", encoding="utf-8")
    data = read(tmp_path / "t.csv", scans, group="who", group_regex=r"p\d")
    assert data.groups is not None
    assert data.groups[:5] == ("ann", "p1", "p1", "p2", "p2")


@pytest.mark.parametrize(
    ("regex", "why"),
    [
        ("(p", "not a regular expression"),
        ("(p)(1)", "2 pairs of parentheses"),
        ("patient", "finds no group in any of 5 file names, such as 'ill/p1_a.png'"),
        ("x*", "finds no group"),
        ("(?P<a>p)(?P<b>1)", "2 pairs"),
        ("a{99999999999}", "not a regular expression"),
        ("\n(", "not a regular expression"),
    ],
)
def test_regular_expressions_that_are_of_no_use(regex, why, scans, refused):
    with refused("--group-regex", why):
        read(scans, group_regex=regex)


def test_what_cannot_be_grouped_so(tickets, scans, tmp_path, refused):
    with refused("--group-regex", "names of files", "--group"):
        read(tickets, group_regex="x")
    with refused("--group 'label'", "no table", "--group-regex"):
        read(scans, group="label")
    np.savez(tmp_path / "f.npz", X=np.eye(2))
    with refused("--group 'groups'", "array 'groups'"):
        read(tmp_path / "f.npz", group="groups")
    with refused("--group 'x'", "from_arrays"):
        read({"a": ["x"], "b": ["y"]}, group="x")


def test_groups_of_items_in_memory():
    groups = ["g", None, " g", float("nan"), "", 3]
    assert from_arrays(list("abcdef"), groups=groups).groups == (
        "g", "item 1 alone", "g", "item 3 alone", "item 4 alone", "3",
    )  # fmt: skip


def test_an_item_alone_shares_no_name():
    groups = from_arrays(["a", "b", "c"], groups=["item 1 alone", "", ""]).groups
    assert groups is not None
    assert len(set(groups)) == 3


def test_groups_of_features(tmp_path):
    np.savez(tmp_path / "f.npz", X=np.eye(3), y=np.array(["a", "b", "b"]), groups=np.array(["g", "", "g"]))
    assert read(tmp_path / "f.npz").groups == ("g", "f.npz row 1 alone", "g")


def test_sources_without_groups_stand_alone(tickets, tmp_path):
    data = read(read(tickets, group="customer"), from_arrays(["x", "y"], ["late", "login"]))
    assert data.groups is not None
    assert data.groups[:2] == ("ann", "ann")
    assert len(set(data.groups)) == 5


def test_groups_follow_their_items(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("text,label,who\n,a,ann\nx,a,bob\ny,b,ann\n", encoding="utf-8")
    data = read(path, group="who", skip_bad=True)
    assert (data.items, data.groups) == (["x", "y"], ("bob", "ann"))
