"""Text, labels, columns and file names that would like to do something, through every command into every output."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import openpyxl
import polars as pl
import pytest
from PIL import Image
from report_cards import Page

from handful.cli import main
from handful.ship.shown import HIDDEN, visible

HOSTILE = (
    "[/refund]",
    "[bold red]x[/bold red] :smile:",
    "\x1b[31mred\x1b[0m\x1b]0;title\x07",
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)> &amp;",
    '=HYPERLINK("http://example.org","here")',
    "@SUM(1+1)*cmd|' /C calc'!A0",
    "+1+1",
    "-2+3",
    "\u202egpj.exe",
    "hidden\u200b\u2066\ufeff",
)
TEXT, LABEL = "=text[/x]\x1b[1m", "\u202elabel</script>"
NAME = "[x]=HYPERLINK(1)\u202e\x1b[31m<b>.csv"
HEAD = ("--head", "prototypes")
Run = Callable[..., object]

# Windows has no such file names.
pytestmark = pytest.mark.skipif(os.name == "nt", reason="file names hold no control characters there")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of three rows a class; every name in it is hostile."""
    path = tmp_path_factory.mktemp("hostile") / NAME
    rows = [
        [f"{text} number {i} about {n}", label] for n, label in enumerate(HOSTILE) for i, text in enumerate(HOSTILE)
    ]
    rows = [row for i, row in enumerate(rows) if i % 4 == 0 or i % 11 < 3]
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([[TEXT, LABEL], *rows])
    return path


@pytest.fixture(scope="module")
def fitted(source: Path) -> tuple[Path, Path]:
    """A model of `source` and its report, both of a hostile name."""
    out, report = source.with_name(f"{NAME}.handful"), source.with_name(f"{NAME}.html")
    args = ["fit", source, "--text", TEXT, "--label", LABEL, *HEAD, "--out", out, "--report", report, "--quiet"]
    assert main([str(a) for a in args]) == 0
    return out, report


def texts(path: Path) -> list[tuple[str, str]]:
    """The rows of a CSV file, the header left out."""
    with path.open(encoding="utf-8", newline="") as file:
        return [(row[0], row[1]) for row in csv.reader(file)][1:]


def harmless(text: str) -> None:
    """Fail on anything that steers a terminal or hides."""
    found = HIDDEN.search(text.replace("\n", ""))
    assert found is None, ascii(text[max(found.start() - 40, 0) : found.end() + 10])


@pytest.mark.parametrize("terminal", [False, True])
def test_on_a_terminal_and_in_a_pipe(
    source: Path,
    fitted: tuple[Path, Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    terminal: bool,
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")  # a terminal that takes no escapes: all that come are from the data
    monkeypatch.setenv("COLUMNS", "200")
    columns = ("--text", TEXT, "--label", LABEL)
    pool = tmp_path / "pool.csv"
    with pool.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([[TEXT], *([f"{text} unlabelled"] for text in HOSTILE)])
    for args in (
        ("fit", source, *columns, *HEAD, "--out", tmp_path / "m.handful", "--report", tmp_path / "[r]\x1b.html"),
        ("fit", source, *columns, *HEAD, "--shots", 2),
        ("evaluate", fitted[0], source),
        ("inspect", fitted[0]),
        ("forecast", fitted[0], "--target", 0.9),
        ("next", fitted[0], pool, "-n", 3),
        ("predict", fitted[0], source, "--top", 3, "--out", tmp_path / "[p]\u202e.csv"),
        ("bench", source, *columns, "--head", "prototypes", "--ways", 2, "--shots", 1, "--queries", 1, "--episodes", 2),
        *([("predict", fitted[0], source, "--top", 3)] if terminal else []),  # a pipe gets the table as it is
    ):
        capsys.readouterr()
        if terminal:
            monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
        assert main([str(a) for a in args]) == 0, capsys.readouterr().err
        out, err = capsys.readouterr()
        harmless(out + err)
        if args[0] in ("fit", "evaluate", "inspect"):
            assert "\\x1b[31m" in out, args[0]
        assert "😄" not in out


@pytest.mark.parametrize("command", ["fit", "evaluate", "inspect"])
def test_json_is_printable_and_holds_the_very_labels(
    run: Run, source: Path, fitted: tuple[Path, Path], command: str
) -> None:
    args = {
        "fit": (source, "--text", TEXT, "--label", LABEL, *HEAD),
        "evaluate": (fitted[0], source),
        "inspect": (fitted[0],),
    }[command]
    result = run(command, *args, "--json")
    assert result.status == 0, result.err  # type: ignore[attr-defined]
    harmless(result.out)  # type: ignore[attr-defined]
    found = json.loads(result.out)  # type: ignore[attr-defined]
    assert set(HOSTILE) <= set(_strings(found))


def _strings(value: object) -> list[str]:
    if isinstance(value, dict):
        return [text for item in (*value, *value.values()) for text in _strings(item)]
    if isinstance(value, list):
        return [text for item in value for text in _strings(item)]
    return [value] if isinstance(value, str) else []


def test_csv_in_a_pipe_comes_back_as_it_was(run: Run, source: Path, fitted: tuple[Path, Path]) -> None:
    result = run("predict", fitted[0], source)
    rows = list(csv.reader(io.StringIO(result.out)))  # type: ignore[attr-defined]
    assert rows[0][:2] == [TEXT, LABEL]
    assert [tuple(row[:2]) for row in rows[1:]] == texts(source)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet", ".xlsx"])
def test_tables_come_back_as_they_were(
    run: Run, source: Path, fitted: tuple[Path, Path], tmp_path: Path, suffix: str
) -> None:
    from handful.read import read

    out = tmp_path / f"{NAME}{suffix}"
    result = run("predict", fitted[0], source, "--out", out)
    assert result.status == 0, result.err  # type: ignore[attr-defined]
    table = read(out, text=TEXT, label=LABEL).table
    assert table is not None
    assert list(zip(table[TEXT], table[LABEL], strict=True)) == texts(source)
    if suffix == ".xlsx":
        cells = [cell for row in openpyxl.load_workbook(out).active.iter_rows() for cell in row]
        assert not any(cell.data_type == "f" or cell.hyperlink for cell in cells)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".xlsx"])
