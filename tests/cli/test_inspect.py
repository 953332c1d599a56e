"""`handful inspect`: readable, harmless, and JSON that keeps its schema."""

from __future__ import annotations

import csv
import json
from importlib import resources
from pathlib import Path

from jsonschema import Draft202012Validator
from referencing import Registry, Resource

SCHEMAS = [json.loads(file.read_text("utf-8")) for file in (resources.files("handful") / "schemas").iterdir()]
REGISTRY = Registry().with_resources((s["$id"], Resource.from_contents(s)) for s in SCHEMAS)
HOSTILE = "\x1b[31mred\x1b[0m [/refund] \u202eevil </script> =HYPERLINK(1) \x9b2J"


def test_json_keeps_its_schema(run, model: Path) -> None:
    result = run("inspect", model, "--json")
    assert (result.status, result.err) == (0, "")
    found = json.loads(result.out)
    schema = next(s for s in SCHEMAS if s["$id"] == "urn:handful:inspect:1")
    Draft202012Validator(schema, registry=REGISTRY).validate(found)
    assert found["model"] == str(model)


def test_the_summary_tells_the_story(run, model: Path, tickets: Path) -> None:
    result = run("inspect", model)
    assert (result.status, result.err) == (0, "")
    for part in (
        "A text classifier for 3 classes, learnt from 12 labelled examples",
        "minilm, not inside",
        "prototypes",
        "delivery, login, refund",
        str(tickets),
        "no vector of a single example",
        "no texts and no pictures",
        "the names of 3",
        "text, label" if "text, label" in result.out else "label, text",
        "head",
        "bytes",
    ):
        assert part in result.out, part


def test_hostile_names_are_harmless(run, tmp_path: Path) -> None:
    source, out = tmp_path / "h.csv", tmp_path / "m.handful"
    rows = [[HOSTILE, "label"], *([f"text {i} of {label}", label] for i in range(3) for label in (HOSTILE, "[b]x"))]
    with source.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    assert run("fit", source, "--text", HOSTILE, "--head", "prototypes", "--out", out).status == 0
    plain, as_json = run("inspect", out), run("inspect", out, "--json")
    assert (plain.status, as_json.status) == (0, 0)
    for text in (plain.out, as_json.out):
        assert not any(c in text for c in "\x1b\x9b\u202e"), text
    assert "[/refund]" in plain.out
    assert HOSTILE in json.loads(as_json.out)["personal"]["class_names"]


def test_no_such_file(run, tmp_path: Path) -> None:
    result = run("inspect", tmp_path / "m.handful")
    assert result.status == 2
    assert "no such model" in result.complaint
