"""Colour and movement on a terminal, plain text and silence in a pipe."""

from __future__ import annotations

import io
import sys

import polars as pl
import pytest

from handful.cli.layout import facts, measure, short, some, table
from handful.cli.show_fit import about
from handful.cli.show_predictions import show_rows, tally
from handful.cli.terminal import progress_bar, show


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True

    def __enter__(self) -> Terminal:
        """Stdout and stderr are this terminal while the block runs."""
        self.before = sys.stdout, sys.stderr
        sys.stdout = sys.stderr = self
        return self

    def __exit__(self, *error: object) -> None:
        sys.stdout, sys.stderr = self.before


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal of 80 columns."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return Terminal()


def test_no_bar_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar(quiet=False) as progress:
        assert progress is None
    assert capsys.readouterr() == ("", "")


def test_a_bar_on_a_terminal_and_none_when_quiet(screen: Terminal) -> None:
    with screen, progress_bar(quiet=True) as progress:
        assert progress is None
    assert screen.getvalue() == ""
    with screen, progress_bar(quiet=False) as progress:
        assert progress is not None
        progress(3, 1200)
        progress(1200, 1200)
    assert screen.getvalue() != ""


def test_a_pipe_gets_whole_lines_without_colour(capsys: pytest.CaptureFixture[str]) -> None:
    show(facts([("Name", ["x" * 500]), ("Empty", [])]), "y " * 300)
    out = capsys.readouterr().out
    assert out.splitlines() == ["Name  " + "x" * 500, ("y " * 300).rstrip()]


def test_a_terminal_gets_colour_and_commands_stay_whole(screen: Terminal) -> None:
    with screen:
        show(facts([("Name", ["value"])]), "handful fit " + "a" * 100)
    assert "\x1b[36m" in screen.getvalue()
    assert "handful fit " + "a" * 100 in screen.getvalue()


def test_numbers_are_written_for_people() -> None:
    estimate = {"value": 0.9131, "low": 0.88, "high": 0.9372}
    assert measure("accuracy", estimate) == "91.3 %, 95 % interval 88.0 to 93.7"
    assert short("macro_f1", estimate) == "91.3 % [88.0, 93.7]"
    assert short("log_loss", estimate) == "0.913 [0.880, 0.937]"
    assert short("recall", None) == "–"
    assert some(["a", "b\x1b", "c"], 2) == "a, b\\x1b and 1 more"


def test_cells_of_a_table_are_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    show(table(["col\x1bumn"], [["[red]x[/red]\u202e"], [None], ["z" * 500]]))
    out = capsys.readouterr().out
    assert out.splitlines()[:2] == ["col\\x1bumn", "[red]x[/red]\\u202e"]
    assert out.splitlines()[3] == "z" * 59 + "…"


def answers(n: int) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "id": [str(i) for i in range(n)],
            "message": ["a long message that goes on and on, well past the end of any line there is " * 2] * n,
            "handful_label": ["refund", None, "login"] * (n // 3),
            "handful_confidence": [0.97, 0.4, None] * (n // 3),
            "handful_accepted": [True, False, True] * (n // 3),
            "handful_given": [False, False, True] * (n // 3),
        }
    )


def test_rows_fit_the_terminal_one_line_each(screen: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    with screen:
        show_rows(answers(30), 6)
    lines = screen.getvalue().splitlines()
    assert len(lines) == 1 + 6 + 1
    assert max(map(len, lines)) <= 80
    assert lines[1].split()[:2] == ["refund", "0.97"]
    assert lines[2].split()[:2] == ["–", "0.40"]
    assert lines[3].split()[:2] == ["login", "given"]
    assert "a long message" in lines[1]
    assert lines[-1].strip() == "and 24 more rows"


def test_tally() -> None:
    assert tally(answers(30)).startswith("30 rows: 10 labelled, 10 with a label of their own, 10 left without")
    assert "handful evaluate" in tally(answers(30).filter(pl.col("handful_given")))


def test_what_auto_chose_and_tried_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"kind {i}\x1b" for i in range(6)]
    card = {
        "task": {
            "sources": ["t.csv"],
            "columns": {"text": ["subject", "body"], "image": None, "label": "queue"},
            "modality": "text",
            "n": 9,
            "pool": 2,
            "skipped": ["t.csv row 3: empty"],
            "classes": [{"name": "a", "count": 4}, {"name": "b", "count": 5}],
        },
        "encoder": {"name": "minilm", "dim": 384},
        "head": {"key": "auto", "choice": "gda", "why": "it errs least"},
        "candidates": [{"name": name, "accuracy": 0.9, "log_loss": 0.3} for name in names],
        "class_text": {"used": True, "weight": 0.15, "reason": "the examples confirm them"},
        "experiment": None,
    }
    show(facts(about(card)))
    out = capsys.readouterr().out
    for part in (
        "columns: text in subject, body, label in queue",
        "9 labelled, 2 unlabelled and left aside, 1 skipped",
        "skipped: t.csv row 3: empty",
        "4 to 5 examples each: a, b",
        "auto chose gda: it errs least",
        "6 were tried",
        "90.0 %  kind 0\\x1b",
        "and 3 more",
        "used, 15 % of the answer: the examples confirm them",
    ):
        assert part in out, part
