"""185: subsets, mixes, benchmarks of real models, and which mix is advised."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tiny_lm
import torch

from handful.core.train import AdamW
from handful.encode.lm import LanguageModel
from handful.encode.rows import Row
from handful.errors import BadInput
from handful.evaluate.gauntlet import Benchmark
from handful.evaluate.less_is_more import (
    BenchmarkItems,
    Mix,
    _advised,
    budget_sweep,
    exact_continuation,
    loss_on,
    mixes,
    preferred,
    run_gauntlet,
    subset,
)
from handful.evaluate.preferences import overlap_judge
from handful.pretrain.examples import Example, Framing
from handful.pretrain.instruct import Instruct, less_is_more

ROWS = [Example(f"film {i}", "good", task="rows") for i in range(50)]


@pytest.fixture(scope="module")
def causal() -> LanguageModel:
    model = tiny_lm.tiny("causal", max_position_embeddings=200)
    model.tokenizer.model_max_length = model.most = 200
    return model


@pytest.mark.paper(185, oracle="f")
def test_subsets_are_nested_or_disjoint_as_asked() -> None:
    small, large = subset(ROWS, 10, seed=3), subset(ROWS, 25, seed=3)
    assert large[:10] == small and len(set(large)) == 25
    assert not set(small) & set(subset(ROWS, 10, seed=3, part=1))
    assert subset(ROWS, 10, seed=3) == small != subset(ROWS, 10, seed=4)
    assert subset(ROWS, "all", 0) == ROWS
    assert subset(ROWS, np.int64(10), seed=3) == small
    with pytest.raises(BadInput, match="parts count from 0, not -1"):
        subset(ROWS, 10, 0, part=-1)
    with pytest.raises(BadInput, match="a subset of 51"):
        subset(ROWS, 51, 0)
    with pytest.raises(BadInput, match=r"a number of examples, or 'all', not 2\.5"):
        subset(ROWS, 2.5, 0)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match=r"20 \(3 of a size\) is not in a set of 50"):
        subset(ROWS, 20, 0, part=2)


@pytest.mark.paper(185, oracle="c")
def test_a_uniform_model_is_right_as_often_as_a_guesser(causal: LanguageModel) -> None:
    rng = np.random.default_rng(0)
    words = ("good", "bad", "fine", "long")
    items = [Example(f"film {i}", words[int(rng.integers(4))], words, "choice") for i in range(600)]
    tested = [BenchmarkItems(Benchmark("choice", chance=0.25), "c", (items,))]
    head = causal.tower.body.get_output_embeddings().weight
    kept = head.detach().clone()
    with torch.no_grad():
        head.zero_()  # all words are as likely
    try:
        blank = run_gauntlet(causal, tested)
    finally:
        with torch.no_grad():
            head.copy_(kept)
    assert abs(blank.categories["c"] * 0.75) < 3 * (0.25 * 0.75 / 600) ** 0.5
    assert run_gauntlet(causal, tested).categories != blank.categories


def test_benchmarks_of_both_kinds(causal: LanguageModel) -> None:
    ids = causal.tokenizer.encode("the film was")
    with torch.no_grad():
        best = int(causal.tower.body(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
    word = causal.tokenizer.decode([best])
    wanted = Example("the film was", word if word.startswith(" ") else " zebra")
    examples = [wanted, Example("the film was", "zebra")]
    frame = Framing(ends=False)
    expected = [
        float(frame.answer(causal, one.targets)[0] == best and len(frame.answer(causal, one.targets)) == 1)
        for one in examples
    ]
    assert exact_continuation(causal, examples).tolist() == expected
    # Greedy said word by word is what "exact" means.
    long = causal.tower.body.generate(torch.tensor([ids]), max_new_tokens=4, do_sample=False, pad_token_id=1)[
        0
    ].tolist()
    assert causal.tower.certain([Row(tuple(long), tuple(range(len(ids), len(long))))]).item()
    assert not causal.tower.certain([Row((*long[:-1], (long[-1] + 1) % 300), tuple(range(len(ids), len(long))))]).item()
    tested = [
        BenchmarkItems(Benchmark("exact"), "language", (examples, examples), exact=True),
        BenchmarkItems(
            Benchmark("choice", 2, 0.5), "choice", ([Example("a film", "good", ("good", "bad"), "c")],), ROWS
        ),
    ]
    found = run_gauntlet(causal, tested, weighting="size")
    assert set(found.categories) == {"language", "choice"} and found.categories["language"] == np.mean(expected)
    with pytest.raises(BadInput, match="'c' is learnt and tested"):
        run_gauntlet(causal, tested, learnt=[Example("other", "good", task="c")])


QUICK = Instruct(
    lr=1e-2, batch=8, epochs=4, update=lambda decay: AdamW(weight_decay=decay), pack=False,
    framing=Framing(most_in=100, most_out=8),
)  # fmt: skip


def test_the_sweep_of_a_tiny_model(causal: LanguageModel) -> None:
    sets = {
        "books": [Example(f"film {i} is it good or bad?", "good", ("good", "bad"), "books") for i in range(48)],
        "open": [Example(f"say it {i}", "a moving story", task="open") for i in range(24)],
    }
    tested = BenchmarkItems(
        Benchmark("choice", chance=0.0), "c",
        ([Example(f"story {i} is it good or bad?", "good", ("good", "bad"), "held") for i in range(6)],),
    )  # fmt: skip
    prompts = [f"say it anew {i}" for i in range(4)]
    judge = overlap_judge(dict.fromkeys(prompts, "a moving story"))
    paradigms = {
        "benchmarks": lambda tuned: run_gauntlet(causal, [tested], tuned, QUICK.framing).categories["c"],
        "judge": preferred(causal, prompts, ["dull"] * 4, judge, QUICK.framing, most=8),
    }
    dev = [Example(f"film {i} is it good or bad?", "good", ("good", "bad"), "books") for i in range(48, 56)]
    candidates = [Mix("open", {"open": "all"}), Mix("books", {"books": 24}), Mix("both", {"open": "all", "books": 24})]
    seen: list[tuple[int, int]] = []
    found = budget_sweep(
        causal, sets, candidates, paradigms, settings=QUICK, seeds=(0,), epochs=(1, 4), dev=dev,
        tested=tested.parts[0], progress=lambda a, b: seen.append((a, b)),
    )  # fmt: skip
    rows = {row["mix"]: row for row in found.rows}
    assert [row["n"] for row in found.rows] == [24, 24, 48] and seen[-1] == (3, 3)
    assert rows["books"]["benchmarks"]["value"] == 1 and rows["open"]["judge"]["value"] == 1
    assert rows["books"]["judge"]["value"] < 0.7 < rows["both"]["judge"]["value"]
    assert rows["books"]["epochs"] == 4  # more passes, less loss on its own kind
    assert rows["open"]["front"] and found.advised["judge"] == "open"
    with pytest.raises(BadInput, match="task 'books' is learnt and tested"):
        budget_sweep(causal, sets, candidates, paradigms, settings=QUICK, tested=sets["books"][:1])


def test_the_fewest_examples_near_the_best_are_advised() -> None:
    rows = [{"mix": name, "n": n} for name, n in (("small", 1), ("middle", 5), ("large", 50))]
    scores = np.array([[[0.4, 0.5], [0.9, 0.9]], [[0.69, 0.71], [0.8, 0.8]], [[0.7, 0.72], [0.5, 0.5]]])
    assert _advised(rows, scores, ("A", "B")) == {"A": "middle", "B": "small", "both": None}
    scores[1, 1] = 0.9
    assert _advised(rows, scores, ("A", "B"))["both"] == "middle"
    assert _advised(rows, scores[:, :, :1], ("A", "B"))["A"] == "large"  # one seed has no error to allow for


def test_the_papers_mixes_and_settings() -> None:
    names = [mix.name for mix in mixes("instruct", "lima")]
    assert names == [
        "lima",
        "instruct 1000",
        "instruct 5000",
        "instruct",
        "lima + instruct 1000",
        "lima + instruct 5000",
    ]
    how = less_is_more()
    assert (how.lr, how.batch, how.epochs, how.warmup, how.rate, how.clip) == (5e-6, 48, 2, 50, "linear", 1.0)


def test_loss_on_is_the_mean_over_tokens(causal: LanguageModel) -> None:
    tuned = replace(QUICK, lr=0.0, epochs=1).fit(causal, ROWS[:4])  # nothing moves
    rows = QUICK.framing.items(causal, ROWS[:7])
    with torch.no_grad():
        found = causal.tower(rows)
    expected = -float(found[found > float("-inf")].mean())
    assert loss_on(causal, ROWS[:7], tuned, QUICK.framing, batch=3) == pytest.approx(expected, abs=1e-5)


def test_sizes_are_looked_at_before_anything_is_learnt(causal: LanguageModel) -> None:
    def never(tuned: object) -> float:
        raise AssertionError("something was learnt")

    with pytest.raises(BadInput, match="a subset of 51"):
        budget_sweep(
            causal, {"books": ROWS}, [Mix("a", {"books": 1}), Mix("b", {"books": 51})], {"p": never}, settings=QUICK
        )


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"candidates": []}, "at least one mix"),
        ({"candidates": [Mix("a", {"boks": 1})]}, "set 'boks' that is not given; did you mean 'books'"),
        ({"epochs": (1, 2)}, "examples for the choice"),
        ({"epochs": (1, 2), "dev": ROWS[:3]}, "3 examples of set 'books' are in dev too"),
        ({"candidates": [Mix("a", {"books": 1}), Mix("b", {"books": 51})]}, "a subset of 51"),
        ({"candidates": [Mix("a", {})]}, "mix 'a' is of no set"),
        ({"candidates": [Mix("a", {"books": 1}), Mix("a", {"books": 2})]}, "two mixes have one name"),
        ({"paradigms": {"p": lambda tuned: float("nan")}, "seeds": (0,)}, "no number for mix 'a'"),
    ],
)
def test_bad_sweeps(causal: LanguageModel, options: dict[str, Any], why: str) -> None:
    given: dict[str, Any] = {"candidates": [Mix("a", {"books": 1})], "paradigms": {"p": lambda tuned: 0.0}, **options}
    with pytest.raises(BadInput, match=why):
        budget_sweep(causal, {"books": ROWS}, settings=QUICK, **given)
