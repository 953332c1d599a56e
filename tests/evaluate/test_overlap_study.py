"""The study of how few-shot tuning teaches shared words (072)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import tiny_lm

from handful.errors import BadInput
from handful.evaluate.heuristics import make_overlap_pairs
from handful.evaluate.overlap_study import (
    Challenge,
    Pairs,
    Predict,
    overlap_study,
    read_hans,
    read_paws,
    read_scramble,
)
from handful.tune.lm_bff import PromptClassifier

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "hans.json").read_text(encoding="utf-8"))
COLUMNS = (
    "gold_label sentence1_binary_parse sentence2_binary_parse sentence1_parse sentence2_parse sentence1 sentence2 "
)
COLUMNS += "pairID heuristic subcase template"
MADE = make_overlap_pairs(15, seed=0)


@pytest.fixture
def hans(tmp_path: Path) -> Challenge:
    """A file in the format of HANS."""
    rows = [COLUMNS.split()]
    for number, (first, second, label, kind) in enumerate(MADE):
        name = kind.replace(" ", "_")
        rows.append([label, "x", "x", "x", "x", first, second, f"ex{number}", name, f"{name}_1", "t"])
    path = tmp_path / "heuristics_evaluation_set.txt"
    path.write_text("\n".join("\t".join(row) for row in rows) + "\n", encoding="utf-8")
    return read_hans(path)


@pytest.mark.paper(72, oracle="e", part="study")
def test_hans_is_scored_as_its_authors_do(hans: Challenge) -> None:
    assert hans.pairs == [(first, second) for first, second, *_ in MADE]
    found = hans.judge(lambda pairs: GOLDEN["predicted"])
    for kind, value in GOLDEN["entailed"].items():
        assert found.by_case[kind, "supported"].value == pytest.approx(value)
        assert found.by_case[kind, "contradicting"].value == pytest.approx(GOLDEN["non_entailed"][kind])


def overlapping(pairs: Pairs) -> list[str]:
    """Goes by shared words, as the heuristic says."""
    return ["entailment" if set(b.split()) <= set(a.split()) else "neutral" for a, b in pairs]


PAIRS = [(f"the film {w}", f"the {w}") for w in tiny_lm.WORDS[:20]] + [
    (f"a {w}", f"no {w}") for w in tiny_lm.WORDS[:20]
]
LABELS = ["entailment"] * 20 + ["neutral"] * 20


@pytest.mark.paper(72, oracle="d", part="study")
def test_who_learns_to_go_by_shared_words_is_found_out(hans: Challenge) -> None:
    seen: list[tuple[int, int]] = []

    def fit(pairs: Pairs, labels: Sequence[str], seed: int) -> Predict:
        seen.append((len(pairs), seed))
        assert sorted(labels) == sorted(LABELS[: len(labels) // 2] + LABELS[20 : 20 + len(labels) // 2])
        assert all(LABELS[PAIRS.index(pair)] == label for pair, label in zip(pairs, labels, strict=True))
        return overlapping if pairs else lambda asked: ["entailment", "neutral"] * (len(asked) // 2)

    study = overlap_study(fit, PAIRS, LABELS, PAIRS, LABELS, hans, shots=(0, 2, 8), seeds=(1, 2))
    assert seen == [(0, 1), (4, 1), (4, 2), (16, 1), (16, 2)]
    means = study.means()
    assert means[8] == (1.0, 1.0, 0.0) and means[2] == (1.0, 1.0, 0.0)
    assert means[0][0] == 0.5 and 0.2 < means[0][1] < 0.8 and 0.2 < means[0][2] < 0.8


def test_a_prompted_model_is_studied(hans: Challenge) -> None:
    """A tiny model of the kind that the paper tunes; zero-shot is the same model with no steps."""
    small = Challenge(hans.pairs[::6], hans.labels[::6], "entailment", hans.answers)
    model = tiny_lm.tiny("masked")

    def fit(pairs: Pairs, labels: Sequence[str], seed: int) -> Predict:
        words = {"entailment": "yes", "neutral": "maybe"}
        steps = 20 if pairs else 0
        made = PromptClassifier(model, "*cls**sent_0*_?*mask*,*+sent_1**sep+*", words, steps=steps, lr=1e-2, batch=4)
        made.fit(pairs or PAIRS[:1] + PAIRS[-1:], labels or ["entailment", "neutral"])
        return lambda asked: made.predict(asked).tolist()

    study = overlap_study(fit, PAIRS, LABELS, PAIRS, LABELS, small, shots=(0, 8), seeds=(3,))
    zero, few = study.rows
    assert (zero.shots, few.shots) == (0, 8) and few.same.value > 0.9 and few.same.value > zero.same.value


def test_other_sets_are_read(tmp_path: Path) -> None:
    paws = tmp_path / "qqp.tsv"
    paws.write_text('id\tsentence1\tsentence2\tlabel\n1\tA "b\tb A\t0\n2\tc\tc\t1\n', encoding="utf-8")
    found = read_paws(paws)
    assert found.pairs == [('A "b', "b A"), ("c", "c")] and found.labels == ["0", "1"] and found.together == "1"
    for kind, codes in (("same_short", "0\n2\n"), ("ml_long", "2\n1\n")):
        for part, text in (("s1", "a\nb \n"), ("s2", "c\nd\n"), ("labels", codes)):
            (tmp_path / f"{part}.comp_{kind}").write_text(text, encoding="utf-8")
    scrambled = read_scramble(tmp_path, ("same_short", "ml_long"))
    assert scrambled.pairs == [("a", "c"), ("b", "d")] * 2
    assert scrambled.labels == ["contradiction", "entailment", "entailment", "neutral"]
    only = read_scramble(tmp_path)
    half = only.judge(lambda pairs: ["neutral"] * len(pairs))  # no pair of this kind is neutral: wrong both times
    assert half.supported.value == 0 and half.contradicting.value == 0
    (tmp_path / "labels.comp_same_short").write_text("0\n3\n", encoding="utf-8")
    with pytest.raises(BadInput, match="label '3'"):
        read_scramble(tmp_path)
    (tmp_path / "labels.comp_same_short").write_text("0\n", encoding="utf-8")
    with pytest.raises(BadInput, match="differ in length"):
        read_scramble(tmp_path)
    with pytest.raises(BadInput, match="there is no file"):
        read_scramble(tmp_path, ("not_long",))
    with pytest.raises(BadInput, match="no column 'gold_label'"):
        read_hans(paws)


def test_too_few_pairs_are_refused(hans: Challenge) -> None:
    with pytest.raises(BadInput, match="'entailment' has 20 pairs, but 21 shots"):
        overlap_study(lambda *_: overlapping, PAIRS, LABELS, PAIRS, LABELS, hans, shots=(21,))
    with pytest.raises(BadInput, match=f"answers 0 of {len(PAIRS)} pairs"):
        overlap_study(lambda *_: lambda pairs: [], PAIRS, LABELS, PAIRS, LABELS, hans, shots=(0,))
    with pytest.raises(BadInput, match="0 and 0 to test"):
        overlap_study(lambda *_: overlapping, PAIRS, LABELS, [], [], hans)
