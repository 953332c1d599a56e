"""`bench --suite`: a table that is the same twice, goes on where it stopped, and is bold only where a test says so."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from handful.adapt.base import Features
from handful.cli import main
from handful.commands.bench import bench
from handful.commands.suites import _digest
from handful.errors import BadInput
from handful.evaluate import suites
from handful.evaluate.significance import friedman
from handful.evaluate.suite_results import SuiteResult
from handful.evaluate.suites import Scores


def table(folder: Path, name: str, spread: float = 1.0, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    means, y = rng.normal(size=(7, 10)), np.repeat(np.arange(7), 24)
    path = folder / f"{name}.npz"
    np.savez(path, X=means[y] + spread * rng.normal(size=(len(y), 10)), y=np.array(list("abcdefg"))[y])
    return path


@pytest.fixture
def sources(tmp_path: Path) -> list[str]:
    return [str(table(tmp_path, "one")), str(table(tmp_path, "two", 1.6, 1))]


def run(sources: Any, **more: Any) -> SuiteResult:
    found = bench(sources, **{"heads": ["prototypes", "logistic"], "suite": "rsvlm-benchmark", "shots": [2, 4], **more})
    assert isinstance(found, SuiteResult)
    return found


@pytest.mark.paper(13, oracle="c", part="benchmark")
def test_the_same_seeds_give_the_same_bytes(sources: list[str], tmp_path: Path) -> None:
    one = run(sources, out=tmp_path / "a.json")
    two = run(sources, out=tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    for kind in ("md", "tex"):
        assert one.table(kind) == two.table(kind)
    assert [row[::2] for row in one.rows] == [
        ("one", "2-shot"),
        ("one", "4-shot"),
        ("two", "2-shot"),
        ("two", "4-shot"),
    ]


def test_a_run_that_was_killed_goes_on(sources: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, out = run(sources), tmp_path / "r.json"
    calls, judge = [], suites.judge

    def dies(suite: Any, setting: Any, head: Any, data: Any, seed: int = 0) -> Scores:
        calls.append((data.name, setting.name, head.key))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return judge(suite, setting, head, data, seed)

    monkeypatch.setattr("handful.commands.suites.judge", dies)
    with pytest.raises(KeyboardInterrupt):
        run(sources, out=out)
    assert sum(len(row["cells"]) for row in json.loads(out.read_text())["rows"]) == 3
    on = run(sources, out=out)
    assert len(calls) == 4 + 5 and calls[4] == calls[3]  # what was done is not done again
    assert on.as_dict(scores=True) == whole.as_dict(scores=True) == json.loads(out.read_text())
    run(sources, out=out)
    assert len(calls) == 9


@pytest.mark.parametrize(
    ("change", "what"),
    [({"heads": ["prototypes"]}, "heads"), ({"shots": [2]}, "settings"), ({"set_": {"logistic.C": 2.0}}, "heads")],
)
def test_two_runs_are_never_mixed(sources: list[str], tmp_path: Path, change: dict, what: str) -> None:
    run(sources, out=tmp_path / "r.json")
    before = (tmp_path / "r.json").read_bytes()
    with pytest.raises(BadInput, match=f"holds another run: its {what} differ"):
        run(sources, out=tmp_path / "r.json", **change)
    with pytest.raises(BadInput, match="its data differ"):
        run(sources[:1], out=tmp_path / "r.json")
    assert (tmp_path / "r.json").read_bytes() == before


def test_class_text_base_classes_and_seeds_are_part_of_the_run(sources: list[str], tmp_path: Path) -> None:
    more = {"suite": "cross-domain", "shots": [5], "episodes": 20, "heads": ["simpleshot"], "out": tmp_path / "r.json"}
    run(sources, **more)
    with pytest.raises(BadInput, match="its data differ"):
        run(sources[1:], base=str(table(tmp_path, "three", 1.0, 2)), **more)
    with pytest.raises(BadInput, match=r"seeds of its own.*: leave out --seed"):
        run(sources, seed=1)
    text = {"a": np.ones((1, 4), np.float32)}
    one = suites.SuiteData("d", "e", Features(np.ones((2, 4), np.float32), {}), np.array(["a", "a"]), text)
    two = replace(one, text={"a": np.zeros((1, 4), np.float32)})
    assert len({_digest(one), _digest(two), _digest(replace(one, text=None))}) == 3


def test_rows_of_one_data_set_are_one_block_of_the_test_of_ranks() -> None:
    def ranks(rows: list[tuple[str, float]]) -> dict[str, Any]:
        cells = {}
        for i, (data, ahead) in enumerate(rows):
            for head, value in (("x", 0.5), ("y", 0.5 + ahead), ("z", 0.1)):
                cells[(data, "e", f"{i}-shot"), head] = Scores(value, 0.0, np.empty((0, 0)))
        return SuiteResult({"title": "T", "kind": "splits", "suite": "t"}, cells).as_dict()["ranks"]

    assert ranks([("d", 0.1), ("d", 0.2), ("d", 0.3)])["friedman_p"] is None
    many = ranks([("d", 0.1), ("d", -0.05), ("c", -0.1), ("b", 0.1)])
    assert many["friedman_p"] == friedman([[0.5, 0.525, 0.1], [0.5, 0.4, 0.1], [0.5, 0.6, 0.1]]).p
    assert many["mean"] == {"x": 1.5, "y": 1.5, "z": 3.0} and many["by_row"][1] == {"x": 1.0, "y": 2.0, "z": 3.0}


def test_bold_is_only_what_a_test_shows() -> None:
    rng = np.random.default_rng(0)
    setting = {"title": "T", "kind": "splits", "suite": "t"}

    def result(gap: float, heads: int = 3) -> SuiteResult:
        cells = {}
        for row in (("d1", "e", "1-shot"), ("d2", "e", "1-shot")):
            for h in range(heads):
                scores = (rng.random((3, 200)) < 0.5 + gap * h).astype(float)
                cells[row, f"h{h}"] = Scores(float(scores.mean()), 0.0, scores)
        return SuiteResult(setting, cells)

    same, apart = result(0.0), result(0.2)
    assert set(same.winners().values()) == {None} and "**" not in same.table("md")
    assert set(apart.winners().values()) == {"h2"}
    assert apart.table("md").count("**") == 4 and apart.table("tex").count(r"\textbf") == 2
    alone = result(0.0, 1)
    assert "**" not in alone.table("md") and "bold" not in alone.table("md")
    p = [pair.p for pairs in same.pairs().values() for pair in pairs]
    assert len(p) == 6
    untested = SuiteResult(setting, {k: Scores(v.value, 0, np.empty((0, 0))) for k, v in apart.cells.items()})
    assert "**" not in untested.table("md") and set(untested.winners().values()) == {None}


def test_names_from_data_are_no_markup() -> None:
    cells = {(("a|b*_$&\n", "e", "1-shot"), "h"): Scores(0.5, 0.0, np.ones((1, 3)))}
    found = SuiteResult({"title": "T", "kind": "splits", "suite": "t"}, cells)
    assert r"| a\|b\*\_$& |" in found.table("md")
    assert r"a|b*\_\$\&" in found.table("tex")


def test_cross_domain_learns_its_base_elsewhere(sources: list[str]) -> None:
    found = run(sources, suite="cross-domain", shots=[5], episodes=20, heads=["simpleshot"])
    assert [row[0] for row in found.rows] == ["two"]
    with pytest.raises(BadInput, match="and another to judge on"):
        run(sources[0], suite="cross-domain", shots=[5], episodes=20)


def test_settings_the_data_are_too_small_for_are_named(sources: list[str]) -> None:
    assert [row[2] for row in run(sources[0], shots=[1, 5]).rows] == [
        "1-shot",
        "5-shot",
    ]  # not all five of the protocol
    found = run(sources[0], shots=[2, 16])
    assert found.left_out == ("one, 16-shot: class 'a' has 12 of the 16 items needed",)
    with pytest.raises(BadInput, match=r"nothing of --suite .* can be run: one, 16-shot"):
        run(sources[0], shots=[16])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"suite": "rsvlm"}, "no suite 'rsvlm'"),
        ({"ways": 3}, "leave out --ways"),
        ({"imbalance": 2.0}, "leave out --imbalance"),
        ({"tune_on": "v.csv"}, "leave out --tune-on"),
        ({"out": "r.csv"}, r"a suite writes a \.json file"),
        ({"suite": "fewclue", "shots": None}, "reads a folder with its tasks"),
        ({"suite": "fewclue", "shots": (1, 5)}, "leave out --shots"),
        ({"shots": [1.5]}, r"shots must be at least 1, not 1\.5"),
        ({"shots": 2}, "shots is a list of numbers, or of 'any' alone, not 2"),
        ({"sources": []}, "at least one source"),
    ],
)
def test_what_does_not_fit_is_refused(sources: list[str], change: dict, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        run(**{"sources": sources, **change})


def test_a_class_folder_without_items_is_refused(tmp_path: Path) -> None:
    for name in ("cat", "dog", "empty"):
        (tmp_path / name).mkdir()
    for name in ("cat", "dog"):
        (tmp_path / name / "a.txt").write_text("a text", encoding="utf-8")
    with pytest.raises(BadInput, match="class folder 'empty' holds no items"):
        run(str(tmp_path))


def test_twins_and_foreign_files(sources: list[str], tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    twin = table(tmp_path / "other", "one")
    with pytest.raises(BadInput, match="two sources are called 'one'"):
        run([sources[0], str(twin)])
    (tmp_path / "r.json").write_text("{}")
    with pytest.raises(BadInput, match="holds no results of a suite"):
        run(sources, out=tmp_path / "r.json")


def test_fewclue_from_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "eprstmt"
    folder.mkdir()
    row = lambda i: {"id": i, "sentence": ("good", "bad")[i % 2] + f" {i}", "label": ("P", "N")[i % 2]}  # noqa: E731
    for i in (0, 1, 2, 3, 4, "few_all"):
        for part in ("train", "dev"):
            lines = "".join(json.dumps(row(j)) + "\n" for j in range(8))
            (folder / f"{part}_{i}.json").write_text(lines, encoding="utf-8")
    (folder / "test_public.json").write_text(
        "".join(json.dumps(row(j)) + "\n" for j in range(50, 60)), encoding="utf-8"
    )

    class Tower:
        name, modality, dim, outputs = "fake", "text", 2, frozenset({"pooled"})
        identity = fingerprint = "fake"
        aligned, logit_scale = None, 100.0

        def encode(self, items: Any, outputs: Any = ("pooled",), **_: Any) -> np.ndarray:
            return np.array([[item.count("good"), item.count("bad")] for item in items], np.float32) + 0.01

    monkeypatch.setattr("handful.commands.bench.default_encoder", lambda modality: Tower(), raising=True)
    found = bench(tmp_path, heads=["prototypes"], suite="fewclue")
    (cell,) = found.cells.values()
    assert cell.scores.shape == (5, 10) and cell.value == 1


@pytest.mark.parametrize("markup", ["md", "tex"])
def test_the_command_prints_tables(sources: list[str], capsys: pytest.CaptureFixture[str], markup: str) -> None:
    args = ["bench", *sources, "--head", "prototypes,logistic", "--suite", "rsvlm-benchmark", "--shots", "2,4"]
    assert main([*args, "--table", markup]) == 0
    out = capsys.readouterr().out
    assert out.startswith("| data |" if markup == "md" else "% ")
    assert main([*args]) == 0
    shown = capsys.readouterr().out
    assert "Mean ranks: prototypes" in shown and re.search(r"one, 2-shot: ", shown)
    assert main(["bench", sources[0], "--head", "prototypes,logistic", "--episodes", "30", "--table", markup]) == 0
    assert "30 episodes" in capsys.readouterr().out
    assert main([*args, "--table", "html"]) == 2
