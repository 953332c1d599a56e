"""`handful.commands.listing.list_` and `handful.commands.cache.cache`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from handful.adapt import HEADS
from handful.commands.cache import cache
from handful.commands.listing import list_
from handful.encode.cache import FeatureCache
from handful.errors import BadInput


def test_papers_are_plain_values() -> None:
    rows = list_("papers")
    assert json.loads(json.dumps(rows)) == rows
    assert [row["number"] for row in rows][:203] == list(range(1, 204))
    assert {row["state"] for row in rows} == {"works", "partly", "planned"}
    assert "bibtex" not in rows[0]


def test_cite() -> None:
    (row,) = list_("papers", cite="092")
    assert row["key"] == "prototypes"
    assert row["bibtex"].startswith("@misc{prototypes,")


def test_heads_know_their_papers() -> None:
    rows = {row["key"]: row for row in list_("heads")}
    assert rows.keys() >= HEADS.keys()
    assert json.loads(json.dumps(list(rows.values()))) == list(rows.values())
    assert 92 in rows["prototypes"]["papers"] and rows["logistic"]["papers"] == []
    assert rows["gda"]["papers"] == [65]


def test_encoders_have_a_name_and_a_width() -> None:
    rows = {row["name"]: row for row in list_("encoders")}
    assert rows["minilm"]["dim"] == 384 and rows["efficientnet-lite0"]["modality"] == "image"
    assert json.loads(json.dumps(list(rows.values()))) == list(rows.values())


def test_recipes_have_a_summary_and_settings() -> None:
    rows = {row["key"]: row for row in list_("recipes")}
    assert rows["setfit"]["summary"].startswith("The sentence encoder")
    assert rows["lora"]["settings"]["rank"] == 8
    assert json.loads(json.dumps(list(rows.values()))) == list(rows.values())


@pytest.mark.parametrize(
    ("what", "cite", "complaint"),
    [
        ("head", None, "did you mean 'heads'"),
        ("heads", "gda", "handful list papers --cite gda"),
        ("papers", "gdaa", "unknown paper 'gdaa'; did you mean 'gda'"),
    ],
)
def test_unknown(what: str, cite: str | None, complaint: str) -> None:
    with pytest.raises(BadInput, match=complaint):
        list_(what, cite=cite)


def test_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path / "kept"))
    assert cache("info")["rows"] == 0
    with FeatureCache() as kept:
        kept.put({b"a": np.ones(3, np.float32)})
    info = cache("info")
    assert info["rows"] == 1 and info["bytes"] > 0 and str(tmp_path) in info["path"]
    assert json.loads(json.dumps(info)) == info
    cleared = cache("clear")
    assert cleared["path"] == info["path"] and cleared["freed"] >= info["bytes"]
    assert cache("info")["rows"] == 0 and cache("clear")["freed"] == 0


def test_unknown_action() -> None:
    with pytest.raises(BadInput, match="did you mean 'clear'"):
        cache("cleer")
