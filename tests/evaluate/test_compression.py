"""Paper 132, VTC-Bench: methods judged where the cheap baseline fails."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from handful.errors import BadInput
from handful.evaluate.compression import (
    compare_methods,
    compression_groups,
    correct,
    kept_share,
    matches_budget,
    read_correct,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "vtc_bench.json"


def named(right: np.ndarray) -> dict[str, bool]:
    return {str(i): bool(value) for i, value in enumerate(right)}


@pytest.mark.paper(132, oracle="a")
@pytest.mark.parametrize("seed", range(5))
def test_the_parts_add_up_and_the_ends_are_known(seed: int) -> None:
    rng = np.random.default_rng(seed)
    original, cheap, other = (rng.random(200) < p for p in (0.8, 0.6, 0.5))
    found = compare_methods(named(original), named(cheap), {"itself": named(original), "other": named(other)})
    sizes = [len(ids) for ids in (found.groups.difficult, found.groups.simple, found.groups.unsolved)]
    assert sizes == [(original & ~cheap).sum(), (original & cheap).sum(), (~original).sum()]
    for row, right in zip(found.rows, (cheap, original, other), strict=True):
        parts = [0 if e is None else e.value for e in (row.difficult, row.simple, row.unsolved)]
        assert np.dot(parts, sizes) / 200 == pytest.approx(row.all.value) == right.mean()
        assert row.drop == pytest.approx(original.mean() - right.mean())
    baseline, itself, _ = found.rows
    assert baseline.difficult and baseline.simple and itself.difficult and itself.simple
    assert (baseline.difficult.value, baseline.simple.value) == (0, 1)
    assert (itself.difficult.value, itself.simple.value) == (1, 1)


@pytest.mark.paper(132, oracle="c")
def test_the_order_turns_on_difficult_items() -> None:
    rng = np.random.default_rng(0)
    easy = np.arange(1000) < 800
    keeps = rng.random(1000) < np.where(easy, 0.85, 0.9)
    shrinks = rng.random(1000) < np.where(easy, 0.99, 0.3)
    found = compare_methods(named(np.ones(1000)), named(easy), {"X": named(keeps), "Y": named(shrinks)})
    assert found.groups.share == 0.2
    _, x, y = found.rows
    assert x.difficult and y.difficult and x.difficult.low > y.difficult.high
    assert found.ranking == ("X", "Y")
    # These shares give 0.86 and 0.852 over all items, a tie within chance; with more items easy, Y is ahead there.
    assert x.all.value == pytest.approx(0.86, abs=0.03) and y.all.value == pytest.approx(0.852, abs=0.03)
    easy = np.arange(1000) < 920
    keeps = rng.random(1000) < np.where(easy, 0.85, 0.9)
    shrinks = rng.random(1000) < np.where(easy, 0.99, 0.3)
    found = compare_methods(named(np.ones(1000)), named(easy), {"X": named(keeps), "Y": named(shrinks)})
    assert found.rows[2].all.low > found.rows[1].all.high and found.ranking == ("X", "Y") and found.tau == -1
    json.dumps(found.as_dict(), allow_nan=False)


@pytest.mark.paper(132, oracle="b")
def test_groups_and_scores_are_those_of_the_authors_code() -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    rows = {k: [{"doc_id": i, "pope": {"score": s}} for i, s in v] for k, v in golden["inputs"].items()}
    original, cheap, method = (read_correct(rows[k], field="pope") for k in ("original", "cheap", "method"))
    found, wanted = compare_methods(original, cheap, {"m": method}, floor=1), golden["expected"]
    assert set(found.groups.difficult) == set(wanted["difficult"]) and len(wanted["difficult"]) > 10
    assert set(found.groups.simple) == set(wanted["simple"])
    row = found.rows[1]
    assert row.missing > 0 and row.difficult is not None and row.simple is not None
    assert [100 * row.difficult.value, 100 * row.simple.value] == pytest.approx(wanted["accuracy"])


def test_what_is_missing_is_wrong_and_counted() -> None:
    ones = named(np.ones(40))
    cheap = {name: int(name) % 2 == 0 for name in list(ones)[:30]}
    found = compare_methods(ones, cheap, {"m": {"0": 1.0, "1": 0.5, "3": 0.4}}, floor=5)
    assert (found.rows[0].missing, found.rows[1].missing) == (10, 37)
    assert found.rows[1].all.value == 2 / 40
    # of the 30 the baseline was asked 15 are difficult; of the other 10 nobody knows, as in the authors' code
    assert (len(found.groups.difficult), len(found.groups.simple)) == (15, 15)


def test_ids_may_be_numbers_and_names() -> None:
    found = compression_groups({2: True, "a": True, 1: False}, {2: False, "a": True})  # type: ignore[dict-item]
    assert (found.difficult, found.simple, found.unsolved) == ((2,), ("a",), (1,))


def test_too_few_difficult_items_are_not_ranked() -> None:
    found = compare_methods(named(np.ones(40)), named(np.arange(40) >= 29), {"m": named(np.ones(40))})
    assert (found.ranking, found.tau) == (None, None) and "29 difficult items are too few" in (found.note or "")


@pytest.mark.parametrize(
    ("answer", "reference", "rule", "right"),
    [
        (" Paris. ", "paris", "exact", True),
        ("104", "100", "relaxed", True),
        ("106", "100", "relaxed", False),
        ("1,060 %", "1000%", "relaxed", False),
        ("1,040 %", "10", "relaxed", True),  # a percent is a hundredth, as ChartQA's measure has it
        ("50", "50%", "relaxed", False),
        ("nan", "0", "relaxed", False),
        ("red", "Red", "relaxed", True),
        ("No, it is not", "no", "yes-no", True),
        ("nothing", "no", "yes-no", False),
        ("(B).", "b", "letter", True),
        ("B: a dog", "B", "letter", True),
        ("Because", "B", "letter", False),
        ("A dog", "A", "letter", False),
        ("I'm not sure", "I", "letter", False),
        ("B - a dog", "(B)", "letter", True),
        ("b", "B", "letter", True),
    ],
)
def test_rules(answer: str, reference: str, rule: str, right: bool) -> None:
    assert correct(answer, reference, rule) is right  # type: ignore[arg-type]


def test_budgets() -> None:
    assert [round(kept_share(r), 4) for r in (2, 3, 4, 5, 10)] == [0.25, 0.1111, 0.0625, 0.04, 0.01]
    assert matches_budget(3, 0.1111) and not matches_budget(2, 0.5)
    # a tenth of the tokens, or twice as many, is another budget, however few they are
    assert matches_budget(10, 0.01) and not matches_budget(10, 0.001) and not matches_budget(10, 0.019)


def test_records() -> None:
    rows = [{"doc_id": 1, "exact": True}, {"doc_id": 2, "exact": {"score": 0.25}}]
    assert read_correct(rows, field="exact") == {"1": 1.0, "2": 0.25}
    assert read_correct([{"doc_id": 1, "exact": np.float32(0.5)}], field="exact") == {"1": 0.5}
    with pytest.raises(BadInput, match="record 1 has no field 'acc'; it has doc_id, exact"):
        read_correct(rows, field="acc")
    with pytest.raises(BadInput, match="id '1' comes twice"):
        read_correct([rows[0], rows[0]], field="exact")
    with pytest.raises(BadInput, match="score between 0 and 1, not 'yes'"):
        read_correct([{"doc_id": 1, "exact": "yes"}], field="exact")


def test_bad_input() -> None:
    with pytest.raises(BadInput, match="no id in common"):
        compression_groups({"a": True}, {"b": True})
    with pytest.raises(BadInput, match="method 'm' has no id in common"):
        compare_methods({"a": True}, {"a": True}, {"m": {"b": True}})
    with pytest.raises(BadInput, match="cheap baseline's name"):
        compare_methods({"a": True}, {"a": True}, {"baseline": {"a": True}})
    for wrong in (float("nan"), 87.0, -1, "yes", None, {"score": 1}):
        with pytest.raises(BadInput, match=r"method 'm': 'a' is .* neither a truth value nor a score between 0 and 1"):
            compare_methods({"a": True}, {"a": True}, {"m": {"a": wrong}})
        with pytest.raises(BadInput, match="original: 'a' is"):
            compression_groups({"a": wrong}, {"a": True})
    for factor in (1, 2.5, float("inf"), float("nan")):
        with pytest.raises(BadInput, match="whole factor of 2 or more"):
            kept_share(factor)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="are texts, not None and 'a'"):
        correct(None, "a")  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="not 'fuzzy'"):
        correct("a", "a", "fuzzy")  # type: ignore[arg-type]
