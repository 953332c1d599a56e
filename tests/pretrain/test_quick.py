"""178: how rows become instructions, how they are cut up, and budgets that are nested."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from handful.errors import BadInput
from handful.pretrain.quick import SIZES, InstructionFormat, make_budgets, quick_task

FORM = InstructionFormat("Say whether it is good.", (("it shines", "yes"), ("it broke", "no")))
ROWS = [(f"row {i}", [("yes", "no")[i % 2]]) for i in range(400)]


def test_an_instruction_reads_as_the_authors_write_it() -> None:
    assert FORM.write("it works") == (
        "Definition: Say whether it is good.\n"
        "Positive example 1-\ninput: it shines\noutput: yes\n"
        "Positive example 2-\ninput: it broke\noutput: no\n"
        "Now complete the following example-\ninput: it works\noutput: "
    )
    assert InstructionFormat().write("it works") == "input: it works\noutput: "


@pytest.mark.paper(178, oracle="b")
def test_budgets_are_the_first_rows_and_nested() -> None:
    task = quick_task("t", ROWS, FORM)
    assert (len(task.test), len(task.dev), len(task.train), task.leaks) == (100, 10, 290, False)
    assert [one.case for one in task.test] == list(range(100)) and task.train[0].case == 110
    with pytest.warns(UserWarning, match="takes all 290"):
        budgets = make_budgets(task.train)
    assert {name: len(some) for name, some in budgets.items()} == {
        "1%": 2, "10": 10, "100": 100, "200": 200, "1000": 290, "all": 290,
    }  # fmt: skip
    assert list(budgets) == list(map(str, SIZES))
    for some in budgets.values():
        assert task.train[: len(some)] == some
    assert len(make_budgets(task.train[:7], ["1%"])["1%"]) == 1


def test_a_budget_above_what_there_is_takes_all_and_says_so() -> None:
    train = quick_task("t", ROWS, FORM).train
    with pytest.warns(UserWarning, match="a budget of 1000 takes all 290 rows there are"):
        assert make_budgets(train, [290, 1000])["1000"] == train
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_budgets(train, ["1%", 290, "all"])


def test_few_rows_are_kept_apart_unless_the_authors_way_is_asked_for() -> None:
    task = quick_task("t", ROWS[:26], FORM)
    assert (len(task.test), len(task.dev), len(task.train)) == (22, 2, 2) and not task.leaks
    theirs = quick_task("t", ROWS[:26], FORM, disjoint=False)
    assert theirs.leaks and theirs.train == theirs.test == theirs.dev and len(theirs.test) == 26


def test_a_row_that_is_tested_is_not_learnt() -> None:
    rows = [*ROWS[:200], *ROWS[:5], *ROWS[200:]]
    task = quick_task("t", rows, FORM)
    assert len(task.train) == 400 - 110 and task.repeated == 5
    with pytest.raises(BadInput, match="5 rows of task 't' are tested and learnt"):
        quick_task("t", rows, FORM, strict=True)
    with pytest.raises(BadInput, match="all rows of task 't' to learn from are tested"):
        quick_task("t", [*ROWS[:110], *ROWS[:20]], FORM)


def test_one_of_several_outputs_is_drawn() -> None:
    rows = [(f"row {i}", ["a", "b"]) for i in range(50)]
    drawn = [[one.targets for one in quick_task("t", rows, FORM, seed=seed).test] for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2] and set(drawn[0]) == {"a", "b"}


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: quick_task("t", ROWS[:2], FORM), "has 2 rows"),
        (lambda: quick_task("t", [*ROWS[:5], ("x", "yes")], FORM), "row 5 .* a text and a list of texts"),
        (lambda: quick_task("t", [*ROWS[:5], ("x", [None])], FORM), "row 5 .* a text and a list of texts"),
        (lambda: quick_task("t", [*ROWS[:5], (None, ["yes"])], FORM), "row 5 .* a text and a list of texts"),
        (lambda: quick_task("t", ["abc"] * 5, FORM), "row 0 .* a text and a list of texts"),
        (lambda: make_budgets(quick_task("t", ROWS, FORM).train, [10.7]), "not 10.7"),
        (lambda: make_budgets(quick_task("t", ROWS, FORM).train, [None]), "not None"),
        (lambda: quick_task("t", [*ROWS[:5], ("x", [" "])], FORM), "row 5 .* empty output"),
        (lambda: quick_task("t", [*ROWS[:5], ("x", [])], FORM), "row 5 .* empty output"),
        (lambda: make_budgets([]), "no rows"),
        (lambda: make_budgets(quick_task("t", ROWS, FORM).train, ["some"]), "not 'some'"),
        (lambda: make_budgets(quick_task("t", ROWS, FORM).train, ["0%"]), "not '0%'"),
        (lambda: make_budgets(quick_task("t", ROWS, FORM).train, [0]), "not 0"),
    ],
)
def test_bad_input(make: Any, why: str) -> None:
    with pytest.raises(BadInput, match=why):
        make()
