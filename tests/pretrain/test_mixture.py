"""121: one mixture of many tasks: how often each comes, what is shown, what is listed, how an answer is read."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import chisquare

from handful.errors import BadInput
from handful.pretrain.examples import Example
from handful.pretrain.mixture import CAPS, RATES, SETTINGS, InstructionMixture, Task, rates_of
from handful.pretrain.overlap import overlapping, refuse_leaks
from handful.pretrain.reasoning import FORWARD, INVERTED, answer_of, majority, reasoning_tasks

ONE = {"text": "word", "answer": "yes"}


def task(name: str, n: int = 8, collection: str = "flan2021", **options: Any) -> Task:
    cases = [{"text": f"{name} text {i}", "answer": ("yes", "no")[i % 2]} for i in range(n)]
    templates = [("Is it? {text}\n{options_}", "{answer}"), ("{text}\n\n{options_}\nSay it:", "It is {answer}")]
    return Task(name, cases, templates, options.get("options", ("yes", "no")), collection)


@pytest.mark.paper(121, oracle="a")
def test_tasks_come_as_often_as_their_cases_up_to_the_cap() -> None:
    sizes = [10, 1_000, 30_000, 60_000, 100_000]
    tasks = [Task(str(n), [ONE] * n, [("{text}", "{answer}")]) for n in sizes]
    mixture = InstructionMixture(tasks, settings={"flan2021": ("zs-noopt",)}, seed=3)
    drawn = Counter(one.task for one in mixture.draw(20_000))
    expected = np.minimum(sizes, 30_000) / np.minimum(sizes, 30_000).sum()
    assert chisquare([drawn[str(n)] for n in sizes], 20_000 * expected).pvalue > 1e-3


@pytest.mark.paper(121, oracle="b")
def test_without_a_cap_in_proportion_with_a_cap_of_one_alike() -> None:
    np.testing.assert_allclose(rates_of([1, 9, 30], float("inf")), [1 / 40, 9 / 40, 30 / 40])
    np.testing.assert_allclose(rates_of([1, 9, 30], 1), [1 / 3] * 3)


@pytest.mark.paper(121, oracle="g")
def test_collections_come_at_the_rates_of_the_collection() -> None:
    """What `flan/v2/run_example.py` and `mixtures.py` register: 40, 32, 20, 5 and 3 %; inverted tasks 0.3 to 1."""
    names = ("flan2021", "t0", "niv2", "cot", "cot-ii", "dialog", "dialog-ii")
    tasks = [task(f"{name} {i}", 4 * (i + 1), name) for name in names for i in range(2)]
    of = Counter[str]()
    for name, weight in InstructionMixture(tasks).weights.items():
        of[name.split()[0]] += weight  # type: ignore[assignment]
    assert of["flan2021"] == pytest.approx(0.4) and of["t0"] == pytest.approx(0.32)
    assert of["niv2"] == pytest.approx(0.2)
    assert of["cot"] + of["cot-ii"] == pytest.approx(0.05) and of["cot-ii"] == pytest.approx(0.3 * of["cot"])
    assert of["dialog"] + of["dialog-ii"] == pytest.approx(0.03)
    assert [CAPS[name] for name in names] == [30_000, 20_000, 5_000, 100_000, 100_000, 200_000, 200_000]
    within = InstructionMixture(tasks[:2]).weights
    assert within["flan2021 0"] == pytest.approx(1 / 3)


@pytest.mark.paper(121, oracle="e")
def test_what_is_shown_is_never_the_query_and_fits() -> None:
    tasks = [task("a", 6), task("b", 3)]
    mixture = InstructionMixture(tasks, most_in=24, seed=1)
    drawn = mixture.draw(400)
    few = [one for one in drawn if one.setting.startswith("fs")]
    assert {one.setting for one in drawn} == set(SETTINGS) and len({len(one.shown) for one in few}) > 2
    for one in few:
        assert one.case not in one.shown and len(set(one.shown)) == len(one.shown) >= 1
        own = f"{one.task} text {one.case}"
        assert one.inputs.count(own) == 1 and one.inputs.index(own) > max(
            one.inputs.index(f"{one.task} text {shown}") for shown in one.shown
        )
        assert len(one.inputs.split()) <= 24
        assert one.inputs.count("It is ") == (len(one.shown) if one.template else 0)  # one template throughout
    assert all(not one.shown for one in drawn if one.setting.startswith("zs"))


def test_a_query_without_room_for_an_example_is_drawn_anew() -> None:
    long = Task(
        "long",
        [{"text": "word " * 30, "answer": "yes yes yes"}, {"text": "w", "answer": "no"}],
        [("{text}", "{answer}")],
    )
    mixture = InstructionMixture([long], settings={"flan2021": ("fs-noopt",)}, most_in=33)
    drawn = mixture.draw(20)
    assert {one.case for one in drawn} == {0} and mixture.skipped["no room for an example"] > 0
    with pytest.raises(BadInput, match="no example fits into 20 tokens"):
        InstructionMixture([long], settings={"flan2021": ("fs-noopt",)}, most_in=20).draw(1)


def test_options_are_listed_where_the_setting_says_so() -> None:
    drawn = InstructionMixture([task("a")], seed=2).draw(200)
    for one in drawn:
        assert ("OPTIONS:" in one.inputs) == one.setting.endswith("-opt")
        assert "{" not in one.inputs and "\n\n\n\n" not in one.inputs
    listed = [one.inputs for one in drawn if one.setting == "zs-opt"]
    assert any("(A) yes\n(B) no" in text for text in listed) and any("- no\n- yes" in text for text in listed)
    free = InstructionMixture([task("free", options=())], seed=2)
    assert not any("OPTIONS" in one.inputs for one in free.draw(40)) and free.skipped["nothing to list"] > 0


def test_each_run_through_gives_the_same() -> None:
    mixture = InstructionMixture([task("a"), task("b", 3)], seed=5)
    assert mixture.draw(30) == mixture.draw(30) != replace(mixture, seed=6).draw(30)
    assert set(mixture.draw(1)[0].as_dict()) >= {"inputs", "targets", "task", "template_id", "setting"}


@pytest.mark.paper(121, oracle="d")
def test_the_answer_is_read_from_every_rationale() -> None:
    rows = [(f"What is {i} + 2?", str(i + 2), f"{i} and 2 are {i + 2}, as the answer is a sum.") for i in range(9)]
    forward, inverted = reasoning_tasks("sums", [*rows, ("Which?", "(b)", "B fits. The answer is not (a)")])
    assert (forward.collection, inverted.collection) == ("cot", "cot-ii")
    for template in range(len(FORWARD)):
        for case, row in enumerate(forward.cases):
            given, wanted = forward.render(case, template, "")
            assert row["question"] in given and answer_of(wanted) == row["answer"]
    for template in range(len(INVERTED)):
        assert inverted.render(3, template, "")[1] == rows[3][0]
    assert answer_of("So the answer is 4\nQ: more") == "4" and answer_of("four") is None
    assert majority(["4", None, "5", "4"]) == "4" and majority([None]) is None
    assert majority(["5", "5", "4.", "4", "four: 4"], lambda text: text[0]) == "5"
    assert majority(["5", "4.", "4"], lambda text: text[0]) == "4."


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("So the answer is: 5", "5"),
        ("Answer:5", "5"),
        ("The final answer is  7 \nQ: more", "7"),
        ("The answer is\n8", "8"),
        ("The answer isn't 4. The answer is 3", "3"),
        ("The answer isn't 4.", None),
        ("The answer is: ", ""),
    ],
)
def test_models_write_the_phrase_in_several_ways(said: str, answer: str | None) -> None:
    assert answer_of(said) == answer


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: Task("t", [ONE], [("{txt}", "{answer}")]), "names a field 'txt'; did you mean 'text'"),
        (lambda: Task("t", [], [("{text}", "{answer}")]), "has 0 cases"),
        (lambda: Task("t", [ONE, {"text": "w", "answer": 1}], [("{text}", "{answer}")]), "case 1 .* 'answer' is 1"),
        (lambda: Task("t", [ONE], [("{text}", "{answer}")], "yes"), "options are a list of texts"),
        (lambda: Task("t", [ONE], [("{text}",)]), "a template is a pair"),
        (lambda: Task("t", [ONE, {"text": "w"}], [("{text}", "{answer}")]), "case 1 .* no field 'answer'"),
        (lambda: Task("t", [ONE], [("{text}", "yes")]), "the same of all cases"),
        (lambda: Task("t", [ONE], [("{text}", "{answer}")], [["yes"], ["no"]]), "options for 2"),
        (lambda: rates_of([1, 2], 0), "a cap of 0"),
        (lambda: rates_of([0, 2], 1), "without a case"),
        (lambda: InstructionMixture([]), "no task"),
        (lambda: InstructionMixture([task("a"), task("a")]), "name of its own"),
        (lambda: InstructionMixture([task("a", collection="own")]), "collection 'own' .* has no settings"),
        (lambda: InstructionMixture([task("a")], rates={**RATES, "t0": -1}), "not negative"),
        (lambda: InstructionMixture([task("a")], rates={**RATES, "flan2021": 0}), "all rates are 0"),
        (lambda: InstructionMixture([task("a")], settings={"flan2021": ("zs",)}), "they are some of zs-opt"),
        (lambda: InstructionMixture([task("a")], shots=(0, 2)), "shots must be a whole number from 1, not 0"),
        (lambda: InstructionMixture([task("a")], shots=(1.5, 2)), "whole number from 1, not 1.5"),
        (lambda: InstructionMixture([task("a")], shots=3), "shots is a pair, the fewest and the most, not 3"),
        (lambda: InstructionMixture([task("a")], seed=-1), "seed must be a whole number from 0"),
        (lambda: InstructionMixture([task("a")]).draw(-1), "-1 examples cannot be drawn"),
        (lambda: reasoning_tasks("t", [("q", "", "r")]), "lacks a question"),
        (lambda: reasoning_tasks("t", [("q", None, "r")]), "row 0 of 't' must be three texts"),
        (lambda: reasoning_tasks("t", [("q", "a")]), "row 0 of 't' must be three texts"),
        (lambda: reasoning_tasks("t", [("q", "the answer is 4", "r")]), "cannot be told"),
    ],
)  # fmt: skip
def test_bad_input(make: Any, why: str) -> None:
    with pytest.raises(BadInput, match=why):
        make()


def test_what_is_tested_is_not_learnt() -> None:
    words = " ".join(f"w{i}" for i in range(20))
    learnt = [Example(f"Read: {words}.", "yes", task="a")]
    refuse_leaks(learnt, [Example("other words", "no", task="b")])
    with pytest.raises(BadInput, match="task 'a' is learnt and tested"):
        refuse_leaks(learnt, [Example("other words", "no", task="a")])
    with pytest.raises(BadInput, match="1 of 2 tested examples share 13 words in a row"):
        refuse_leaks(learnt, [Example("few", "no", task="b"), Example(words.upper()[8:60], "no", task="b")])
    short = Example("Read: W0, w1", "no", task="b")
    refuse_leaks(learnt, [short])
    assert overlapping(["one two", "two one"], ["ONE, two!"]) == [0]
    # what is tested twice is not how something is asked, where it is learnt as a whole
    assert overlapping(["one two", "One two."], ["ONE, two!"]) == [0, 1]
    assert overlapping([words, words, "other"], [words.upper()]) == [0, 1]


def test_how_something_is_asked_may_be_learnt() -> None:
    asked = " ".join(f"ask{i}" for i in range(15))
    learnt = [Example(f"{asked}: apple {i}", "yes", task="a") for i in range(20)]
    held = [Example(f"{asked}: pear {i}", "yes", task="b") for i in range(20)]
    refuse_leaks(learnt, held)
    with pytest.raises(BadInput, match="1 of 20 tested examples"):
        refuse_leaks(learnt, [*held[:19], Example(f"{asked}: apple 7", "yes", task="b")])