def test_excel_safe_tables_hold_nothing_to_compute(
    run: Run, source: Path, fitted: tuple[Path, Path], tmp_path: Path, suffix: str
) -> None:
    from handful.read import read

    out = tmp_path / f"safe{suffix}"
    result = run("predict", fitted[0], source, "--top", 2, "--excel-safe", "--out", out)
    assert result.status == 0, result.err  # type: ignore[attr-defined]
    table = read(out, text=f"'{TEXT}").table
    assert table is not None
    cells = [str(v) for column in table.columns for v in (column, *table[column].to_list()) if v is not None]
    assert not [cell for cell in cells if re.match(r"\s*[=+\-@]", cell)]
    for before, after in zip([t for t, _ in texts(source)], table[f"'{TEXT}"], strict=True):
        assert after == (f"'{before}" if before[0] in "=+-@" else before)
    assert table["handful_confidence"].cast(pl.Float64, strict=False).drop_nulls().len() == 0  # all have labels


def test_excel_safe_in_a_pipe_and_where_it_has_no_use(
    run: Run, source: Path, fitted: tuple[Path, Path], tmp_path: Path
) -> None:
    rows = list(csv.reader(io.StringIO(run("predict", fitted[0], source, "--excel-safe").out)))  # type: ignore[attr-defined]
    assert rows[0][0] == f"'{TEXT}"
    assert not [cell for row in rows for cell in row if re.match(r"\s*[=+\-@]", cell)]
    for args in ((source, "--out", tmp_path / "x.parquet"), ("-",)):
        result = run("predict", fitted[0], *args, "--excel-safe")
        assert result.status == 2  # type: ignore[attr-defined]
        assert "--excel-safe" in result.complaint  # type: ignore[attr-defined]


def test_the_report_spells_it_out(fitted: tuple[Path, Path]) -> None:
    text = fitted[1].read_text(encoding="utf-8")
    page = Page(text)
    assert not {tag for tag, _ in page.tags} & {"script", "img", "b", "iframe", "object", "form"}
    assert not [attrs for _, attrs in page.tags if any(name.startswith("on") for name in attrs)]
    harmless(text)
    for label in HOSTILE:
        assert " ".join(visible(label).split()) in page.text, label
    assert visible(NAME) in page.text


def test_images_of_hostile_names(run: Run, tmp_path: Path) -> None:
    folder, report = tmp_path / "pictures", tmp_path / "r.html"
    for n, label in enumerate(("[/refund]\x1b[31m", "\u202egpj <script>")):
        (folder / label).mkdir(parents=True)
        for i in range(4):
            name = f"=1+1 {i} \u202e\x1b[1m' onerror='x.png"
            Image.new("RGB", (40, 40), (200 * n, 40 * i, 90)).save(folder / label / name)
    result = run("fit", folder, *HEAD, "--out", tmp_path / "m.handful", "--report", report)
    assert result.status == 0, result.err  # type: ignore[attr-defined]
    harmless(result.out)  # type: ignore[attr-defined]
    page = Page(report.read_text(encoding="utf-8"))
    assert not [attrs for _, attrs in page.tags if any(name.startswith("on") for name in attrs)]
    assert all((attrs["src"] or "").startswith("data:image/") for attrs in page.all("img"))
    rows = list(csv.reader(io.StringIO(run("predict", tmp_path / "m.handful", folder, "--excel-safe").out)))  # type: ignore[attr-defined]
    assert not [cell for row in rows for cell in row if re.match(r"\s*[=+\-@]", cell)]


@pytest.mark.parametrize(
    "args",
    [
        ("fit", "no\x1b[31m[/x]\u202e.csv"),
        ("fit", "{source}", "--label", "no\x1b[31m\u202e"),
        ("fit", "{source}", "--label", "{label}", "--text", "{text}", "--head", "no\x1b[31m"),
        ("evaluate", "{source}", "{source}"),
        ("predict", "{source}", "{source}"),
        ("predict", "{model}", "{source}", "--out", "no\x1b[31m\u202e.html"),
        ("inspect", "{source}"),
    ],
)
def test_complaints_are_one_harmless_line(
    run: Run, source: Path, fitted: tuple[Path, Path], args: tuple[str, ...]
) -> None:
    names = {"source": source, "model": fitted[0], "label": LABEL, "text": TEXT}
    result = run(*(names.get(arg.strip("{}"), arg) for arg in args))
    assert result.status == 2  # type: ignore[attr-defined]
    harmless(result.complaint)  # type: ignore[attr-defined]
