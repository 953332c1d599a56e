"""What is printed: readable, plain in a pipe, harmless whatever the data hold, and JSON that keeps its schema."""

from __future__ import annotations

import csv
import io
import json
import sys
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from handful.cli import main

HEAD = ("--head", "prototypes")
SCHEMAS = [json.loads(file.read_text("utf-8")) for file in (resources.files("handful") / "schemas").iterdir()]
REGISTRY = Registry().with_resources((s["$id"], Resource.from_contents(s)) for s in SCHEMAS)
HOSTILE = "\x1b[31mred\x1b[0m [bold]x[/bold] \u202eevil :smile: \x9b2J"


def check(found: dict) -> None:
    """``found`` keeps the schema that its ``schema`` key names."""
    _, name, version = found["schema"].split("/")
    schema = next(s for s in SCHEMAS if s["$id"] == f"urn:handful:{name}:{version}")
    Draft202012Validator(schema, registry=REGISTRY).validate(found)


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda s: s["$id"])
def test_schemas_are_schemas(schema: dict) -> None:
    Draft202012Validator.check_schema(schema)


def test_fit_json(run, tickets: Path, tmp_path: Path) -> None:
    out, report = tmp_path / "m.handful", tmp_path / "r.html"
    result = run("fit", tickets, *HEAD, "--test", tickets, "--out", out, "--report", report, "--json")
    assert result.status == 0, result.err
    found = json.loads(result.out)
    check(found)
    assert found["task"]["n"] == 12
    assert found["model"] == str(out) and out.exists()
    assert found["report"] == str(report) and report.exists()
    assert set(found["test"]["assessment"]["accuracy"]) == {"value", "low", "high"}


def test_fit_json_of_an_experiment_and_of_features(run, tickets: Path, tmp_path: Path) -> None:
    experiment = run("fit", tickets, *HEAD, "--shots", 1, "--json")
    check(json.loads(experiment.out))
    assert json.loads(experiment.out)["experiment"]["shots"] == 1
    x = np.random.default_rng(0).normal(size=(8, 5))
    np.savez(tmp_path / "f.npz", X=x, y=np.array(["a", "b"] * 4))
    features = run("fit", tmp_path / "f.npz", *HEAD, "--json")
    check(json.loads(features.out))


def test_evaluate_json_has_accuracy_and_n_at_the_top(run, model: Path, tickets: Path) -> None:
    result = run("evaluate", model, tickets, "--json")
    found = json.loads(result.out)
    check(found)
    assert found["n"] == 12
    assert 0 <= found["accuracy"]["low"] <= found["accuracy"]["value"] <= found["accuracy"]["high"] <= 1


def test_evaluating_on_what_was_learnt_is_noted(run, model: Path, tickets: Path, tmp_path: Path) -> None:
    assert "in this very file" in run("evaluate", model, tickets).err
    other = tmp_path / "other.csv"
    other.write_text("text,label\nI want a refund,refund\n", encoding="utf-8")
    assert run("evaluate", model, other).err == ""


def test_bench_json_and_table(run, tickets: Path) -> None:
    args = ["bench", tickets, "--head", "prototypes,zero-shot", "--ways", 2, "--shots", "1,2", "--queries", 1]
    args += ["--episodes", 4]
    result = run(*args, "--json")
    assert result.status == 0, result.err
    found = json.loads(result.out)
    check(found)
    assert [(row["head"], row["shots"]) for row in found["results"]] == [
        ("prototypes", 1),
        ("zero-shot", 1),
        ("prototypes", 2),
        ("zero-shot", 2),
    ]
    table = run(*args)
    assert table.status == 0, table.err
    assert "reference" in table.out


@pytest.mark.parametrize("what", ["heads", "encoders", "papers", "recipes"])
def test_list(run, what: str) -> None:
    result = run("list", what, "--json")
    assert result.status == 0, result.err
    found = json.loads(result.out)
    check(found)
    assert found["what"] == what
    plain = run("list", what)
    assert plain.status == 0
    assert len(plain.out.splitlines()) >= max(1, len(found["items"]))


