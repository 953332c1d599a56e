"""One fitted text model for all tests."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from handful.commands.fit import fit
from handful.ship.model import Model

TEXTS = {
    "refund": ["I want my money back", "please refund my last order", "when do I get my refund"],
    "login": ["I cannot sign in to my account", "my password does not work", "locked out of my account"],
    "delivery": ["my parcel has not arrived", "where is my package", "the courier never came"],
}


@pytest.fixture(scope="session")
def learnt_from(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine labelled texts: columns ``message`` and ``queue``."""
    path = tmp_path_factory.mktemp("model") / "t.csv"
    rows = [(text, label) for label, texts in TEXTS.items() for text in texts]
    pl.DataFrame(rows, schema=["message", "queue"], orient="row").write_csv(path)
    return path


@pytest.fixture(scope="session")
def model(learnt_from: Path) -> Model:
    """Learnt from `learnt_from`, saved and loaded."""
    path = learnt_from.with_name("m.handful")
    fit(learnt_from, text="message", label="queue", head="prototypes", out=path)
    return Model.load(path)


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    """Four new messages: two clear ones, a blank one, and one that has a label."""
    path = tmp_path / "inbox.csv"
    rows = [
        ("7", "give me my money back", ""),
        ("3", "   ", ""),
        ("5", "my parcel is still not here", "vip"),
        ("1", "cannot sign in", ""),
    ]
    pl.DataFrame(rows, schema=["id", "message", "queue"], orient="row").write_csv(path)
    return path
