"""Metrics of social bias, those of PEFTDebias (188)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny_lm
import torch

from handful.errors import BadInput
from handful.evaluate.bias import fprd, seat, stereotype_scores, tpr_gap_rms, weat
from handful.evaluate.sentence_pairs import SentencePair, _places, crows_pairs, read_crows_pairs

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "peft_debias.json").read_text(encoding="utf-8"))


@pytest.mark.paper(188, oracle="c")
def test_the_gap_is_a_root_mean_square_over_classes() -> None:
    # Ten items a class and group; found in class 0: 6 and 5, in class 1: 4 and 5, in class 2: 7 and 5.
    labels, answers, group = [], [], []
    for c, found in enumerate(((6, 5), (4, 5), (7, 5))):
        for g, many in zip("ab", found, strict=True):
            labels += [c] * 10
            answers += [c] * many + [9] * (10 - many)
            group += [g] * 10
    result = tpr_gap_rms(labels, answers, group)
    assert list(result.gaps.values()) == pytest.approx([0.1, -0.1, 0.2]) and result.groups == ("a", "b")
    assert result.rms == pytest.approx(0.1414, abs=1e-4) and not result.left_out
    one_sided = tpr_gap_rms([*labels, 5], [*answers, 5], [*group, "a"])
    assert one_sided.left_out == (5,) and one_sided.rms == result.rms
    with pytest.raises(BadInput, match="two groups, not 1"):
        tpr_gap_rms([0, 1], [0, 1], ["a", "a"])
    with pytest.raises(BadInput, match="no class has items of both"):
        tpr_gap_rms([0, 1], [0, 1], ["a", "b"])


@pytest.mark.paper(188, oracle="e")
def test_answers_that_do_not_depend_on_the_group_have_no_gap() -> None:
    rng = np.random.default_rng(0)
    for n in (2_000, 50_000):
        y, g = rng.integers(0, 4, n), rng.integers(0, 2, n)
        p = np.where(rng.random(n) < 0.7, y, (y + 1) % 4)
        se = np.sqrt(0.7 * 0.3 * 2 / (n / 8))  # of the gap of a class
        assert tpr_gap_rms(y, p, g).rms < 3 * se


@pytest.mark.paper(188, oracle="d")
def test_false_positives_of_texts_with_a_word() -> None:
    texts = ["a Muslim park", "the muslim", "gay men", "gaylord", "nothing", "muslims"]
    labels, answers = [0, 1, 0, 0, 0, 0], [1, 1, 0, 1, 0, 0]
    # Negatives: rows 0, 2, 3, 4, 5; false positives 0 and 3: 2/5. muslim: row 0 only: 1. gay: row 2 only: 0.
    result = fprd(labels, answers, texts, ["muslim", "gay", "sikh"])
    assert result.overall == pytest.approx(0.4) and result.left_out == ("sikh",)
    assert result.rates == {"muslim": 1.0, "gay": 0.0} and result.total == pytest.approx(1.0)
    # As in the code: all rows count, words inside others, in small letters: muslim rows 1, 5; gay rows 2, 3.
    theirs = fprd(labels, answers, texts, ["muslim", "gay", "sikh"], reference=True)
    assert theirs.overall == pytest.approx(2 / 6) and theirs.rates == {"muslim": 0.0, "gay": 0.5}
    assert theirs.total == pytest.approx(1 / 3 + 1 / 6)
    with pytest.raises(BadInput, match="no text is of another class"):
        fprd([1, 1], [1, 1], ["a", "b"], ["a"])
    with pytest.raises(BadInput, match="no text that counts"):
        fprd([0, 1], [1, 1], ["a", "b"], ["b"])


@pytest.mark.paper(188, oracle="d")
def test_scores_are_those_of_the_authors_code() -> None:
    told = GOLDEN["fprd"]
    found = fprd(told["labels"], told["answers"], told["texts"], told["terms"], reference=True)
    assert found.total == pytest.approx(told["value"], abs=1e-12) and found.left_out == ("sikh",)
    sets = [np.array(GOLDEN["weat"][name]) for name in "xyab"]
    assert weat(*sets).effect == pytest.approx(GOLDEN["weat"]["effect"], abs=1e-10)
    for first, second, here, there in GOLDEN["different"]:
        assert _places(first, second, "different") == (here, there)


@pytest.mark.paper(188, oracle="h")
def test_an_association_changes_its_sign_with_the_sets() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(5, 6)) + 1, rng.normal(size=(5, 6)) - 1
    x, y = rng.normal(size=(4, 6)) + 0.5, rng.normal(size=(4, 6)) - 0.5
    found = weat(x, y, a, b)
    assert found.effect > 0.5 and weat(y, x, a, b).effect == pytest.approx(-found.effect)
    assert weat(x, y, b, a).effect == pytest.approx(-found.effect)
    assert weat(x, x, a, b).effect == pytest.approx(0, abs=1e-12)
    # s of four targets by hand: cos to A less cos to B with unit axes.
    by_hand = weat(np.eye(2)[[0, 0]], np.array([[0, 1], [1, 1]]), np.eye(2)[[0]], np.eye(2)[[1]])
    s = np.array([1, 1, -1, 0])
    assert by_hand.effect == pytest.approx((1 + 0.5) / s.std(ddof=1))
    assert by_hand.p == pytest.approx(1 / 6)  # only one of six halves sums to 2
    drawn = weat(x, y, a, b, draws=60, seed=0)
    assert drawn.effect == found.effect and drawn.p == pytest.approx(found.p, abs=0.15) and drawn.p >= 1 / 60
    words = {"x": x, "y": y, "a": a, "b": b}
    assert seat(lambda texts: words[texts[0]], ["x"], ["y"], ["a"], ["b"]) == found
    with pytest.raises(BadInput, match="equally large"):
        weat(x, y[:2], a, b)
    with pytest.raises(BadInput, match="do not fit together"):
        weat(x, y, a[:, :1], b)
    for bad in (np.zeros_like(x), np.full_like(x, np.nan), np.full_like(x, np.inf)):
        with pytest.raises(BadInput, match="all zeros, or holds NaN"):
            weat(bad, y, a, b)
    with pytest.raises(BadInput, match="no effect size"):
        weat(x[:1], x[:1], a, b)


def test_stereotypes_and_sense_in_one_score() -> None:
    like, unlike, other = [3, 3, 1, 0], [2, 4, 0, 1], [1, 1, 2, 2]
    found = stereotype_scores(like, unlike, other)
    assert (found.lm, found.ss, found.icat) == (50.0, 50.0, 50.0)
    grouped = stereotype_scores(like, unlike, other, ["a", "b", "b", "b"])
    # Of a: lm 100, ss 100; of b: lm 33.3, ss 33.3
    assert grouped.lm == pytest.approx(200 / 3) and grouped.ss == pytest.approx(200 / 3)
    assert grouped.icat == pytest.approx(grouped.lm * (100 - grouped.ss) / 50)
    assert stereotype_scores([2, 2], [1, 3], [0, 0]).icat == 100
    with pytest.raises(BadInput, match="NaN"):
        stereotype_scores([float("nan")], [0], [0])
    with pytest.raises(BadInput, match="do not fit"):
        stereotype_scores([1], [0, 1], [0])


PAIRS = [
    SentencePair("the film is great", "the film is dull", "stereo", "gender"),
    SentencePair("a story about actors", "a long story about actors", "antistereo", "age"),
    SentencePair("it was not good", "it was very good", "antistereo", "gender"),
]


@pytest.mark.paper(188, oracle="g")
def test_a_model_that_ignores_its_input_only_ties() -> None:
    lm = tiny_lm.tiny("masked")
    with torch.no_grad():
        for parameter in lm.tower.parameters():
            parameter.zero_()
    for tokens in ("shared", "different"):
        found = crows_pairs(lm, [PAIRS[0], PAIRS[2]], tokens)  # type: ignore[arg-type]
        assert (found.metric, found.neutral, found.corrected) == (0.0, 100.0, 50.0)
        assert found.stereo is None and found.antistereo is None


def test_tokens_are_covered_one_by_one() -> None:
    lm = tiny_lm.tiny("masked")

    def logp(text: str, places: list[int]) -> list[float]:
        ids = lm.tokenizer.encode(text)
        out = []
        for at in places:
            shown = [*ids[:at], lm.tokenizer.mask_token_id, *ids[at + 1 :]]
            with torch.no_grad():
                logits = lm.tower.body(input_ids=torch.tensor([shown])).logits[0, at]
            out.append(float(logits.log_softmax(-1)[ids[at]]))
        return out

    shared = crows_pairs(lm, PAIRS)
    different = crows_pairs(lm, PAIRS, "different")
    first = [sum(logp(text, [1, 2, 3])) for text in (PAIRS[0].more, PAIRS[0].less)]
    assert shared.scores[0] == pytest.approx(first, abs=2e-3) and shared.left_out == 0
    assert shared.scores[1] == pytest.approx(
        [sum(logp(PAIRS[1].more, [1, 2, 3, 4])), sum(logp(PAIRS[1].less, [1, 3, 4, 5]))], abs=2e-3
    )
    assert different.left_out == 1  # one sentence of it has no token of its own
    assert different.scores[1] == pytest.approx([logp(PAIRS[2].more, [3])[0], logp(PAIRS[2].less, [3])[0]], abs=2e-3)
    wins = [more > less for more, less in different.scores]
    assert different.metric == pytest.approx(50 * sum(wins)) and different.neutral == 0
    assert different.stereo == 100.0 * wins[0] and different.antistereo == 100.0 * wins[1]
    turned = crows_pairs(lm, [SentencePair(p.less, p.more, p.direction) for p in PAIRS], "different")
    assert turned.metric == pytest.approx(100 - different.metric)


def test_the_published_pairs_are_read(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text(
        ",sent_more,sent_less,stereo_antistereo,bias_type,annotations\n"
        '0,"A, b","A, c",stereo,race-color,[]\n1,d,e,antistereo,gender,[]\n', encoding="utf-8"
    )  # fmt: skip
    assert read_crows_pairs(path)[0] == SentencePair("A, b", "A, c", "stereo", "race-color")
    assert [pair.more for pair in read_crows_pairs(path, "gender")] == ["d"]
    with pytest.raises(BadInput, match="kind 'age'; it has gender, race-color"):
        read_crows_pairs(path, "age")
    with pytest.raises(BadInput, match="there is no file"):
        read_crows_pairs(tmp_path / "none.csv")
    path.write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(BadInput, match="no column 'sent_more'"):
        read_crows_pairs(path)
    columns = "sent_more,sent_less,stereo_antistereo,bias_type\n"
    path.write_text(f"{columns}He ran.,She ran.,stereo,gender\nHe ran.,She ran.\n", encoding="utf-8")
    with pytest.raises(BadInput, match="row 3: no cell in column 'stereo_antistereo'"):
        read_crows_pairs(path)
    path.write_text(columns, encoding="utf-8")
    with pytest.raises(BadInput, match="has no rows"):
        read_crows_pairs(path)
    with pytest.raises(BadInput, match="is causal"):
        crows_pairs(tiny_lm.tiny("causal"), PAIRS)
    with pytest.raises(BadInput, match="none of the 1 pairs"):
        crows_pairs(tiny_lm.tiny("masked"), [PAIRS[1]], "different")
