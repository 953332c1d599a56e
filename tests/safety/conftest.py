"""A small text source, and processes that learn from it."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

TEXTS = {
    "refund": ["I want my money back", "please refund my last order", "when do I get my refund", "pay me back"],
    "login": ["I cannot sign in", "my password does not work", "wrong password again", "locked out of my account"],
    "delivery": ["my parcel has not arrived", "where is my package", "the courier never came", "it was not delivered"],
}

LEARN = """
import sys
from handful.commands.fit import fit
from handful.encode import store
store._KEEP = int(sys.argv[4])
print("ready", flush=True)
fit(sys.argv[1], out=sys.argv[2], head=sys.argv[3])
print("done", flush=True)
"""


def write_tickets(path: Path, mark: str = "", copies: int = 1) -> Path:
    """Labelled texts of three classes; another ``mark`` makes other texts of them."""
    rows = [(f"{text}{mark}{i or ''}", label) for i in range(copies) for label, some in TEXTS.items() for text in some]
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    return path


Learn = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def learn() -> Iterator[Learn]:
    """``learn(source, out, cache=folder, HOME=…)``: a process that says ``ready``, fits, saves, and says ``done``.

    ``keep`` rows are written to the cache at a time. Keywords in capitals are environment variables.
    """
    started: list[subprocess.Popen[str]] = []

    def start(
        source: Path,
        out: Path,
        *,
        cache: Path,
        head: str = "auto",
        keep: int = 512,
        before: tuple[str, ...] = (),
        **environment: str,
    ) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*before, sys.executable, "-c", LEARN, str(source), str(out), head, str(keep)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env={**os.environ, "HANDFUL_CACHE": str(cache), **environment},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()
