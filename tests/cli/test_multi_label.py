"""Several labels an item on the command line: what is printed, and JSON that keeps its schemas."""

from __future__ import annotations

import csv
import io
import json
from importlib import resources
from itertools import combinations
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from handful.cli import main

SCHEMAS = [json.loads(file.read_text("utf-8")) for file in (resources.files("handful") / "schemas").iterdir()]
REGISTRY = Registry().with_resources((s["$id"], Resource.from_contents(s)) for s in SCHEMAS)
HOSTILE = "\x1b[31mred\x1b[0m [bold]x[/bold] \u202eevil :smile:"
TEXTS = {
    "refund": ["I want my money back", "please refund my last order", "when do I get my refund"],
    "login": ["I cannot sign in to my account", "my password does not work", "locked out of my account"],
    HOSTILE: ["my parcel has not arrived", "where is my package", "the courier never came"],
}


def check(found: dict) -> None:
    """``found`` keeps the schema that its ``schema`` key names."""
    _, name, version = found["schema"].split("/")
    schema = next(s for s in SCHEMAS if s["$id"] == f"urn:handful:{name}:{version}")
    Draft202012Validator(schema, registry=REGISTRY).validate(found)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each message alone, and pairs of them."""
    rows = [(text, label) for label, texts in TEXTS.items() for text in texts]
    rows += [
        (f"{a}. {b}", f"{one}|{two}")
        for one, two in combinations(TEXTS, 2)
        for a, b in zip(TEXTS[one], TEXTS[two], strict=True)
    ]
    path = tmp_path_factory.mktemp("several") / "t.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows, ("what a nice day", "|")])
    return path


@pytest.fixture(scope="module")
def model(source: Path) -> Path:
    path = source.with_name("m.handful")
    assert main(["fit", str(source), "--multi-label", "|", "--out", str(path), "--quiet"]) == 0
    return path


def test_fit_json(run, source: Path) -> None:
    result = run("fit", source, "--multi-label", "|", "--test", source, "--json")
    assert result.status == 0, result.err
    found = json.loads(result.out)
    check(found)
    assert found["label_sets"]["separator"] == "|" and found["label_sets"]["without"] == 1
    assert "--multi-label '|'" in found["provenance"]["command"]


def test_the_summary_tells_the_story_and_is_harmless(run, source: Path) -> None:
    out = run("fit", source, "--multi-label", "|").out
    for part in (
        "A text classifier for 3 labels, several an item, learnt from 19 labelled examples",
        "Micro-F1",
        "95 % interval",
        "exact match",
        "labels an example on average; 1 example has none",
        "multi-label-logistic",
    ):
        assert part in " ".join(out.split()), part
    assert "Class names" not in out
    assert "\x1b" not in out and "\u202e" not in out


def test_evaluate(run, model: Path, source: Path) -> None:
    found = json.loads(run("evaluate", model, source, "--json").out)
    check(found)
    assert found["n"] == 19 and len(found["labels"]) == 3
    out = run("evaluate", model, source).out
    assert "19 labelled items" in out and "Exact match" in out and "label, weakest first" in out
    assert "\x1b" not in out and "\u202e" not in out
    failed = run("evaluate", model, source, "--require", "recall[login]>=0.99")
    assert failed.status == 3 and "FAIL recall[login]>=0.99" in failed.err


def test_inspect_json(run, model: Path) -> None:
    found = json.loads(run("inspect", model, "--json").out)
    check(found)
    assert found["label_sets"]["separator"] == "|"
    out = run("inspect", model).out
    assert "3 labels, several an item" in out and "with '|' between them" in out


def test_predict_in_a_pipe(run, model: Path, tmp_path: Path) -> None:
    (tmp_path / "new.txt").write_text("I want my money back. I cannot sign in to my account\n", "utf-8")
    result = run("predict", model, tmp_path / "new.txt", "--top", 2)
    [row] = csv.DictReader(io.StringIO(result.out))
    assert row["handful_label"] == "login|refund"
    assert {row["handful_top1"], row["handful_top2"]} == {"login", "refund"}


def test_what_does_not_go_together_is_one_line(run, source: Path) -> None:
    refused = run("fit", source, "--multi-label", "|", "--shots", 1)
    assert refused.status == 2 and "--shots does not go with --multi-label" in refused.complaint
    assert run("audit", "nowhere.handful", source).status == 2
