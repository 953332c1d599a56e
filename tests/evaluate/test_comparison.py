"""Heads on the same episodes: paired differences, what is said about them, CSV, JSON and LaTeX."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from handful.adapt.base import Features
from handful.adapt.matching import MatchingNetworks
from handful.adapt.prototypes import Prototypes
from handful.core.intervals import mean_interval
from handful.errors import BadInput
from handful.evaluate.comparison import Row, compare, judge, paired
from handful.evaluate.episodic import EpisodeResult
from handful.evaluate.sampling import draw
from handful.evaluate.tables import BenchResult, as_latex, escape

LABELS = np.repeat(["a", "b", "c", "d"], 20)
DRAWN = draw(LABELS, ways=3, shots=2, queries=5, episodes=50, seed=0)


def result(accuracy: np.ndarray, seed: int = 0) -> EpisodeResult:
    drawn = DRAWN if seed == 0 else draw(LABELS, ways=3, shots=2, queries=5, episodes=50, seed=seed)
    return EpisodeResult(accuracy, mean_interval(accuracy), 0.5, 2**20, "peak resident memory", True, drawn)


@pytest.fixture
def rows() -> list[Row]:
    rng = np.random.default_rng(0)
    base = rng.uniform(0.4, 0.6, 50)
    heads = {"first": base, "better": base + rng.uniform(0, 0.1, 50), "same": base + rng.normal(0, 0.05, 50)}
    return compare({**{key: result(a) for key, a in heads.items()}, "under_score&": result(base - 0.1)}, 2)


def test_differences_are_paired_by_episode(rows: list[Row]) -> None:
    first, better = rows[0], rows[1]
    d = better.result.accuracy - first.result.accuracy
    low, high = stats.t.interval(0.95, 49, d.mean(), stats.sem(d))
    assert better.difference is not None
    assert (better.difference.value, better.difference.low, better.difference.high) == pytest.approx(
        (d.mean(), low, high)
    )
    unpaired = better.result.mean.high - better.result.mean.low
    assert high - low < 0.7 * unpaired


def test_the_first_is_the_reference_and_the_best_is_found(rows: list[Row]) -> None:
    assert [row.difference is None for row in rows] == [True, False, False, False]
    assert [row.to_best is None for row in rows] == [False, True, False, False]
    assert rows[0].to_best is not None and rows[0].to_best.high < 0


def test_what_is_said_is_what_the_interval_shows(rows: list[Row]) -> None:
    said = [row.statement.split(":")[0] for row in rows]
    assert said == [
        "what the others are compared with",
        "better is better than first",
        "no difference between same and first is shown",
        "under_score& is worse than first",
    ]
    assert "-10.00 points [-10.00, -10.00], paired over 50 episodes" in rows[3].statement


def test_other_episodes_are_not_compared(rows: list[Row]) -> None:
    with pytest.raises(BadInput, match="same episodes"):
        paired(rows[0].result, result(rows[0].result.accuracy, seed=1))


def test_heads_are_judged_on_identical_episodes_at_every_number_of_shots() -> None:
    x = np.random.default_rng(0).normal(size=(80, 6)).astype(np.float32)
    calls: list[tuple[int, int]] = []
    heads = {"prototypes": Prototypes(), "matching-networks": MatchingNetworks()}
    found = judge(heads, Features(x, {}), LABELS, DRAWN, [1, 2], progress=lambda *call: calls.append(call))
    assert [(row.head, row.shots) for row in found] == [(key, k) for k in (1, 2) for key in heads]
    assert calls[-1] == (200, 200) and [done for done, _ in calls] == sorted(done for done, _ in calls)
    for row in found:
        np.testing.assert_array_equal(row.result.episodes.query, DRAWN.query)


@pytest.fixture
def bench(rows: list[Row]) -> BenchResult:
    setting = {"sources": ["a\n\\input{x}.csv"], "ways": 3, "queries": 5, "episodes": 50, "seed": 0, "imbalance": None}
    return BenchResult(tuple(rows), setting)


def test_csv_has_a_line_a_head_and_three_columns_an_estimate(bench: BenchResult, tmp_path: Path) -> None:
    bench.save(tmp_path / "r.csv")
    lines = list(csv.DictReader(io.StringIO((tmp_path / "r.csv").read_text(encoding="utf-8"))))
    assert [line["head"] for line in lines] == ["first", "better", "same", "under_score&"]
    better = bench.rows[1]
    assert better.difference is not None
    assert float(lines[1]["difference_low"]) == better.difference.low
    assert float(lines[1]["accuracy"]) == better.result.mean.value
    assert (lines[0]["difference"], lines[0]["difference_low"], lines[0]["ways"], lines[0]["imbalance"]) == (
        "",
        "",
        "3",
        "",
    )
    assert float(lines[0]["episodes_per_second"]) == 100


def test_json_is_the_dictionary(bench: BenchResult, tmp_path: Path) -> None:
    bench.save(tmp_path / "r.json")
    found = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert found == json.loads(json.dumps(bench.as_dict(), allow_nan=False))
    assert found["reference"] == "first"
    assert set(found["results"][1]["difference"]) == {"value", "low", "high"}


def test_latex_prints_names_and_obeys_none(bench: BenchResult, tmp_path: Path) -> None:
    bench.save(tmp_path / "r.tex")
    text = (tmp_path / "r.tex").read_text(encoding="utf-8")
    lines = text.splitlines()
    assert lines[0].startswith("% ") and lines[1] == r"\begin{tabular}{lrr}"  # the line break stays in the comment
    assert r"under\_score\& & " in text
    assert text.count(r"\mathbf") == 1 and text.count(r"\\") == 6
    assert escape("a_b\\c{%}\x1b$~") == r"a\_b\textbackslash{}c\{\%\}\$\textasciitilde{}"


def test_latex_has_two_columns_a_number_of_shots(rows: list[Row]) -> None:
    more = [*rows, *compare({row.head: row.result for row in rows}, 5)]
    text = as_latex(more, "both")
    assert r"\multicolumn{2}{c}{2 shots} & \multicolumn{2}{c}{5 shots}" in text
    assert text.splitlines()[6].count("&") == 4


def test_other_kinds_of_file_are_refused(bench: BenchResult, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"\.csv, \.json, \.tex, not as 'r.xlsx'"):
        bench.save(tmp_path / "r.xlsx")
