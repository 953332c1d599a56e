"""`handful grow`: what it prints, JSON that keeps its schema, and the one line when it cannot."""

from __future__ import annotations

import csv
import json
from importlib import resources
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

SCHEMAS = [json.loads(file.read_text("utf-8")) for file in (resources.files("handful") / "schemas").iterdir()]
REGISTRY = Registry().with_resources((s["$id"], Resource.from_contents(s)) for s in SCHEMAS)
HOSTILE = "\x1b[31mred\x1b[0m [/refund] \u202eevil </script> =HYPERLINK(1) \x9b2J"
NEW = [("send me an invoice", "bill"), ("I need a receipt for tax", "bill"), ("where is the bill for May", "bill")]
TEST = [("money back please", "refund"), ("password is wrong", "login"), ("a receipt please", "bill")]


def table(path: Path, rows: list[tuple[str, str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    return path


@pytest.fixture
def new(tmp_path: Path) -> Path:
    return table(tmp_path / "new.csv", NEW)


def test_the_summary_tells_the_story(run, model: Path, new: Path, tmp_path: Path) -> None:
    out, test = tmp_path / "grown.handful", table(tmp_path / "test.csv", TEST)
    result = run("grow", model, new, "--out", out)
    assert (result.status, result.err) == (0, "")
    for part in (
        "1 class more, 4 in all, learnt from 3 labelled examples",
        "leave-one-out over 3 examples of 1 new class",
        "Old classes  not known",
        "--test FILE",
        f"handful predict {out}",
    ):
        assert part in result.out
    tested = run("grow", model, new, "--test", test)
    for part in ("Harmonic mean", "before growing", "taken for an old class", "measured on 3 items", "not saved"):
        assert part in tested.out
    looked = run("inspect", out)
    assert "Grown" in looked.out and "bill" in looked.out
    assert run("predict", out, test, "--quiet").status == 0


def test_a_pool_is_named_in_the_summary_and_in_json(run, tickets: Path, new: Path, tmp_path: Path) -> None:
    model = tmp_path / "aldc.handful"
    assert run("fit", tickets, "--head", "aldc", "--out", model, "--quiet").status == 0
    pool = table(tmp_path / "pool.csv", [(f"{text} now", "") for text, _ in TEST])
    result = run("grow", model, new, "--unlabelled", pool)
    assert result.status == 0 and "3 items without labels were learnt from" in result.out
    found = json.loads(run("grow", model, new, "--unlabelled", pool, "--json").out)
    schema = next(s for s in SCHEMAS if s["$id"] == "urn:handful:grow:1")
    Draft202012Validator(schema, registry=REGISTRY).validate(found)
    assert found["grown"]["unlabelled"]["n"] == 3
    alone = run("grow", model, new)
    assert (alone.status, alone.err) == (0, "")
    assert "aldc also learns from items without labels" in alone.out


@pytest.mark.parametrize("tested", [False, True])
def test_json_keeps_its_schema(run, model: Path, new: Path, tmp_path: Path, tested: bool) -> None:
    test = ["--test", table(tmp_path / "test.csv", TEST)] if tested else []
    result = run("grow", model, new, *test, "--json")
    assert (result.status, result.err) == (0, "")
    found = json.loads(result.out)
    schema = next(s for s in SCHEMAS if s["$id"] == "urn:handful:grow:1")
    Draft202012Validator(schema, registry=REGISTRY).validate(found)
    assert [row["name"] for row in found["classes"]] == ["bill", "delivery", "login", "refund"]
    assert (found["test"] is not None) is tested


def test_a_losing_class_is_listed_and_names_are_harmless(run, model: Path, tmp_path: Path) -> None:
    refunds = ["please refund my last order", "when do I get my refund", "give me back the money I paid"]
    new = table(tmp_path / "new.csv", [(text, HOSTILE) for text in refunds])
    test = table(tmp_path / "test.csv", [(text, "refund") for text in refunds] + [("my package", "delivery")])
    result = run("grow", model, new, "--test", test)
    assert (result.status, result.err) == (0, "")
    assert "old class that lost" in result.out and "refund" in result.out
    assert not {"\x1b", "\u202e", "\x9b"} & set(result.out)


def test_what_cannot_be_is_one_line(run, tickets: Path, model: Path, new: Path, tmp_path: Path) -> None:
    assert "'delivery' is known already" in run("grow", model, tickets).complaint
    assert "--force" in run("grow", model, new, "--out", model).complaint
    other = tmp_path / "gda.handful"
    assert run("fit", tickets, "--head", "gda", "--out", other, "--quiet").status == 0
    result = run("grow", other, new)
    assert result.status == 2
    assert "head 'gda' cannot grow" in result.complaint and "--head teen" in result.complaint