def test_forecast(run, tmp_path: Path) -> None:
    results = tmp_path / "r.csv"
    results.write_text("shots,accuracy,tested\n1,0.52,500\n2,0.63,500\n4,0.72,500\n8,0.79,500\n", encoding="utf-8")
    asked = ("forecast", results, "--ways", 10, "--target", 0.82)
    check(json.loads(run(*asked, "--json").out))
    shown = run(*asked).out
    for part in ("2 x the labels", "4 x the labels", "For 82 % label about", "power law", "To be trusted"):
        assert part in shown, part
    assert "takes more labels than can be said" in run("forecast", results, "--ways", 10, "--target", 0.99).out


def test_next(run, model: Path, tickets: Path, tmp_path: Path) -> None:
    pool, out = tmp_path / "pool.csv", tmp_path / "l.csv"
    pool.write_text("text\nwhere is my parcel\nI forgot my password\nhello\n", encoding="utf-8")
    found = json.loads(run("next", model, pool, "-n", 2, "--json").out)
    check(found)
    assert len(found["rows"]) == 2
    assert "2 rows of 3 to label next; --out" in run("next", model, pool, "-n", 2).out
    shown = run("next", model, pool, "-n", 2, "--out", out, "--replay", tickets).out
    assert "fill in column 'label'" in shown and "Replay: " in shown and out.exists()


def test_cite(run) -> None:
    assert run("list", "papers", "--cite", "92").out.startswith("@")


def test_cache_json(run, model: Path) -> None:
    info = json.loads(run("cache", "info", "--json").out)
    check(info)
    assert "Cache" in run("cache", "info").out


def test_fit_summary_tells_the_story(run, tickets: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.handful"
    result = run("fit", tickets, *HEAD, "--out", out)
    assert (result.status, result.err) == (0, "")
    for part in (
        "A text classifier for 3 classes, learnt from 12 labelled examples",
        "tickets.csv",
        "12 labelled, 0 unlabelled",
        "4 examples each: delivery, login, refund",
        "minilm",
        "prototypes: asked for by name",
        "Class names",
        "95 % interval",
        "stratified folds",
        str(out),
        f"handful predict {out} NEW.csv",
    ):
        assert part in result.out, part


def test_an_experiment_says_so(run, tickets: Path) -> None:
    result = run("fit", tickets, *HEAD, "--shots", 1)
    assert "Experiment" in result.out
    assert "not estimated" in result.out or "measured on 9 items" in result.out


def test_quiet_prints_nothing(run, tickets: Path, model: Path, tmp_path: Path) -> None:
    for args in (
        ("fit", tickets, *HEAD, "--quiet"),
        ("predict", model, tickets, "--out", tmp_path / "a.csv", "-q"),
    ):
        result = run(*args)
        assert (result.status, result.out, result.err) == (0, "", "")


def hostile_tickets(tmp_path: Path) -> Path:
    path = tmp_path / "h.csv"
    rows = [["text", "label"]]
    rows += [[f"{HOSTILE} {i}", label] for i in range(3) for label in (HOSTILE, "=cmd|' /C calc'!A0", "<script>")]
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


@pytest.mark.parametrize("terminal", [False, True])
def test_hostile_text_is_harmless(
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], terminal: bool
) -> None:
    source, out = hostile_tickets(tmp_path), tmp_path / "m.handful"
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")  # a terminal that takes no escapes: all that come are from the data
    shown = []
    for args in (
        ("fit", source, *HEAD, "--out", out),
        ("fit", source, *HEAD, "--json"),
        ("evaluate", out, source),
        ("predict", out, source, "--top", "2"),
    ):
        capsys.readouterr()
        if terminal:
            monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
        assert main([str(a) for a in args]) == 0
        if args[0] != "predict" or terminal:  # a pipe gets the table as it is
            shown.append(capsys.readouterr().out)
    for text in shown:
        assert not any(c in text for c in "\x1b\x9b\u202e"), text
    assert all("[bold]x[/bold]" in text or "[bol" in text for text in shown)
    assert not any("😄" in text for text in shown)


