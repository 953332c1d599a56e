"""`handful predict MODEL -`: an answer as soon as there is a line."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from handful.cli.lines import line_batches


class Drip(io.RawIOBase):
    """A stream that gives one piece at a time, as a pipe does."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = list(pieces)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if not self.pieces:
            return 0
        piece = self.pieces.pop(0)
        buffer[: len(piece)] = piece
        return len(piece)


def test_lines_come_in_batches_of_what_has_arrived() -> None:
    stream = io.BufferedReader(Drip(b"\xef\xbb\xbfone\n", b"two\r\nthr", b"ee\n\nl", b"ast"))
    assert list(line_batches(stream)) == [["one"], ["two"], ["three", ""], ["last"]]


def test_lines_that_are_not_utf8_show_it() -> None:
    assert list(line_batches(io.BytesIO(b"caf\xe9\n"))) == [["caf\ufffd"]]


def test_no_lines() -> None:
    assert list(line_batches(io.BytesIO(b""))) == []


def test_an_answer_comes_before_the_next_line(model: Path) -> None:
    code = "import sys; from handful.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "predict", str(model), "-", "--top", "2"]
    schema = json.loads((resources.files("handful") / "schemas" / "prediction.json").read_text("utf-8"))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8") as process:
        assert process.stdin is not None and process.stdout is not None
        for line, label in (("give me my money back ü", "refund"), ("", None), ("I cannot sign in", "login")):
            process.stdin.write(line + "\n")
            process.stdin.flush()
            answer = json.loads(process.stdout.readline())
            assert (answer["text"], answer["handful_label"]) == (line, label)
            Draft202012Validator(schema).validate(answer)
        process.stdin.close()
        assert process.wait() == 0


def test_a_file_is_not_written(run, model: Path, tmp_path: Path) -> None:
    result = run("predict", model, "-", "--out", tmp_path / "x.csv")
    assert (result.status, "redirect" in result.complaint) == (2, True)


@pytest.mark.parametrize("option", [("--text", "a"), ("--label", "b"), ("--image", "c"), ("--force",)])
def test_lines_have_no_columns(run, model: Path, option: tuple[str, ...]) -> None:
    result = run("predict", model, "-", *option)
    assert (result.status, option[0] in result.complaint) == (2, True)
