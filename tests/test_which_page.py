"""`docs/which-head.md` says what the benchmark found, of every head, and no more."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from handful.adapt import HEADS
from handful.core.intervals import mean_interval
from handful.evaluate.significance import paired_test

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "which-head.md").read_text("utf-8")
ROWS = json.loads((DOCS.parent / "benchmarks" / "results" / "heads.json").read_text("utf-8"))["rows"]


@pytest.fixture
def which(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(DOCS))
    for name in ("results", "which"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    spec = importlib.util.spec_from_file_location("which", DOCS / "which.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "which", module)  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def row(
    head: str, differences: Any, shots: int = 1, imbalance: float | None = None, name: str = "trec"
) -> dict[str, Any]:
    """A row of the benchmark: what the head did better in each episode than class means, which have 0.5."""
    d = np.asarray(differences, dtype=float)
    return {
        "set": name, "shots": shots, "imbalance": imbalance, "head": head, "episodes": len(d),
        "accuracy": mean_interval(0.5 + d).as_dict(), "gain": mean_interval(d).as_dict(),
    }  # fmt: skip


def plain(shots: int = 1, imbalance: float | None = None, name: str = "trec") -> dict[str, Any]:
    return row("prototypes", np.zeros(5), shots, imbalance, name) | {"gain": None}


NOISE = np.linspace(-0.1, 0.1, 40)


def test_p_values_are_those_of_the_paired_test(which: ModuleType) -> None:
    d = 0.02 + NOISE
    assert which._p(row("gda", d)) == pytest.approx(paired_test(d, np.zeros(40)).p, rel=1e-9)
    assert which._p(row("gda", np.zeros(4))) == 1


def test_what_is_sure_alone_is_not_sure_among_many(which: ModuleType) -> None:
    small = row("gda", 0.022 + NOISE)
    assert 0.01 < which._p(small) < 0.05
    assert which.compared([small])[0].sign == 1
    many = [small, *(row(f"h{i}", NOISE) for i in range(9))]
    assert [c.sign for c in which.compared(many)] == [0] * 10
    large = [row("gda", 0.1 + NOISE), row("rfs", -0.1 + NOISE), *many[1:]]
    assert [c.sign for c in which.compared(large)] == [1, -1, *[0] * 9]


def test_a_head_that_never_helps_is_said_to(which: ModuleType) -> None:
    rows = [plain(), row("rfs", 0.1 + NOISE), row("logistic", -0.1 + NOISE), row("simpleshot", NOISE)]
    found = which.compared(rows)
    said = which.sentence(["prototypes", "rfs", "logistic", "simpleshot"], found)
    assert "1 shot: `rfs`, +10.0 ± 1.9 points, better on 1 of 1 sets." in said
    assert "**Never better, somewhere worse**: `logistic`." in said
    assert "**No difference shown**: `simpleshot`." in said
    lines = {
        line.split("`")[1]: line for line in which.summary(["rfs", "logistic", "simpleshot"], found).splitlines()[2:]
    }
    assert list(lines) == ["rfs", "simpleshot", "logistic"]
    assert "| **never better** | 0 of 1 | 1 of 1 | -10.0 ± 1.9 |" in lines["logistic"]
    assert "| better, never worse | 1 of 1 | 0 of 1 | +10.0 ± 1.9 |" in lines["rfs"]


def test_a_head_that_needs_balance_is_said_to(which: ModuleType) -> None:
    rows = [plain(), plain(imbalance=2.0)]
    for head, uneven in (("pt-map", -0.1), ("unem", 0.05)):
        rows += [row(head, 0.1 + NOISE), row(head, uneven + NOISE, imbalance=2.0)]
    said = which.sentence(["pt-map", "unem"], which.compared(rows))
    assert "lose with imbalanced ones**, on average: `pt-map`." in said


def test_most_gained_is_among_heads_that_were_run_on_all_sets(which: ModuleType) -> None:
    rows = [plain(), plain(name="agnews"), row("rfs", 0.2 + NOISE)]
    rows += [row("gda", 0.1 + NOISE), row("gda", -0.06 + NOISE, name="agnews")]
    found = which.compared(rows)
    assert "1 shot: `gda`, +2.0 ± 1.4 points, better on 1 of 2 sets, worse on 1." in which.sentence(
        ["rfs", "gda"], found
    )
    assert "+20.0 ± 1.9 (1 of 2)" in which.summary(["rfs", "gda"], found)


def test_cells_of_one_set_err_together(which: ModuleType) -> None:
    one = which.compared([row("gda", NOISE), row("gda", NOISE, 5)])
    two = which.compared([row("gda", NOISE), row("gda", NOISE, name="agnews")])
    half = 50 * (mean_interval(NOISE).high - mean_interval(NOISE).low)
    assert which.mean_gain(one) == pytest.approx((0, half))
    assert which.mean_gain(two) == pytest.approx((0, half / 2**0.5))
    assert which.mean_gain([]) is None


def test_cells_show_mean_interval_gain_and_mark(which: ModuleType) -> None:
    rows = [plain(), row("rfs", 0.1 + NOISE), plain(5), row("rfs", NOISE, 5)]
    shown = which.details(["prototypes", "rfs"], which.compared(rows))
    assert "| `rfs` | 60.0 [58.1, 61.9]<br>+10.0 [+8.1, +11.9] ▲ | 50.0 [48.1, 51.9]<br>+0.0 [-1.9, +1.9] |" in shown
    assert shown.startswith('??? note "TREC: every cell"\n\n    | Head | 1 shot | 5 shots |')


def test_what_was_not_measured_is_named_with_the_reason(which: ModuleType) -> None:
    cell = {"set": "trec", "shots": 1, "imbalance": None}
    rows = [plain(), plain(5), row("gda", NOISE, 5), row("vdt", NOISE, 5)]
    rows += [
        cell | {"head": "wca", "missing": "the view crops"},
        cell | {"head": "vdt", "missing": "9 s an episode are"},
    ]
    wanted = "`wca` (not run yet; the view crops), `gda` in 1 of 2 cells (not run yet), "
    wanted += "`vdt` in 1 of 2 cells (too slow), `aldc` (not run yet)"
    assert which.left_out(["prototypes", "wca", "gda", "vdt", "aldc"], rows) == f"Not measured: {wanted}."


def test_every_head_is_in_one_group_and_every_group_on_the_page(which: ModuleType) -> None:
    listed = [key for group in which.GROUPS for key in which.members(group, ROWS)]
    assert sorted(key for key in listed if not key.endswith(which.PLAIN)) == sorted(HEADS)
    assert set(re.findall(r"(?m)^<!-- which: (\w+) -->$", PAGE)) == {*which.GROUPS, *which._ALL}
    assert set(re.findall(r"(?m)^## (.+)$", PAGE)) == {"At a glance", *which.GROUPS.values()}
    page = "\n".join(which.which(group) for group in which.GROUPS)
    assert not [key for key in HEADS if f"`{key}`" not in page]


def test_the_benchmark_left_no_cell_out() -> None:
    some = {(name, k) for name in ("banking77", "trec", "agnews", "whu-rs19", "fashion-mnist") for k in (1, 5, 16)}
    some |= {("omniglot", k) for k in (1, 5)}
    cells = [(r["set"], r["shots"], r["imbalance"]) for r in ROWS if r["head"] == "prototypes"]
    assert len(cells) == 34
    assert set(cells) == {(name, k, imbalance) for name, k in some for imbalance in (None, 2.0)}
    assert len({(r["head"], r["set"], r["shots"], r["imbalance"]) for r in ROWS}) == len(ROWS)