def test_predict_in_a_pipe_is_csv(run, model: Path, tickets: Path) -> None:
    result = run("predict", model, tickets)
    rows = list(csv.DictReader(io.StringIO(result.out)))
    assert len(rows) == 12
    assert list(rows[0]) == [
        "text",
        "label",
        "handful_label",
        "handful_confidence",
        "handful_accepted",
        "handful_given",
    ]


def test_fit_json_of_a_model_that_rejects(run, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    y = np.repeat(["a", "b", "c"], 8)
    x = 5 * np.eye(5)[np.repeat(range(3), 8)] + rng.normal(size=(24, 5))
    np.savez(tmp_path / "f.npz", X=x, y=y)
    np.savez(tmp_path / "n.npz", X=5 * np.eye(5)[[3, 4] * 6] + rng.normal(size=(12, 5)))
    how = ("--reject", "distance", "--false-alarms", 0.1, "--other", HOSTILE, "--out", tmp_path / "m.handful")
    for negatives in ((), ("--negatives", tmp_path / "n.npz")):
        found = run("fit", tmp_path / "f.npz", *HEAD, *how, *negatives, "--json")
        assert found.status == 0, found.err
        check(json.loads(found.out))
        assert json.loads(found.out)["reject"]["basis"] == ("negatives" if negatives else "classes left out")
    shown = run("inspect", tmp_path / "m.handful", "--json")
    check(json.loads(shown.out))
    for told in (run("fit", tmp_path / "f.npz", *HEAD, *how), run("inspect", tmp_path / "m.handful")):
        assert told.status == 0 and "none of" in told.out and "AUROC" in told.out
        assert not any(c in told.out for c in "\x1b\x9b\u202e")


def test_a_private_fit_says_what_is_withheld(run, tickets: Path, tmp_path: Path) -> None:
    pytest.importorskip("dp_accounting")
    out = tmp_path / "m.handful"
    told = run("fit", tickets, "--private", "8", "--out", out)
    assert told.status == 0, told.err
    assert "epsilon 8, delta 0.083, for one example added or removed" in told.out
    assert "because un-noised: accuracy and every other estimate" in " ".join(told.out.split())
    assert str(tickets) not in told.out.replace("\n", "")
    again = json.loads(run("fit", tickets, "--private", "8", "--json").out)
    check(again)
    assert again["private"]["withheld"] and again["seed"] is None and again["task"]["sources"] == []
    seen = run("inspect", out)
    assert "Withheld" in seen.out and "epsilon 8" in seen.out
    found = json.loads(run("inspect", out, "--json").out)
    check(found)
    assert "--seed does not go with --private" in run("fit", tickets, "--private", "8", "--seed", "1").complaint


def test_advice_and_suites_keep_their_schemas(run, tickets: Path, tmp_path: Path) -> None:
    method = run("advise", "method", "--have", "class-names,unlabelled", "--json")
    check(json.loads(method.out))
    encoder = run("advise", "encoder", tickets, "--json")
    assert encoder.status == 0, encoder.err
    check(json.loads(encoder.out))
    args = ("bench", tickets, "--head", "prototypes,zero-shot", "--suite", "rsvlm-benchmark", "--shots", 1)
    suite = run(*args, "--out", tmp_path / "s.json", "--json")
    assert suite.status == 0, suite.err
    found = json.loads(suite.out)
    check(found)
    check(json.loads((tmp_path / "s.json").read_text(encoding="utf-8")))
    prototypes, zero = found["rows"][0]["cells"]
    assert prototypes["gain"] == prototypes["value"] - zero["value"]


def test_audit_json_and_summary(run, model: Path, tickets: Path) -> None:
    result = run("audit", model, tickets, "--against", tickets, "--json")
    assert result.status == 0, result.err
    found = json.loads(result.out)
    check(found)
    assert found["overlap"]["same_file"] and found["overlap"]["copies"] == 12
    told = run("audit", model, tickets).out
    assert "problems found on 12 labelled items" in told and "PROBLEM: the model learnt from this very file" in told
