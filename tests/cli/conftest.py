"""A way to run the command line in this process, and one fitted model for all tests."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from handful.cli import main

TEXTS = {
    "refund": [
        "I want my money back",
        "please refund my last order",
        "when do I get my refund",
        "give me back the money I paid",
    ],
    "login": [
        "I cannot sign in to my account",
        "my password does not work",
        "the login page says wrong password",
        "locked out of my account",
    ],
    "delivery": [
        "my parcel has not arrived",
        "where is my package",
        "the courier never came",
        "tracking says delivered but there is no parcel",
    ],
}


@dataclass(frozen=True)
class Result:
    """What a run left behind."""

    status: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """The one line on stderr; fails when it is not exactly one."""
        lines = self.err.splitlines()
        assert len(lines) == 1, f"{len(lines)} lines on stderr: {self.err!r}"
        assert lines[0].startswith("handful: "), lines[0]
        assert self.out == "", self.out
        return lines[0]


Run = Callable[..., Result]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """``run("fit", path, "--shots", 1)``: the exit status, stdout and stderr."""

    def go(*args: object) -> Result:
        capsys.readouterr()
        status = main([str(a) for a in args])
        out, err = capsys.readouterr()
        return Result(status, out, err)

    return go


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Path:
    """A CSV file, UTF-8."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


@pytest.fixture(scope="session")
def tickets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve labelled texts of three classes."""
    rows = [(text, label) for label, texts in TEXTS.items() for text in texts]
    return write_csv(tmp_path_factory.mktemp("data") / "tickets.csv", ["text", "label"], rows)


@pytest.fixture(scope="session")
def model(tickets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of `tickets`, fitted once."""
    path = tmp_path_factory.mktemp("model") / "tickets.handful"
    assert main(["fit", str(tickets), "--head", "prototypes", "--out", str(path), "--quiet"]) == 0
    return path
